"""Load one stream into one table: stage batches, and commit at each checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import pyarrow as pa
from msgspec import Struct

from ..arrow.conform import conformed
from ..arrow.fidelity import Fidelity, compare
from ..arrow.merge import Batches, merged
from ..arrow.unified import changes, unified
from ..errors import ConnectorConfigError, ConnectorError, FatalConnectorError, TableLost, null_in_key, taken_over
from ..field_facts import facts_of
from ..interrupts import Call
from ..stream import (
    DELETED_AT,
    VALID_FROM,
    VALID_TO,
    Block,
    Checkpoint,
    Commit,
    Event,
    Load,
    Rejected,
    Stream,
    committed_row,
)
from ..struct_helpers import replace
from ..write_spec import WriteDisposition, WriteSpec
from .layout import Layout, Output
from .manifest import STAGING, Manifest, ReadList, TableFile, quote
from .paths import DataFile
from .range_write import RangeWrite
from .rejected import FileRejections
from .table import FilesTable, Staged, Staging

if TYPE_CHECKING:
    from .history import HistoryWrite

#: Times that a merge is tried without the lock before it holds the lock.
FREE_TRIES = 3

#: Write dispositions that look for the keys that arrive.
_BY_KEY = (WriteDisposition.MERGE, WriteDisposition.REPLACE_RANGE, WriteDisposition.HISTORY)

#: Columns that stand beside keys, and may be NULL there.
MARKS = (VALID_FROM, VALID_TO, DELETED_AT)

#: Most records of a batch for a writer.
_SLICE_RECORDS = 65_536


class _Plan(Struct, frozen=True):
    """The files and columns that a commit makes, planned from the table's former `files`."""

    based_on: tuple[TableFile, ...]
    files: tuple[TableFile, ...]
    schema: pa.Schema | None
    dead: tuple[str, ...] = ()
    #: Records that it leaves out, since their keys are those of `Load.removed`.
    removed: int = 0
    #: See `Commit.replaced`.
    replaced: int | None = None


