"""Delta tables as a destination: data, bookmark and completion are one commit of the table, fenced by a token."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from ..arrow.fidelity import Kept
from ..errors import ConnectorConfigError, FatalConnectorError, taken_over
from ..interrupts import Calls
from ..local_files import demand_writable
from ..protocols import Capability
from ..read_spec import Condition
from ..settings import parse_settings
from ..stream import Block, Bookmark, Commit, Event, LedgerKey, LedgerRow, Load, Place, Stream, TableRecords, TableState
from ..struct_helpers import replace
from ..write_spec import WriteDisposition
from .data_files import GROUP_BYTES, demand_partitions
from .ledger import OURS, Held, app_id, app_ids_of
from .leftovers import drop_written, left
from .load import DeltaLoad
from .settings import DeltaSettings
from .storage import Root, folders, root_of, store_of, table_name, translated
from .table import LakeTable, Snapshot, Step
from .types import keeps, stored

#: With it in the environment, the library writes S3 without the conditional PUT.
_UNSAFE = "AWS_S3_ALLOW_UNSAFE_RENAME"
_OFF = ("", "0", "false", "off", "no", "n")

#: Writers that commit at once, and how often, to prove that a store takes only one of them.
_PROBES = _ROUNDS = 4

#: Bytes that a row group has at least in memory.
_LEAST_GROUP = 1 << 18


class DeltaDestination:
    """Writes one Delta table for each table, in a folder of its own."""

    connector: ClassVar[str] = "delta"
    settings: ClassVar[type[DeltaSettings]] = DeltaSettings
    has_ledger = True
    capabilities = frozenset(
        {
            Capability.KEEPS_FIRST,
            Capability.MARKS_RECORDS,
            Capability.REMOVES_RECORDS,
            Capability.UPDATES_ONLY,
        }
    )
    max_loads: int | None = None

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        self._settings = parse_settings(DeltaSettings, config, self.connector)
        self._root = root_of(self._settings, folder)
        self._calls = Calls()
        self._group_bytes = GROUP_BYTES

    def identity(self) -> str:
        """Return `delta:///path`, or `delta+s3://bucket/path`."""
        return f"delta://{self._root.label}" if self._root.local is not None else f"delta+{self._root.label}"

    def place(self) -> Place:
        """Tell a URL from a path of this machine."""
        return "anywhere" if self._root.local is None else "host"

    def limit_memory(self, size_bytes: int, *, is_strict: bool) -> None:
        """Give each of up to eight streams an equal part for its row groups."""
        self._group_bytes = max(_LEAST_GROUP, min(GROUP_BYTES, size_bytes // 8))

    def check(self) -> None:
        """Prove that tables can be written: of a store, that of writers of one version it takes one."""
        root = self._usable()
        if root.local is not None:
            if root.local.exists() and not root.local.is_dir():
                raise ConnectorConfigError(f"{root.local} is no folder", connector="delta", key="path")
            demand_writable(root.local)
            return
        _prove_conditional_put(root)

    def describe(self, tables: Sequence[str]) -> Mapping[str, TableState]:
        return {name: self._table(name).state() for name in tables}

    def rows_of(self, pipeline: str, tables: Sequence[str]) -> Sequence[LedgerRow]:
        """See `ListsLedger`: the tables of a folder are looked through, by the names of their rows' files."""
        found, start = list[LedgerRow](), app_ids_of(pipeline)
        for table in self._tables():
            if not any(name.startswith(start) for name in table.folder.names(OURS)):
                continue
            opened = table.open()
            rows = [held.row for held in table.all_held(opened)] if opened is not None else []
            found += [row for row in rows if row is not None and row.key.pipeline == pipeline]
        return found

    def keeps_latest(self, field: pa.Field) -> bool:
        """Compare as Arrow does; not the text of a type that Delta lacks."""
        return bool(stored(field.type) == field.type or pa.types.is_timestamp(field.type))

    def drops_deleted(self, condition: Condition) -> bool:
        """Compare as Arrow does; not the text of a type that Delta lacks."""
        return not condition.values or stored(condition.field.type) == condition.field.type

    def keeps(self, stream: Stream, table: TableState, disposition: WriteDisposition) -> Sequence[Kept]:
        """Return how each column is kept; REPLACE ignores the types of the old table."""
        is_new = table.schema is None or disposition is WriteDisposition.REPLACE
        return keeps(stream.schema, table, is_new=is_new)

    def accepts(self, stream: Stream, disposition: WriteDisposition) -> Sequence[str]:
        """See `Destination`."""
        kinds = [pa.field(field.name, stored(field.type) or field.type) for field in stream.schema]
        demand_partitions(self._settings.partition_by, pa.schema(kinds))
        return ("arrow",)

    def take_over(self, key: LedgerKey, *, token: str, owner: str, source: str | None = None) -> LedgerRow:
        former = set[str]()

        def taken(found: Snapshot | None) -> Step:
            held = None if found is None else found.held
            if held is not None and held.row is not None:
                former.add(held.row.token)
            row = (None if held is None else held.row) or LedgerRow(key=key, source="", token=token)
            row = replace(row, token=token, owner=owner, source=row.source if source is None else source)
            if held is None or held.row is None:
                return Step(held=Held(row=row), is_mark=True)
            return Step(held=replace(held, row=row))

        table = self._table(key.destination_table)
        with self._calls.under_way(key.stream) as call, translated(table.folder.label):
            row = table.commit(key, taken, call.check).row
            opened = table.open()
            number = None if opened is None else opened.transaction_version(app_id(key))
            if number is not None:
                table.clean(app_id(key), number)
            drop_written(table, former - {token})
        assert row is not None
        return row

    def set_bookmark(self, key: LedgerKey, bookmark: Bookmark | None, *, forget: bool = False) -> None:
        def changed(found: Snapshot | None) -> Step:
            if forget:
                return Step(held=Held(row=None), is_mark=True)
            token, held = secrets.token_hex(16), None if found is None else found.row
            row = held or LedgerRow(key=key, source="", token=token)
            rows = None if bookmark is None else row.rows
            return Step(held=Held(row=replace(row, token=token, bookmark=bookmark, rows=rows)), is_mark=True)

        table = self._table(key.destination_table)
        with self._calls.under_way(key.stream) as call, translated(table.folder.label):
            if not forget or table.open() is not None:
                table.commit(key, changed, call.check)

    def note_log(self, key: LedgerKey, token: str, log: Mapping[str, Any]) -> None:
        """See `NotesLog`."""

        def noted(found: Snapshot | None) -> Step:
            held = None if found is None else found.held
            if held is None or held.row is None or held.row.token != token:
                raise taken_over(key.stream, held.row.owner if held and held.row else "")
            return Step(held=replace(held, row=replace(held.row, log=dict(log))))

        table = self._table(key.destination_table)
        with self._calls.under_way(key.stream) as call, translated(table.folder.label):
            table.commit(key, noted, call.check)

    def load(self, load: Load, events: Iterator[Event | Block], wire: str = "arrow") -> Iterator[Commit]:
        if wire != "arrow":
            raise ConnectorConfigError(f"connector {self.connector!r} takes no wire {wire!r}", connector=self.connector)
        table = self._table(load.key.destination_table)
        with self._calls.under_way(load.key.stream) as call:
            yield from DeltaLoad(table, load, call, self._settings.partition_by, self._group_bytes).run(events)

    def examine(self, table: str, key: Sequence[str], bookmark: Sequence[str]) -> TableRecords:
        """See `ExaminesTables`; Delta knows no indexes, and a merge needs none."""
        from .examined import examined

        found = self._table(table)
        with translated(found.folder.label):
            opened = found.open()
            if opened is None:
                raise FatalConnectorError(f"{found.folder.label} is no Delta table")
            return examined(opened, key, bookmark)

    def drop_staging(self, tokens: Sequence[str]) -> None:
        """Delete the data files that loads of dead runs have written and not committed."""
        for table in self._tables():
            with translated(table.folder.label):
                drop_written(table, tokens)

    def leftovers(self, before: datetime, *, is_removing: bool = False) -> Mapping[str, int]:
        """See `ListsLeftovers`. A load that could still commit is fenced before its files are deleted."""
        found = dict[str, int]()
        for table in self._tables():
            with translated(table.folder.label):
                left_here = left(table, before)
                found |= {f"{table.folder.label}/{name}": size for name, size in left_here.files.items()}
                if is_removing:
                    for key in left_here.keys:
                        self.take_over(key, token=secrets.token_hex(16), owner="recover")
                    drop_written(table, left_here.tokens)
                    for name in left(table, before).files:
                        table.folder.delete(name)
        return found

    def interrupt(self, stream: str) -> None:
        self._calls.interrupt(stream)

    def close(self) -> None:
        """Nothing stays open: files are open only while they are written."""

    def _usable(self) -> Root:
        if self._root.local is None and os.environ.get(_UNSAFE, "").lower() not in _OFF:
            text = f"{_UNSAFE} is set: two runs would overwrite each other's commits; unset it"
            raise ConnectorConfigError(text, connector="delta", key="path")
        return self._root

    def _table(self, name: str) -> LakeTable:
        return LakeTable(self._usable(), name, self._settings.partition_by)

    def _tables(self) -> Iterator[LakeTable]:
        """Yield the folders that may be tables."""
        with translated(self._root.label):
            names = [table_name(folder) for folder in folders(self._usable())]
        for name in names:
            if name is not None:
                yield self._table(name)


