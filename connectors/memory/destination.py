"""Writes tables in memory, with a ledger."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..arrow.fidelity import Kept
from ..errors import Interrupted, TableLost, taken_over
from ..failpoints import failpoint
from ..protocols import Capability
from ..read_spec import Condition
from ..rejected.limits import Rejections, may_come_again
from ..rejected.records import rejections
from ..settings import parse_settings
from ..stream import (
    Block,
    Bookmark,
    Checkpoint,
    Commit,
    Event,
    FileRead,
    LedgerKey,
    LedgerRow,
    Load,
    Place,
    Rejected,
    RejectedRecord,
    Stream,
    TableState,
    committed_row,
)
from ..struct_helpers import replace
from ..write_spec import WriteDisposition
from .database import Knob, MemoryCalls, database, from_block
from .settings import MemoryDestinationSettings
from .writing import changes, keys_of, removed_records, replaced_records, written_table


class MemoryDestination:
    """Writes tables and the ledger of a `MemoryDatabase`."""

    settings = MemoryDestinationSettings
    has_ledger = True
    capabilities = frozenset(
        {
            Capability.KEEPS_FIRST,
            Capability.MARKS_RECORDS,
            Capability.REMOVES_RECORDS,
            Capability.REPLACES_RANGES,
            Capability.UPDATES_ONLY,
            Capability.FILLS_COLUMNS,
            Capability.MERGES_BY_UNIQUE,
        }
    )

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        self._settings = parse_settings(MemoryDestinationSettings, config, "memory")
        self._database = database(self._settings.database)
        self._calls = MemoryCalls()
        self.max_loads = self._settings.max_loads

    def identity(self) -> str:
        return f"memory://{self._settings.database}"

    def place(self) -> Place:
        """Its tables are in this process."""
        return "process"

    def check(self) -> None:
        """There is nothing to reach."""

    def describe(self, tables: Sequence[str]) -> Mapping[str, TableState]:
        with self._database.lock:
            return {name: self._state(name) for name in tables}

    def rows_of(self, pipeline: str, tables: Sequence[str]) -> Sequence[LedgerRow]:
        """See `ListsLedger`: there is one ledger."""
        with self._database.lock:
            return [row for key, row in self._database.ledger.items() if key.pipeline == pipeline]

    def keeps_rejected(self) -> str:
        """Keep them all."""
        return ""

    def drops_deleted(self, condition: Condition) -> bool:
        """Compare as Arrow does."""
        return True

    def keeps_latest(self, field: pa.Field) -> bool:
        """See `KeepsLatest`."""
        return True

    def keeps(self, stream: Stream, table: TableState, disposition: WriteDisposition) -> Sequence[Kept]:
        held = {} if table.schema is None else {field.name: str(field.type) for field in table.schema}
        return [
            Kept(column=field.name, type=str(field.type), arrow=field.type, held=held.get(field.name))
            for field in stream.schema
        ]

    def accepts(self, stream: Stream, disposition: WriteDisposition) -> Sequence[str]:
        return (*self._settings.wires, "arrow")

    def take_over(self, key: LedgerKey, *, token: str, owner: str, source: str | None = None) -> LedgerRow:
        with self._database.lock:
            row = self._database.ledger.get(key) or LedgerRow(key=key, source="", token=token)
            row = replace(row, token=token, owner=owner, source=row.source if source is None else source)
            self._database.ledger[key] = row
            return row

    def set_bookmark(self, key: LedgerKey, bookmark: Bookmark | None, *, forget: bool = False) -> None:
        with self._database.lock:
            if forget or bookmark is None:
                self._database.files.pop(key, None)
            if forget:
                self._database.ledger.pop(key, None)
                return
            token = secrets.token_hex(16)
            row = self._database.ledger.get(key) or LedgerRow(key=key, source="", token=token)
            rows = None if bookmark is None else row.rows
            self._database.ledger[key] = replace(row, token=token, bookmark=_as_json(bookmark), rows=rows)

    def note_log(self, key: LedgerKey, token: str, log: Mapping[str, Any]) -> None:
        """See `NotesLog`."""
        with self._database.lock:
            row = self._database.ledger.get(key)
            if row is None or row.token != token:
                raise taken_over(key.stream, row.owner if row else "")
            self._database.ledger[key] = replace(row, log=_as_json(log) or {})

    def files_read(self, key: LedgerKey) -> Sequence[FileRead]:
        """See `KeepsFiles`."""
        with self._database.lock:
            return list(self._database.files.get(key, {}).values())

    def forget_files(self, key: LedgerKey, paths: Collection[str]) -> None:
        """See `KeepsFiles`."""
        with self._database.lock:
            self.take_over(key, token=secrets.token_hex(16), owner="set by hand")
            for path in paths:
                self._database.files.get(key, {}).pop(path, None)

    def load(self, load: Load, events: Iterator[Event | Block], wire: str = "arrow") -> Iterator[Commit]:
        place = (load.key.destination_table, load.token)
        with self._calls.under_way([load.key.stream]) as interrupted:
            try:
                yield from self._load(load, events, interrupted, self._database.staging.setdefault(place, []))
            finally:
                self._database.staging.pop(place, None)

    def drop_staging(self, tokens: Sequence[str]) -> None:
        with self._database.lock:
            for place in [place for place in self._database.staging if place[1] in tokens]:
                del self._database.staging[place]

    def interrupt(self, stream: str) -> None:
        self._calls.interrupt(stream)

    def close(self) -> None:
        """There is nothing to close."""

    def _state(self, name: str) -> TableState:
        table = self._database.tables.get(name)
        rows = tuple(row for key, row in self._database.ledger.items() if key.destination_table == name)
        is_table = name not in self._database.views
        schema = None if table is None else table.schema
        return TableState(
            schema=schema,
            ledger=rows,
            is_table=is_table,
            is_empty=table is not None and not table.num_rows,
            stream_name=name,
        )

    def _load(
        self, load: Load, events: Iterator[Event | Block], interrupted: threading.Event, staged: list[pa.RecordBatch]
    ) -> Iterator[Commit]:
        schema, batches, written = load.stream.schema, 0, 0
        kept = Rejections(load.write.max_rejected or 0, load.write.max_rejected_percent)
        for event in events:
            if interrupted.is_set():
                raise Interrupted(f"loading {load.key.stream!r} was interrupted", stream=load.key.stream)
            if isinstance(event, Stream):
                schema = event.schema
            elif isinstance(event, Checkpoint):
                self._reject_by_key(load, staged, kept)
                kept.judge(sum(batch.num_rows for batch in staged))
                if may_come_again(load, kept.records):
                    known = [each for stream, _, each in self._database.rejected if stream == load.key.stream]
                    kept.leave_out({(each.place, each.record) for each in known})
                commit = self._commit(load, schema, staged, event, interrupted, written, kept.records)
                load = replace(load, forgets_files=False)
                staged.clear()
                kept.written()
                written += commit.records
                yield replace(commit, refused=kept.take_refused())
            elif isinstance(event, Rejected):
                kept.add(event.records, is_of_source=True)
            else:
                batches += 1
                knob = Knob("destination", self._settings.fail_kind, self._settings.fail_times)
                knob.turn(self._database, load.key.stream, self._settings.fail_on.get(load.key.stream) == batches)
                staged.append(event if isinstance(event, pa.RecordBatch) else from_block(event))

    def _commit(
        self,
        load: Load,
        schema: pa.Schema,
        staged: Sequence[pa.RecordBatch],
        checkpoint: Checkpoint,
        interrupted: threading.Event,
        written: int,
        rejected: Sequence[RejectedRecord],
    ) -> Commit:
        name = load.key.destination_table
        records = 0 if load.fills else sum(batch.num_rows for batch in staged)
        failpoint("memory.commit.before")
        with self._database.lock:
            if interrupted.wait(self._settings.delay_commit_s):
                raise Interrupted(f"loading {load.key.stream!r} was interrupted", stream=load.key.stream)
            row = self._database.ledger.get(load.key)
            if row is None or row.token != load.token:
                raise taken_over(load.key.stream, row.owner if row else "")
            old = self._database.tables.get(name)
            if old is None and (load.begun_in is not None or written):
                raise TableLost(f"table {name!r} was dropped since it was last written", stream=load.key.stream)
            table = written_table(load, schema, staged, old, checkpoint, rejected)
            row = committed_row(row, load, checkpoint, written=written + records, history={})
            changed = changes(old, table)
            if changed:
                load.announce(checkpoint, changed)
            failpoint("memory.commit.inside")
            self._database.tables[name], self._database.ledger[load.key] = table, row
            if load.forgets_files:
                self._database.files.pop(load.key, None)
            files = self._database.files.setdefault(load.key, {})
            files.update({each.path: each._replace(is_changed=False) for each in checkpoint.files})
            self._database.rejected += [(load.key.stream, load.run, each) for each in rejected]
            if load.write.disposition is WriteDisposition.MERGE:
                self._database.keys[name] = load.stream.key_properties
        failpoint("memory.commit.after")
        return Commit(
            checkpoint=checkpoint,
            records=records,
            size_bytes=sum(batch.nbytes for batch in staged),
            schema_changes=changed,
            rejected=len(rejected),
            removed=removed_records(load, old) if checkpoint.is_final else 0,
            replaced=replaced_records(load, staged, old),
        )

    def _reject_by_key(self, load: Load, staged: list[pa.RecordBatch], kept: Rejections) -> None:
        """Reject records without a key and, in a REPLACE, all but the first record of a key."""
        if load.write.max_rejected is None or load.write.disposition is WriteDisposition.APPEND:
            return
        known: set[tuple[Any, ...]] = set()
        for place, batch in enumerate(staged):
            for name in load.stream.key_properties:
                is_null = batch.column(name).is_null()
                kept.add(rejections(batch.filter(is_null), f"column {name!r}: NULL in the key"))
                batch = batch.filter(pc.invert(is_null))
            is_unique = load.write.disposition in (WriteDisposition.REPLACE, WriteDisposition.REPLACE_RANGE)
            if is_unique and load.stream.key_properties:
                keys = keys_of(batch, load.stream.key_properties)
                is_new = pa.array(
                    [key not in known and keys.index(key) == at for at, key in enumerate(keys)], pa.bool_()
                )
                known.update(keys)
                kept.add(rejections(batch.filter(pc.invert(is_new)), "another record has the same key"))
                batch = batch.filter(is_new)
            staged[place] = batch


def _as_json(bookmark: Bookmark | None) -> Bookmark | None:
    """Copy a bookmark as a real ledger does: as JSON."""
    return json.loads(json.dumps(bookmark, allow_nan=False)) if bookmark is not None else None
