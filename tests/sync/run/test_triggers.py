"""Triggers of a destination table: a replace fires them for what has changed, `plan` names them, errors do, too."""

from __future__ import annotations

import json

import pytest

from syncblocks.connectors.duckdb.database import has_triggers
from tests.conftest import RunCLI
from tests.sync.run.test_replace_keys import Bench, on
from tests.sync.run.test_replace_keys import bench as bench

#: Writes down what happens to each record of `items`.
NOTING = {
    "postgres": (
        "create table fired (what text)",
        "create function note() returns trigger language plpgsql as "
        "$$ begin insert into fired values (lower(tg_op)); return null; end $$",
        "create trigger noting after insert or update or delete on items for each row execute function note()",
    ),
    "mysql": (
        "create table fired (what text)",
        *(
            f"create trigger noting_{what} after {what} on items for each row insert into fired values ('{what}')"
            for what in ("insert", "update", "delete")
        ),
    ),
    "duckdb": (
        "create table fired (what text)",
        *(
            f"create trigger noting_{what} after {what} on items referencing {rows} table as r for each statement "
            f"insert into fired select '{what}' from r"
            for what, rows in (("insert", "new"), ("update", "new"), ("delete", "old"))
        ),
    ),
    "sqlite": (
        "create table fired (what text)",
        *(
            f"create trigger noting_{what} after {what} on items begin insert into fired values ('{what}'); end"
            for what in ("insert", "update", "delete")
        ),
    ),
}

#: Changes a column of each record that is updated, and of each that comes.
CHANGING = {
    "postgres": (
        "create function change() returns trigger language plpgsql as $$ begin new.k = -1; return new; end $$",
        "create trigger changing before update on items for each row execute function change()",
    ),
    "mysql": ("create trigger changing before update on items for each row set new.k = -1",),
}

#: Refuses each new record.
REFUSING = {
    "postgres": (
        "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'not today'; end $$",
        "create trigger refusing before insert on items for each row execute function refuse()",
    ),
    "mysql": (
        "create trigger refusing before insert on items for each row "
        "signal sqlstate '45000' set message_text = 'not today'",
    ),
    "sqlite": ("create trigger refusing before insert on items begin select raise(abort, 'not today'); end",),
}


def fired(bench: Bench) -> list[str]:
    return sorted(what for (what,) in bench.sql("select what from fired"))


def refer(bench: Bench) -> None:
    """Let a foreign key point at the first record."""
    bench.sql(
        "create table others (item int, foreign key (item) references items (id))", "insert into others values (1)"
    )


@pytest.mark.one_of("bench")
@on("postgres", "mysql", "sqlite")
@pytest.mark.parametrize("is_referenced", [False, True])
def test_a_replace_fires_triggers_for_what_has_changed_and_nothing_else(bench: Bench, is_referenced: bool) -> None:
    bench.source(
        "alter table s.items add j json default '{\"a\": 1}', add n numeric default 1.50, add f float8 default 0.1, "
        "add t timestamptz default '2024-02-29 12:00+02', add b bytea default '\\x00ff', add e text, "
        "add y bool default true"
    )
    bench.succeeds()
    bench.sql(*NOTING[bench.connector])
    if is_referenced:
        refer(bench)
    bench.succeeds()
    assert fired(bench) == []
    bench.source("update s.items set e = 'x' where id = 2; insert into s.items values (3, 30, 'c')")
    bench.succeeds()
    is_updated = is_referenced and bench.connector != "sqlite"  # which does not say who refers to whom
    assert fired(bench) == (["insert", "update"] if is_updated else ["delete", "insert", "insert"])
    assert bench.sql("select id, k, a, e from items order by id") == [
        (1, 10, "a", None),
        (2, 20, "b", "x"),
        (3, 30, "c", None),
    ]
    bench.source("delete from s.items where id = 2")
    bench.succeeds()
    assert len(fired(bench)) == (3 if is_updated else 4)
    assert bench.rows() == [(1, 10, "a"), (3, 30, "c")]


