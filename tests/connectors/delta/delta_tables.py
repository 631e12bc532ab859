"""Look into Delta tables without the connector: by the library's SQL, or by the log and Parquet files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet
from deltalake import DeltaTable, QueryBuilder

#: First column of a table into which no data were committed.
PENDING = "_syncblocks_pending"


def opened(folder: Path, table: str) -> DeltaTable | None:
    """Return a table whose data were committed."""
    path = table_path(folder, table)
    found = None if path is None else DeltaTable(path.as_uri())
    return None if found is None or found.schema().fields[0].name == PENDING else found


def read_table(folder: Path, table: str) -> list[dict[str, Any]] | None:
    """Return the records of a table, as the library reads them; None: no data were committed."""
    found = opened(folder, table)
    if found is None:
        return None
    records: list[dict[str, Any]] = pa.table(QueryBuilder().register("t", found).execute("select * from t")).to_pylist()
    return records


def plain_table(folder: Path, table: str) -> list[dict[str, Any]] | None:
    """Return the records of a table by its log and files; None: no data were committed. The log must be whole."""
    path = table_path(folder, table)
    if path is None:
        return None
    columns, files = list[str](), dict[str, dict[str, Any]]()
    for commit in sorted((path / "_delta_log").glob("*.json")):
        for line in commit.read_text().splitlines():
            ((kind, action),) = json.loads(line).items()
            if kind == "metaData":
                columns = [field["name"] for field in json.loads(action["schemaString"])["fields"]]
            elif kind == "add":
                files[action["path"]] = action
            elif kind == "remove":
                del files[action["path"]]
    if columns[0] == PENDING:
        return None
    records = []
    for name, action in files.items():
        held = pa.parquet.read_table(path / unquote(name), partitioning=None).to_pylist()
        assert len(held) == json.loads(action["stats"])["numRecords"]
        records += [{key: {**record, **action["partitionValues"]}.get(key) for key in columns} for record in held]
    return records


def table_path(folder: Path, table: str) -> Path | None:
    """Return the folder of a table."""
    found = [path for path in (folder.iterdir() if folder.is_dir() else ()) if _name(path) == table]
    return next((path for path in found if (path / "_delta_log").is_dir()), None)


def table_names(folder: Path) -> set[str]:
    """Return the names of all tables."""
    return {_name(path) for path in folder.iterdir()} if folder.is_dir() else set()


def unnamed_files(folder: Path, table: str) -> set[str]:
    """Return the data files of a table that no commit has ever named, and what our own folder has but the ledger."""
    path = table_path(folder, table)
    if path is None:
        return set()
    log = "".join(each.read_text() for each in (path / "_delta_log").glob("*.json"))
    found = {each.name for each in path.glob("*.parquet") if each.name not in log}
    return found | {str(each.relative_to(path)) for each in path.glob("_syncblocks/written/*")}


def _name(path: Path) -> str:
    return unquote(path.name.replace("~", "%"))
