"""Files of ours that no commit names: what killed processes have left in a table's folder."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from ..stream import LedgerKey
from .data_files import data_files
from .ledger import OURS, WRITTEN, is_app_id, row_file
from .table import LakeTable

if TYPE_CHECKING:
    from deltalake import DeltaTable


class Left(Struct, frozen=True, kw_only=True):
    """What is left in one table's folder."""

    #: Name below the table's folder -> bytes.
    files: Mapping[str, int]
    #: Tokens of the loads that have written them; none of these loads can commit.
    tokens: Collection[str]
    #: Ledger rows whose token such a load still has: it could commit.
    keys: Collection[LedgerKey]


def drop_written(lake: LakeTable, tokens: Collection[str]) -> None:
    """Delete the data files that loads with these tokens have written and not committed; none of them commits."""
    lists = [token for token in _tokens(lake) if token in tokens]
    if not lists:
        return
    named = _named(lake, lake.open())
    for token in lists:
        for file in _files(lake, token):
            if file not in named:
                lake.folder.delete(file)
        for name in (f"{_list(token)}.tmp", _list(token)):
            lake.folder.delete(name)


def left(lake: LakeTable, before: datetime) -> Left:
    """Look up what was written before a time, and is named by no commit; change nothing."""
    table, files, tokens = lake.open(), dict[str, int](), list[str]()
    for token in _tokens(lake):
        if (size := lake.folder.size_before(_list(token), before)) is None:
            continue
        named, found = _named(lake, table), dict[str, int]()
        for file in _files(lake, token):
            if file not in named and lake.folder.is_there(file):
                found |= {file: lake.folder.size_bytes(file)}
        files |= {_list(token): size, **found}
        tokens.append(token)
    for app in filter(is_app_id, lake.folder.names(OURS)):
        number = None if table is None else table.transaction_version(app)
        for name in lake.folder.names(f"{OURS}/{app}"):
            path = f"{OURS}/{app}/{name}"
            is_named = number is not None and path == row_file(app, number)
            if not is_named and (size := lake.folder.size_before(path, before)) is not None:
                files[path] = size
    rows = [held.row for held in lake.all_held(table)] if table is not None else []
    held_by = {row.token: row.key for row in rows if row is not None}
    keys = [held_by[token] for token in tokens if token in held_by]
    return Left(files=files, tokens=[token for token in tokens if token not in held_by], keys=keys)


def _tokens(lake: LakeTable) -> Iterator[str]:
    """Yield the tokens of the loads that have left a list of files, or the beginning of one."""
    yield from dict.fromkeys(name.partition(".")[0] for name in lake.folder.names(WRITTEN))


def _list(token: str) -> str:
    return f"{WRITTEN}/{token}.json"


def _files(lake: LakeTable, token: str) -> list[str]:
    data = lake.folder.read(_list(token))
    return [str(name) for name in json.loads(data)] if data else []


def _named(lake: LakeTable, table: DeltaTable | None) -> set[str]:
    """Return the data files that the log names, those included that were removed and that VACUUM will delete."""
    if table is None:
        return set()
    removed = table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=True)
    return {
        *(file.name for file in data_files(table)),
        *removed,
        *(name for held in lake.all_held(table) for name in held.added),
    }


__all__ = ["Left", "drop_written", "left"]