@pytest.mark.full
@pytest.mark.skipif(not has_triggers(), reason="this version of DuckDB has no triggers")
@on("duckdb")
def test_triggers_of_duckdb_stay_and_fire_for_what_has_changed(bench: Bench) -> None:
    bench.succeeds()
    bench.sql(*NOTING["duckdb"])
    bench.succeeds()
    assert fired(bench) == []
    bench.source("update s.items set a = 'x' where id = 2; insert into s.items values (3, 30, 'c')")
    bench.succeeds()
    assert fired(bench) == ["delete", "insert", "insert"]
    bench.stream |= {"write_disposition": "merge"}
    bench.source("update s.items set a = 'y' where id = 2; insert into s.items values (4, 40, 'd')")
    bench.succeeds()
    assert fired(bench) == ["delete", "insert", "insert", "insert", "update"]
    assert bench.rows() == [(1, 10, "a"), (2, 20, "y"), (3, 30, "c"), (4, 40, "d")]


@on("postgres", "mysql")
def test_a_trigger_that_changes_values_leaves_unchanged_records_alone(bench: Bench) -> None:
    bench.succeeds()
    refer(bench)
    bench.sql(*CHANGING[bench.connector])
    bench.source("update s.items set a = 'c' where id = 2")
    bench.succeeds()
    assert bench.rows() == [(1, 10, "a"), (2, -1, "c")]


#: How a column is made, by the destination, in which values are equal that are not the same; two of these.
BLURRED = {
    "postgres": ("alter table items alter n type numeric", "1.5", "1.50"),
    "mysql": ("alter table items modify a varchar(20) character set latin1 collate latin1_general_ci", "'a'", "'A '"),
    "sqlite": (
        "create table others as select * from items; drop table items; create table items (id INTEGER primary key, "
        "k INTEGER, a TEXT collate nocase, n TEXT); insert into items select * from others; drop table others",
        "'a'",
        "'A'",
    ),
}


@pytest.mark.one_of("bench")
@on("postgres", "mysql", "sqlite")
@pytest.mark.parametrize("is_referenced", [False, True])
def test_values_that_are_equal_but_not_the_same_arrive(bench: Bench, is_referenced: bool) -> None:
    statement, before, after = BLURRED[bench.connector]
    column = "n::numeric" if bench.connector == "postgres" else "a::text"
    name = column.partition(":")[0]
    bench.source(f"alter table s.items add n numeric; update s.items set {name} = {before}")
    bench.succeeds()
    bench.sql(*statement.split("; "), *NOTING[bench.connector])
    if is_referenced:
        refer(bench)
    bench.succeeds()
    assert fired(bench) == []
    bench.source(f"update s.items set {name} = {after} where id = 1")
    bench.succeeds()
    assert [str(found) for (found,) in bench.sql(f"select {name} from items order by id")] == [
        after.strip("'"),
        before.strip("'"),
    ]


@on("postgres", "mysql", "sqlite")
def test_a_key_that_comes_twice_is_refused_where_only_changes_are_written(bench: Bench) -> None:
    bench.succeeds()
    bench.sql(*NOTING[bench.connector])
    bench.stream |= {"key_properties": ["id"]}
    bench.source("alter table s.items drop constraint items_pkey; insert into s.items values (1, 11, 'again')")
    result = bench.run()
    assert result.status == "failure"
    assert bench.rows() == [(1, 10, "a"), (2, 20, "b")]


