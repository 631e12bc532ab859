"""Changes of a table -> records as they are appended, and as they are copied."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import Struct

from ...arrow import compute as pc
from ...arrow.gather import Mask, array_of
from ...errors import FatalConnectorError
from ...field_facts import facts_of, with_facts
from ...log_based import DELETES, LOG_FIELDS, OPERATION, POSITION, plain_stream, value_remedies
from ...rejected.halving import convert_by_halves
from ...rejected.records import rejections
from ...stream import Rejected, Stream
from ...struct_helpers import replace
from ..type_names import Name
from .columns import Columns, Found
from .decoder import Changes
from .merged import Merged, merged
from .messages import DELETE, INSERT, TRUNCATE, UPDATE
from .unmatched import refuse_unknown, without_others
from .values import values_of

_WORDS = {INSERT: "insert", UPDATE: "update", DELETE: "delete", TRUNCATE: "truncate"}
_CODES = np.zeros(256, np.int8)
for _place, _code in enumerate(_WORDS):
    _CODES[_code] = _place

#: Characters of a place in the log: 16 digits, `-`, and 12 digits of the change's number in its transaction and table.
_WIDTH = 29
#: The four digits of each number.
_HEX = np.frombuffer(b"".join(b"%04X" % n for n in range(1 << 16)), np.uint32)
_DECIMAL = np.frombuffer(b"".join(b"%04d" % n for n in range(10_000)), np.uint32)

Numbers = npt.NDArray[np.int64]
ToSchema = Callable[[pa.RecordBatch, Stream], pa.RecordBatch]


class LoggedTable:
    """One stream whose changes are read: which columns of the log are its own."""

    def __init__(self, stream: Stream, columns: Columns, to_schema: ToSchema) -> None:
        """Take the stream with the columns of a change, and those of its table."""
        self.stream, self.plain, self._deletes = stream, plain_stream(stream), str(stream.locator.get(DELETES, ""))
        self._columns, self._to_schema = columns, to_schema

    @property
    def is_copied_only(self) -> bool:
        """Tell whether the table is read as it is, and no changes of it."""
        return OPERATION not in self.stream.schema.names

    def batches(self, changes: Changes, first: int = 0) -> Iterator[pa.RecordBatch | Rejected]:
        """Yield changes as the stream has them, from one of them on.

        Raises:
            FatalConnectorError: see `Columns.of`.
        """
        found = self._columns.of(changes.relation)
        places = found.places
        if POSITION in self.stream.schema.names:
            yield from self._appended(changes, first, found)
            return
        asked = [condition.field.name for condition in self.plain.read.where]
        columns = {places[name]: name for name in (*self.plain.schema.names, *asked) if name in places}
        key = [places[name] for name in self.stream.key_properties]
        for each in merged(changes, first, columns, key, deletes=self._deletes):
            yield from self._merged(changes, each, found)

    def _merged(self, changes: Changes, batch: Merged, columns: Found) -> Iterator[pa.RecordBatch | Rejected]:
        places, count, key = columns.places, len(batch.operations), self.stream.key_properties
        olds = replace(self.plain, schema=pa.schema([self.plain.schema.field(name) for name in key]))

        def taken(stream: Stream, found: Mapping[int, Numbers]) -> pa.RecordBatch:
            arrays = []
            for place in map(places.get, stream.schema.names):
                texts = (
                    None if place is None else pa.concat_arrays([changes.new.texts(place), changes.old.texts(place)])
                )
                if place is None or texts is None or not len(texts):
                    arrays.append(pa.nulls(count, pa.binary()))
                else:
                    at = found[place]
                    arrays.append(texts.take(array_of(pa.int64(), np.where(at < 0, 0, at), at < 0)))
            return pa.RecordBatch.from_arrays(arrays, stream.schema.names)

        texts = taken(self.plain, batch.places)
        own, unfit = self._fitting(texts, self.plain, columns)
        others = _Others(count, unfit)
        former = self._read(taken(olds, batch.origins), olds, columns)
        marks = [batch.deleted_at] if self._deletes == "soft" else []
        more = [*marks, batch.operations, batch.unchanged, *former.columns]
        made = pa.RecordBatch.from_arrays([*own.columns, *map(others.of, more)], schema=self.stream.schema)
        if where := self.plain.read.where:
            wanted = replace(
                self.plain, schema=pa.schema(list({each.field.name: each.field for each in where}.values()))
            )
            asked = self._asked(others.of(taken(wanted, batch.places)), wanted, columns)
            made = without_others(made, asked, self.plain, is_kept=self._deletes == "ignore")
        if len(made):
            yield made
        if unfit:
            yield _rejected(texts, unfit)

    def _appended(self, changes: Changes, first: int, columns: Found) -> Iterator[pa.RecordBatch | Rejected]:
        """Yield changes as records that are appended, from one of them on."""
        places, names = columns.places, self.plain.schema.names
        source, kept = _Rows(changes), np.arange(first, len(changes.operations))
        if self.plain.read.where:
            source, kept = self._matching(changes, columns, first)

        def part(array: pa.Array) -> pa.Array:
            is_rest = len(kept) == len(array) - first
            return array.slice(first) if is_rest else array.take(pa.array(kept))

        none = pa.nulls(len(changes.operations), pa.binary())
        texts = pa.RecordBatch.from_arrays(
            [part(source.texts(places[name]) if name in places else none) for name in names], names
        )
        batch, unfit = self._fitting(texts, self.plain, columns)
        key, words = self.stream.locator.get("key", ()), part(source.words()).to_pylist() if unfit else []
        if key and any(words[row] == _WORDS[DELETE] for row in unfit):
            # A delete whose former values only the server can hold has its key alone.
            is_bare = pa.array([row in unfit and word == _WORDS[DELETE] for row, word in enumerate(words)])
            bare = [
                array if name in key else pc.if_else(is_bare, pa.scalar(None, array.type), array)
                for name, array in zip(names, texts.columns, strict=True)
            ]
            texts = pa.RecordBatch.from_arrays(bare, names)
            batch, unfit = self._fitting(texts, self.plain, columns)
        others = _Others(len(texts), unfit)
        more = [
            source.words(),
            array_of(pa.timestamp("us", "UTC"), changes.committed_at),
            positions(changes.commit_lsns, changes.numbers),
            source.unchanged({place: name for name, place in places.items() if name in names}),
            source.old_keys(places, self.stream),
        ]
        arrays = [*batch.columns, *(others.of(part(each)) for each in more)]
        if len(batch):
            yield pa.RecordBatch.from_arrays(arrays, schema=self.stream.schema)
        if unfit:
            yield _rejected(texts, unfit)

    def _fitting(
        self, texts: pa.RecordBatch, stream: Stream, columns: Found
    ) -> tuple[pa.RecordBatch, Mapping[int, str]]:
        """Return the records of which each value can be read; which ones cannot be read, if these are kept, and why."""
        limit = stream.read.max_rejected
        if limit is None:
            return self._read(texts, stream, columns), {}
        parts, unfit = convert_by_halves(texts, lambda part: self._read(part, stream, columns), limit)
        parts = parts or [self._read(texts.slice(0, 0), stream, columns)]
        return (pa.Table.from_batches(parts).combine_chunks().to_batches() or parts)[0], dict(unfit)

    def _read(self, texts: pa.RecordBatch, stream: Stream, columns: Found) -> pa.RecordBatch:
        """Return the values of texts, a column each."""
        arrays = [
            self._values(array, field, columns)
            if field.name in columns.places
            else pa.nulls(len(array), field.type)  # added since these changes were made
            for array, field in zip(texts.columns, stream.schema, strict=True)
        ]
        return self._to_schema(pa.RecordBatch.from_arrays(arrays, stream.schema.names), stream)

    def _asked(self, texts: pa.RecordBatch, stream: Stream, columns: Found) -> pa.RecordBatch:
        """Return the values that `where` compares: as in the copy, blanks at the end of a `character` do not count."""
        batch = self._read(texts, stream, columns)
        names = [Name.parse(facts_of(field).native_type) for field in batch.schema]
        arrays = [
            pc.ascii_rtrim(array, " ") if not name.is_array and name.base in ("character", "bpchar") else array
            for array, name in zip(batch.columns, names, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)

    def _matching(self, changes: Changes, columns: Found, first: int) -> tuple[_Rows, Numbers]:
        """Return changes as `where` shows them, and which of them are appended.

        A record that stops to match is shown as deleted. A record that is known not to have matched is left out.
        """
        from ...filters import matches

        where, places = self.plain.read.where, columns.places
        fields = {each.field.name: each.field for each in where}
        asked = replace(self.plain, schema=pa.schema(list(fields.values())))
        is_update = changes.operations == UPDATE
        now, before = _Rows(changes), _Rows(changes, are_gone=is_update)
        own = {places[name]: name for name in fields if name in places}
        refuse_unknown(now.unchanged(own)[first:], asked)

        none = pa.nulls(len(changes.operations), pa.binary())

        def found(rows: _Rows) -> Mask:
            texts = [rows.texts(places[name]) if name in places else none for name in fields]
            batch = self._asked(pa.RecordBatch.from_arrays(texts, list(fields)), asked, columns)
            return np.asarray(matches(batch, where).to_numpy(zero_copy_only=False), bool)

        is_match, is_truncate = found(now), changes.operations == TRUNCATE
        is_gone = is_update & ~is_match
        was_other = before.are_known(list(own)) & ~found(before)
        is_kept = np.where(is_gone | (changes.operations == DELETE), ~was_other, is_match | is_truncate)
        is_kept[:first] = False
        return _Rows(changes, are_gone=is_gone), np.flatnonzero(is_kept)

    def copied(self, batch: pa.RecordBatch, lsn: int, first: int) -> pa.RecordBatch:
        """Return records of the table, as it was at a place in the log, as they are written; the first one's number."""
        if self.is_copied_only:
            own = [pa.nulls(batch.num_rows, field.type) for field in list(self.stream.schema)[batch.num_columns :]]
            return pa.RecordBatch.from_arrays([*batch.columns, *own], schema=self.stream.schema) if own else batch
        count = batch.num_rows
        lsns = np.full(count, lsn - 1, np.int64)  # below all changes since then
        words = pa.DictionaryArray.from_arrays(array_of(pa.int8(), np.zeros(count, np.int8)), pa.array(["read"]))
        others = [pa.nulls(count, field.type) for field in LOG_FIELDS]
        more = [words.dictionary_decode(), others[1], positions(lsns, np.arange(first, first + count)), *others[3:]]
        return pa.RecordBatch.from_arrays([*batch.columns, *more], schema=self.stream.schema)

    def _values(self, texts: pa.Array, field: pa.Field, columns: Found) -> pa.Array:
        if columns.types.get(field.name) == "real":  # its texts are shorter than those of the same numbers now
            field = with_facts(field, native_type="real")
        try:
            return values_of(texts, field, self.stream.name)
        except FatalConnectorError as error:
            raise error.extended(after=f". {value_remedies(self.stream, field.name)}") from error