def _prove_conditional_put(root: Root) -> None:
    """Let several writers commit one version of a table at once, which is deleted afterwards; raise if two of them did.

    One after the other would prove nothing: the library looks for a newer version before it writes.
    """
    from concurrent.futures import ThreadPoolExecutor

    from deltalake import CommitProperties, DeltaTable
    from deltalake.exceptions import CommitFailedError

    uri = f"{root.uri}/{OURS}_check_{secrets.token_hex(8)}"
    options, once = dict(root.options), CommitProperties(max_commit_retries=0)

    def commits(table: DeltaTable) -> bool:
        try:
            table.create_write_transaction([], "append", table.schema(), commit_properties=once)
        except CommitFailedError:
            return False
        return True

    with translated(root.label), ThreadPoolExecutor(_PROBES) as pool:
        try:
            DeltaTable.create(uri, pa.schema([("x", pa.int64())]), storage_options=options)
            for _ in range(_ROUNDS):
                writers = [DeltaTable(uri, storage_options=options) for _ in range(_PROBES)]
                if sum(pool.map(commits, writers)) > 1:
                    raise ConnectorConfigError(
                        f"{root.label}: the store took one commit twice, since it knows no conditional PUT "
                        "(If-None-Match): two runs would overwrite each other's commits; use a store that does",
                        connector="delta",
                        key="path",
                    )
        finally:
            store = store_of(root, uri)
            for version in range(_ROUNDS + 1):
                with suppress(FileNotFoundError):
                    store.delete_file(f"_delta_log/{version:020}.json")


__all__ = ["DeltaDestination"]
