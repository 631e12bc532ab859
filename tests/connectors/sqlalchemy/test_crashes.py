"""`sqlalchemy`: a load killed at any of its commit points, over psycopg's dialect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from syncblocks.connectors.registry import make_destination
from syncblocks.connectors.stream import LedgerKey
from tests.contracts.embedded_worker import load_in_a_process
from tests.contracts.embedded_worker import main as load
from tests.zygote import Zygote

KEY = LedgerKey(pipeline="p", stream="s", destination_table="people")


def ask(url: str, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


def tables(url: str) -> set[str]:
    return {name for (name,) in ask(url, "select tablename::text from pg_tables where schemaname = 'public'")}


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("disposition", ["merge", "replace"])  # an append is committed as a merge is
def test_a_killed_load_is_made_good_by_the_next_one(
    zygote: Zygote, postgres_url: str, disposition: str, tmp_path: Path
) -> None:
    url, trace = postgres_url.replace("postgresql://", "postgresql+psycopg://"), tmp_path / "trace"
    load("sqlalchemy", url, disposition, "first", 0, 10)
    load_in_a_process(zygote, "sqlalchemy", url, disposition, "second", 5, 15, trace=trace)
    reached = trace.read_text().split()
    assert len(reached) >= 5, reached
    for name in reached:
        ask(postgres_url, "drop table people, _syncblocks_ledger")
        load("sqlalchemy", url, disposition, "first", 0, 10)
        killed = {"failpoint": f"{name}:kill"}
        assert load_in_a_process(zygote, "sqlalchemy", url, disposition, "second", 10, 20, **killed) != 0, name
        destination = make_destination("sqlalchemy", {"url": url}, tmp_path)
        row = destination.take_over(KEY, token="recovery", owner="recovery")
        destination.drop_staging(["second"])
        destination.close()
        assert row.bookmark is not None
        low = row.bookmark["id"]
        before = [(place, "first") for place in range(10)]
        arrived = [(place, "second") for place in range(10, low)]
        expected = (arrived or before) if disposition == "replace" else [*before, *arrived]
        assert ask(postgres_url, "select id, v from people order by id") == expected, name
        assert (row.completed_by == "second") == (low == 20), name
        assert tables(postgres_url) == {"people", "_syncblocks_ledger"}, name