@pytest.mark.one_of("bench")
@on("postgres", "mysql", "sqlite")
def test_plan_names_the_triggers_that_will_fire(bench: Bench, run_cli: RunCLI) -> None:
    def plan(*options: str) -> str:
        done = run_cli(["plan", "items.yaml", *options], bench.folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    bench.succeeds()
    assert "trigger" not in plan()
    bench.sql(*NOTING[bench.connector])
    shown = plan()
    names = ["noting"] if bench.connector == "postgres" else ["noting_delete", "noting_insert"]
    (line,) = [line for line in shown.splitlines() if "trigger" in line]
    assert line.startswith("s.items: ")
    assert all(name in line for name in names)
    assert "verify" in line
    (stream,) = json.loads(plan("--json"))["streams"]
    assert [each["name"] for each in stream["triggers"]] == names
    assert {each["timing"] for each in stream["triggers"]} == {"after"}
    bench.stream |= {"write_disposition": "append", "key_properties": []}
    bench.run()
    (stream,) = json.loads(plan("--json"))["streams"]
    assert [each["name"] for each in stream["triggers"]] == [name for name in names if "delete" not in name]


@pytest.mark.one_of("bench")
@on("postgres", "mysql", "sqlite")
@pytest.mark.parametrize("disposition", ["replace", "merge", "append"])
def test_a_failure_by_a_trigger_names_it_and_the_table(bench: Bench, disposition: str) -> None:
    bench.stream |= {"write_disposition": disposition}
    bench.succeeds()
    bench.sql(*REFUSING[bench.connector])
    bench.source("insert into s.items values (3, 30, 'c')")
    error = bench.run().streams[0].error or ""
    assert "not today" in error
    assert "trigger 'refusing'" in error
    assert "items" in error.partition("trigger 'refusing'")[2]


#: Writes each new record into another table, whose key refuses one of them.
COPYING = {
    "postgres": (
        "create function copy() returns trigger language plpgsql as "
        "$$ begin insert into copies values (new.id); return null; end $$",
        "create trigger copying after insert on items for each row execute function copy()",
    ),
    "mysql": ("create trigger copying after insert on items for each row insert into copies values (new.id)",),
    "sqlite": ("create trigger copying after insert on items begin insert into copies values (new.id); end",),
}


@pytest.mark.one_of("bench")
@on("postgres", "mysql", "sqlite")
def test_a_unique_index_of_a_table_that_a_trigger_writes_is_not_told_as_that_of_the_target(bench: Bench) -> None:
    bench.stream |= {"write_disposition": "append", "key_properties": []}
    bench.succeeds()
    bench.sql("create table copies (id int primary key)", "insert into copies values (2)", *COPYING[bench.connector])
    error = bench.run().streams[0].error or ""
    assert "copies" in error
    assert "'copying' (after insert)" in error
    assert "has a unique index" not in error


@on("postgres")
def test_a_rule_on_update_is_merged_beside_and_others_are_refused_at_plan(bench: Bench, run_cli: RunCLI) -> None:
    bench.stream |= {"write_disposition": "merge"}
    bench.succeeds()
    bench.sql(
        "create table fired (what text)",
        "create rule noting as on update to items do also insert into fired values (old.a || new.a)",
    )
    bench.source("update s.items set a = 'z' where id = 2; insert into s.items values (3, 30, 'c')")
    bench.succeeds()
    assert bench.rows() == [(1, 10, "a"), (2, 20, "z"), (3, 30, "c")]
    assert "bz" in fired(bench)
    for rule, words in (
        ("insert to items do also notify x", "rule 'other' on INSERT, so PostgreSQL cannot merge records"),
        ("delete to items do instead nothing", "rule 'other', which replaces DELETE by something else"),
    ):
        bench.sql("drop rule if exists other on items", f"create rule other as on {rule}")
        done = run_cli(["plan", "items.yaml"], bench.folder)
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    bench.sql("alter table items disable rule other")
    assert run_cli(["plan", "items.yaml"], bench.folder).returncode == 0


#: How columns of the destination's table get types that are not the stream's.
RETYPED = {
    "postgres": (
        "create domain small as bigint check (value < 100)",
        "alter table items alter k type small, alter a type varchar(20), alter j type jsonb, "
        "alter n type numeric(20, 4), alter c type text",
    ),
    "mysql": (
        "alter table items modify k bigint, modify a varchar(20) character set latin1, modify j longtext, "
        "modify n decimal(40, 4), modify c longtext character set utf8mb4 collate utf8mb4_general_ci",
    ),
    "sqlite": (
        "drop table items",
        "create table items (id BIGINT primary key, k BIGINT, a VARCHAR(20))",
    ),
}


@pytest.mark.full
@pytest.mark.one_of("bench")
@on("postgres", "mysql", "sqlite")
@pytest.mark.parametrize("is_referenced", [False, True])
def test_columns_of_other_types_than_the_streams_are_compared_as_what_they_hold(
    bench: Bench, is_referenced: bool
) -> None:
    bench.source(
        "alter table s.items add j json default '{\"a\": 1}', add n numeric(10, 2) default 1.5, "
        "add c char(3) default 'c', add b boolean default true"
    )
    bench.succeeds()
    bench.sql(*RETYPED[bench.connector], *NOTING[bench.connector])
    if is_referenced:
        refer(bench)
    bench.succeeds()  # in the table's types from now on
    bench.sql("delete from fired")
    bench.succeeds()
    assert fired(bench) == []
    bench.source("update s.items set n = 2.5 where id = 2")
    bench.succeeds()
    assert len(fired(bench)) in (1, 2)