class _Rows:
    """The values of each change: the new ones, else the old ones, else none."""

    def __init__(self, changes: Changes, are_gone: Mask | None = None) -> None:
        """Take changes; `are_gone`: updates that are shown as deletes of the former record."""
        self._changes = changes
        count = len(changes.operations)
        self._are_gone = np.zeros(count, bool) if are_gone is None else are_gone
        self._new = np.full(count, -1, np.int64)
        self._new[changes.with_new] = np.arange(len(changes.with_new))
        self._old = np.full(count, -1, np.int64)
        self._old[changes.with_old] = np.arange(len(changes.with_old))
        is_whole = np.zeros(count, bool)
        is_whole[changes.with_old] = changes.is_old_whole
        #: Old tuples that have all columns.
        self._whole = np.where(is_whole, self._old, -1)
        self._are_new = len(changes.with_new) == count and not self._are_gone.any()

    def words(self) -> pa.Array:
        """Return what each change is."""
        codes = array_of(pa.int8(), _CODES[np.where(self._are_gone, DELETE, self._changes.operations)])
        return pa.DictionaryArray.from_arrays(codes, pa.array(list(_WORDS.values()))).dictionary_decode()

    def are_known(self, places: Sequence[int]) -> Mask:
        """Tell of which changes the log has these columns of the former record."""
        columns = self._changes.relation.columns
        return (self._whole >= 0) | all(columns[place].is_key for place in places)

    def texts(self, place: int) -> pa.Array:
        """Return a column of all changes."""
        new, unchanged = self._changes.new.texts(place), self._unchanged(place)
        if self._are_new and unchanged is None:
            return new
        old = self._changes.old.texts(place)
        # The log has no old tuple where the replica identity stays.
        is_other = (self._old >= 0) | (not self._changes.relation.columns[place].is_key)
        own = np.where(self._are_gone & is_other, -1, self._new)
        at = np.where(own >= 0, own, np.where(self._old >= 0, self._old + len(new), -1))
        if unchanged is not None:  # the old tuple knows it, if it is there
            at = np.where(unchanged, np.where(self._whole >= 0, self._whole + len(new), -1), at)
        return pa.concat_arrays([new, old]).take(array_of(pa.int64(), np.where(at < 0, 0, at), at < 0))

    def unchanged(self, names: Mapping[int, str]) -> pa.Array:
        """Return the names of columns whose values nobody has said, as JSON."""
        found: dict[int, list[str]] = {}
        for place, name in names.items():
            marks = self._unchanged(place)
            if marks is not None:
                for change in np.flatnonzero(marks & (self._whole < 0)).tolist():
                    found.setdefault(change, []).append(name)
        return self._json({change: json.dumps(listed, ensure_ascii=False) for change, listed in found.items()})

    def old_keys(self, places: Mapping[str, int], stream: Stream) -> pa.Array:
        """Return the key before the change, of updates that have changed it, as JSON."""
        changes = self._changes
        are_updates = (changes.operations == UPDATE) & (self._old >= 0) & ~self._are_gone
        if not are_updates.any():
            return self._json({})
        columns = changes.relation.columns
        read = plain_stream(stream).schema.names  # a column that is left out is not shown as a former value either
        of_identity = [name for name, place in places.items() if columns[place].is_key and name in read]
        if changes.relation.identity == "f":  # all columns are its identity
            of_identity = [name for name in stream.locator.get("key", ()) if name in places and name in read]
        old = {name: changes.old.texts(places[name]) for name in of_identity}
        new = {name: changes.new.texts(places[name]) for name in of_identity}
        found = {}
        for change in np.flatnonzero(are_updates).tolist():
            before = {name: texts[int(self._old[change])] for name, texts in old.items()}
            after = {name: texts[int(self._new[change])] for name, texts in new.items()}
            if before != after:
                shown = {name: _text(value) for name, value in before.items()}
                found[change] = json.dumps(shown, ensure_ascii=False)
        return self._json(found)

    def _unchanged(self, place: int) -> Mask | None:
        marks = self._changes.new.unchanged(place)
        if marks is None:
            return None
        found = np.zeros(len(self._new), bool)
        found[self._changes.with_new] = marks
        return found & ~self._are_gone

    def _json(self, found: Mapping[int, str]) -> pa.Array:
        if not found:
            return pa.nulls(len(self._new), pa.json_())
        texts = [found.get(change) for change in range(len(self._new))]
        return pa.ExtensionArray.from_storage(pa.json_(), pa.array(texts, pa.string()))


