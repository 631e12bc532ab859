"""Rejected records where the destination is written through SQLAlchemy: savepoints, if its dialect has any."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from syncblocks.sync.config import load_pipeline
from syncblocks.sync.session.inspection import existing_store, opened
from syncblocks.sync.session.session import make_plan
from tests.sync.pipelines import Bench, statuses
from tests.sync.run.targets import Target, open_target
from tests.sync.run.test_rejected_constraints import TABLE, bench_of, inserted, record, remake, set_aside

# Firebird's own cursors complain about the order in which they are freed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Without(PGDialect_psycopg):
    """A dialect whose system has no savepoints."""

    supports_statement_cache = True

    def do_savepoint(self, connection: Any, name: str) -> None:
        raise NotImplementedError


class Pretending(PGDialect_psycopg):
    """A dialect whose system takes the words, and does nothing."""

    supports_statement_cache = True

    def do_savepoint(self, connection: Any, name: str) -> None:
        pass

    do_rollback_to_savepoint = do_release_savepoint = do_savepoint


registry.register("postgresql.without", __name__, "Without")
registry.register("postgresql.pretending", __name__, "Pretending")


@pytest.fixture
def firebird(tmp_path: Path) -> Iterator[Target]:
    with open_target("firebird", tmp_path) as opened:
        yield opened


def warnings(bench: Bench) -> str:
    pipeline = load_pipeline(bench.write())
    with opened(pipeline) as session, existing_store(pipeline) as store:
        return " ".join(make_plan(session, store).warnings)


@pytest.mark.parametrize("driver", ["without", "pretending"])
def test_without_savepoints_what_the_table_refuses_fails_the_stream(tmp_path: Path, driver: str) -> None:
    with open_target("psycopg", tmp_path) as target:
        bench = bench_of(tmp_path, target, "merge")
        bench.document["destination"]["config"]["url"] = target.url.replace("postgresql:", f"postgresql+{driver}:")
        remake(target, TABLE["postgres"])
        bench.seed("a", [record(2), record(3, n=-1), record(None)], key=())  # type: ignore[arg-type]
        warned = "keep` with sqlalchemy: records that a table refuses (constraints, types) fail the stream"
        # What pretends is found out by what it writes.
        assert (warned in warnings(bench)) is (driver == "without")
        result = bench.run()
        assert statuses(result) == {"a": "failure"}
        assert "violates check constraint" in (result.streams[0].error or "")
        bench.seed("a", [record(2), record(None)], key=())  # type: ignore[arg-type]
        assert statuses(bench.run()) == {"a": "success"}
        assert target.query("select id from a") == [(2,)]
        assert set_aside(target) == [None]


@pytest.mark.full
def test_the_plan_warns_of_nothing_where_there_are_savepoints(tmp_path: Path, firebird: Target) -> None:
    bench = bench_of(tmp_path, firebird, "merge")
    assert warnings(bench) == ""


@pytest.mark.full
def test_refused_records_are_kept_with_their_values(tmp_path: Path, firebird: Target) -> None:
    bench = bench_of(tmp_path, firebird, "append", on_lossy="cast")
    values = {
        "text": "it's \U0001f600 " + "long " * 2000,
        "is_it": True,
        "money": Decimal("12345678901234567890.1234"),
        "day": date(2024, 2, 29),
        "at": datetime(2024, 2, 29, 23, 59, 59, 123_000, tzinfo=UTC),
        "bytes": b"\0\xff",
        "ratio": 0.1,
        "nothing": None,
    }
    bench.seed("a", [{"id": 1, **values}])
    bench.document["streams"][0]["write_disposition"] = "replace"
    result = bench.run()
    assert statuses(result) == {"a": "success"}, result.streams[0].error
    firebird.query("alter table a add constraint few check (id < 10)")
    bench.document["streams"][0]["write_disposition"] = "append"
    bench.seed("a", [{"id": 2, **values}, {"id": 11, **values}])
    assert statuses(bench.run()) == {"a": "success"}
    ((found, reason),) = firebird.rejected()
    assert found == {
        "id": 11,
        **values,
        "money": "12345678901234567890.1234",
        "day": "2024-02-29",
        "at": "2024-02-29T23:59:59.123000+00:00",
        "bytes": "00ff",
    }
    assert "FEW" in reason


@pytest.mark.full
def test_a_table_that_others_refer_to_is_replaced_but_for_what_it_refuses(tmp_path: Path, firebird: Target) -> None:
    bench = bench_of(tmp_path, firebird, "replace")
    remake(
        firebird,
        TABLE["firebird"],
        *inserted("a", "1, 'v1', 1, 'u1'", "8, 'v8', 8, 'u8'"),
        "create table b (id bigint references a (id))",
        *inserted("b", 1),
    )
    bench.seed("a", [record(1, v="new"), *(record(number) for number in range(2, 9)), record(9, n=-1), record(10)])
    result = bench.run()
    assert statuses(result) == {"a": "success"}, result.streams[0].error
    kept = [(1, "new"), *((number, f"v{number}") for number in (*range(2, 9), 10))]
    assert firebird.query("select id, v from a order by id") == kept
    assert set_aside(firebird) == [9]


def test_what_a_trigger_raises_is_set_aside(tmp_path: Path, firebird: Target) -> None:
    bench = bench_of(tmp_path, firebird, "merge")
    firebird.query("create exception lock_of_a 'nothing past 5'")
    body = "begin if (new.id > 5) then exception lock_of_a; end"
    firebird.query(f"create trigger refuse before insert on a as {body}")
    bench.seed("a", [record(number) for number in range(1, 8)])
    result = bench.run()
    assert statuses(result) == {"a": "success"}, result.streams[0].error
    assert [number for (number,) in firebird.query("select id from a order by id")] == [1, 2, 3, 4, 5]
    assert set_aside(firebird) == [6, 7]


def test_what_the_driver_does_not_take_is_set_aside(tmp_path: Path) -> None:
    with open_target("psycopg", tmp_path) as target:
        bench = bench_of(tmp_path, target, "append")
        bench.seed("a", [record(number, v="a\0b" if number == 5 else "v") for number in range(2, 9)])
        result = bench.run()
        assert statuses(result) == {"a": "success"}, result.streams[0].error
        assert [number for (number,) in target.query("select id from a order by id")] == [1, 2, 3, 4, 6, 7, 8]
        assert target.rejected()[0][0] == record(5, v="a\0b")
