"""The store's statements cost the same after many runs and with a long backlog: the steps of SQLite are counted."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from syncblocks.sync.store import Store, close, queue_sql
from tests.sync.store.store_helpers import attempt_plan, begin, outcome, stream_plan

NOW = "2026-01-01 00:00:00.000000"


def steps(connection: sqlite3.Connection, statement: str, values: dict[str, object]) -> int:
    return steps_of(connection, lambda: connection.execute(statement, values).fetchall())


def steps_of(connection: sqlite3.Connection, look: Callable[[], object]) -> int:
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1

    connection.set_progress_handler(count, 1)
    look()
    connection.set_progress_handler(None, 0)
    return counted


def copy_rows(connection: sqlite3.Connection, table: str, changes: dict[str, str], number: int) -> None:
    """Insert copies of a table's first row; `n` counts them."""
    names = [str(row[1]) for row in connection.execute(f"pragma table_info({table})")]
    listed = ", ".join(changes.get(name, name) for name in names)
    connection.execute(
        f"with recursive c (n) as (select 1 union all select n + 1 from c where n < {number}) "
        f"insert into {table} select {listed} from c, (select * from {table} limit 1)"
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with one run of one stream, and its deliveries."""
    path = tmp_path / "store.db"
    with Store.open(f"sqlite:///{path}") as store:
        stream = stream_plan("a")
        run = begin(store, attempt_plan([stream], ["stream"]))
        store.claim(run.id, ["a"])
        store.close_stream(run.id, outcome(stream))
    return path


@pytest.mark.parametrize("not_before", ["null", "'2025-01-01 00:00:00.000000'", "'2027-01-01 00:00:00.000000'"])
def test_a_look_at_a_queue_does_not_read_its_backlog(path: Path, not_before: str) -> None:
    values: dict[str, object] = {"pipeline": "p", "callback_block": "alerts", "now": NOW, "most_lost": 2**31}
    found = []
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("update _syncblocks_delivery set state = 'ready', is_open = true")
        changes = {
            "idempotency_key": "'key' || n || '/' || (select count(*) from _syncblocks_delivery)",
            "seq": "1000 + n",
            "not_before": not_before,
            "is_numbered": "true",
            "is_gated": "false",
        }
        looks = (queue_sql.DUE, queue_sql.LEASED, queue_sql.LOOK)
        for number in (20, 400):
            copy_rows(connection, "_syncblocks_delivery", changes, number)
            found.append([steps(connection, sql, values) for sql in looks])
    assert max(found[1]) < 300
    assert [after <= before * 1.1 for before, after in zip(*found, strict=True)] == [True] * 3


@pytest.mark.parametrize("pipeline", ["p", "q"], ids=["of the pipeline", "of another pipeline"])
def test_calls_and_dead_deliveries_are_found_without_reading_all_deliveries(path: Path, pipeline: str) -> None:
    found = []
    with closing(sqlite3.connect(path)) as connection, Store.open(f"sqlite:///{path}") as store:
        deliveries = store.outbox("p").deliveries
        (key,) = connection.execute("select idempotency_key from _syncblocks_delivery").fetchone()
        connection.execute("update _syncblocks_delivery set state = 'done', is_open = false")
        connection.execute(
            "insert into _syncblocks_delivery_try (idempotency_key, number, outcome, output, owner, started_at, "
            "ended_at, pipeline) values (?, 1, 'returned', '', 'o', ?, ?, 'p')",
            (key, NOW, NOW),
        )
        looks: list[Callable[[], object]] = [
            lambda: deliveries.history(limit=2),
            lambda: deliveries.find(key[:12]),
            lambda: deliveries.records(states=["dead", "ready", "leased"]),
            lambda: deliveries.retry(),
        ]
        for number in (20, 400):
            changes = {"idempotency_key": f"'{number}/' || n", "pipeline": f"'{pipeline}'"}
            copy_rows(connection, "_syncblocks_delivery", changes, number)
            copy_rows(connection, "_syncblocks_delivery_try", changes, number)
            connection.commit()
            with store._transactions.read() as reading:  # the store has one connection, which all of them use
                raw = reading._raw
            found.append([steps_of(raw, look) for look in looks])
    assert found[0][0] > 0
    assert [after <= before * 1.1 for before, after in zip(*found, strict=True)] == [True] * 4


def test_how_a_stream_ended_before_is_found_without_reading_all_runs(path: Path) -> None:
    values: dict[str, object] = {"pipeline": "p", "stream": "a", "run_id": 10_000, "number": 1}
    found = []
    with closing(sqlite3.connect(path)) as connection:
        copy_rows(connection, "_syncblocks_pipeline_run", {"id": "10000", "is_active": "false", "run_key": "'this'"}, 1)
        for start, number in ((100, 20), (1000, 400)):
            run = f"{start} + n"
            changes = {"id": run, "is_active": "false", "run_id": run, "run_key": f"'key' || ({run})"}
            copy_rows(connection, "_syncblocks_pipeline_run", changes, number)
            copy_rows(connection, "_syncblocks_stream_run", changes, number)
            copy_rows(connection, "_syncblocks_stream_run", {"run_id": run, "stream": "'b' || n"}, number)
            # Another pipeline has a stream of the same name, with newer runs.
            other = {"id": f"5000 + {run}", "run_id": f"5000 + {run}", "run_key": f"'q' || ({run})", "pipeline": "'q'"}
            copy_rows(connection, "_syncblocks_pipeline_run", {**changes, **other}, number)
            copy_rows(connection, "_syncblocks_stream_run", other, number)
            found.append(steps(connection, close._FORMER, values))
    assert found[1] <= found[0] * 1.1
