"""Changes out of a log through functions of transformers: these see records that are written; deletes pass by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from syncblocks.connectors.arrow import compute as pc
from syncblocks.connectors.log_based import (
    DELETE,
    DELETES,
    LOG_FIELDS,
    MARK,
    OPERATION,
    POSITION,
    UNCHANGED,
    UPSERT,
    changes_stream,
    plain_stream,
)
from syncblocks.connectors.stream import DELETED_AT, Stream
from syncblocks.connectors.struct_helpers import replace

from .checks import without_record
from .transform import Transformer, TransformError, declared_stream

_MARK = pa.field(DELETED_AT, pa.timestamp("us", "UTC"))

#: Passes records through all transformers of a stream.
Functions = Callable[[pa.RecordBatch], pa.RecordBatch]


class LoggedFunctions:
    """Passes the batches of one LOG_BASED stream through its functions; remembers the columns that they return."""

    def __init__(self, stream: Stream, transformers: Sequence[Transformer], *, is_of_changes: bool) -> None:
        """Take the planned stream; `is_of_changes`: its batches are those of `changes_stream`."""
        self._is_of_changes, self._is_appended = is_of_changes, POSITION in stream.schema.names
        self._deletes = stream.locator.get(DELETES)
        self._is_soft = self._deletes == "soft"
        #: The stream as the functions see it. Of an append they must keep which change a record is of.
        self.seen = plain_stream(stream)
        if self._is_appended:
            self.seen = replace(stream, key_properties=(*stream.locator.get("key", ()), OPERATION, POSITION))
        declared = declared_stream(self.seen, transformers)
        #: Name -> name behind the transformers: of the key, and of an append all that a change has beside its record.
        names = dict(zip(self.seen.schema.names, declared.schema.names, strict=True))
        kept = [*self.seen.key_properties, *([field.name for field in LOG_FIELDS] if self._is_appended else [])]
        self._kept = {name: names[name] for name in dict.fromkeys(kept)}
        self._key = declared.key_properties
        self._beside = () if self._is_appended else changes_stream(declared).schema.names[len(names) :]
        #: Columns that the functions have returned; before that, those that a delete has.
        self._schema: pa.Schema = pa.schema([declared.schema.field(name) for name in self._kept.values()])

        #: Columns of the last batch; None: there was none.
        self.arrived: pa.Schema | None = None

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Return the columns that are written for those that the functions return.

        Raises:
            TransformError: one of them has a name that LOG_BASED gives a column.
        """
        ours = {name.casefold() for name in (*self._beside, *([DELETED_AT] if self._is_soft else ()))}
        if taken := [name for name in schema.names if name.casefold() in ours]:
            raise TransformError(f"LOG_BASED: {taken[0]!r} is a name that it gives a column: return it as another")
        return schema.append(_MARK) if self._is_soft else schema

    def through(self, batch: pa.RecordBatch, call: Functions) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
        """Return the records of a batch as they are written, and what each change has beside its record.

        Raises:
            TransformError: what the functions return does not say which records of the table to write.
        """
        extra, given = None, batch.select(self.seen.schema.names)
        if self._is_appended:
            records = self._appended(batch, call)
        elif self._is_of_changes:
            records, extra = self._changed(batch, call)
        else:
            records = self._called(given, call)
            self._gone(given, records)
            records = self._marked(records)
        self.arrived = records.schema
        return records, extra

    def _called(self, records: pa.RecordBatch, call: Functions) -> pa.RecordBatch:
        made = call(records)
        self._schema = made.schema
        return made

    def _bare(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return changes without a record, with the functions' columns: what no function may change, else NULL."""
        own, arrays = {new: old for old, new in self._kept.items()}, []
        for field in self._schema:
            name = own.get(field.name)
            array = pa.nulls(batch.num_rows, field.type) if name is None else batch.column(name)
            if array.type != field.type:
                raise TransformError(f"LOG_BASED: column {field.name!r} must keep its type, as deletes have it too")
            arrays.append(array)
        # The facts of its fields too: without them a UUID would become a text in the destination.
        bare = pa.RecordBatch.from_arrays(arrays, schema=pa.schema([each.with_nullable(True) for each in self._schema]))
        return self._marked(bare, batch.column(DELETED_AT) if self._is_soft else None)

    def _marked(self, records: pa.RecordBatch, moments: pa.Array | None = None) -> pa.RecordBatch:
        moments = pa.nulls(records.num_rows, _MARK.type) if moments is None else moments
        arrays = [*records.columns, moments] if self._is_soft else records.columns
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema(records.schema))

    # -- append ----------------------------------------------------------------------------------------------------

    def _appended(self, batch: pa.RecordBatch, call: Functions) -> pa.RecordBatch:
        is_bare = without_record(batch.column(OPERATION))
        given, made = batch.filter(pc.invert(is_bare)), list[pa.RecordBatch]()
        if given.num_rows:
            made.append(self._called(given, call))
        found = _joined([*made, self._bare(batch.filter(is_bare))])
        places = pa.table([found.column(self._kept[POSITION])], ["place"])
        return found.take(pc.sort_indices(places, sort_keys=[("place", "ascending")]))

    # -- merge -----------------------------------------------------------------------------------------------------

    def _changed(self, batch: pa.RecordBatch, call: Functions) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        if batch.column(UNCHANGED).null_count < batch.num_rows:
            raise TransformError(
                "the log leaves out large values that have not changed, and functions need whole records: "
                "`alter table ... replica identity full`, and `syncblocks state reset` copies the table anew"
            )
        # A function that leaves out the last record of a key must not let an earlier one stand.
        batch = self._last_of_each_key(batch)
        is_upsert, is_mark = (pc.equal(batch.column(OPERATION), pc.constant(each)) for each in (UPSERT, MARK))
        given, marks = batch.filter(is_upsert), batch.filter(is_mark)
        passing = batch.filter(pc.invert(pc.or_(is_upsert, is_mark)))
        gone, upserts = given, list[pa.RecordBatch]()
        if given.num_rows:
            made = self._called(given.select(self.seen.schema.names), call)
            gone, upserts = self._gone(given, made), [self._marked(made)]
        # A mark comes behind the last record of its key.
        records = _joined([self._bare(gone), self._bare(passing), *upserts, self._bare(marks)])
        words = [_words(DELETE, gone), passing.column(OPERATION), *(_words(UPSERT, each) for each in upserts)]
        operations = pa.concat_arrays([*words, marks.column(OPERATION)])
        olds = list(batch.schema)[-len(self._key) :]
        others = [pa.nulls(len(operations), field.type) for field in (batch.schema.field(UNCHANGED), *olds)]
        return records, pa.RecordBatch.from_arrays([operations, *others], list(self._beside))

    def _last_of_each_key(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Keep the last change of each key, and the record that a mark is of."""
        last = dict[tuple[object, ...], int]()
        marks = dict[tuple[object, ...], int]()
        keys = _keys(batch, self.seen.key_properties)
        for row, (key, operation) in enumerate(zip(keys, batch.column(OPERATION).to_pylist(), strict=True)):
            if operation == MARK:
                marks[key] = row
            else:
                last[key] = row
                marks.pop(key, None)
        return batch.take(pa.array(sorted([*last.values(), *marks.values()]), pa.int64()))

    def _gone(self, given: pa.RecordBatch, made: pa.RecordBatch) -> pa.RecordBatch:
        """Return the records that the functions leave out, of which the table keeps none.

        Raises:
            TransformError: the functions return a key twice, or leave out a record with `deletes: soft`.
        """
        returned, repeated = set[tuple[object, ...]](), list[tuple[object, ...]]()
        for key in _keys(made, self._key):
            (repeated.append if key in returned else returned.add)(key)
        if repeated:
            raise TransformError(
                f"a transformer returned {len(repeated) + 1} records of one key ({self._shown(repeated[0])}): "
                "LOG_BASED with merge writes one record of each"
            )
        before = _keys(given, self.seen.key_properties)
        gone = [row for row, key in enumerate(before) if key not in returned]
        if gone and self._is_soft:
            raise TransformError(
                f"a transformer left out a record ({self._shown(before[gone[0]])}), which is not deleted at the "
                "source: with `deletes: soft` it must return all of them"
            )
        return given.take(pa.array([] if self._deletes == "ignore" else gone, pa.int64()))

    def _shown(self, key: tuple[object, ...]) -> str:
        return ", ".join(f"{name} = {value!r}" for name, value in zip(self._key, key, strict=True))


def _keys(batch: pa.RecordBatch, names: Sequence[str]) -> list[tuple[object, ...]]:
    return list(zip(*(batch.column(name).to_pylist() for name in names), strict=True))


def _words(operation: str, batch: pa.RecordBatch) -> pa.Array:
    return pa.array([operation] * batch.num_rows, pa.string())


def _joined(parts: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Return batches of the same columns as one."""
    table = pa.Table.from_batches([part.cast(parts[-1].schema) for part in parts]).combine_chunks()
    return (table.to_batches() or [parts[-1]])[0]


__all__ = ["LoggedFunctions"]
