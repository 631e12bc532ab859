"""What is read from a bookmark is one decision: each kind of source finds the same records, or refuses the same."""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.protocols import Source
from syncblocks.connectors.read_spec import NullBookmarks, ReplicationMethod
from syncblocks.connectors.registry import make_source
from syncblocks.connectors.struct_helpers import replace

ROWS = [(1, 20), (2, None), (3, 7), (4, 21), (5, -3), (6, 20), (7, None)]
#: From scratch, from a value, and after a run that has met no value yet.
BOOKMARKS: tuple[dict[str, Any] | None, ...] = (None, {"mark": 20}, {"mark": None})
#: `lookback`, the last of which leads below all values, and `is_above_bookmark`.
BOUNDS = ((None, False), (None, True), (15, False), (1e30, False))


def found(source: Source) -> list[object]:
    """Read by each rule, and return what came."""
    (stream,) = source.discover()
    read = replace(stream.read, method=ReplicationMethod.INCREMENTAL, bookmark_properties=("mark",), may_repeat=True)
    results: list[object] = []
    for rule, (lookback, is_above), bookmark in itertools.product(NullBookmarks, BOUNDS, BOOKMARKS):
        how = replace(read, null_bookmarks=rule, lookback=lookback, is_above_bookmark=is_above)
        one = replace(stream, read=how)
        case = (rule.value, lookback, bookmark, is_above)
        try:
            events = [event for _, event in source.read([one], {one.name: bookmark})]
        except FatalConnectorError as error:
            results.append((case, str(error).partition(":")[0]))
            continue
        batches = [event for event in events if isinstance(event, pa.RecordBatch)]
        ids = [number for batch in batches for number in batch.column("id").to_pylist()]
        results.append((case, sorted(ids)))
    return results


@pytest.mark.one_of("connector")
@pytest.mark.parametrize("connector", ["sqlite", "sqlalchemy", "duckdb"])
def test_a_database_finds_what_is_found_in_memory(connector: str, tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    table, insert = "create table t (id bigint not null, mark bigint)", "insert into t values (?, ?)"
    if connector == "duckdb":
        with duckdb.connect(path) as connection:
            connection.execute(table).executemany(insert, ROWS)
    else:
        with closing(sqlite3.connect(path)) as opened, opened:
            opened.execute(table)
            opened.executemany(insert, ROWS)
    records = [dict(zip(("id", "mark"), row, strict=True)) for row in ROWS]
    tables = {"t": {"columns": {"id": "int64", "mark": "int64"}, "records": records}}
    memory = make_source("memory", {"tables": tables}, tmp_path)
    config = {"url": f"sqlite:///{path}"} if connector == "sqlalchemy" else {"path": path}
    with closing(make_source(connector, config, tmp_path)) as source:
        assert found(source) == found(memory)
