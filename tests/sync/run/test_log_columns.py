"""LOG_BASED and DDL: columns that come, go, or get another name or type, and what is not read past."""

from __future__ import annotations

import json
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RunCLI
from tests.connectors.mysql.mysql_databases import query as mysql_query
from tests.sync.run.log_based import LOG_BASED, Logged, replayed
from tests.zygote import Zygote

TABLE = """create domain positive as int check (value > 0); create domain one as positive; create table t
(id bigint primary key, a int, b varchar(5), c numeric(5,2), r real, gone text, moment timestamp(3), d one default 1);
insert into t select g, g, 'b' || g, g / 4.0, 0.1, 'gone', '2024-01-02 03:04:05.678' from generate_series(1, 4) g"""

#: Each change is made under the columns of its moment.
STEPS = (
    "update t set a = a + 10, r = 0.3 where id = 1",
    "alter table t rename b to meanwhile",
    "update t set meanwhile = 'x' where id = 2",
    "alter table t rename meanwhile to bb",
    "alter table t alter a type bigint, alter c type numeric(9,3), alter bb type text, alter r type double precision,"
    " alter moment type timestamp",
    "insert into t values (5, 50000000000, 'longer than five', 12345.125, 0.2, 'x', '2024-01-02 03:04:05.678901')",
    "alter table t add tmp text",
    "update t set tmp = 'tmp' where id in (1, 5)",
    "alter table t drop tmp, drop gone",
    "delete from t where id = 3; update t set id = 33 where id = 4",
)


def merging(tmp_path: Path, source: str, connector: str = "duckdb", **config: Any) -> Logged:
    found = Logged(tmp_path, source, connector)
    found.document["destination"]["config"] |= config
    found.document["streams"] = [{"stream": "public.*", "replication_method": "LOG_BASED"}]
    return found


@pytest.mark.parametrize("connector", ["duckdb", pytest.param("postgres", marks=pytest.mark.full)])
def test_a_merge_reads_past_columns_that_come_go_and_change(
    tmp_path: Path, log_url: str, postgres_url: str, connector: str, run_cli: RunCLI
) -> None:
    logged = merging(tmp_path, log_url, connector, **({"url": postgres_url} if connector == "postgres" else {}))
    logged.sql(TABLE)
    logged.succeed()
    logged.sql(*STEPS)
    told = json.loads(run_cli(["plan", "--json", logged.file], tmp_path).stdout)["warnings"]
    assert "column 'b' is called 'bb' now, where records that do not change have NULL" in " ".join(told)
    logged.succeed()
    columns = "select id, a, bb, c, r, moment, d from t order by id"
    assert logged.query(columns) == logged.sql(columns)
    # What has gone stays as it was, where a record has not changed since.
    assert logged.query("select id, b, gone from t order by id") == [(n, None, None) for n in (1, 2, 5, 33)]
    logged.sql("alter table t add n int", "insert into t (id, a, n) values (6, 6, 6)")
    logged.succeed()
    assert logged.query("select id, n from t where id > 4 order by id") == [(5, None), (6, 6), (33, None)]


@pytest.mark.parametrize(
    "connector", ["jsonl", *(pytest.param(name, marks=pytest.mark.full) for name in ("memory", "sqlite", "mysql"))]
)
def test_what_is_appended_has_the_columns_of_now(
    tmp_path: Path, log_url: str, connector: str, mariadb_url: str
) -> None:
    own = {"sqlite": {"path": str(tmp_path / "out.sqlite")}, "mysql": {"url": mariadb_url}}
    logged = Logged(tmp_path, log_url, connector)
    logged.document["destination"]["config"] |= own.get(connector, {})
    logged.sql(TABLE)
    logged.succeed()
    # SQLite widens no decimals.
    logged.sql(*(step.replace(" alter c type numeric(9,3),", "").replace("12345.125", "1") for step in STEPS))
    logged.succeed()
    found = appended(logged, mariadb_url)
    assert [(each["_op"], int(each["id"]), each["a"], each.get("bb")) for each in found[4:]] == [
        ("update", 1, 11, "b1"),
        ("update", 2, 2, "x"),
        ("insert", 5, 50000000000, "longer than five"),
        ("update", 1, 11, "b1"),
        ("update", 5, 50000000000, "longer than five"),
        ("delete", 3, None, None),
        ("update", 33, 4, "b4"),
    ]
    assert "tmp" not in str(found)
    if connector == "jsonl":
        table = replayed(found)
        assert sorted((each, it["bb"], it["r"]) for each, it in table.items()) == logged.sql(
            "select id, bb, r from t order by id"
        )


