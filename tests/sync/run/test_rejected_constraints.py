"""What a destination's own table refuses is set aside, whatever the write disposition; the rest arrives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sync.pipelines import Bench, statuses
from tests.sync.run.targets import ALCHEMY, DESTINATIONS, Target, open_target

# Firebird's own cursors complain about the order in which they are freed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

#: The table as somebody else has made it.
TABLE = {
    "sqlite": "create table a (id integer primary key, v text not null, n integer check (n > 0), u text unique)",
    "duckdb": "create table a (id bigint primary key, v varchar not null, n bigint check (n > 0), u varchar unique)",
    "postgres": "create table a (id bigint primary key, v text not null, n bigint check (n > 0), u text unique)",
    "mysql": "create table a (id bigint primary key, v longtext not null, n bigint check (n > 0), "
    "u varchar(99) unique) character set utf8mb4 collate utf8mb4_bin",
    "firebird": "create table a (id bigint primary key, v blob sub_type text not null, n bigint check (n > 0), "
    "u varchar(255) unique)",
}
TABLE["psycopg"] = TABLE["postgres"]


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    with open_target(request.param, tmp_path) as opened:
        yield opened


def record(number: int, **values: Any) -> dict[str, Any]:
    return {"id": number, "v": f"v{number}", "n": number, "u": f"u{number}", **values}


def bench_of(folder: Path, target: Target, disposition: str, **settings: Any) -> Bench:
    """Return a pipeline that has made its table, with record 1 in it."""
    bench = Bench(folder)
    bench.document["destination"] = target.document
    bench.document["streams"] = [
        {
            "stream": "a",
            "on_rejected": "keep",
            "key_properties": ["id"],
            "write_disposition": disposition,
            **settings,
        }
    ]
    bench.seed("a", [record(1)])
    result = bench.run()
    assert statuses(result) == {"a": "success"}, result.streams[0].error
    return bench


def remake(target: Target, *statements: str) -> None:
    """Put a table with constraints in the place of the one that the first run has made."""
    for sql in ("drop table a", *statements):
        target.query(sql)


def inserted(table: str, *records: object) -> list[str]:
    return [f"insert into {table} values ({values})" for values in records]


def set_aside(target: Target) -> list[int]:
    return sorted(found["id"] for found, _ in target.rejected())


@pytest.mark.full
@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("target", [*DESTINATIONS, *ALCHEMY], indirect=True)
@pytest.mark.parametrize("disposition", ["merge", "append", "replace"])
def test_what_the_targets_constraints_refuse_is_set_aside(tmp_path: Path, target: Target, disposition: str) -> None:
    bench = bench_of(tmp_path, target, disposition)
    remake(target, TABLE[target.kind], "insert into a values (1, 'v1', 1, 'u1')")
    bad = [record(10, v=None), record(20, n=-1), record(40, u="u39")]
    if disposition != "replace":
        bad.append(record(30, u="u1"))
    changed = {each["id"]: each for each in bad}
    bench.record_frames("stream")
    bench.seed("a", [changed.get(number, record(number)) for number in range(2, 60)])
    result = bench.run()
    assert statuses(result) == {"a": "success"}, result.streams[0].error
    kept = [number for number in range(1 if disposition != "replace" else 2, 60) if number not in changed]
    assert [number for (number,) in target.query("select id from a order by id")] == kept
    assert set_aside(target) == sorted(changed)
    by_id = {found["id"]: found for found, _ in target.rejected()}
    assert by_id[20] == changed[20]
    assert (result.streams[0].records, result.streams[0].records_rejected) == (58 - len(bad), len(bad))
    assert bench.calls("frames") == [["export", [n for n in range(2, 60) if n not in changed], 58 - len(bad)]]


@pytest.mark.one_of("target")
@pytest.mark.parametrize("target", [*DESTINATIONS, "firebird"], indirect=True)
def test_an_update_that_is_refused_leaves_the_old_record(tmp_path: Path, target: Target) -> None:
    bench = bench_of(tmp_path, target, "merge")
    remake(target, TABLE[target.kind], *inserted("a", "1, 'v1', 1, 'u1'", "2, 'v2', 2, 'u2'"))
    bench.seed("a", [record(1, n=-5, v="new"), record(2, v="new"), record(3)])
    assert statuses(bench.run()) == {"a": "success"}
    assert target.query("select id, v, n from a order by id") == [(1, "v1", 1), (2, "new", 2), (3, "v3", 3)]
    assert set_aside(target) == [1]


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("target", [*DESTINATIONS, "firebird"], indirect=True)
@pytest.mark.parametrize("is_new_one_bad", [True, False])
def test_of_records_with_one_key_the_last_that_fits_counts(
    tmp_path: Path, target: Target, is_new_one_bad: bool
) -> None:
    bench = bench_of(tmp_path, target, "merge")
    remake(target, TABLE[target.kind])
    twice = [record(5, v="first"), record(5, v="second")]
    twice[is_new_one_bad]["n"] = -1
    bench.seed("a", [record(2), *twice, record(9, n=0)], key=())
    assert statuses(bench.run()) == {"a": "success"}
    expected = "first" if is_new_one_bad else "second"
    assert target.query("select id, v from a order by id") == [(2, "v2"), (5, expected)]
    assert set_aside(target)[-1] == 9


@pytest.mark.one_of("target")
@pytest.mark.parametrize("target", [*DESTINATIONS, "firebird"], indirect=True)
def test_a_merge_that_ignores_known_keys_sets_aside_new_ones_only(tmp_path: Path, target: Target) -> None:
    bench = bench_of(tmp_path, target, "merge", unique_conflict_method="IGNORE")
    remake(target, TABLE[target.kind], "insert into a values (1, 'v1', 1, 'u1')")
    twice = [record(4, n=-1), record(4, v="fits"), record(4, v="later")]
    bench.seed("a", [record(1, v="new"), record(2, v="old"), record(3, n=-1), record(2, v="last"), *twice], key=())
    assert statuses(bench.run()) == {"a": "success"}
    assert target.query("select id, v from a order by id") == [(1, "v1"), (2, "old"), (4, "fits")]
    # A database may take the other one of key 4 for a known one: by then another one has its key.
    assert set_aside(target) in ([3], [3, 4])


@pytest.mark.one_of
@pytest.mark.parametrize("target", ["duckdb"], indirect=True)
@pytest.mark.parametrize("disposition", ["merge", "append"])
def test_a_text_that_an_enum_lacks_is_set_aside(tmp_path: Path, target: Target, disposition: str) -> None:
    bench = bench_of(tmp_path, target, disposition)
    remake(target, TABLE[target.kind].replace("v varchar not null", "v enum('v2', 'v4') not null"))
    bench.seed("a", [record(number) for number in (2, 3, 4)])
    result = bench.run()
    assert statuses(result) == {"a": "success"}, result.streams[0].error
    assert target.query("select id, v from a order by id") == [(2, "v2"), (4, "v4")]
    assert set_aside(target) == [3]


FOREIGN_KEYS = {
    kind: sql.replace("n bigint check (n > 0)", "n bigint references p (id)") for kind, sql in TABLE.items()
}
FOREIGN_KEYS["mysql"] = TABLE["mysql"].replace(
    "n bigint check (n > 0)", "n bigint, constraint p foreign key (n) references p (id)"
)


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("target", ["duckdb", "postgres", "mysql", "firebird"], indirect=True)
@pytest.mark.parametrize("disposition", ["merge", "append"])
def test_what_a_foreign_key_refuses_is_set_aside(tmp_path: Path, target: Target, disposition: str) -> None:
    bench = bench_of(tmp_path, target, disposition)
    remake(target, "create table p (id bigint primary key)", *inserted("p", 2, 3), FOREIGN_KEYS[target.kind])
    bench.seed("a", [record(2), record(3), record(4), record(5, n=None)])
    assert statuses(bench.run()) == {"a": "success"}
    assert [number for (number,) in target.query("select id from a order by id")] == [2, 3, 5]
    assert set_aside(target) == [4]


@pytest.mark.full
@pytest.mark.parametrize("target", ["postgres", "mysql", "firebird"], indirect=True)
def test_a_record_that_refers_to_a_later_one_of_its_table_is_kept(tmp_path: Path, target: Target) -> None:
    bench = bench_of(tmp_path, target, "merge")
    remake(target, FOREIGN_KEYS[target.kind].replace("references p", "references a"))
    chain = [record(number, n=number + 1) for number in range(2, 20)]
    bench.seed("a", [*chain, record(20, n=None), record(30, n=31), record(32, n=30)])
    assert statuses(bench.run()) == {"a": "success"}
    assert [number for (number,) in target.query("select id from a order by id")] == list(range(2, 21))
    assert set_aside(target) == [30, 32]


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("target", ["postgres", "psycopg"], indirect=True)
@pytest.mark.parametrize("disposition", ["merge", "append"])
def test_a_constraint_that_waits_for_the_commit_is_asked_before(
    tmp_path: Path, target: Target, disposition: str
) -> None:
    bench = bench_of(tmp_path, target, disposition)
    sql = TABLE["postgres"].replace(
        "n bigint check (n > 0)", "n bigint references p (id) deferrable initially deferred"
    )
    remake(target, "create table p (id bigint primary key)", "insert into p values (2)", sql)
    bench.seed("a", [record(2), record(3)])
    assert statuses(bench.run()) == {"a": "success"}
    assert set_aside(target) == [3]


@pytest.mark.one_of("target")
@pytest.mark.parametrize("target", ["postgres", "mysql", "sqlite", "firebird"], indirect=True)
def test_values_past_what_the_targets_columns_hold_are_set_aside(tmp_path: Path, target: Target) -> None:
    bench = bench_of(tmp_path, target, "merge")
    columns = {
        "postgres": "id bigint primary key, v varchar(5), n smallint, u text",
        "mysql": "id bigint primary key, v varchar(5), n smallint, u longtext",
        "firebird": "id bigint primary key, v varchar(255) check (char_length(v) <= 5), n smallint, u varchar(255)",
        "sqlite": "id integer primary key, v text check (length(v) <= 5), n integer check (n < 40000), u text",
    }
    remake(target, f"create table a ({columns[target.kind]})")
    bench.document["streams"][0]["on_schema_change"] = "evolve"
    bench.seed("a", [record(2), record(3, v="too long"), record(4, n=40000), record(5)])
    result = bench.run()
    assert statuses(result) == {"a": "success"}, result.streams[0].error
    assert {*set_aside(target), *(number for (number,) in target.query("select id from a"))} == {2, 3, 4, 5}


#: Column of PostgreSQL -> its type, a value of a rejected record, and what is kept of it.
_SHOWN = {
    "born": ("date", "0044-03-15 BC", "0044-03-15 BC"),
    "seen": ("timestamptz", "10000-01-02 03:04:05.5+00", "10000-01-02T03:04:05.5+00:00"),
    "pause": ("interval", "1 year 2 mons 3 days 04:05:06.000007", "1 year 2 mons 3 days 04:05:06.000007"),
    "within": ("int4range", "[1,5)", "[1,5)"),
    "flags": ("bit(3)", "101", "101"),
    "grade": ('"char"', "a", "a"),
    "place": ("point", "(1,2)", "(1,2)"),
    "paid": ("numeric(40,2)", "12345678901234567890.10", "12345678901234567890.10"),
}


@pytest.mark.parametrize("target", ["postgres"], indirect=True)
@pytest.mark.parametrize("disposition", ["replace", "append", "merge"])
def test_values_that_python_lacks_are_kept_in_full(tmp_path: Path, target: Target, disposition: str) -> None:
    columns = ", ".join(f"{name} {kind}" for name, (kind, _, _) in _SHOWN.items())
    target.query(f"create schema here; create table here.a (id bigint primary key, {columns})")
    bench = Bench(tmp_path)
    bench.document["source"] = {"connector": "postgres", "config": {"url": target.url, "schema": "here"}}
    bench.document["destination"] = target.document
    stream = {"stream": "here.a", "on_rejected": "keep", "write_disposition": disposition}
    if disposition == "merge":  # over the other driver
        stream |= {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
    bench.document["streams"] = [stream]
    assert statuses(bench.run()) == {"here.a": "success"}
    target.query("alter table a add check (id < 2)")
    target.query(f"insert into here.a values (2, {', '.join(f'{value!r}' for _, value, _ in _SHOWN.values())})")
    result = bench.run()
    assert statuses(result) == {"here.a": "success"}, result.streams[0].error
    ((found, _),) = target.rejected()
    assert found == {"id": 2, **{name: kept for name, (_, _, kept) in _SHOWN.items()}}


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("target", ["postgres", "psycopg"], indirect=True)
@pytest.mark.parametrize("disposition", ["merge", "append"])
def test_where_the_statement_itself_is_refused_no_record_is(tmp_path: Path, target: Target, disposition: str) -> None:
    bench = bench_of(tmp_path, target, disposition)
    body = "begin raise insufficient_privilege using message = 'nobody writes here'; end"
    target.query(f"create function no() returns trigger language plpgsql as '{body.replace(chr(39), chr(39) * 2)}'")
    target.query("create trigger no before insert on a for each row execute function no()")
    bench.seed("a", [record(2)])
    result = bench.run()
    assert statuses(result) == {"a": "failure"}
    assert "nobody writes here" in (result.streams[0].error or "")
    assert target.rejected() == []


@pytest.mark.parametrize("target", ["sqlite"], indirect=True)
def test_a_trigger_that_rolls_everything_back_fails_the_stream(tmp_path: Path, target: Target) -> None:
    bench = bench_of(tmp_path, target, "merge")
    body = "select raise(rollback, 'all or nothing') where new.n < 0"
    target.query(f"create trigger no before insert on a begin {body}; end")
    bench.seed("a", [record(2), record(3, n=-1)])
    assert statuses(bench.run()) == {"a": "failure"}
    assert target.query("select id from a") == [(1,)]
    assert target.rejected() == []


@pytest.mark.parametrize("target", ["postgres"], indirect=True)
def test_a_bad_record_among_many_takes_few_statements(tmp_path: Path, target: Target) -> None:
    bench = bench_of(tmp_path, target, "merge")
    remake(target, TABLE["postgres"], "create table calls (n bigint)", "insert into calls values (0)")
    body = "begin update calls set n = n + 1; return null; end"
    target.query(f"create function count_calls() returns trigger language plpgsql as '{body}'")
    target.query("create trigger counted after insert on a for each statement execute function count_calls()")
    bench.seed("a", [record(number, n=-1 if number == 7777 else number) for number in range(2, 10_002)])
    assert statuses(bench.run()) == {"a": "success"}
    assert set_aside(target) == [7777]
    ((calls,),) = target.query("select n from calls")
    assert calls <= 14, "one a half that fits: the logarithm of their number"
