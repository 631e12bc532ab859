"""A record that violates a unique index of the table is rejected, as one that violates a constraint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sync.pipelines import statuses
from tests.sync.run.targets import DESTINATIONS, Target, open_target
from tests.sync.run.test_rejected_constraints import bench_of, record, remake, set_aside

#: The table as somebody else has made it, before its indexes.
TABLE = {
    "sqlite": "create table a (id integer, v text, n integer, u text)",
    "duckdb": "create table a (id bigint, v varchar, n bigint, u varchar)",
    "postgres": "create table a (id bigint, v text, n bigint, u text)",
    "mysql": "create table a (id bigint, v longtext, n bigint, u varchar(99)) collate utf8mb4_bin",
}


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    with open_target(request.param, tmp_path) as opened:
        yield opened


def indexed(target: Target, *on: str) -> list[str]:
    return [TABLE[target.kind], *(f"create unique index i{place} on a ({columns})" for place, columns in enumerate(on))]


@pytest.mark.full
@pytest.mark.one_of("target")
@pytest.mark.parametrize(
    ("target", "disposition"),
    [("duckdb", "append"), ("duckdb", "replace"), *((kind, "merge") for kind in DESTINATIONS)],
    indirect=["target"],
)
def test_what_a_unique_index_refuses_is_set_aside(tmp_path: Path, target: Target, disposition: str) -> None:
    bench = bench_of(tmp_path, target, disposition)
    remake(target, *indexed(target, "id", "u", "n, u"), "insert into a values (1, 'v1', 1, 'u1')")
    bad = [record(40, u="u39")] if disposition == "replace" else [record(30, u="u1"), record(40, u="u39")]
    changed = {each["id"]: each for each in [*bad, record(50, u=None), record(51, u=None)]}
    bench.seed("a", [changed.get(number, record(number)) for number in range(2, 60)])
    result = bench.run()
    assert statuses(result) == {"a": "success"}, result.streams[0].error
    refused = [each["id"] for each in bad]
    kept = [each for each in range(1 if disposition != "replace" else 2, 60) if each not in refused]
    assert [number for (number,) in target.query("select id from a order by id")] == kept
    assert [found for found, _ in target.rejected()] == bad
    assert (result.streams[0].records, result.streams[0].records_rejected) == (58 - len(bad), len(bad))


@pytest.mark.one_of
@pytest.mark.parametrize("target", ["duckdb"], indirect=True)
@pytest.mark.parametrize("disposition", ["merge", "append", "replace"])
def test_an_index_of_expressions_refuses_what_they_give(tmp_path: Path, target: Target, disposition: str) -> None:
    bench = bench_of(tmp_path, target, disposition)
    sql = "create table a (id bigint, v varchar, n bigint, u varchar, \"odd, 'name'\" varchar)"
    remake(
        target,
        sql,
        "create unique index i0 on a (lower(a.u), (coalesce(\"odd, 'name'\", 'none, ''or \\ so') || n % 100))",
        "insert into a values (1, 'v1', 1, 'u1', null)",
    )
    bad = [record(3, u="U2", n=102)]
    if disposition != "replace":
        bad.append(record(4, u="U1", n=501))
    bench.seed("a", [record(2), *bad, record(5, u="U2"), record(6, u=None)])
    result = bench.run()
    assert statuses(result) == {"a": "success"}, result.streams[0].error
    assert set_aside(target) == [each["id"] for each in bad]
    reasons = {reason for _, reason in target.rejected()}
    assert len(reasons) == 1
    assert "unique index 'i0' on ((lower(u))" in reasons.pop()


@pytest.mark.parametrize("target", ["duckdb"], indirect=True)
def test_an_index_tells_texts_apart_that_a_collation_does_not(tmp_path: Path, target: Target) -> None:
    bench = bench_of(tmp_path, target, "append")
    sql = "create table a (id bigint unique, v varchar, n bigint, u varchar collate nocase unique)"
    indexes = ["create unique index i0 on a (u)", "create unique index i1 on a ((u || 'x'))"]
    remake(target, sql, *indexes, "insert into a values (1, 'v', 1, 'y')")
    bench.seed("a", [record(2, u="X"), record(3, u="x"), record(4, u="X"), record(5, u="Y"), record(6, u="y")])
    result = bench.run()
    assert statuses(result) == {"a": "success"}, result.streams[0].error
    assert set_aside(target) == [4, 6]


@pytest.mark.one_of
@pytest.mark.parametrize("target", ["duckdb"], indirect=True)
@pytest.mark.parametrize("is_constraint", [True, False])
def test_records_of_a_merge_may_swap_what_is_unique(tmp_path: Path, target: Target, is_constraint: bool) -> None:
    bench = bench_of(tmp_path, target, "merge")
    made = indexed(target, "u")
    if is_constraint:
        made = [TABLE["duckdb"].replace("u varchar", "u varchar unique")]
    remake(target, *made, "insert into a values (1, 'v', 1, 'u1'), (2, 'v', 2, 'u2'), (3, 'v', 3, 'u3')")
    bench.seed("a", [record(1, u="u2"), record(2, u="u1"), record(9, u="u3")])
    result = bench.run()
    assert statuses(result) == {"a": "success"}, result.streams[0].error
    assert target.query("select id, u from a order by id") == [(1, "u2"), (2, "u1"), (3, "u3")]
    assert set_aside(target) == [9]


@pytest.mark.one_of
@pytest.mark.parametrize("target", ["duckdb"], indirect=True)
@pytest.mark.parametrize("is_constraint", [True, False])
def test_an_older_record_that_comes_to_count_is_asked_again(
    tmp_path: Path, target: Target, is_constraint: bool
) -> None:
    """The last record of key 2 is refused, so the one before it counts, which stands in the way of record 3."""
    bench = bench_of(tmp_path, target, "merge")
    made = indexed(target, "u", "v")
    if is_constraint:
        made = [TABLE["duckdb"].replace("u varchar", "u varchar, unique (u), unique (v)")]
    remake(target, *made, "insert into a values (1, 'taken', 1, 'u1')")
    rows: list[dict[str, Any]] = [record(2, u="same"), record(3, u="same"), record(2, v="taken")]
    bench.seed("a", rows, key=())
    result = bench.run()
    assert statuses(result) == {"a": "success"}, result.streams[0].error
    assert target.query("select id, u from a order by id") == [(1, "u1"), (2, "same")]
    assert set_aside(target) == [2, 3]


@pytest.mark.parametrize("target", ["duckdb"], indirect=True)
def test_records_that_a_merge_leaves_out_stand_in_nobodys_way(tmp_path: Path, target: Target) -> None:
    bench = bench_of(tmp_path, target, "merge", unique_conflict_method="IGNORE")
    remake(target, *indexed(target, "u"), "insert into a values (1, 'v1', 1, 'u1')")
    bench.seed("a", [record(1, u="new"), record(2, u="new"), record(3, u="u1")])
    assert statuses(bench.run()) == {"a": "success"}
    assert target.query("select id, u from a order by id") == [(1, "u1"), (2, "new")]
    assert set_aside(target) == [3]


@pytest.mark.parametrize("target", ["duckdb"], indirect=True)
def test_a_table_that_others_refer_to_is_replaced_but_for_what_its_index_refuses(
    tmp_path: Path, target: Target
) -> None:
    bench = bench_of(tmp_path, target, "replace")
    remake(
        target,
        "create table a (id bigint primary key, v varchar, n bigint, u varchar)",
        "create unique index i0 on a (u)",
        "insert into a values (1, 'v1', 1, 'u1'), (8, 'v8', 8, 'u8')",
        "create table b (id bigint references a (id))",
    )
    bench.seed("a", [record(1), record(2), record(3, u="u2"), record(4)])
    result = bench.run()
    assert statuses(result) == {"a": "success"}, result.streams[0].error
    assert [number for (number,) in target.query("select id from a order by id")] == [1, 2, 4]
    assert set_aside(target) == [3]
