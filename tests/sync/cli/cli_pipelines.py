"""Small pipelines on disk for the tests of the command line: CSV or SQLite files to DuckDB."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb

PIPELINE = """\
pipeline: shop
source: {block: load, connector: csv, config: {path: data}}
destination: {block: export, connector: duckdb, config: {path: warehouse.duckdb}}
streams:
  - {stream: customers, key_properties: [id]}
  - stream: orders
    replication_method: INCREMENTAL
    bookmark_properties: [updated_at]
    key_properties: [id]
    destination_table: fact_orders
"""

CUSTOMERS = "id,name\n1,Ada\n2,Grace\n"
ORDERS = "id,customer_id,updated_at\n1,1,2024-01-01T10:00:00\n2,2,2024-01-02T11:30:00\n3,1,2024-01-03T09:15:00\n"

#: A transformer that stands still until somebody writes into the pipe beside it; `started` says that it does.
HANGING = """\
from pathlib import Path

@transformer
def hang(df):
    here = Path(__file__).parent
    with (here / "started").open("w") as file:
        file.write("x")
    with (here / "go").open() as file:
        file.read()
    return df
"""


def write_shop(folder: Path, *, extra: str = "", files: Mapping[str, str] | None = None) -> Path:
    """Write the pipeline, its data, and further files; return the pipeline file."""
    for name, text in {
        "data/customers.csv": CUSTOMERS,
        "data/orders.csv": ORDERS,
        "shop.yaml": PIPELINE + extra,
        **(files or {}),
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "shop.yaml"


def write_callback(folder: Path, text: str, settings: str = "") -> Path:
    """Write the shop with one callback block."""
    block = f"callbacks:\n  - {{block: alerts, file: alerts.py{', ' if settings else ''}{settings}}}\n"
    return write_shop(folder, extra=block, files={"alerts.py": text})


def write_hanging(folder: Path) -> Path:
    """Write the shop with a transformer that stands still in the stream `customers`."""
    block = "transformers:\n  - {block: hang, file: hang.py, streams: [customers]}\nconcurrency: 1\n"
    file = write_shop(folder, extra=block, files={"hang.py": HANGING})
    os.mkfifo(folder / "started")
    os.mkfifo(folder / "go")
    return file


def write_sqlite(folder: Path) -> Path:
    """Write a SQLite database with one table, and a pipeline that reads it."""
    with closing(sqlite3.connect(folder / "crm.sqlite")) as connection, connection:
        connection.execute("create table users (id integer primary key, name text not null)")
        connection.executemany("insert into users values (?, ?)", [(1, "Ada"), (2, "Grace")])
    connection.close()
    file = folder / "crm.yaml"
    file.write_text(
        "source: {connector: sqlite, config: {path: crm.sqlite}}\n"
        "destination: {connector: duckdb, config: {path: warehouse.duckdb}}\n"
        "streams: [{stream: users}]\n"
    )
    return file


def rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """Read back what was written, with DuckDB itself."""
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
        return connection.execute(query).fetchall()


def start(folder: Path, *args: str) -> subprocess.Popen[str]:
    """Start the command and leave it running."""
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("syncblocks")), *args],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_hanging(folder: Path) -> None:
    """Return when the transformer of `write_hanging` stands still."""
    (folder / "started").read_text()


def names(folder: Path) -> set[str]:
    """Everything below a folder, as relative paths."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}


def documents(text: str) -> list[dict[str, Any]]:
    """Return the JSON documents of an output, one a line."""
    return [json.loads(line) for line in text.splitlines()]