def appended(logged: Logged, mariadb_url: str) -> list[dict[str, Any]]:
    statement = "select * from t order by _position"
    if logged.connector == "sqlite":
        with sqlite3.connect(logged.folder / "out.sqlite") as connection:
            cursor = connection.execute(statement)
            return [dict(zip([each[0] for each in cursor.description], row, strict=True)) for row in cursor]
    if logged.connector == "mysql":
        names, rows = mysql_query(mariadb_url, statement)
        return [dict(zip(names, row, strict=True)) for row in rows]
    return logged.changes("t")


@pytest.mark.full
def test_what_cannot_be_read_past_is_refused_with_the_way_out(tmp_path: Path, log_url: str) -> None:
    logged = merging(tmp_path, log_url)
    ddl = {
        "retyped": ("alter table retyped alter v type varchar(9)", "column 'v' is character varying(9) and was text"),
        "again": ("alter table again drop v; alter table again add v text", "'v' was the name of another column"),
        "swapped": (
            "alter table swapped rename v to x; alter table swapped rename w to v; alter table swapped rename x to w",
            "'w' was the name of another column, which was dropped or renamed; 'v' was",
        ),
        "heir": ("alter table heir drop v; alter table heir rename w to v", "'v' was the name of another column"),
        "whole": ("alter table whole replica identity full", "it has another primary key or replica identity"),
        "made": ("drop table made; create table made (id int primary key, v text, w text)", "its table was made anew"),
        "left": ("alter publication {} drop table left_", "its table is not in the publication any more"),
        "part": (
            "alter publication {0} drop table part; alter publication {0} add table part where (id > 0)",
            "its table is not in the publication any more, or only a part of it is",
        ),
        "back": (
            "alter publication {0} drop table back; alter publication {0} add table back",
            "its table was taken out of the publication and put back",
        ),
    }
    tables = ["left_" if name == "left" else name for name in ddl]
    logged.sql(*(f"create table {table} (id int primary key, v text, w text)" for table in tables))
    logged.succeed()
    ((publication,),) = logged.sql("select pubname from pg_publication")
    logged.sql(*(f"begin; {statement.format(publication)}; commit" for statement, _ in ddl.values()))
    refused = logged.refused()
    for table, (_, words) in zip(tables, ddl.values(), strict=True):
        assert f"stream 'public.{table}': {words}" in refused
        assert f"`syncblocks state reset public.{table}` copies it anew" in refused
    logged.sql(f"alter publication {publication} set (publish = 'insert')")
    assert "does not publish all" in logged.refused()


def test_a_large_value_that_the_table_lacks_under_a_new_name_is_never_null(tmp_path: Path, log_url: str) -> None:
    logged = merging(tmp_path, log_url)
    logged.sql(
        "create table t (id int primary key, v int, big text); alter table t alter big set storage external;"
        " insert into t select g, g, repeat('x', 3000) from generate_series(1, 2) g"
    )
    logged.succeed()
    logged.sql("alter table t rename big to large", "update t set v = 10 where id = 2")
    assert "the table has no large in the record of this key (id = 2)" in logged.refused()
    assert logged.query("select id, v from t") == [(1, 1), (2, 2)]


@pytest.mark.full
def test_a_name_is_not_taken_by_another_column_in_a_later_run(tmp_path: Path, log_url: str) -> None:
    logged = merging(tmp_path, log_url)
    logged.sql("create table t (id int primary key, v text); insert into t values (1, 'old')")
    logged.succeed()
    logged.sql("alter table t drop v", "insert into t values (2)")
    logged.succeed()
    logged.sql("alter table t add v text", "insert into t values (3, 'new')")
    assert "'v' was the name of another column, which was dropped or renamed" in logged.refused()
    assert logged.query("select id, v from t order by id") == [(1, "old"), (2, None)]


@pytest.mark.full
def test_generated_columns_are_left_out_and_partitions_refused(tmp_path: Path, log_url: str, run_cli: RunCLI) -> None:
    logged = Logged(tmp_path, log_url)
    logged.sql(
        "create table t (id int primary key, twice int generated always as (id * 2) stored, v text)",
        "insert into t (id, v) values (1, 'a')",
    )
    logged.succeed()
    told = json.loads(run_cli(["plan", "--json", logged.file], tmp_path).stdout)["warnings"]
    assert "stream 'public.t': generated columns are not in the log: twice" in told
    logged.sql("insert into t (id, v) values (2, 'b')", "alter table t alter twice drop expression")
    logged.sql("update t set twice = 7 where id = 2")
    logged.succeed()
    assert [(each["id"], each["v"], each.get("twice")) for each in logged.changes("t")] == [
        (1, "a", None),
        (2, "b", None),
        (2, "b", 7),
    ]
    logged.sql(
        "create table parted (id int primary key) partition by range (id)",
        "create table parted_1 partition of parted for values from (0) to (9)",
        "create table heir () inherits (t)",
    )
    refused = logged.refused()
    assert "a partitioned table cannot be read from the log: use FULL_TABLE or INCREMENTAL" in refused
    logged.document["streams"] = [{"stream": "public.t", **LOG_BASED}]
    assert "other tables inherit from it, whose changes are not those of its log" in logged.refused()
    logged.document["streams"] = [{"stream": "public.parted_1", **LOG_BASED}]
    assert "public.parted_1" in logged.refused()


