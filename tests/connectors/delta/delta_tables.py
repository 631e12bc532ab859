"""Look into Delta tables without the connector."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder


def opened(folder: Path, table: str) -> DeltaTable | None:
    """Return a table whose data were committed."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _name(path) == table and (path / "_delta_log").is_dir():
            found = DeltaTable(path.as_uri())
            return None if found.schema().fields[0].name.startswith("_syncblocks") else found
    return None


def read_table(folder: Path, table: str) -> list[dict[str, Any]] | None:
    """Return the records of a table, as the library reads them; None: no data were committed."""
    found = opened(folder, table)
    if found is None:
        return None
    records: list[dict[str, Any]] = pa.table(QueryBuilder().register("t", found).execute("select * from t")).to_pylist()
    return records


def table_names(folder: Path) -> set[str]:
    """Return the names of all tables."""
    return {_name(path) for path in folder.iterdir()} if folder.is_dir() else set()


def _name(path: Path) -> str:
    return unquote(path.name.replace("~", "%"))
