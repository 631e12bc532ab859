"""MySQL and MariaDB: a load killed at any of its commit points, the rename of a replaced table among them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from syncblocks.connectors.registry import make_destination
from syncblocks.connectors.stream import LedgerKey
from tests.connectors.mysql.mysql_databases import query, tables
from tests.connectors.mysql.mysql_databases import run as execute
from tests.contracts.embedded_worker import load_in_a_process
from tests.contracts.embedded_worker import main as load
from tests.contracts.test_embedded_crashes import DISPOSITIONS
from tests.zygote import Zygote

pytest.importorskip("pymysql")

#: Nobody else's: `drop_staging` drops what a token has staged in all databases of the server.
SECOND = f"second{secrets.token_hex(8)}"

KEY = LedgerKey(pipeline="p", stream="s", destination_table="people")
OURS = {"_syncblocks_ledger", "_syncblocks_swaps"}


@contextmanager
def fresh(url: str) -> Iterator[str]:
    """Make a database beside the test's, and drop it: a killed load's connection ends by itself."""
    name = f"syncblocks_{secrets.token_hex(8)}"
    execute(url, f"create database {name} character set utf8mb4")
    try:
        yield f"{url.rpartition('/')[0]}/{name}"
    finally:
        execute(url, f"drop database {name}")


def rows(url: str) -> list[tuple[Any, ...]]:
    return sorted(query(url, "select id, v from people")[1])


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("disposition", DISPOSITIONS)
def test_a_killed_load_is_made_good_by_the_next_one(
    zygote: Zygote, mariadb_url: str, disposition: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace"
    with fresh(mariadb_url) as url:
        load("mysql", url, disposition, "first", 0, 10)
        load_in_a_process(zygote, "mysql", url, disposition, SECOND, 5, 15, trace=trace)
    reached = trace.read_text().split()
    assert len(reached) >= 5, reached
    if disposition == "replace":
        assert {f"mysql.swap.{place}:1" for place in ("before", "inside", "after")} <= set(reached)
    for name in reached:
        with fresh(mariadb_url) as url:
            load("mysql", url, disposition, "first", 0, 10)
            killed = {"failpoint": f"{name}:kill"}
            assert load_in_a_process(zygote, "mysql", url, disposition, SECOND, 10, 20, **killed) != 0, name
            _check(url, disposition, name)


def _check(url: str, disposition: str, name: str) -> None:
    before = [(place, "first") for place in range(10)]
    destination = make_destination("mysql", {"url": url}, Path.cwd())
    # As recovery does it: the take-over waits for what is under way, and carries out what a commit decided.
    row = destination.take_over(KEY, token="recovery", owner="recovery")
    assert row.bookmark is not None
    low = row.bookmark["id"]
    arrived = [(place, SECOND) for place in range(10, low)]
    if disposition == "replace":
        assert rows(url) == (arrived or before), name
        assert len(arrived) in (0, 10), name
    else:
        assert rows(url) == [*before, *arrived], name
    assert (row.completed_by == SECOND) == (low == 20), name
    destination.drop_staging([SECOND])
    destination.close()
    assert tables(url) == {"people", *OURS}, name
    # The next run goes on from the bookmark, or from scratch; nothing is lost or there twice.
    start = 10 if disposition == "replace" else low
    load("mysql", url, disposition, "third", start, 20)
    assert [place for place, _ in rows(url)] == list(range(10 if disposition == "replace" else 0, 20)), name
    assert tables(url) == {"people", *OURS}, name