@pytest.mark.full
def test_on_schema_change_says_what_becomes_of_the_table(tmp_path: Path, log_url: str) -> None:
    logged = merging(tmp_path, log_url)
    logged.sql(
        "create table frozen (id int primary key, v text)", "create table ignoring (id int primary key, v text, w text)"
    )
    said = {"frozen": "freeze", "ignoring": "ignore"}
    logged.document["streams"] = [
        {"stream": f"public.{name}", "replication_method": "LOG_BASED", "on_schema_change": word}
        for name, word in said.items()
    ]
    logged.succeed()
    logged.sql("insert into frozen values (1, 'a')", "alter table frozen rename v to w")
    assert "`on_schema_change: freeze` allows no change" in logged.refused()
    logged.sql("alter table frozen rename w to v", "alter table ignoring add n int; alter table ignoring drop w")
    logged.sql("insert into ignoring values (1, 'a', 1)", "alter table ignoring drop n")
    logged.sql("alter table ignoring add m int", "insert into ignoring values (2, 'b', 2)")
    assert "the table was altered more than once since the last run" in logged.refused()
    logged.succeed(streams=["public.ignoring"], full_refresh=True)
    logged.sql("alter table ignoring add o int; update ignoring set o = id where id = 2")
    logged.succeed()
    assert logged.merged("frozen") == [(1, "a")]
    assert logged.merged("ignoring") == [(1, "a", None), (2, "b", 2)]


@pytest.mark.full
def test_a_run_reports_values_that_change_without_the_log_and_freeze_fails(
    tmp_path: Path, log_url: str, run_cli: RunCLI
) -> None:
    logged = merging(tmp_path, log_url)
    logged.document |= {"allow_blocks_to_fail": True}
    logged.document["streams"].append({"stream": "public.frozen", "on_schema_change": "freeze"})
    tables = ("labels", "converted", "retyped", "filled", "frozen", "quiet")
    logged.sql(
        "create type mood as enum ('sad'); create domain feeling as mood",
        *(f"create table {name} (id int primary key, v int, m feeling[], x text)" for name in tables),
        *(f"insert into {name} values (1, 1, '{{sad}}'), (2, 2, null)" for name in tables),
        "alter table quiet drop m; alter table converted drop m; alter table filled drop m; alter table retyped drop m",
    )
    logged.succeed()
    logged.sql(
        "alter type mood rename value 'sad' to 'happy'",
        "alter table converted alter v type int using v * 10",
        "alter table retyped alter v type bigint using v * 10",
        "alter table filled add n int default 5, add u text not null default md5(random()::text), add empty int",
        # None of these changes a value.
        "alter table quiet add n int",
        "vacuum full quiet",
        "alter table labels alter x type varchar, alter v set default 5",
        "alter type mood add value 'new' before 'happy'",
    )
    first, second = (run_cli(["run", logged.file], tmp_path).stderr for _ in range(2))
    told = [line for line in first.splitlines() if "level=warning" in line]
    by_stream = {name: [line for line in told if f"public.{name}" in line] for name in tables}
    assert {name: len(lines) for name, lines in by_stream.items()} == {
        **dict.fromkeys(tables, 1),
        **{"frozen": 0, "quiet": 0},
    }
    for name, words in {
        "labels": "'m' got other values by `alter type ... rename value`",
        "converted": "'v' may have got other values by `alter column ... type ... using`",
        "retyped": "'v' may have got other values by `alter column ... type ... using`",
        "filled": "'n' was added with values for existing records; column 'u' was added with values",
    }.items():
        assert words in by_stream[name][0]
        assert f"`syncblocks run --full-refresh --stream public.{name}`" in by_stream[name][0]
    assert not any(name in first for name in ("'x'", "'empty'"))
    assert "`on_schema_change: freeze` allows no change" in first
    assert "level=warning" not in second, "a run reports a change once"
    assert "`on_schema_change: freeze` allows no change" in second
    assert run_cli(["run", "--full-refresh", "--stream", "public.frozen", logged.file], tmp_path).returncode == 0
    logged.succeed()
    assert logged.query("select m from frozen order by id") == [("{happy}",), (None,)]