class FilesLoad:
    """Writes the events of one stream; readers see nothing before a commit."""

    def __init__(self, table: FilesTable, load: Load, call: Call, layout: Layout) -> None:
        self._table = table
        self._load = load
        self._call = call
        self._layout = layout
        # In partitions the order of records is lost, and of the records of a key the last one counts.
        is_ordered = load.write.disposition in (WriteDisposition.MERGE, WriteDisposition.HISTORY)
        self._staging_layout = Layout() if is_ordered else layout
        #: Columns that become text in the table.
        self._texts: set[str] = set()
        self._arriving = self._stored(load.stream)
        self._staged: list[Staged] = []
        self._writing: Output | None = None
        self._made: list[str] = []
        self._records = 0
        self._written = 0
        self._has_committed = False
        limit = load.write.max_rejected
        self._rejections = None if limit is None else FileRejections(table, load, limit)
        is_range = load.write.disposition is WriteDisposition.REPLACE_RANGE
        self._range = RangeWrite(load) if is_range else None
        self._history = None if load.history is None else _history(load)

    def run(self, events: Iterator[Event | Block]) -> Iterator[Commit]:
        """Write the events, yielding after each commit."""
        if self._load.write.disposition is WriteDisposition.MERGE and not self._load.stream.key_properties:
            raise ConnectorConfigError(
                f"stream {self._load.key.stream!r} has no key_properties to merge by",
                stream=self._load.key.stream,
                key="key_properties",
            )
        try:
            for event in events:
                self._call.check()
                if isinstance(event, Checkpoint):
                    yield self._commit(event)
                elif isinstance(event, Stream):
                    self._arriving = self._stored(event)
                elif isinstance(event, Rejected):
                    assert self._rejections is not None, "only a stream with `max_rejected` sends them"
                    self._rejections.add(event.records)
                else:
                    assert isinstance(event, pa.RecordBatch), "the wire is `arrow`"
                    self._write(event)
                del event  # not held while the next one is made
        except ConnectorError as error:
            error.stream = error.stream or self._load.key.stream
            raise
        finally:
            self._discard()

    def _stored(self, stream: Stream) -> pa.Schema:
        keys = stream.key_properties if self._load.write.disposition in _BY_KEY else ()
        self._texts |= {field.name for field in stream.schema if facts_of(field).becomes_text}
        schema = self._table.format.stored(stream.schema)
        return pa.schema([field.with_nullable(field.name not in keys) for field in schema])

    def _write(self, batch: pa.RecordBatch) -> None:
        if self._range is not None:
            self._range.check(batch)
        if self._writing is None or not self._writing.schema.equals(self._arriving):
            self._finish()
            self._writing = Output(self._begin, self._arriving, self._staging_layout)
        for start in range(0, batch.num_rows, _SLICE_RECORDS):
            for part in self._fitting(batch.slice(start, _SLICE_RECORDS)):
                self._writing.write(part)
                self._records += part.num_rows

    def _fitting(self, batch: pa.RecordBatch) -> Iterable[pa.RecordBatch]:
        keys = self._keys(batch.schema)
        if self._rejections is not None:
            return self._rejections.fitting(batch, self._arriving, keys)
        _refuse_null(batch, keys)
        return (conformed(batch, self._arriving),)

    def _keys(self, schema: pa.Schema) -> list[str]:
        """Return the columns in which a record must have a value."""
        is_keyed = self._load.write.disposition is not WriteDisposition.APPEND
        return [name for name in self._load.stream.key_properties if is_keyed and name in schema.names]

    def _begin(self, schema: pa.Schema, folder: str = "") -> Staging:
        staging = self._table.stage(self._load.token, schema, folder)
        self._made.append(staging.name)
        return staging

    def _finish(self) -> None:
        if self._writing is None:
            return
        self._staged += self._writing.finish()
        self._writing = None

    def _discard(self) -> None:
        """Delete the staged files that no commit has kept."""
        if self._writing is not None:
            self._writing.abandon()
        # Recovery finds remaining files by the token; an error here would hide the first error.
        with suppress(ConnectorError, OSError):
            if self._made:
                manifest = self._table.read()
                self._delete_made(manifest.placed)
            self._table.storage.delete_folder(f"{STAGING}/{quote(self._load.token)}", only_empty=True)

    def _delete_made(self, live: Iterable[TableFile]) -> None:
        """Delete staged files, except those that a manifest names: they may still have to be moved."""
        keep = {file.moved_from for file in live}
        for name in self._made:
            if name not in keep:
                self._table.storage.delete(name)
        self._made = []

    # Commit

    def _commit(self, checkpoint: Checkpoint) -> Commit:
        self._finish()
        if self._history is not None:
            self._reject_unlike(self._history)
        rejected = () if self._rejections is None else self._rejections.written(self._begin, self._records)
        tries = 0
        while True:
            tries += 1
            if tries <= FREE_TRIES:
                seen = self._table.read()
                self._demand_token(seen)
                plan = self._plan_or_none(seen, checkpoint)
                if plan is None:
                    continue
            with self._table.locked(self._call.is_stopped) as manifest:
                self._demand_token(manifest)
                if tries > FREE_TRIES:
                    plan = self._plan(manifest, checkpoint)
                elif plan is None or _names(plan.based_on) != _names(manifest.files):
                    continue
                self._call.check()
                changed = changes(manifest.schema, plan.schema) if plan.schema is not None else ()
                if changed:
                    self._load.announce(checkpoint, changed)
                after = replace(self._after(manifest, plan, checkpoint), rejected=rejected)
                self._table.commit(after)
            break
        self._has_committed = True
        commit = Commit(
            checkpoint=checkpoint,
            records=self._records,
            size_bytes=sum(staged.size_bytes for staged in self._staged),
            schema_changes=changed,
            rejected=0 if self._rejections is None else self._rejections.committed(),
            refused=() if self._rejections is None else self._rejections.take_refused(),
            removed=plan.removed,
            replaced=plan.replaced,
        )
        if self._history is not None and (self._staged or checkpoint.is_final):
            self._history.committed()
        self._written += self._records
        self._records, self._staged = 0, []
        if self._range is not None:
            self._range.begin()
        self._delete_made(after.placed)
        return commit

    def _demand_token(self, manifest: Manifest) -> None:
        row = manifest.row(self._load.key)
        if row is None or row.token != self._load.token:
            raise taken_over(self._load.key.stream, row.owner if row else "")

    def _plan_or_none(self, manifest: Manifest, checkpoint: Checkpoint) -> _Plan | None:
        """Plan without the lock; None: another commit has removed a file meanwhile."""
        try:
            return self._plan(manifest, checkpoint)
        except ConnectorConfigError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def _plan(self, manifest: Manifest, checkpoint: Checkpoint) -> _Plan:
        based_on = manifest.files
        is_there = manifest.schema is not None and self._table.has_files(manifest)
        if not is_there and (self._load.begun_in is not None or self._written):
            message = f"the files of table {self._table.name!r} were deleted since it was last written"
            raise TableLost(message, stream=self._load.key.stream)
        if not is_there:
            # Deleted by hand: the engine starts from scratch, and so does the table.
            manifest = replace(manifest, files=(), schema=None)
        if self._load.write.disposition is WriteDisposition.REPLACE:
            plan = self._replaced(manifest)
        else:
            self._refuse_strangers(manifest)
            is_new = manifest.schema is None or (self._history is not None and self._history.starts_over)
            keys = self._load.removed is not None or self._load.marked is not None
            is_removing = keys and checkpoint.is_final
            is_removing |= self._range is not None and self._range.is_due(checkpoint)
            if self._history is not None and checkpoint.is_final and manifest.schema is not None:
                # From now on a difference in a new column makes a new version, whether or not a record has come.
                is_removing |= not {*self._arriving.names} <= {*manifest.schema.names}
            if not self._staged and not is_removing and not (is_new and checkpoint.is_final):
                plan = _Plan(manifest.files, manifest.files, manifest.schema)
            elif self._load.write.disposition is WriteDisposition.MERGE:
                plan = self._merged(manifest, is_final=checkpoint.is_final)
            elif self._history is not None:
                plan = self._with_versions(manifest, self._history, is_final=checkpoint.is_final)
            elif self._range is not None:
                plan = self._without_range(manifest, self._range, checkpoint)
            else:
                plan = self._appended(manifest)
        return replace(plan, based_on=based_on)

    def _replaced(self, manifest: Manifest) -> _Plan:
        schema = self._arriving
        staged = self._staged
        if self._load.write.deleted_when is not None:
            staged = self._rewritten(schema, self._still_there(schema))
        elif not self._is_written(schema):
            staged = self._rewritten(schema, self._staged_batches(schema))
        old = [file.name for file in manifest.files] if manifest.schema is not None else self._table.strangers()
        files = self._whole_table(staged)
        names = {file.name for file in files}
        return _Plan(manifest.files, files, schema, tuple(name for name in old if name not in names))

    def _is_written(self, schema: pa.Schema) -> bool:
        """Tell whether the staged files are as they are to be in the table."""
        is_one = len(self._staged) == 1 if self._layout.is_plain else bool(self._staged)
        return is_one and all(staged.schema.equals(schema) for staged in self._staged)

    def _whole_table(self, staged: Sequence[Staged]) -> tuple[TableFile, ...]:
        """Return the files of a table that is written anew: one of its name, or parts."""
        if len(staged) == 1 and not staged[0].folder:
            return (self._table.placed(staged[0], self._table.whole_name()),)
        return self._parts(staged, 0)

    def _parts(self, staged: Sequence[Staged], first: int) -> tuple[TableFile, ...]:
        """Return files that are parts of a table; `first`: number of the first."""
        name = self._table.part_name
        return tuple(
            self._table.placed(each, name(number, folder=each.folder)) for number, each in enumerate(staged, first)
        )

    def _appended(self, manifest: Manifest) -> _Plan:
        schema = self._unified(manifest)
        staged = self._staged or self._rewritten(schema, iter(()))
        files = list(manifest.files)
        if self._must_rewrite(manifest, schema):
            old, sizes = self._old(manifest, schema), self._staged_batches(schema)
            whole = self._rewritten(schema, (batch for part in (old(), sizes) for batch in part))
            return _Plan(manifest.files, self._parts(whole, len(files)), schema, tuple(file.name for file in files))
        if self._staged and not self._is_written(schema):
            staged = self._rewritten(schema, self._staged_batches(schema))
        # A table of one file becomes the first part of a folder.
        files = [
            file if "/" in file.name else replace(file, name=self._table.part_name(0, file.name), moved_from=file.name)
            for file in files
        ]
        return _Plan(manifest.files, (*files, *self._parts(staged, len(files))), schema)

    def _merged(self, manifest: Manifest, *, is_final: bool) -> _Plan:
        schema, keys = self._unified(manifest), self._load.stream.key_properties
        removed, marked = (
            _fitted(keys, schema) if is_final else None for keys in (self._load.removed, self._load.marked)
        )
        gone: list[int] = []
        replaced: list[int] = []
        batches = merged(
            self._old(manifest, schema),
            lambda names: self._staged_batches(schema, names),
            keys,
            self._load.write,
            () if removed is None else removed.to_batches(),
            note_gone=gone.append,
            note_replaced=replaced.append,
            marked=marked,
            without_deleted=self._without_deleted,
        )
        plan = self._whole(manifest, schema, batches)  # which counts them
        return replace(plan, removed=sum(gone) + _count_marks(marked, DELETED_AT), replaced=sum(replaced))

    def _still_there(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Yield the staged records of a table that is written anew, of each key the last one, without deleted ones."""
        return merged(
            lambda: (),
            lambda names: self._staged_batches(schema, names),
            self._load.stream.key_properties,
            WriteSpec(disposition=WriteDisposition.MERGE),
            without_deleted=self._without_deleted,
        )

    def _without_deleted(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if self._load.write.deleted_when is None:
            return batch
        from ..filters import without_deleted  # a stream without the setting spares the import

        return without_deleted(batch, self._load.write.deleted_when)

    def _with_versions(self, manifest: Manifest, history: HistoryWrite, *, is_final: bool) -> _Plan:
        before = replace(manifest, files=(), schema=None) if history.starts_over else manifest
        schema = self._unified(before)
        marked = _fitted(self._load.marked, schema) if is_final else None
        old: Batches = self._old(before, schema)
        if marked is not None:
            from .history_ends import ended  # of a history that has some

            old = ended(old, marked, self._load.stream.key_properties[:-1])
        arriving = list(dict.fromkeys(name for staged in self._staged for name in staged.schema.names))
        batches = history.records(
            old, lambda names: self._staged_batches(schema, names), arriving, schema, before.schema
        )
        return replace(self._whole(manifest, schema, batches), removed=_count_marks(marked, VALID_TO))

    def _reject_unlike(self, history: HistoryWrite) -> None:
        """Reject records that contradict others of their key; raise if the stream rejects none."""
        if not self._staged:
            return
        schema = self._unified(Manifest(table=self._table.name))
        unlike, reason = history.unlike(lambda names: self._staged_batches(schema, names), schema.names)
        if unlike is None:
            return
        if self._rejections is None:
            raise FatalConnectorError(
                f"{reason}: a history cannot decide which one is right; choose other key_properties",
                stream=self._load.key.stream,
            )
        done = 0
        for batch in self._staged_batches(schema):
            self._rejections.reject(batch.filter(pa.array(unlike[done : done + batch.num_rows])), reason)
            done += batch.num_rows
        self._records -= int(unlike.sum())

    def _without_range(self, manifest: Manifest, written: RangeWrite, checkpoint: Checkpoint) -> _Plan:
        schema = self._unified(manifest)
        batches = written.records(
            self._old(manifest, schema),
            lambda names: self._staged_batches(schema, names),
            schema,
            checkpoint,
            () if self._rejections is None else self._rejections.found,
        )
        return self._whole(manifest, schema, batches)

    def _whole(self, manifest: Manifest, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> _Plan:
        files = self._whole_table(self._rewritten(schema, batches))
        names = {file.name for file in files}
        dead = tuple(file.name for file in manifest.files if file.name not in names)
        return _Plan(manifest.files, files, schema, dead)

    def _unified(self, manifest: Manifest) -> pa.Schema:
        schema = manifest.schema
        for arriving in [*(staged.schema for staged in self._staged), self._arriving]:
            schema = arriving if schema is None else unified(self._table.name, schema, arriving, self._texts)
        return schema

    def _must_rewrite(self, manifest: Manifest, schema: pa.Schema) -> bool:
        """Tell whether readers need all parts rewritten: for other columns in CSV, other types in Parquet.

        Also check values that the wider type may not hold (nanoseconds end in 2262) or writes in another way.
        """
        if manifest.schema is None or not manifest.files:
            return False
        pairs = [(field.type, schema.field(field.name).type) for field in manifest.schema]
        changed = [(before, after) for before, after in pairs if not before.equals(after)]
        is_moved = [
            pa.types.is_floating(after) or pa.types.is_timestamp(after) or pa.types.is_string(after)
            for _, after in changed
        ]
        if any(is_moved) or any(compare(before, after) is Fidelity.LOSSY for before, after in changed):
            return True
        if self._table.format.needs_equal_columns:
            return any(list(file.columns) != schema.names for file in manifest.files)
        return self._table.format.suffix == "parquet" and bool(changed)

    def _old(self, manifest: Manifest, schema: pa.Schema) -> Callable[[], Iterator[pa.RecordBatch]]:
        def batches() -> Iterator[pa.RecordBatch]:
            for file in manifest.files:
                assert manifest.schema is not None
                data = self._table.data_file(file, manifest.schema)
                if self._table.storage.kind(data.place) != "file":
                    raise FatalConnectorError(
                        f"{data.label}: the file is missing, with records of table {self._table.name!r}: restore "
                        "it, or write the table again with --full-refresh"
                    )
                yield from self._table.batches(data, schema)

        return batches

    def _staged_batches(self, schema: pa.Schema, names: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Read the batches staged since the last commit, in the table's columns or in the given ones."""
        missing = sorted(set(names or ()).difference(schema.names))
        if missing:
            raise FatalConnectorError(f"column {missing[0]!r} does not arrive, but the write needs it")
        schema = schema if names is None else pa.schema([schema.field(name) for name in names])
        for staged in self._staged:
            data = DataFile(self._table.storage, staged.name, schema=staged.schema)
            own = pa.schema([field for field in staged.schema if field.name in schema.names])
            for batch in self._table.format.read(data, own, frozenset(staged.schema.names)):
                yield conformed(batch, schema)

    def _rewritten(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> list[Staged]:
        staging = Output(self._begin, schema, self._layout)
        try:
            for batch in batches:
                self._call.check()
                if batch.num_rows:
                    staging.write(batch)
            return staging.finish()
        except BaseException:
            staging.abandon()
            raise

    def _refuse_strangers(self, manifest: Manifest) -> None:
        if manifest.schema is None and (found := self._table.strangers()):
            raise FatalConnectorError(
                f"{self._table.storage.label(found[0])} exists, but no ledger names it: only `write_disposition: "
                "replace` writes such a table",
                stream=self._load.key.stream,
            )

    def _after(self, manifest: Manifest, plan: _Plan, checkpoint: Checkpoint) -> Manifest:
        row = manifest.row(self._load.key)
        assert row is not None
        history = {} if self._history is None else self._history.kept(is_final=checkpoint.is_final)
        row = committed_row(row, self._load, checkpoint, written=self._written + self._records, history=history)
        files = _in_place(plan, manifest.files)
        after = replace(manifest, files=files, dead=plan.dead, schema=plan.schema, written=self._table.written)
        after = after.with_row(row)
        if not self._load.stream.read.tracks_files:
            return after
        is_anew = self._load.forgets_files and not self._has_committed
        if not checkpoint.files and not is_anew:
            return after
        if is_anew:
            after = after.with_read_list(self._load.key, ReadList())
        if not checkpoint.files:
            return after
        after, staged = self._table.with_files(after, self._load.key, checkpoint.files)
        self._made.append(staged)
        return after


def _history(load: Load) -> HistoryWrite:
    from .history import HistoryWrite  # which brings NumPy

    return HistoryWrite(load)


def _fitted(keys: pa.Table | None, schema: pa.Schema) -> pa.Table | None:
    """Return keys that are to be removed or marked in the types of the table."""
    if keys is None:
        return None
    own = pa.schema([schema.field(name).with_nullable(name in MARKS) for name in keys.schema.names])
    return pa.Table.from_batches([conformed(batch, own) for batch in keys.to_batches()], own)


def _count_marks(marked: pa.Table | None, name: str) -> int:
    """Return how many keys are newly marked as gone."""
    return 0 if marked is None else len(marked) - int(marked.column(name).null_count)


def _refuse_null(batch: pa.RecordBatch, keys: Iterable[str]) -> None:
    for name in keys:
        if batch.column(name).null_count:
            raise null_in_key(name)


def _names(files: Iterable[TableFile]) -> list[tuple[str, int, int]]:
    return [(file.name, file.records, file.size_bytes) for file in files]


def _in_place(plan: _Plan, present: Sequence[TableFile]) -> tuple[TableFile, ...]:
    """Return the planned files; under the lock, files that stay are in their final place."""
    kept, now = set(plan.based_on), {file.name: file for file in present}
    return tuple(now[file.name] if file in kept else file for file in plan.files)
