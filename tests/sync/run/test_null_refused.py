"""NULL for a NOT NULL column of somebody else's table: the record is set aside, or the error names table and record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sync.pipelines import Bench, statuses
from tests.sync.run.targets import ALCHEMY, DESTINATIONS, Target, open_target

# Firebird's own cursors complain about the order in which they are freed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

#: No constraint but NOT NULL.
TABLE = dict.fromkeys(DESTINATIONS, "create table a (id bigint not null, v text not null, d integer)") | {
    "psycopg": "create table a (id bigint not null, v text not null, d integer)",
    "firebird": "create table a (id bigint not null, v blob sub_type text not null, d integer)",
}
DISPOSITIONS = ("replace", "append", "merge", "history", "replace_range")


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    with open_target(request.param, tmp_path) as opened:
        yield opened


def bench_of(folder: Path, target: Target, disposition: str) -> Bench:
    """Return a pipeline that has made its table, which its owner then lets refuse NULL."""
    bench = Bench(folder)
    stream = {"stream": "a", "write_disposition": disposition, "key_properties": ["id"]}
    if target.kind in ALCHEMY:
        stream["on_lossy"] = "text"
    if disposition == "replace_range":
        stream["range_column"] = "d"
    bench.document["destination"] = target.document
    bench.document["streams"] = [stream]
    bench.seed("a", [{"id": 1, "v": "x", "d": 1}])
    result = bench.run()
    assert statuses(result) == {"a": "success"}, result.streams[0].error
    if disposition == "history":
        make_strict(target)
    else:
        target.query("drop table a")
        target.query(TABLE[target.kind])
    return bench


def make_strict(target: Target) -> None:
    how = {
        "mysql": "alter table a modify v longtext not null",
        "duckdb": "alter table a alter column v set not null",
        "firebird": "alter table a alter v set not null",
    }
    if target.kind == "sqlite":
        target.query("create table b (id bigint, v text not null, d bigint, _valid_from text, _valid_to text)")
        target.query("insert into b select id, v, d, _valid_from, _valid_to from a")
        target.query("drop table a")
        target.query("alter table b rename to a")
        return
    target.query(how.get(target.kind, "alter table a alter column v set not null"))


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("target", [*DESTINATIONS, *ALCHEMY], indirect=True)
@pytest.mark.parametrize("disposition", DISPOSITIONS)
def test_a_record_with_null_is_set_aside_or_named(tmp_path: Path, target: Target, disposition: str) -> None:
    bench = bench_of(tmp_path, target, disposition)
    bench.seed("a", [{"id": number, "v": None if number == 7 else f"v{number}", "d": 2} for number in range(2, 20)])
    result = bench.run()
    error = result.streams[0].error or ""
    assert statuses(result) == {"a": "failure"}
    assert "_stg_" not in error
    for words in ("'v' of", "refuses NULL", "id = 7", "on_rejected: keep"):
        assert words in error, error
    bench.document["streams"][0] |= {"on_rejected": "keep", "max_rejected": 1}
    result = bench.run()
    assert statuses(result) == {"a": "success"}, result.streams[0].error
    ((record, reason),) = target.rejected()
    assert (record["id"], record["v"]) == (7, None)
    assert "v" in reason.lower()
    assert "_stg_" not in reason
    written = [number for number in range(2, 20) if number != 7]
    assert [number for (number,) in target.query("select id from a where d = 2 order by id")] == written


@pytest.mark.parametrize("target", ["postgres"], indirect=True)
@pytest.mark.parametrize("disposition", ["replace", "append"])
def test_records_that_are_copied_in_the_systems_own_form_are_named_too(
    tmp_path: Path, target: Target, disposition: str
) -> None:
    bench = Bench(tmp_path)
    target.query("create schema here; create table here.a (id bigint primary key, v text)")
    target.query("insert into here.a values (1, 'x'), (7, 'y')")
    bench.document["source"] = {"connector": "postgres", "config": {"url": target.url, "schema": "here"}}
    bench.document["destination"] = target.document
    bench.document["streams"] = [{"stream": "here.a", "write_disposition": disposition}]
    assert statuses(bench.run()) == {"here.a": "success"}
    target.query("alter table a alter v set not null; update here.a set v = null where id = 7")
    result = bench.run()
    assert statuses(result) == {"here.a": "failure"}
    error = result.streams[0].error or ""
    assert "_stg_" not in error
    assert "refuses NULL" in error
    assert "on_rejected: keep" in error
    assert disposition == "append" or "id = 7" in error
