"""Load one stream into one Delta table: stage batches, and commit at each checkpoint.

An append, and most replaces, write data files at once, which a commit then names, again and again after conflicts. A
merge spools what arrives, and writes anew the files that hold its keys, on the version of the table it is committed on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from ..arrow.conform import conformed
from ..arrow.merge import KeyLookup, merged
from ..arrow.text import is_text
from ..arrow.type_names import type_text
from ..arrow.unified import changes, unified
from ..errors import ConnectorConfigError, ConnectorError, FatalConnectorError, TableLost, null_in_key, taken_over
from ..failpoints import failpoint
from ..field_facts import facts_of
from ..interrupts import Call
from ..read_spec import ReplicationMethod
from ..stream import DELETED_AT, Block, Checkpoint, Commit, Event, LedgerRow, Load, Stream, committed_row
from ..struct_helpers import replace
from ..write_spec import WriteDisposition, WriteSpec
from .data_files import DataFile, DataWriter, Written, batches, data_files, demand_partitions, written_in
from .ledger import WRITTEN, Held
from .spool import Spool
from .storage import said, translated
from .table import (
    LakeTable,
    Snapshot,
    Step,
    identity_of,
    is_pending,
    is_rolled_back,
    lacks_naive,
    may_widen,
    schema_of,
)
from .types import stored_in, twins, wider

#: Most records of a batch for a writer.
_SLICE_RECORDS = 65_536


class _Merge(Struct, frozen=True):
    """What a merge has made of some files of a table."""

    #: All files of the version of the table.
    based_on: frozenset[str]
    schema: pa.Schema
    hit: Sequence[DataFile]
    written: Sequence[Written]
    #: Keys that are removed or marked.
    others: Sequence[pa.Table]
    removed: int
    #: See `Commit.replaced`.
    replaced: int


class DeltaLoad:
    """Writes the events of one stream; readers see nothing before a commit."""

    def __init__(self, table: LakeTable, load: Load, call: Call, partition_by: Sequence[str], group_bytes: int) -> None:
        self._table = table
        self._load = load
        self._call = call
        #: Columns of the table that what arrives is written into, at the beginning of the load; None: it is made anew.
        self._held: pa.Schema | None = None
        self._partition_by = tuple(partition_by)
        with translated(table.folder.label):
            self._look()
        self._group_bytes = group_bytes
        disposition, is_deleting = load.write.disposition, load.write.deleted_when is not None
        self._is_merge = disposition is WriteDisposition.MERGE
        self._is_replace = disposition is WriteDisposition.REPLACE
        self._is_spooled = self._is_merge or is_deleting
        #: Columns that become text in the table.
        self._texts: set[str] = set()
        self._arriving = self._stored(load.stream)
        self._spools: list[Spool] = []
        self._writer: DataWriter | None = None
        self._staged: list[Written] = []
        #: Files that no commit has named, as far as is known.
        self._made: list[str] = []
        self._merge: _Merge | None = None
        #: Version that was written anew in wider columns, and the files of that.
        self._widened: tuple[int, Sequence[Written]] | None = None
        self._changes: tuple[Any, ...] = ()
        self._records = self._written = 0

    def _look(self) -> None:
        """Look up the columns of the table, and those by which its files are split.

        Raises:
            ConnectorConfigError: the settings name others.
        """
        table = self._table.open()
        if table is None:
            return
        found = tuple(table.metadata().partition_columns)
        if self._partition_by and found != self._partition_by:
            text = f"{self._table.folder.label} was made with another `partition_by`: put it back, or drop the table"
            raise ConnectorConfigError(text, connector="delta", key="partition_by")
        self._partition_by = found
        if not is_pending(table) and self._load.write.disposition is not WriteDisposition.REPLACE:
            self._held = schema_of(table)

    def run(self, events: Iterator[Event | Block]) -> Iterator[Commit]:
        """Write the events, yielding after each commit."""
        if self._is_merge and not self._load.stream.key_properties:
            text = f"stream {self._load.key.stream!r} has no key_properties to merge by"
            raise ConnectorConfigError(text, stream=self._load.key.stream, key="key_properties")
        try:
            for event in events:
                self._call.check()
                if isinstance(event, Checkpoint):
                    with translated(self._table.folder.label):
                        commit = self._commit(event)
                    yield commit
                elif isinstance(event, Stream):
                    self._arriving = self._stored(event)
                else:
                    assert isinstance(event, pa.RecordBatch), "the wire is `arrow`, and it keeps no rejected records"
                    with translated(self._table.folder.label):
                        self._write(event)
                del event  # not held while the next one is made
        except ConnectorError as error:
            error.stream = error.stream or self._load.key.stream
            raise
        finally:
            self._discard()

    # What arrives

    def _stored(self, stream: Stream) -> pa.Schema:
        """Return the columns of a stream in the types of the table, or those that they would have in a new one."""
        self._texts |= {field.name for field in stream.schema if facts_of(field).becomes_text}
        found, held = [], self._held if self._held is not None else pa.schema([])
        for field in stream.schema:
            own = held.field(field.name) if field.name in held.names else None
            kind = stored_in(field.type, None if own is None else own.type)
            if kind is None:
                text = f"column {field.name!r} is {type_text(field.type)}, for which Delta has no type"
                raise FatalConnectorError(text, stream=self._load.key.stream, has_no_values=True)
            is_relaxed = facts_of(field).relaxed and field.name not in stream.key_properties
            found.append(pa.field(field.name, kind, own is None or own.nullable or is_relaxed))
        # A stream may lack a column by whose values the files are split: it is NULL then.
        lacking = [name for name in self._partition_by if name in held.names and name not in stream.schema.names]
        return pa.schema([*found, *(held.field(name) for name in lacking)])

    def _write(self, batch: pa.RecordBatch) -> None:
        if self._load.write.disposition is not WriteDisposition.APPEND:
            for name in self._load.stream.key_properties:
                if name in batch.schema.names and batch.column(name).null_count:
                    raise null_in_key(name, keeps_rejected=False)
        for start in range(0, batch.num_rows, _SLICE_RECORDS):
            part = conformed(batch.slice(start, _SLICE_RECORDS), self._arriving)
            if self._is_spooled:
                self._spool().write(part)
            else:
                self._data_writer().write(part)
            self._records += part.num_rows

    def _spool(self) -> Spool:
        if not self._spools or not self._spools[-1].schema.equals(self._arriving):
            self._spools.append(Spool(self._arriving))
        return self._spools[-1]

    def _data_writer(self) -> DataWriter:
        if self._writer is None or not self._writer.schema.equals(self._arriving):
            self._finish()
            self._writer = self._new_writer(self._arriving)
        return self._writer

    def _new_writer(self, schema: pa.Schema) -> DataWriter:
        demand_partitions(self._partition_by, schema)
        return DataWriter(self._table.folder, schema, self._partition_by, self._group_bytes, self._begin)

    def _begin(self, name: str) -> None:
        """Note a file before it is there: after a kill, recovery deletes it."""
        self._made.append(name)
        self._table.folder.write(self._list(), json.dumps(self._made).encode())
        failpoint("delta.file.begun")

    def _list(self) -> str:
        return f"{WRITTEN}/{self._load.token}.json"

    def _finish(self) -> None:
        if self._writer is not None:
            self._staged += self._writer.finish()
            self._writer = None

    def _discard(self) -> None:
        """Delete what no commit has kept."""
        if self._writer is not None:
            self._writer.abandon()
        for spool in self._spools:
            spool.close()
        # Recovery finds remaining files by the token; an error here would hide the first error.
        with suppress(ConnectorError, OSError):
            table = self._table.open()
            if table is not None and not self._table.is_decided(table):
                return  # the next takeover decides, and deletes them
            if self._made:
                live = set() if table is None else {file.name for file in data_files(table)}
                self._delete(name for name in self._made if name not in live)
            self._table.folder.delete(self._list())

    def _delete(self, names: Iterable[str]) -> None:
        for name in list(names):
            self._table.folder.delete(name)
            self._made.remove(name)

    # Commit

    def _commit(self, checkpoint: Checkpoint) -> Commit:
        self._finish()
        self._changes = ()
        held = self._table.commit(self._load.key, lambda found: self._step(found, checkpoint), self._call.check)
        removed, replaced = 0, None
        if self._merge is not None:
            removed, replaced = self._merge.removed, self._merge.replaced if self._is_merge else None
        used = {*held.added}
        self._made = [name for name in self._made if name not in used]
        staged = [spool.size_bytes for spool in self._spools]
        commit = Commit(
            checkpoint=checkpoint,
            records=self._records,
            size_bytes=sum(staged) if self._is_spooled else written_in(self._staged),
            schema_changes=self._changes,
            removed=removed,
            replaced=replaced,
        )
        self._written += self._records
        for spool in self._spools:
            spool.close()
        self._records, self._staged, self._spools, self._merge = 0, [], [], None
        return commit

    def _step(self, found: Snapshot | None, checkpoint: Checkpoint) -> Step:
        """Return the next commit: one that prepares the table, or the last one, with the data."""
        is_begun = self._load.begun_in is not None or bool(self._written)
        if found is None or (is_pending(found.table) and is_begun):
            message = f"table {self._table.name!r} was dropped since it was last written"
            raise TableLost(message, stream=self._load.key.stream)
        row, held = self._demand_token(found), found.held
        assert held is not None
        if self._load.begun_in is not None and identity_of(found.table) != self._load.begun_in:
            message = f"table {self._table.name!r} was made anew since it was last written"
            raise TableLost(message, stream=self._load.key.stream)
        before = None if is_pending(found.table) else schema_of(found.table)
        if before is not None and self._needs_former_records(row) and is_rolled_back(found.table, held):
            raise FatalConnectorError(
                f"table {self._table.name!r} was rolled back by RESTORE after the last commit of this stream. To see "
                "the commands that decide where the stream continues, run `syncblocks plan`",
                stream=self._load.key.stream,
            )
        self._end_widening(found, held)
        after = self._unified(before, found.table)
        if before is None or self._is_replace:
            demand_partitions(found.table.metadata().partition_columns, after)
        if lacks_naive(found.table, after):
            return Step(held=held, is_for_naive=True)
        if before is not None and not self._is_replace and (relaxed := self._relaxed(before)):
            return Step(held=held, relaxed=relaxed)
        self._announce(before, after, checkpoint)
        if self._is_replace or before is None:
            return self._anew(held, row, after, checkpoint)
        if any(after.field(field.name).type != field.type for field in before):
            return self._widening(found, held, after)
        if added := [field for field in after if field.name not in before.names]:
            return Step(held=held, columns=pa.schema(added))
        return self._added(found, held, row, after, checkpoint)

    def _needs_former_records(self, row: LedgerRow) -> bool:
        """Return true if the load adds to the records of earlier commits, and does not read these again."""
        if self._is_replace or row.committed_at is None:
            return False
        if self._load.stream.read.method is ReplicationMethod.FULL_TABLE:
            return not self._is_merge
        return row.bookmark is not None

    def _demand_token(self, found: Snapshot) -> LedgerRow:
        row = found.row
        if row is None or row.token != self._load.token:
            raise taken_over(self._load.key.stream, row.owner if row else "")
        return row

    def _unified(self, before: pa.Schema | None, table: Any) -> pa.Schema:
        """Return the columns of the table after the commit; those that it has may only become wider."""
        after = None if self._is_replace else before
        schemas = [*(spool.schema for spool in self._spools), *(file.schema for file in self._staged), self._arriving]
        for arriving in schemas:
            after = arriving if after is None else unified(self._table.name, after, arriving, self._texts)
        assert after is not None
        for field in () if self._is_replace or before is None else before:
            if (kind := after.field(field.name).type) != field.type:
                self._demand_wider(field, kind, table)
        if twice := twins(after.names):
            one, other = next(iter(twice.items()))
            text = f"columns {other!r} and {one!r} differ in case only, and Delta takes them for one: rename one"
            raise FatalConnectorError(text, stream=self._load.key.stream, has_no_values=True)
        held = None if self._is_replace else before
        return pa.schema(
            [
                pa.field(
                    each.name, each.type, held is None or each.name not in held.names or held.field(each.name).nullable
                )
                for each in after
            ]
        )

    def _relaxed(self, before: pa.Schema) -> str:
        """Return a column of the table that refuses NULL, though NULL may come, or nothing does; empty: none."""
        arriving = {field.name: field.nullable for field in self._arriving}
        return next((each.name for each in before if not each.nullable and arriving.get(each.name, True)), "")

    def _demand_wider(self, field: pa.Field, kind: pa.DataType, table: Any) -> None:
        """Raise unless a column may become another type."""
        if wider(field.type, kind) == kind or (field.name in self._texts and is_text(kind)):
            if may_widen(table):
                return
            why = "the table is too large to be written anew for it, or takes appends only"
        else:
            why = "such a column of a Delta table does not become wider"
        raise FatalConnectorError(
            f"column {field.name!r} of table {self._table.name!r} is {type_text(field.type)}, and {type_text(kind)} "
            f"would be needed: {why}; cast it by `types`, or replace the table with --full-refresh",
            has_no_values=True,
        )

    def _widening(self, found: Snapshot, held: Held, schema: pa.Schema) -> Step:
        """Return the commit that writes all files anew in wider columns, and nothing else."""
        if self._widened is None:
            records = (batch for file in data_files(found.table) for batch in self._read(file, schema))
            self._widened = found.version, self._rewritten(schema, records)
        files = self._widened[1]
        return Step(
            held=replace(held, added=tuple(file.name for file in files)),
            actions=[file.add() for file in files],
            is_overwrite=True,
            schema=schema,
            is_widening=True,
        )

    def _end_widening(self, found: Snapshot, held: Held) -> None:
        """Keep the files of a widening that has landed, and delete those of one that never will."""
        if self._widened is None or found.version == self._widened[0]:
            return
        names = [file.name for file in self._widened[1]]
        self._widened = None
        if set(names) <= {*held.added}:
            self._made = [name for name in self._made if name not in names]
        else:
            self._delete(names)

    def _announce(self, before: pa.Schema | None, after: pa.Schema, checkpoint: Checkpoint) -> None:
        changed = changes(before, after)
        if changed and changed != self._changes:
            self._load.announce(checkpoint, changed)
        self._changes = self._changes or changed

    def _anew(self, held: Held, row: LedgerRow, schema: pa.Schema, checkpoint: Checkpoint) -> Step:
        """Return the commit of a table that has nothing but what arrived."""
        if self._is_spooled:
            if self._merge is None:
                self._merge = self._merged([], schema, checkpoint)
            files = self._merge.written
        else:
            files = self._as_in(schema)
        if not self._is_replace and not files and not checkpoint.is_final:
            return self._last(held, row, checkpoint)
        return self._last(held, row, checkpoint, files, is_overwrite=True, schema=schema)

    def _added(self, found: Snapshot, held: Held, row: LedgerRow, schema: pa.Schema, checkpoint: Checkpoint) -> Step:
        """Return the commit that adds to a table, or changes it."""
        if not self._is_merge:
            return self._last(held, row, checkpoint, self._as_in(schema))
        is_removing = checkpoint.is_final and (self._load.removed is not None or self._load.marked is not None)
        if not self._spools and not is_removing:
            return self._last(held, row, checkpoint)
        files = data_files(found.table, self._load.stream.key_properties[0])
        if self._merge is None or not self._holds(self._merge, files, schema):
            if self._merge is not None:
                self._delete(file.name for file in self._merge.written)
            self._merge = self._merged(files, schema, checkpoint)
        removes = [file.remove() for file in self._merge.hit]
        return self._last(held, row, checkpoint, self._merge.written, removes)

    def _last(
        self,
        held: Held,
        row: LedgerRow,
        checkpoint: Checkpoint,
        files: Sequence[Written] = (),
        removes: Sequence[Any] = (),
        *,
        is_overwrite: bool = False,
        schema: pa.Schema | None = None,
    ) -> Step:
        self._demand_there(files)
        row = committed_row(row, self._load, checkpoint, written=self._written + self._records, history={})
        return Step(
            held=replace(held, row=row, added=tuple(file.name for file in files)),
            is_mark=True,
            actions=[*removes, *(file.add() for file in files)],
            is_overwrite=is_overwrite,
            schema=schema,
        )

    def _demand_there(self, files: Sequence[Written]) -> None:
        """Raise if a file was deleted before the commit that names it: by VACUUM, or by whoever has taken over."""
        if gone := next((file.name for file in files if not self._table.folder.is_there(file.name)), ""):
            text = (
                f"{gone} was deleted before its commit: VACUUM with a retention of 0 deletes files of loads under way"
            )
            raise FileNotFoundError(text)

    def _as_in(self, schema: pa.Schema) -> Sequence[Written]:
        """Return the staged files; one whose columns have other types in the table is written anew."""
        kept: list[Written] = []
        for file in self._staged:
            if all(field.type == schema.field(field.name).type for field in file.schema):
                kept.append(file)
                continue
            own = pa.schema([schema.field(field.name) for field in file.schema])
            again = DataFile(path=file.name, size_bytes=file.size_bytes, partition=_scalars(file))
            kept += self._rewritten(own, (conformed(each, own) for each in self._read(again, file.schema)))
        self._staged = kept
        return kept

    def _rewritten(self, schema: pa.Schema, records: Iterable[pa.RecordBatch]) -> list[Written]:
        writer = self._new_writer(schema)
        try:
            for batch in records:
                self._call.check()
                writer.write(batch)
            return writer.finish()
        except BaseException:
            writer.abandon()
            raise

    def _read(self, file: DataFile, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        try:
            yield from batches(self._table.folder, file, schema)
        except pa.ArrowException as error:
            raise FatalConnectorError(f"{self._table.folder.label}/{file.name}: {said(error)}") from error

    # Merge

    def _holds(self, merge: _Merge, files: Sequence[DataFile], schema: pa.Schema) -> bool:
        """Tell whether a merge is right for another version: what it read is there, and no new file holds its keys."""
        now = {file.path for file in files}
        if merge.schema != schema or not {file.path for file in merge.hit} <= now:
            return False
        return not self._hit([file for file in files if file.path not in merge.based_on], schema, merge.others)

    def _merged(self, files: Sequence[DataFile], schema: pa.Schema, checkpoint: Checkpoint) -> _Merge:
        """Write anew the files that hold keys of what arrived, together with that."""
        keys, write = self._load.stream.key_properties, self._load.write
        removed, marked = (
            _fitted(each, schema) if checkpoint.is_final else None for each in (self._load.removed, self._load.marked)
        )
        others = [each for each in (removed, marked) if each is not None]
        hit = self._hit(files, schema, others)
        gone: list[int] = []
        replaced: list[int] = []
        records = merged(
            lambda: (batch for file in hit for batch in self._read(file, schema)),
            lambda names: self._arrived(schema, names),
            keys,
            write if self._is_merge else WriteSpec(disposition=WriteDisposition.MERGE),
            () if removed is None else removed.to_batches(),
            note_gone=gone.append,
            note_replaced=replaced.append,
            marked=marked,
            without_deleted=self._without_deleted,
        )
        written = self._rewritten(schema, (batch for batch in records if batch.num_rows))
        marks = 0 if marked is None else len(marked) - int(marked.column(DELETED_AT).null_count)
        based_on = frozenset(file.path for file in files)
        return _Merge(based_on, schema, hit, written, others, sum(gone) + marks, sum(replaced))

    def _arrived(self, schema: pa.Schema, names: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        """Yield what arrived since the last commit, in all columns of the table or in some."""
        missing = sorted(set(names or ()).difference(schema.names))
        if missing:
            raise FatalConnectorError(f"column {missing[0]!r} does not arrive, and records are written by it")
        schema = schema if names is None else pa.schema([schema.field(name) for name in names])
        for spool in self._spools:
            for batch in spool.batches(names):
                yield conformed(batch, schema)

    def _without_deleted(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if self._load.write.deleted_when is None:
            return batch
        from ..filters import without_deleted  # a stream without the setting spares the import

        return without_deleted(batch, self._load.write.deleted_when)

    def _hit(self, files: Sequence[DataFile], schema: pa.Schema, others: Sequence[pa.Table]) -> list[DataFile]:
        """Return the files that hold a key that arrived, or one of other keys."""
        names = self._load.stream.key_properties
        own = pa.schema([schema.field(name) for name in names])

        def all_keys(_: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
            yield from self._arrived(schema, names)
            for table in others:
                yield from table.select(names).to_batches()

        bounds = _bounds(all_keys(names), names[0])
        lookup: KeyLookup | None = None
        found = []
        for file in files:
            if not _may_hold(file, bounds):
                continue
            lookup = lookup or KeyLookup(names, all_keys)
            if any(pc.any(lookup.of(batch)).as_py() for batch in self._read(file, own)):
                found.append(file)
        return found


def _bounds(keys: Iterable[pa.RecordBatch], name: str) -> tuple[Any, Any]:
    """Return the lowest and the highest value of a column; None: statistics do not order its values as Arrow does."""
    found = [pc.min_max(batch.column(name)) for batch in keys if batch.num_rows and _is_ordered(batch.column(name))]
    ends = [(each["min"].as_py(), each["max"].as_py()) for each in found]
    ends = [end for end in ends if end[0] is not None]
    return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else (None, None)


def _is_ordered(column: pa.Array) -> bool:
    """Tell whether statistics order a column's values as Arrow does, and Python as well."""
    return bool(pa.types.is_integer(column.type) or pa.types.is_string(column.type) or pa.types.is_date(column.type))


def _may_hold(file: DataFile, bounds: tuple[Any, Any]) -> bool:
    """Tell whether a file may have a key within bounds, by its statistics."""
    low, high = bounds
    if low is None or file.least is None or file.most is None or type(file.least) is not type(low):
        return True
    return bool(file.least <= high and low <= file.most)


def _scalars(file: Written) -> dict[str, pa.Scalar]:
    """Return the values of a file's partition columns."""
    return {
        name: pa.scalar(value, pa.string()).cast(file.schema.field(name).type) for name, value in file.partition.items()
    }


def _fitted(keys: pa.Table | None, schema: pa.Schema) -> pa.Table | None:
    """Return keys that are to be removed or marked in the types of the table."""
    if keys is None:
        return None
    own = pa.schema([schema.field(name) for name in keys.schema.names])
    return pa.Table.from_batches([conformed(batch, own) for batch in keys.to_batches()], own)
