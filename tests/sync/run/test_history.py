"""`write_disposition: history`, as a user has it: times, what makes a new version, and what is refused."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from syncblocks import Pipeline, RunResult, load_pipeline, run_pipeline
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.plan.plan import Plan, PlannedStream
from syncblocks.sync.plan.run_options import RunOptions
from syncblocks.sync.run.progress import Progress
from syncblocks.sync.session.inspection import count_streams, existing_store, opened
from syncblocks.sync.session.session import make_plan
from syncblocks.sync.store.model import PipelineRun
from syncblocks.sync.verify.verification import DIFFERS, EQUAL, StreamVerification, verify_streams
from tests.conftest import RunCLI
from tests.golden.systems import mysql_connection
from tests.sync.store.store_helpers import FixedClock

HISTORY = {"write_disposition": "history", "key_properties": ["id"]}
BY_TIME = {"replication_method": "INCREMENTAL", "bookmark_properties": ["ts"]}

EVERYWHERE = ("postgres", "mysql", "duckdb", "sqlite", "parquet")

EPOCH = datetime.fromtimestamp(0, UTC)

#: Key, begin and end of a version as days of January 2026, and its name.
Rows = list[tuple[Any, ...]]


class Bench:
    """People in a DuckDB file, whose history is kept somewhere."""

    def __init__(self, folder: Path, connector: str = "duckdb", url: str = "") -> None:
        self.folder = folder
        self.connector, self.url = connector, url
        self.to: dict[str, Any] = {"connector": connector, "config": {"url": url} if url else {"path": "out.db"}}
        self.more: dict[str, Any] = {}
        self.execute("create table people (id int, name varchar, ts timestamp)")

    def execute(self, *statements: str) -> None:
        with closing(duckdb.connect(self.folder / "source.db")) as database:
            for each in statements:
                database.execute(each)

    def document(self, **stream: Any) -> dict[str, Any]:
        return {
            "pipeline": "people",
            "source": {"connector": "duckdb", "config": {"path": "source.db"}},
            "destination": self.to,
            "streams": [{"stream": "people", **HISTORY, **stream}],
            **self.more,
        }

    def start(self, day: int, *, options: Mapping[str, Any] = {}, **stream: Any) -> RunResult:
        pipeline = load_pipeline(self.document(**stream), folder=self.folder, execution_date=january(day))
        return run_pipeline(pipeline, **options)

    def undated(self, **stream: Any) -> Pipeline:
        """Load the pipeline as a command without --execution-date does."""
        return load_pipeline(self.document(**stream), folder=self.folder)

    def run(self, day: int, **stream: Any) -> int:
        """Run at a day of January; return the records."""
        result = self.start(day, **stream)
        assert result.status == "success", result.streams[0].error
        return result.streams[0].records

    def times(self) -> list[datetime]:
        """Return when the versions begin, in DuckDB."""
        with closing(duckdb.connect(self.folder / "out.db")) as database:
            sql = "select epoch_us(_valid_from) from people order by _valid_from"
            return [EPOCH + timedelta(microseconds=us) for (us,) in database.execute(sql).fetchall()]

    def newest(self) -> datetime:
        """Return the newest time that the ledger keeps."""
        with opened(self.undated()) as session:
            (row,) = session.destination.describe(["people"])["people"].ledger
        return datetime.fromisoformat(row.history["newest"])

    def plan(self, day: int | None = 1, *, options: Mapping[str, Any] = {}, **stream: Any) -> PlannedStream:
        date = None if day is None else january(day)
        pipeline = load_pipeline(self.document(**stream), folder=self.folder, execution_date=date)
        with opened(pipeline) as session, existing_store(pipeline) as store:
            return make_plan(session, store, options=RunOptions(**options)).streams[0]

    def verify(self, **stream: Any) -> StreamVerification:
        pipeline = load_pipeline(self.document(**stream), folder=self.folder)
        with opened(pipeline) as session, existing_store(pipeline) as store:
            (found,) = verify_streams(session, make_plan(session, store), with_repairs=True)
        return found

    def rows(self, columns: str = "name") -> Rows:
        sql = f"select id, _valid_from, _valid_to, {columns} from people order by id, _valid_from"
        return [(key, _day(begun), _day(ended), *rest) for key, begun, ended, *rest in self._asked(sql)]

    def _asked(self, sql: str) -> list[Any]:
        if self.connector == "postgres":
            with psycopg.connect(self.url) as postgres:
                return postgres.execute(sql.encode()).fetchall()
        if self.connector == "mysql":
            with mysql_connection(self.url) as mysql, mysql.cursor() as cursor:
                cursor.execute(sql)
                return list(cursor.fetchall())
        if self.connector == "sqlite":
            with closing(sqlite3.connect(self.folder / "out.db")) as database:
                return database.execute(sql).fetchall()
        is_file = self.connector == "parquet"
        with closing(duckdb.connect(":memory:" if is_file else self.folder / "out.db")) as database:
            database.execute("set timezone = 'UTC'")
            if is_file:
                database.execute(f"create view people as from read_parquet('{self.folder}/out.db/people.parquet')")
            return database.execute(sql).fetchall()


def january(day: int) -> datetime:
    return datetime(2026, 1, day, tzinfo=UTC)


def _day(value: Any) -> int | None:
    return None if value is None else int(str(value)[8:10])


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def anywhere(request: pytest.FixtureRequest, tmp_path: Path, system: str) -> Bench:
    urls = {"postgres": "postgres_url", "mysql": "mariadb_url"}
    url = request.getfixturevalue(urls[system]) if system in urls else ""
    return Bench(tmp_path, system, url)


def systems(*some: str) -> pytest.MarkDecorator:
    """Run a test in some systems, and in the full set in all."""
    is_full = os.environ.get("SYNCBLOCKS_FAULTS") == "full"
    return pytest.mark.parametrize("system", EVERYWHERE if is_full else some)


@pytest.mark.full
@pytest.mark.one_of("system")
@systems("postgres", "mysql", "sqlite", "parquet")
def test_days_of_changes(anywhere: Bench) -> None:
    bench = anywhere
    bench.execute("insert into people values (1, 'Ann', '2026-01-01'), (2, 'Bob', '2026-01-01')")
    assert bench.run(2) == 2
    bench.execute("update people set name = 'Anna' where id = 1", "insert into people values (3, 'Cid', '2026-01-02')")
    assert bench.run(3) == 3
    bench.execute("delete from people where id = 2")
    bench.run(4)
    if bench.connector in ("postgres", "mysql"):
        own = "current_schema()" if bench.connector == "postgres" else "database()"
        found = bench._asked(
            "select column_name from information_schema.key_column_usage "
            f"where table_name = 'people' and table_schema = {own} order by ordinal_position"
        )
        assert [name for (name,) in found] == ["id", "_valid_from"]
    former = [(1, 2, 3, "Ann"), (1, 3, None, "Anna"), (2, 2, None, "Bob"), (3, 3, None, "Cid")]
    assert bench.rows() == former
    # A new column is no new version; from the next run on its changes are.
    bench.execute("alter table people add column age int", "update people set age = 7 where id = 3")
    bench.run(5)
    assert bench.rows("name, age") == [(*row, 7 if row[0] == 3 else None) for row in former]
    bench.execute("update people set age = 8 where id = 3")
    bench.run(6)
    assert bench.rows("age")[3:] == [(3, 3, 6, 7), (3, 6, None, 8)]
    # A column that is gone is not compared; new versions have nothing there.
    bench.execute("alter table people drop column age", "update people set name = 'Ann' where id = 1")
    bench.run(7)
    assert bench.rows("name, age")[2:] == [
        (1, 7, None, "Ann", None),
        (2, 2, None, "Bob", None),
        (3, 3, 6, "Cid", 7),
        (3, 6, None, "Cid", 8),
    ]


@systems("mysql")
def test_wider_types_are_no_change(anywhere: Bench) -> None:
    anywhere.execute("alter table people add column n int", "insert into people values (1, 'Ann', null, 5)")
    anywhere.run(2)
    anywhere.execute("alter table people alter n type bigint", "update people set n = 5")
    anywhere.run(3)
    assert anywhere.rows("n") == [(1, 2, None, 5)]


@pytest.mark.full
def test_what_is_of_the_bookmark_changes_in_place(bench: Bench) -> None:
    bench.execute("insert into people values (1, 'Ann', '2026-01-01'), (2, 'Bob', '2026-01-02')")
    assert bench.run(2, **BY_TIME) == 2
    bench.execute("update people set ts = '2026-01-03' where id = 1")
    assert bench.run(3, **BY_TIME) == 1
    assert [(*row[:3], str(row[3])[8:10]) for row in bench.rows("ts")] == [(1, 2, None, "03"), (2, 2, None, "02")]
    bench.execute("update people set ts = '2026-01-04', name = 'Anna' where id = 1")
    bench.run(4, **BY_TIME)
    assert bench.rows()[:2] == [(1, 2, 4, "Ann"), (1, 4, None, "Anna")]


def test_a_record_below_the_current_ones_bookmark_is_left_out(bench: Bench) -> None:
    bench.execute("insert into people values (1, 'new', '2026-01-09')")
    bench.run(10, **BY_TIME)
    bench.execute("update people set name = 'old', ts = '2026-01-08'")
    assert bench.run(11, **BY_TIME, lookback=7 * 86400) == 1, "it is read, and told of"
    assert bench.rows() == [(1, 10, None, "new")]


def test_the_same_time_again_changes_in_place(bench: Bench) -> None:
    bench.execute("insert into people values (1, 'Ann', null)")
    bench.run(2)
    bench.execute("update people set name = 'Anna'")
    bench.run(2)
    assert bench.rows() == [(1, 2, None, "Anna")]


@systems("mysql", "parquet")
def test_columns_of_the_engine_make_no_version(anywhere: Bench) -> None:
    added = {"run": "{{ ds }}", "first": {"value": "{{ ds }}", "on_update": "keep"}}
    anywhere.execute("insert into people values (1, 'Ann', null), (2, 'Bob', null)")
    anywhere.run(2, add_columns=added)
    anywhere.execute("update people set name = 'Anna' where id = 1")
    anywhere.run(3, add_columns=added)
    assert anywhere.rows("run, first") == [
        (1, 2, 3, "2026-01-02", "2026-01-02"),
        (1, 3, None, "2026-01-03", "2026-01-02"),
        (2, 2, None, "2026-01-03", "2026-01-02"),
    ]


def test_a_history_in_folders(bench: Bench) -> None:
    bench.to = {"connector": "parquet", "config": {"path": "out", "partition_by": ["name"]}}
    bench.execute("insert into people values (1, 'Ann', null), (2, 'Bob', null), (3, null, null)")
    bench.run(2)
    bench.execute("update people set name = 'Bob' where id = 1", "update people set name = 'Cid' where id = 3")
    bench.run(3)
    rows = duckdb.sql(
        f"select id, name, day(_valid_from), day(_valid_to) from '{bench.folder}/out/people/*/*.parquet' order by 1, 3"
    ).fetchall()
    assert rows == [(1, "Ann", 2, 3), (1, "Bob", 3, None), (2, "Bob", 2, None), (3, None, 2, 3), (3, "Cid", 3, None)]
    assert bench.verify().verdict == EQUAL


LOG = {**BY_TIME, "valid_from": "bookmark"}


@pytest.mark.full
@systems("duckdb", "mysql", "parquet")
def test_each_record_brings_its_time(anywhere: Bench) -> None:
    bench = anywhere
    bench.execute(
        "insert into people values (1, 'a', '2026-01-05'), (1, 'a', '2026-01-06'), (1, 'b', '2026-01-07'), "
        "(1, 'c', '2026-01-07'), (1, 'd', '2026-01-09'), (2, 'x', '2026-01-01')"
    )
    bench.run(20, **LOG)
    whole = [(1, 5, 7, "a"), (1, 7, 9, "c"), (1, 9, None, "d"), (2, 1, None, "x")]
    assert bench.rows() == whole
    # A late version goes between its neighbours; what is read again changes nothing.
    bench.execute("insert into people values (1, 'late', '2026-01-08'), (2, 'first', '2025-12-24')")
    bench.run(20, **LOG, lookback=30 * 86400)
    again = [(1, 5, 6, "a"), (1, 6, 7, "a"), (1, 7, 8, "c"), (1, 8, 9, "late"), (1, 9, None, "d")]
    again += [(2, 24, 1, "first"), (2, 1, None, "x")]
    assert bench.rows() == again
    bench.run(20, **LOG, lookback=30 * 86400)
    assert bench.rows() == again


def test_a_record_without_a_time_fails_or_is_rejected(bench: Bench) -> None:
    full = {"replication_method": "FULL_TABLE", "bookmark_properties": ["ts"], "valid_from": "bookmark"}
    bench.execute("insert into people values (1, 'a', null), (2, 'b', '2026-01-02')")
    result = bench.start(3, **full)
    assert "_valid_from" in str(result.streams[0].error)
    bench.run(3, **full, on_rejected="keep")
    assert bench.rows() == [(2, 2, None, "b")]


@pytest.mark.full
@systems("mysql", "parquet")
def test_two_records_of_one_key_contradict_each_other(anywhere: Bench) -> None:
    anywhere.execute("insert into people values (1, 'Ann', null), (1, 'Ann', null), (2, 'Bob', null)")
    anywhere.run(2)
    assert anywhere.rows() == [(1, 2, None, "Ann"), (2, 2, None, "Bob")]
    anywhere.execute("insert into people values (2, 'Bert', null)")
    result = anywhere.start(3)
    assert "same key (id) and other values" in str(result.streams[0].error)
    anywhere.run(4, on_rejected="keep")
    assert [row for row in anywhere.rows() if row[0] == 1] == [(1, 2, None, "Ann")]
    assert len([row for row in anywhere.rows() if row[0] == 2 and row[2] is None]) == 1


def test_a_history_has_its_table_alone(bench: Bench) -> None:
    both = [{"stream": "people", **HISTORY}, {"stream": "others", "destination_table": "people"}]
    bench.execute("create table others (id int, name varchar)", "insert into people values (1, 'Ada', null)")
    for written in (HISTORY, {**HISTORY, "write_disposition": "merge"}):
        bench.more = {"streams": [both[0], {**both[1], **written}]}
        with pytest.raises(ConfigError, match="table 'people' is written by 'people', 'others'"):
            bench.plan()
    bench.more = {}
    bench.run(1)
    bench.more = {"pipeline": "another"}
    with pytest.raises(ConfigError, match="`history` would end versions in table 'people', which stream 'people' of"):
        bench.plan(2)
    with pytest.raises(ConfigError, match="holds the history of its records, which append would destroy"):
        bench.plan(2, write_disposition="append")
    with pytest.raises(ConfigError, match="would drop table 'people', which stream 'people' of"):
        bench.plan(2, options={"full_refresh": True, "drop_history": True})


@pytest.mark.full
@systems("postgres", "parquet")
def test_verify_compares_the_current_versions(anywhere: Bench) -> None:
    anywhere.execute("insert into people values (1, 'Ann', null), (2, 'Bob', null)")
    anywhere.run(2)
    anywhere.execute("update people set name = 'Anna' where id = 1")
    anywhere.run(3)
    found = anywhere.verify()
    assert (found.verdict, found.source_records, found.destination_records) == (EQUAL, 2, 2)
    with opened(load_pipeline(anywhere.document(), folder=anywhere.folder)) as session:
        (counted,) = count_streams(session).streams
    assert (counted.source, counted.destination) == (2, 2)
    anywhere.execute("update people set name = 'Bert' where id = 2")
    found = anywhere.verify()
    assert (found.verdict, found.repair) == (DIFFERS, None)
    assert any("history is only written by its runs" in note for note in found.notes)


@pytest.mark.full
def test_the_callback_gets_what_was_read(bench: Bench) -> None:
    (bench.folder / "told.py").write_text(
        "@callback('success')\ndef told(df, block_run):\n"
        "    from pathlib import Path\n"
        "    Path(__file__).with_suffix('.log').write_text(f'{len(df)} {block_run.rows} {sorted(df.columns)}')\n"
    )
    bench.more = {"callbacks": [{"file": "told.py", "on": ["export_duckdb"]}]}
    bench.execute("insert into people values (1, 'Ann', null), (2, 'Bob', null)")
    bench.run(2)
    bench.run(3)
    assert (bench.folder / "told.log").read_text() == "2 2 ['_valid_from', '_valid_to', 'id', 'name', 'ts']"


def test_plan_says_what_it_keeps(bench: Bench, run_cli: RunCLI) -> None:
    bench.execute("insert into people values (1, 'Ann', null)")
    planned = bench.plan(2, deletes="ignore")
    assert planned.arriving.key_properties == ("id", "_valid_from")
    (bench.folder / "p.json").write_text(json.dumps(bench.document(**LOG)))
    (bench.folder / "p.yaml").write_text((bench.folder / "p.json").read_text())
    shown = run_cli(["plan", "p.yaml"], cwd=bench.folder)
    assert "people: keeps every version, _valid_from from ts" in shown.stdout
    assert run_cli(["plan", "p.yaml", "--drop-history"], cwd=bench.folder).returncode == 2
    told = run_cli(["preview", "p.yaml", "--stream", "people"], cwd=bench.folder)
    assert told.returncode == 0, told.stderr


SOFT = {"deletes": "soft"}


@pytest.mark.full
@pytest.mark.one_of("system")
@systems("postgres", "mysql", "sqlite", "parquet")
def test_the_version_of_a_record_that_is_gone_ends(anywhere: Bench) -> None:
    bench = anywhere
    bench.execute("insert into people values (1, 'Ann', null), (2, 'Bob', null), (3, 'Cid', null)")
    bench.run(2, **SOFT)
    bench.execute("delete from people where id > 1", "update people set name = 'Anna'")
    assert bench.start(4, **SOFT).streams[0].records_deleted == 2
    gone = [(1, 2, 4, "Ann"), (1, 4, None, "Anna")]
    assert bench.rows() == [*gone, (2, 2, 4, "Bob"), (3, 2, 4, "Cid")]
    assert (found := bench.verify(**SOFT)).verdict == EQUAL, found
    assert (found.source_records, found.destination_records) == (1, 1)
    # Both come back, one as it was; what is gone again at the time at which it came ends then.
    bench.execute("insert into people values (2, 'Bob', null), (3, 'Cyd', null)")
    bench.run(6, **SOFT)
    bench.execute("delete from people where id = 3")
    assert bench.start(6, **SOFT).streams[0].records_deleted == 1
    back = [(2, 2, 4, "Bob"), (2, 6, None, "Bob"), (3, 2, 4, "Cid")]
    assert bench.rows() == [*gone, *back, (3, 6, 6, "Cyd")]
    # A run that says no `deletes` lets it come back as well.
    bench.execute("insert into people values (3, 'Cyd', null)")
    bench.run(6)
    assert bench.rows() == [*gone, *back, (3, 6, None, "Cyd")]


@systems("postgres", "duckdb")
@pytest.mark.full
def test_a_record_that_is_back_and_not_read_is_as_it_was(anywhere: Bench) -> None:
    bench, stream = anywhere, {**BY_TIME, **SOFT}
    bench.execute("insert into people values (1, 'Ann', '2026-01-01'), (2, 'Bob', '2026-01-02')")
    bench.run(2, **stream)
    bench.execute("delete from people where id = 1")
    bench.run(4, **stream)
    # No bookmark tells of it: the comparison of keys does.
    bench.execute("insert into people values (1, 'Ann', '2026-01-01'), (3, 'Cid', '2025-12-01')")
    assert bench.start(6, **stream).streams[0].records_deleted == 0
    assert bench.rows() == [(1, 2, 4, "Ann"), (1, 6, None, "Ann"), (2, 2, None, "Bob")]
    bench.start(7, **stream)
    assert bench.rows() == [(1, 2, 4, "Ann"), (1, 6, None, "Ann"), (2, 2, None, "Bob")]


def test_a_key_that_is_spelled_anew_is_not_gone(tmp_path: Path) -> None:
    """In a column that knows no case; else the version would end, and the record have none until it changes."""
    bench = Bench(tmp_path, "sqlite")
    bench.execute("alter table people alter id type varchar", "insert into people values ('a', 'Ada', null)")
    options = {"deletes": "soft", "key_properties": ["id"]}
    bench.run(1, **options)
    with closing(sqlite3.connect(tmp_path / "out.db")) as database:
        ((sql,),) = database.execute("select sql from sqlite_master where name = 'people'").fetchall()
        database.execute("alter table people rename to former")
        database.execute(sql.replace('"id" TEXT', '"id" TEXT collate nocase'))
        database.execute("insert into people select * from former")
        database.execute("drop table former")
        database.commit()
    bench.execute("update people set id = 'A'")
    bench.run(2, **options)
    assert bench.rows() == [("A", 1, None, "Ada")]
    bench.execute("update people set name = 'Eva'")
    bench.run(3, **options)
    assert bench.rows() == [("A", 1, 3, "Ada"), ("A", 3, None, "Eva")]


@systems("mysql", "duckdb", "parquet")
@pytest.mark.full
def test_a_record_with_its_own_time_ends_and_comes_back(anywhere: Bench) -> None:
    bench, stream = anywhere, {**LOG, **SOFT, "lookback": 30 * 86400}
    bench.execute("insert into people values (1, 'a', '2026-01-05'), (2, 'x', '2026-01-12'), (3, 'z', '2026-01-01')")
    bench.run(6, **stream)
    bench.execute("delete from people where id < 3")
    bench.run(10, **stream)
    assert bench.rows() == [(1, 5, 10, "a"), (2, 12, 12, "x"), (3, 1, None, "z")], "no version ends before it begins"
    # Times before the end count from the end on, and only the newest of them.
    bench.execute("insert into people values (1, 'b', '2026-01-07'), (1, 'a', '2026-01-05'), (2, 'x', '2026-01-12')")
    bench.run(20, **stream)
    back = [(1, 5, 10, "a"), (1, 10, None, "b"), (2, 12, None, "x"), (3, 1, None, "z")]
    assert bench.rows() == back
    bench.run(21, **stream)
    assert bench.rows() == back, "what is read again changes nothing"
    bench.execute("insert into people values (1, 'c', '2026-01-08'), (1, 'd', '2026-01-15')")
    bench.run(22, **stream)
    assert bench.rows() == [(1, 5, 10, "a"), (1, 10, 15, "c"), (1, 15, None, "d"), *back[2:]]


@pytest.mark.one_of("system")
@systems("mysql", "duckdb", "parquet")
@pytest.mark.full
def test_a_whole_table_of_records_with_their_own_times(anywhere: Bench) -> None:
    bench, stream = anywhere, {**LOG, **SOFT, "replication_method": "FULL_TABLE"}
    bench.execute("insert into people values (1, 'a', '2026-01-05'), (2, 'z', '2026-01-01')")
    bench.run(6, **stream)
    bench.execute("delete from people where id = 1")
    bench.run(10, **stream)
    assert bench.rows() == [(1, 5, 10, "a"), (2, 1, None, "z")]
    bench.execute("insert into people values (1, 'b', '2026-01-07')")
    for day in (20, 21):
        bench.run(day, **stream)
        assert bench.rows() == [(1, 5, 10, "a"), (1, 10, None, "b"), (2, 1, None, "z")]
    bench.execute("update people set name = 'c', ts = '2026-01-08' where id = 1")
    bench.run(22, **stream)
    assert bench.rows()[1:] == [(1, 10, None, "c"), (2, 1, None, "z")]


@pytest.mark.full
def test_plan_and_run_say_that_versions_end(bench: Bench, run_cli: RunCLI) -> None:
    bench.execute("insert into people values (1, 'Ann', null), (2, 'Bob', null)")
    (bench.folder / "p.yaml").write_text(json.dumps(bench.document(**SOFT)))
    shown = run_cli(["plan", "p.yaml"], cwd=bench.folder).stdout
    assert "people: records that the source no longer has end in _valid_to, at most 10 % of the table's" in shown
    assert run_cli(["run", "p.yaml"], cwd=bench.folder).returncode == 0
    bench.execute("delete from people where id = 2")
    ran = run_cli(["run", "p.yaml"], cwd=bench.folder)
    assert "people: 1 record(s) ended: the source lacks them" in ran.stderr
    bench.execute("delete from people")
    failed = run_cli(["run", "p.yaml"], cwd=bench.folder)
    assert "the source has no records, the table has 1: nothing was deleted" in failed.stderr


# ---------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        ({"key_properties": None}, "history needs key_properties"),
        ({"unique_conflict_method": "IGNORE"}, "`unique_conflict_method: IGNORE` and `write_disposition: history`"),
        ({"valid_from": "bookmark"}, "needs bookmark_properties with one column"),
        (
            {**LOG, "bookmark_properties": ["id"]},
            "`valid_from: bookmark` needs a time, and bookmark property 'id' is int32",
        ),
        ({**LOG, "bookmark_properties": ["ts", "id"]}, "needs bookmark_properties with one column"),
        ({**LOG, "null_bookmarks": "always"}, "`always` reads records without a time"),
        ({"write_disposition": "merge", "valid_from": "bookmark"}, "is for `write_disposition: history`"),
        ({"add_columns": {"_valid_to": 1}}, "add_columns: a history has a column '_valid_to'"),
        ({"deletes": "hard"}, "`deletes: hard` and `write_disposition: history` contradict each other"),
        ({"deletes": {"mode": "hard", "every": "1d"}}, "`deletes: soft` ends them"),
        ({"unique_constraints": ["name"]}, "unique_constraints"),
    ],
)
def test_what_does_not_go_together_is_refused(bench: Bench, stream: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        bench.plan(**stream)
    assert said in str(refused.value)


def test_a_column_of_that_name_is_refused(bench: Bench) -> None:
    bench.execute("alter table people add column _valid_from date")
    with pytest.raises(ConfigError, match="the stream has a column '_valid_from'"):
        bench.plan()


def test_a_destination_without_versions_is_refused(bench: Bench) -> None:
    bench.to = {"connector": "memory", "config": {"database": "m"}}
    with pytest.raises(ConfigError, match="memory does not"):
        bench.plan()


@pytest.mark.full
@pytest.mark.parametrize(
    ("first", "then", "said"),
    [
        (
            {},
            {"valid_from": "bookmark"},
            "`valid_from: bookmark` is new, but the versions in table 'people' have",
        ),
        (
            {"valid_from": "bookmark"},
            {},
            "`valid_from: bookmark` was removed, but the versions in table 'people' ha",
        ),
    ],
)
def test_times_of_runs_and_of_records_are_not_mixed(
    bench: Bench, first: dict[str, Any], then: dict[str, Any], said: str
) -> None:
    bench.execute("insert into people values (1, 'a', '2026-01-05')")
    bench.run(20, **BY_TIME, **first)
    with pytest.raises(ConfigError, match="--full-refresh --drop-history") as refused:
        bench.plan(21, **BY_TIME, **then)
    assert said in str(refused.value)
    bench.start(21, options={"full_refresh": True, "drop_history": True}, **BY_TIME, **then)
    bench.run(22, **BY_TIME, **then)


@pytest.mark.full
def test_other_keys_name_both_options_that_begin_a_history_anew(bench: Bench) -> None:
    """The one that was named was refused with the name of the other."""
    bench.execute("insert into people values (1, 'Ann', '2026-01-05')")
    bench.run(3)
    refused = bench.plan(4, key_properties=["name"]).verdict.refusal
    assert "were merged by the old ones: run once with --full-refresh --drop-history, or say" in refused
    bench.start(4, options={"full_refresh": True, "drop_history": True}, key_properties=["name"])
    bench.run(5, key_properties=["name"])


def test_a_history_only_goes_on(bench: Bench) -> None:
    bench.execute("insert into people values (1, 'Ann', null)")
    bench.run(3)
    bench.run(5)
    with pytest.raises(ConfigError, match=r"is older than 2026-01-05.*`run --execution-date` a later one"):
        bench.plan(4)
    bench.execute("update people set name = 'Anna'")
    # A run that was due before, and had to wait, takes the newest time.
    assert str(bench.plan(4, options={"is_late": True}).policy.added.history).endswith("2026-01-05T00:00:00+00:00")


def test_a_run_that_waited_without_a_date_takes_the_newest_time(bench: Bench) -> None:
    """Its own time was before the wait: if another run had come first, it ended with exit 2."""
    bench.execute("insert into people values (1, 'Ann', null)")
    waiting, first = bench.undated(), bench.undated()
    assert run_pipeline(first).status == "success"
    bench.execute("update people set name = 'Anna'", "insert into people values (2, 'Bob', null)")
    assert run_pipeline(waiting).status == "success"
    assert bench.times() == [first.execution_date] * 2


@pytest.mark.full
def test_a_further_attempt_takes_the_newest_time(bench: Bench) -> None:
    flag = bench.folder / "fails"
    (bench.folder / "flag.py").write_text(
        f"import os\n@transformer\ndef f(df, **kw):\n    assert not os.path.exists({str(flag)!r})\n    return df\n"
    )
    bench.more = {"transformers": [{"file": "flag.py"}]}
    bench.execute("insert into people values (1, 'Ann', null)")
    waiting, first = bench.undated(), bench.undated()
    assert run_pipeline(first).status == "success"
    bench.execute("insert into people values (2, 'Bob', null)")
    flag.touch()
    assert run_pipeline(waiting).status == "failure"
    flag.unlink()
    assert run_pipeline(bench.undated(), retry=True).status == "success"
    assert bench.times() == [first.execution_date] * 2


@pytest.mark.full
def test_a_clock_that_was_ahead_once_stops_no_later_run(bench: Bench) -> None:
    bench.execute("insert into people values (1, 'Ann', null)")
    ahead = datetime(2999, 1, 1, tzinfo=UTC)
    run_pipeline(load_pipeline(bench.document(), folder=bench.folder, execution_date=ahead)).raise_for_status()
    bench.execute("insert into people values (2, 'Bob', null)")
    assert bench.verify().verdict == DIFFERS
    (notice,) = bench.plan(None).texts.notices
    assert notice.startswith("new versions are valid from 2999-01-01T00:00:00+00:00, which is later than now (")
    run_pipeline(bench.undated()).raise_for_status()
    assert bench.times() == [ahead] * 2
    with pytest.raises(ConfigError, match="is older than 2999"):
        bench.plan(4)


def test_versions_are_told_of_only_while_they_begin_later_than_now(bench: Bench) -> None:
    bench.execute("insert into people values (1, 'Ann', null)")
    bench.run(9)
    pipeline = load_pipeline(bench.document(), folder=bench.folder, execution_date=january(9))
    with opened(pipeline) as session, existing_store(pipeline) as store:
        session.clock = clock = FixedClock()
        for day, notices in (8, 1), (9, 0):
            clock.time = january(day)
            assert len(make_plan(session, store).streams[0].texts.notices) == notices


@pytest.mark.full
def test_a_table_that_is_gone_has_no_newest_time(bench: Bench) -> None:
    bench.execute("insert into people values (1, 'Ann', null)")
    bench.run(9)
    with closing(duckdb.connect(bench.folder / "out.db")) as database:
        database.execute("drop table people")
    bench.run(8)
    assert bench.rows() == [(1, 8, None, "Ann")]
    bench.run(9)


class Meanwhile(Progress):
    """Lets another run of the pipeline come first."""

    def __init__(self, act: Callable[[], Any], when: str) -> None:
        self.act: Callable[[], Any] | None = act
        self.when = when

    def _once(self) -> None:
        act, self.act = self.act, None
        if act is not None:
            act()

    def run_started(self, run: PipelineRun, plan: Plan) -> None:
        if self.when == "started":
            self._once()

    def message(self, text: str, *, level: str = "info") -> None:
        if self.when in text:
            self._once()


def test_a_run_whose_plan_is_from_before_another_run_plans_again(bench: Bench) -> None:
    """Versions got the older time, and those that they replaced an end before their begin."""
    more = {"on_schema_change": "ignore"}
    bench.execute("insert into people values (1, 'Ann', null)")
    run_pipeline(bench.undated(**more)).raise_for_status()
    bench.execute("alter table people add column late int", "update people set name = 'Anna'")
    slow, quick = bench.undated(**more), bench.undated(**more)
    progress = Meanwhile(lambda: run_pipeline(quick).raise_for_status(), "late")
    result = run_pipeline(slow, progress=progress)
    assert progress.act is None
    assert result.status == "success"
    assert bench.times()[-1] == quick.execution_date
    assert bench.newest() == quick.execution_date


@pytest.mark.full
def test_a_run_in_another_store_that_came_first_is_not_overwritten(bench: Bench) -> None:
    bench.execute("insert into people values (1, 'Ann', null)")
    run_pipeline(bench.undated()).raise_for_status()
    slow = bench.undated()
    bench.more = {"store": "sqlite:///other.db"}
    quick = bench.undated()
    bench.execute("update people set name = 'Anna'")
    progress = Meanwhile(lambda: run_pipeline(quick).raise_for_status(), "started")
    (stream,) = run_pipeline(slow, progress=progress).streams
    assert stream.status == "failure"
    assert "another run has written newer versions since this one was planned: run it again" in str(stream.error)
    run_pipeline(slow).raise_for_status()
    assert bench.newest() == quick.execution_date


@pytest.mark.full
@systems("mysql", "parquet")
def test_a_history_is_dropped_by_name_only(anywhere: Bench) -> None:
    bench = anywhere
    bench.execute("insert into people values (1, 'Ann', null)")
    bench.run(2)
    bench.execute("update people set name = 'Anna'")
    bench.run(3)
    refresh: dict[str, Any] = {"full_refresh": True}
    with pytest.raises(ConfigError, match="--full-refresh --drop-history"):
        bench.plan(4, options=refresh)
    for disposition in ("merge", "replace"):
        with pytest.raises(ConfigError, match="holds the history of its records"):
            bench.plan(4, write_disposition=disposition)
    bench.start(1, options={**refresh, "drop_history": True})
    assert bench.rows() == [(1, 1, None, "Anna")]
    bench.execute("alter table people alter name type int using 7")
    bench.start(2, options={**refresh, "drop_history": True})
    assert bench.rows() == [(1, 2, None, 7)]
    bench.start(4, options={**refresh, "drop_history": True}, write_disposition="merge")
    with pytest.raises(ConfigError, match="has no column '_valid_from': it was not written as a history"):
        bench.plan(5)
    bench.start(5, options={**refresh, "drop_history": True})
    assert bench.rows() == [(1, 5, None, 7)]


@pytest.mark.full
def test_a_reset_reads_all_again_and_keeps_the_history(bench: Bench, run_cli: RunCLI) -> None:
    bench.execute("insert into people values (1, 'Ann', '2026-01-01'), (2, 'Bob', '2026-01-01')")
    bench.run(2, **BY_TIME)
    bench.execute("update people set name = 'Anna' where id = 1")
    (bench.folder / "p.yaml").write_text(json.dumps(bench.document(**BY_TIME)))
    told = run_cli(["state", "reset", "p.yaml", "people"], cwd=bench.folder)
    assert told.returncode == 0, told.stderr
    assert bench.run(4, **BY_TIME) == 2
    assert bench.rows() == [(1, 2, 4, "Ann"), (1, 4, None, "Anna"), (2, 2, None, "Bob")]
    with pytest.raises(ConfigError, match="is older than"):
        bench.plan(3, **BY_TIME)


def test_a_transformer_may_rename_the_bookmark(bench: Bench) -> None:
    bench.more = {"transformers": [{"rename": {"ts": "changed", "id": "id"}}]}
    bench.execute("insert into people values (1, 'a', '2026-01-05'), (1, 'b', '2026-01-06')")
    bench.run(20, **LOG)
    assert bench.rows() == [(1, 5, 6, "a"), (1, 6, None, "b")]


def test_a_function_that_drops_the_bookmark_fails_the_stream(bench: Bench) -> None:
    (bench.folder / "t.py").write_text("@transformer\ndef t(df):\n    return df[['id', 'name']]\n")
    bench.more = {"transformers": [{"file": "t.py"}]}
    bench.execute("insert into people values (1, 'a', '2026-01-05')")
    result = bench.start(20, **LOG)
    assert "column 'ts' is gone" in str(result.streams[0].error)
