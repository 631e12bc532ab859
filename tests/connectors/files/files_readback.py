"""Looks at files of a destination through other readers: csv and json modules, DuckDB, pyarrow."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import re
from collections.abc import Callable
from contextlib import closing
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.parquet

LEDGER = "_syncblocks_ledger"


def tables(folder: Path) -> set[str]:
    """Return what a user sees in the folder, and what is staged."""
    if not folder.exists():
        return set()
    found = {re.sub(r"\.(csv|jsonl|parquet)(\.gz|\.zst)?$", "", path.name) for path in folder.iterdir()} - {LEDGER}
    staged = [path for path in (folder / LEDGER / "staging").rglob("*") if path.is_file()]
    return {unquote(name) for name in found} | {f"staged {path.name}" for path in staged}


def data_files(folder: Path, table: str, suffix: str) -> list[Path]:
    """Return the table's files as a plain glob finds them."""
    return sorted(
        path
        for path in folder.rglob(f"*{suffix}")
        if LEDGER not in path.parts and unquote(path.relative_to(folder).parts[0].removesuffix(suffix)) == table
    )


def read_csv(path: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    """Read with DuckDB, which tells an empty text from NULL."""
    names = _header(path)
    # Numbered columns: DuckDB takes names that differ in case for equal.
    columns = {f"c{place}": "VARCHAR" for place in range(len(names))}
    with closing(duckdb.connect()) as connection:
        rows = connection.execute(
            "select * from read_csv(?, all_varchar=true, header=true, delim=',', quote='\"', escape='\"', "
            "allow_quoted_nulls=false, auto_detect=false, strict_mode=true, columns=?, "
            "hive_partitioning=false)",
            [str(path), columns],
        ).fetchall()
    return [{name: typed(text, schema, name) for name, text in zip(names, row, strict=True)} for row in rows]


def _header(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        return next(csv.reader(file))


def read_jsonl(path: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    """Read with the json module."""
    opened: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="\n") as file:
        records = [json.loads(line, parse_float=str) for line in file]
    return [
        {
            name: typed(value if isinstance(value, str) or value is None else _text(value), schema, name)
            for name, value in record.items()
        }
        for record in records
    ]


def read_parquet(path: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    """Read with pyarrow."""
    records: list[dict[str, Any]] = pyarrow.parquet.read_table(path, partitioning=None).to_pylist()
    return records


def read_table(folder: Path, table: str, suffix: str, schema: pa.Schema) -> list[dict[str, Any]] | None:
    """Read all files of a table, columns united by name; None where there is no file."""
    reader = {".csv": read_csv, ".jsonl": read_jsonl, ".parquet": read_parquet}[suffix]
    files = data_files(folder, table, suffix)
    if not files:
        return None
    records = [record for path in files for record in reader(path, schema)]
    names = list(dict.fromkeys(name for record in records for name in record))
    return [{name: record.get(name) for name in names} for record in records]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def typed(text: str | None, schema: pa.Schema, name: str) -> Any:
    """Turn a text into the Python value of its column's type."""
    if text is None or name not in schema.names:
        return text
    kind = schema.field(name).type
    types = pa.types
    if types.is_boolean(kind):
        return {"true": True, "false": False}[text]
    if types.is_integer(kind):
        return int(text)
    if types.is_floating(kind):
        return float(text)
    if types.is_decimal(kind):
        assert "E" not in text
        return Decimal(text)
    if types.is_timestamp(kind):
        return datetime.fromisoformat(text)
    if types.is_date(kind):
        return date.fromisoformat(text)
    if types.is_time(kind):
        return time.fromisoformat(text)
    if types.is_binary(kind):
        return base64.b64decode(text, validate=True)
    return text