class _Others(Struct, frozen=True):
    """What remains of a batch without some of its records."""

    count: int
    places: Collection[int]

    def of(self, column: Any) -> Any:
        """Return the remaining values of a column, or records of a batch."""
        if not self.places:
            return column
        return column.take(pa.array([row for row in range(self.count) if row not in self.places], pa.int64()))


def _rejected(texts: pa.RecordBatch, unfit: Mapping[int, str]) -> Rejected:
    records, reasons = texts.take(pa.array(list(unfit), pa.int64())), list(unfit.values())
    shown = [column.view(pa.string()) for column in records.columns]
    records = pa.RecordBatch.from_arrays(shown, records.schema.names)
    return Rejected(records=tuple(rejections(records, reasons.__getitem__)))


def _text(value: pa.Scalar) -> str | None:
    return value.as_py().decode() if value.is_valid else None


def positions(lsns: Numbers, numbers: Numbers) -> pa.Array:
    """Write places in the log as texts that sort as the log does: 16 hex digits, `-`, and the change's number."""
    count, places = len(lsns), lsns.view(np.uint64)
    made = np.empty(count * _WIDTH, np.uint8)
    made[16::_WIDTH] = ord("-")

    def write(at: int, digits: npt.NDArray[np.uint32]) -> None:
        """Write four digits of each text."""
        np.ndarray((count,), np.uint32, made.data, at, (_WIDTH,))[:] = digits

    for part in range(4):
        write(4 * part, _HEX[(places >> np.uint64(48 - 16 * part) & np.uint64(0xFFFF)).view(np.int64)])
    rest = numbers
    for at in range(_WIDTH - 4, 16, -4):
        rest, last = np.divmod(rest, 10_000)
        write(at, _DECIMAL[last])
    offsets = np.arange(0, (count + 1) * _WIDTH, _WIDTH, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), count, [None, pa.py_buffer(offsets), pa.py_buffer(made)])


__all__ = ["LoggedTable", "positions"]