@pytest.mark.full
def test_a_renamed_value_of_a_key_is_refused_until_the_table_is_copied(tmp_path: Path, log_url: str) -> None:
    logged = merging(tmp_path, log_url)
    logged.sql("create type mood as enum ('sad', 'ok')", "create table t (m mood primary key, v int)")
    logged.sql("insert into t values ('sad', 1)")
    logged.succeed()
    logged.sql("alter type mood rename value 'sad' to 'happy'", "update t set v = 2")
    assert "values of the key 'm' were renamed" in logged.refused()
    logged.succeed(full_refresh=True)
    assert logged.merged("t") == [("happy", 2)]


@pytest.mark.full
def test_values_that_change_without_the_log_after_the_plan_are_reported_by_the_next_run(
    tmp_path: Path, log_url: str, zygote: Zygote, run_cli: RunCLI
) -> None:
    logged = merging(tmp_path, log_url)
    logged.sql("create type mood as enum ('sad')", "create table t (id int primary key, m mood)")
    logged.sql("insert into t values (1, 'sad')")
    logged.succeed()
    process = zygote.start(tmp_path, ("run", logged.file.name), failpoint="store.claim.after:1:stop")
    while not process.has_ended() and Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] != "T":
        pass
    logged.sql("alter type mood rename value 'sad' to 'happy'")
    process.signal(signal.SIGCONT)
    assert process.wait() == 1
    assert "the table was altered after the run was planned" in process.log()
    done = run_cli(["run", logged.file], tmp_path)
    assert (done.returncode, "`alter type ... rename value`" in done.stderr) == (0, True)


def test_filling_new_columns_is_refused_by_name(tmp_path: Path, log_url: str) -> None:
    logged = merging(tmp_path, log_url)
    logged.sql("create table t (id int primary key)")
    logged.document["streams"][0]["fill_new_columns"] = True
    assert "`fill_new_columns` is not built for LOG_BASED yet" in logged.refused()


@pytest.mark.full
def test_who_alters_a_table_that_is_to_be_copied_waits_for_nobody(tmp_path: Path, log_url: str, zygote: Zygote) -> None:
    logged = merging(tmp_path, log_url)
    logged.sql(*(f"create table {name} (id int primary key); insert into {name} values (1)" for name in "ab"))
    process = zygote.start(tmp_path, ("run", logged.file.name), failpoint="log.exported:1:stop")
    while not process.has_ended() and Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] != "T":
        pass
    logged.sql("set lock_timeout = '5s'", "truncate b", "insert into b values (2)")
    process.signal(signal.SIGCONT)
    assert process.wait() == 1
    assert "the table was altered after the run was planned" in process.log()
    logged.sql("begin; alter table b add n int; rollback")  # whose number stays in the catalog
    logged.succeed()
    assert (logged.merged("a"), logged.merged("b")) == ([(1,)], [(2,)])


@pytest.mark.full
def test_a_type_that_changes_between_plan_and_read_stops_the_read(tmp_path: Path, log_url: str, zygote: Zygote) -> None:
    logged = merging(tmp_path, log_url)
    logged.sql("create table t (id int primary key, r real)", "insert into t values (1, 0.5)")
    logged.succeed()
    process = zygote.start(tmp_path, ("run", logged.file.name), failpoint="store.claim.after:1:stop")
    while not process.has_ended() and Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] != "T":
        pass
    logged.sql("alter table t alter r type float8", "insert into t values (2, 0.12345678901234)")
    process.signal(signal.SIGCONT)
    assert process.wait() == 1
    assert "column 'r' was real and is double precision: the table was altered" in process.log()
    logged.succeed()
    assert logged.merged("t") == [(1, 0.5), (2, 0.12345678901234)], "a real has fewer digits"


@pytest.mark.full
def test_a_stream_that_fails_leaves_the_columns_of_the_others_as_they_were_read(tmp_path: Path, log_url: str) -> None:
    logged = Logged(tmp_path, log_url, "memory")
    logged.sql("create table a (id int primary key, n int)", "create table b (id int primary key)")
    logged.succeed()
    logged.document["destination"]["config"] |= {"fail_on": {"public.b": 1}, "fail_times": 1}
    logged.sql("alter table a add x int", "insert into a values (1, 1, 1)", "insert into b values (1)")
    assert logged.run().status == "failure"
    # Column 3 has come and gone, which the run before has read.
    logged.sql("alter table a drop x, add y int", "insert into a values (2, 2, 2)")
    logged.succeed()
    assert [(each["id"], each.get("x"), each.get("y")) for each in logged.changes("a")] == [(1, 1, None), (2, None, 2)]
