"""Records that the source no longer has: deleted or marked, by keys that both sides compare."""

from __future__ import annotations

import csv
import json
import random
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from syncblocks import RunResult, load_pipeline, run_pipeline
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.plan.features.deletes import PlannedDeletes
from syncblocks.sync.session.inspection import existing_store, opened
from syncblocks.sync.session.session import make_plan
from syncblocks.sync.store import Store
from syncblocks.sync.verify.verification import EQUAL, verify_streams
from tests.conftest import RunCLI
from tests.connectors.singer.singer_helpers import full_table, record, schema, small
from tests.golden.systems import mysql_connection
from tests.sync.store.store_helpers import FixedClock
from tests.thinned import only_full

MONDAY = datetime(2026, 1, 5, 6, tzinfo=UTC)
TUESDAY = MONDAY + timedelta(days=1)
FULL = {"write_disposition": "merge", "key_properties": ["id"]}
NEW = {"replication_method": "INCREMENTAL", "bookmark_properties": ["seen"], "key_properties": ["id"]}

#: Records: id -> name and counter of the last change.
People = dict[int, tuple[Any, ...]]


class Side:
    """A table `people` in some system, written and read by the system's own driver."""

    def __init__(self, system: str, folder: Path, url: str, stem: str) -> None:
        self.system, self.folder, self.url, self.stem = system, folder, url, stem
        #: MySQL has one database for both sides.
        self.table = "copied" if system == "mysql" and stem == "target" else "people"

    @property
    def document(self) -> dict[str, Any]:
        if self.system in ("postgres", "mysql"):
            schema = {"schema": self.stem} if self.system == "postgres" else {}
            return {"connector": self.system, "config": {"url": self.url, **schema}}
        if self.system == "sqlalchemy":
            return {"connector": self.system, "config": {"url": f"sqlite:///{self.folder}/{self.stem}.db"}}
        path = self.stem if self.system in ("csv", "parquet") else f"{self.stem}.db"
        return {"connector": self.system, "config": {"path": path}}

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        with closing(self._connect()) as connection:
            cursor, rows = connection.cursor(), []
            for sql in statements:
                cursor.execute(sql)
                rows = cursor.fetchall() if cursor.description and sql.startswith("select") else []
            connection.commit()
            return [tuple(row) for row in rows]

    def _connect(self) -> Any:
        if self.system in ("sqlite", "sqlalchemy"):
            return sqlite3.connect(self.folder / f"{self.stem}.db")
        if self.system == "duckdb":
            return duckdb.connect(self.folder / f"{self.stem}.db")
        if self.system == "mysql":
            return mysql_connection(self.url)
        import psycopg

        connection = psycopg.connect(self.url)
        connection.execute(f"create schema if not exists {self.stem}")
        connection.execute(f"set search_path = {self.stem}")
        return connection

    def write(self, people: People, columns: str = "id name seen") -> None:
        """Put these records in, in place of all that are there."""
        if self.system == "csv":
            folder = self.folder / self.stem
            folder.mkdir(exist_ok=True)
            with (folder / "people.csv").open("w", newline="") as file:
                csv.writer(file).writerows([columns.split(), *([key, *values] for key, values in people.items())])
            return
        types = {"id": "bigint primary key", "name": "varchar(50)", "seen": "bigint"}
        declared = ", ".join(f"{name} {types.get(name, 'varchar(50)')}" for name in columns.split())
        values = ", ".join(str((key, *values)).replace("None", "null") for key, values in people.items())
        fill = [f"insert into people values {values}"] if people else []
        self.execute("drop table if exists people", f"create table people ({declared})", *fill)

    def read(self) -> list[dict[str, Any]]:
        if self.system == "parquet":
            return [
                row for file in (self.folder / self.stem).rglob("*.parquet") for row in pq.read_table(file).to_pylist()
            ]
        if self.system == "csv":
            with (self.folder / self.stem / "people.csv").open(newline="") as file:
                return list(csv.DictReader(file))
        with closing(self._connect()) as connection:
            cursor = connection.cursor()
            cursor.execute(f"select * from {self.table}")
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


class Bench:
    """A pipeline from one side to another."""

    def __init__(self, folder: Path, source: Side, table: Side) -> None:
        self.folder, self.source, self.table = folder, source, table

    def document(self, **stream: Any) -> dict[str, Any]:
        schema = {"postgres": "source.", "mysql": self.source.url.rpartition("/")[2] + "."}
        name = schema.get(self.source.system, "") + "people"
        return {
            "pipeline": "people",
            "source": self.source.document,
            "destination": self.table.document,
            "streams": [{"stream": name, "destination_table": self.table.table, **stream}],
        }

    def try_run(self, at: datetime = MONDAY, *, more: dict[str, Any] | None = None, **stream: Any) -> RunResult:
        pipeline = load_pipeline(self.document(**stream), folder=self.folder, execution_date=at)
        return run_pipeline(pipeline, **(more or {}))

    def run(self, at: datetime = MONDAY, *, more: dict[str, Any] | None = None, **stream: Any) -> RunResult:
        result = self.try_run(at, more=more, **stream)
        assert result.status == "success", result.streams[0].error
        return result

    def names(self) -> list[str]:
        return [str(self.document()["streams"][0]["stream"])]

    def ids(self, *, live: bool = False) -> list[int]:
        return sorted(int(row["id"]) for row in self.table.read() if not live or row.get("_deleted_at") is None)

    def verdict(self, **stream: Any) -> str:
        pipeline = load_pipeline(self.document(**stream), folder=self.folder)
        with opened(pipeline) as session, existing_store(pipeline) as store:
            (found,) = verify_streams(session, make_plan(session, store))
            return found.verdict


PAIRS = (
    "postgres postgres",
    "mysql mysql",
    "duckdb duckdb",
    "csv sqlite",
    "duckdb sqlalchemy",
    "sqlite parquet",
    *only_full("mysql postgres", "postgres duckdb", "sqlite mysql", "duckdb csv"),
)


def make_bench(request: pytest.FixtureRequest, folder: Path, pair: str) -> Bench:
    systems, sides = pair.split(), []
    for system, stem in zip(systems, ("source", "target"), strict=True):
        url = ""
        if system in ("postgres", "mysql"):
            fixture = "postgres_url" if system == "postgres" else "mariadb_url"
            url = request.getfixturevalue(fixture)
        sides.append(Side(system, folder, url, stem))
    return Bench(folder, *sides)


@pytest.fixture
def plain(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return make_bench(request, tmp_path, "duckdb duckdb")


def people(*ids: int) -> People:
    return {number: (f"p{number}", number) for number in ids}


@pytest.mark.one_of
@pytest.mark.parametrize("pair", ["postgres postgres", "mysql mysql", "csv sqlite", "duckdb sqlalchemy"])
def test_marked_records_stay_and_their_marks_go_when_they_return(
    request: pytest.FixtureRequest, tmp_path: Path, pair: str
) -> None:
    bench = make_bench(request, tmp_path, pair)
    soft = {**NEW, "deletes": "soft"}
    bench.source.write(people(1, 2, 3, 4))
    bench.run(**soft)
    bench.source.write(people(1, 4))
    assert bench.run(TUESDAY, **soft).streams[0].records_deleted == 2
    assert (bench.ids(), bench.ids(live=True)) == ([1, 2, 3, 4], [1, 4])
    assert bench.verdict(**soft) == EQUAL
    marks = {int(row["id"]): row["_deleted_at"] for row in bench.table.read()}
    assert str(marks[2]).startswith("2026-01-06")
    # 2 comes back as it was, which no bookmark shows; 3 with a new counter.
    bench.source.write({**people(1, 2, 4), 3: ("back", 9)})
    assert bench.run(TUESDAY, **soft).streams[0].records_deleted == 0
    assert bench.ids(live=True) == [1, 2, 3, 4]
    assert {int(row["id"]): row["name"] for row in bench.table.read()}[3] == "back"
    assert bench.verdict(**soft) == EQUAL


class History:
    """Inserts, updates, deletes and new columns, drawn at random; the filtered source is what must arrive."""

    def __init__(self, seed: int, bench: Bench) -> None:
        self.random, self.bench = random.Random(seed), bench
        self.people: People = people(*range(1, 30))
        self.columns, self.counter = "id name seen", 100

    def change(self) -> None:
        for _ in range(self.random.randrange(1, 8)):
            action = self.random.choice(["insert", "update", "delete", "delete", "column"])
            self.counter += 1
            if action == "insert" or not self.people:
                key = self.random.randrange(1, 60)
                self.people[key] = (f"n{self.counter}", self.counter, *["x"] * (len(self.columns.split()) - 3))
            elif action == "column" and len(self.columns.split()) < 5:
                self.columns += f" c{self.counter}"
                # As at the source: what was there has nothing in it.
                self.people = {key: (*values, None) for key, values in self.people.items()}
            else:
                key = self.random.choice(list(self.people))
                name, _, *rest = self.people.pop(key)
                if action == "update":
                    self.people[key] = (name + "+", self.counter, *rest)
        self.bench.source.write(self.people, self.columns)


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("mode", ["hard", "soft"])
@pytest.mark.parametrize("method", [FULL, NEW], ids=["full", "incremental"])
@pytest.mark.parametrize("seed", range(3))
def test_any_history_ends_in_equality_with_the_filtered_source(
    request: pytest.FixtureRequest, tmp_path: Path, pair: str, mode: str, method: dict[str, Any], seed: int
) -> None:
    bench = make_bench(request, tmp_path, pair)
    history = History(seed, bench)
    settings = {**method, "deletes": {"mode": mode, "limit": "100%"}}
    if history.random.random() < 0.5:
        settings["where"] = {"name": {"!=": "p7"}, "id": {"<=": 50}}
    bench.source.write(history.people, history.columns)
    for day in range(3):
        bench.run(MONDAY + timedelta(days=day), **settings, more={"allow_deletes": bench.names()} if day else None)
        history.change()
    bench.run(MONDAY + timedelta(days=3), **settings, more={"allow_deletes": bench.names()})
    kept = {key: values for key, values in history.people.items() if "where" not in settings or key <= 50}
    kept = {key: values for key, values in kept.items() if "where" not in settings or values[0] != "p7"}
    columns = history.columns.split()[1:]
    live = [row for row in bench.table.read() if row.get("_deleted_at") in (None, "")]
    found = {int(row["id"]): [str(row.get(column) or "") for column in columns] for row in live}
    assert found == {key: [str(value or "") for value in values] for key, values in kept.items()}


@pytest.mark.full
def test_too_many_deletes_fail_the_destination_and_delete_nothing_until_they_are_allowed(plain: Bench) -> None:
    plain.source.write(people(*range(2000)))
    plain.run(**NEW, deletes="hard")
    plain.source.write({**people(*range(1700)), 2000: ("new", 2000)})
    failed = plain.try_run(TUESDAY, **NEW, deletes="hard")
    assert failed.status == "failure"
    assert "lacks 300 of the table's 2,001 records, more than the 10 %" in str(failed.streams[0].error)
    assert "run --allow-deletes people" in str(failed.streams[0].error)
    assert len(plain.ids()) == 2001, "what was loaded is committed"
    with Store.open(load_pipeline(plain.document(), folder=plain.folder).store_url) as store:
        blocks = store.block_runs(failed.run_id or 0)
    assert [(each.block, each.status) for each in blocks] == [("load_duckdb", "success"), ("export_duckdb", "failure")]
    # Nothing marks the row: it is tried again, whatever `every` says.
    assert plain.try_run(TUESDAY, **NEW, deletes={"mode": "hard", "every": "1h"}).status == "failure"
    allowed = plain.run(TUESDAY, **NEW, deletes="hard", more={"allow_deletes": ["people"]})
    assert allowed.streams[0].records_deleted == 300
    assert plain.ids() == [*range(1700), 2000]


def test_a_hundred_records_go_whatever_part_of_the_table_they_are(plain: Bench) -> None:
    plain.source.write(people(*range(101)))
    plain.run(**FULL, deletes="hard")
    plain.source.write(people(7))
    plain.run(**FULL, deletes="hard")
    assert plain.ids() == [7]


@pytest.mark.full
def test_an_empty_source_deletes_nothing(plain: Bench) -> None:
    plain.source.write(people(1, 2))
    plain.run(**FULL, deletes="hard")
    plain.source.write({})
    failed = plain.try_run(**FULL, deletes="hard")
    assert "the source has no records, the table has 2: nothing was deleted" in str(failed.streams[0].error)
    assert plain.ids() == [1, 2]
    plain.run(**FULL, deletes="hard", more={"allow_deletes": ["people"]})
    assert plain.ids() == []
    plain.run(**FULL, deletes="hard")


@pytest.mark.full
def test_every_spares_comparisons_until_it_is_over_or_somebody_asks(plain: Bench) -> None:
    daily = {**NEW, "deletes": {"mode": "hard", "every": "1d"}}
    plain.source.write(people(1, 2, 3))
    assert plain.run(MONDAY, **daily).streams[0].records_deleted == 0
    plain.source.write(people(1, 2))
    assert plain.run(MONDAY + timedelta(hours=23), **daily).streams[0].records_deleted is None
    plain.run(MONDAY + timedelta(hours=23), **NEW)  # a run without `deletes` keeps the time
    assert plain.ids() == [1, 2, 3]
    assert plain.run(TUESDAY, **daily).streams[0].records_deleted == 1
    plain.source.write(people(1))
    at_once = plain.run(TUESDAY + timedelta(hours=1), **daily, more={"deletes": True})
    assert (at_once.streams[0].records_deleted, plain.ids()) == (1, [1])


@pytest.mark.full
def test_a_comparison_later_than_now_spares_none(plain: Bench) -> None:
    """One run whose clock was a year ahead stopped all comparisons until then."""
    daily = {**NEW, "deletes": {"mode": "hard", "every": "1d"}}
    plain.source.write(people(1, 2, 3))
    plain.run(TUESDAY, **daily)
    pipeline = load_pipeline(plain.document(**daily), folder=plain.folder, execution_date=MONDAY)
    with opened(pipeline) as session, existing_store(pipeline) as store:
        session.clock = clock = FixedClock()
        # A run that waited for the other one has an older date, and the comparison is none of the future.
        for now, is_due, notices in (MONDAY, True, 1), (TUESDAY, False, 0):
            clock.time = now
            (planned,) = make_plan(session, store).streams
            deletes = planned.step(PlannedDeletes)
            assert deletes is not None
            assert (deletes.is_due, len(planned.texts.notices)) == (is_due, notices)
    plain.run(datetime(2999, 1, 1, tzinfo=UTC), **daily)
    plain.source.write(people(1, 2))
    for hour, deleted in (1, 1), (2, None):
        result = plain.run(TUESDAY + timedelta(hours=hour), **daily)
        assert result.streams[0].records_deleted == deleted
        with existing_store(pipeline) as store:
            assert store is not None
            assert result.run_id is not None
            (block, *_) = store.block_runs(result.run_id)
        assert ["later than now" in each for each in block.notices] == [True] * (deleted or 0)


def test_a_record_that_no_longer_matches_the_filter_goes_and_one_past_the_bookmark_stays(plain: Bench) -> None:
    settings = {**NEW, "where": {"name": {"!=": "gone"}}, "deletes": "hard"}
    plain.source.write(people(1, 2, 3))
    plain.run(**settings)
    plain.source.write({1: ("gone", 8), 2: ("p2", 2), 3: ("new", 9)})
    plain.run(**settings)
    assert plain.ids() == [2, 3]


@pytest.mark.full
@pytest.mark.parametrize("pair", ["duckdb duckdb", "duckdb parquet"])
def test_ignored_records_are_unmarked_too(request: pytest.FixtureRequest, tmp_path: Path, pair: str) -> None:
    plain = make_bench(request, tmp_path, pair)
    settings = {**FULL, "unique_conflict_method": "IGNORE", "deletes": "soft"}
    for ids, live in ([1, 2, 3], [1, 2, 3]), ([1], [1]), ([1, 3], [1, 3]):
        plain.source.write(people(*ids))
        plain.run(**settings)
        assert plain.ids(live=True) == live
    assert plain.ids() == [1, 2, 3]


@pytest.mark.full
def test_composite_and_odd_keys_are_compared_by_value(plain: Bench) -> None:
    plain.source.execute(
        'create table people (id decimal(12, 2), word varchar, "at" timestamptz, day date, raw blob, flag boolean)',
        "insert into people select i / 4, 'ä' || i, timestamptz '2024-01-01 00:00:00+00' + to_seconds(i / 8), "
        "date '1900-01-01' + i::int, encode('x' || i), i % 2 = 0 from range(2000) t(i)",
    )
    keys = ["id", "word", "at", "day", "raw", "flag"]
    settings = {"write_disposition": "merge", "key_properties": keys, "deletes": "hard"}
    plain.run(**settings)
    plain.source.execute("delete from people where id in (0, 7.25, 400)")
    assert plain.run(**settings).streams[0].records_deleted == 3
    assert plain.verdict(**settings) == EQUAL


def test_a_key_in_a_domain_is_compared_by_its_base_type(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    bench = make_bench(request, tmp_path, "postgres postgres")
    for side in (bench.source, bench.table):
        side.execute(
            "create domain code as varchar(10) check (value <> '')",
            "create domain short_code as code check (length(value) < 5)",
            "create table people (id short_code primary key, seen bigint)",
        )
    bench.source.execute("insert into people values ('a', 1), ('b', 2)")
    setting = {**FULL, "deletes": {"mode": "hard", "limit": "90%"}}
    bench.run(**setting)
    bench.source.execute("delete from people where id = 'a'")
    assert bench.run(**setting).streams[0].records_deleted == 1
    assert [row["id"] for row in bench.table.read()] == ["b"]
    assert bench.verdict(**setting) == EQUAL


REFUSED = {
    "replace": (
        {"deletes": "hard"},
        "`deletes` needs `write_disposition: merge` or `history`; this stream has `replace`",
    ),
    "append": ({"deletes": "soft", "write_disposition": "append"}, "needs `write_disposition: merge`"),
    "interval": (
        {**FULL, "deletes": "hard", "where": {"day": {">=": "{{ interval_start_datetime }}"}}},
        "and a `where` of an interval exclude each other",
    ),
    "float": (
        {"write_disposition": "merge", "key_properties": ["share"], "deletes": "hard"},
        "needs a key that both sides order alike; column 'share'",
    ),
    "types": (
        {**FULL, "deletes": "hard", "types": {"id": "string"}},
        "needs a key that both sides order alike; column 'id': the destination stores it as string",
    ),
    "mark": ({**FULL, "deletes": "soft", "add_columns": {"_Deleted_At": "x"}}, "sets a column _deleted_at"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_have_deletes_is_refused_by_name(plain: Bench, case: str) -> None:
    settings, message = REFUSED[case]
    plain.source.execute(
        "create table people (id int primary key, name varchar, seen bigint, share double, day timestamp)"
    )
    pipeline = load_pipeline(plain.document(**settings), folder=plain.folder, interval=(MONDAY, TUESDAY))
    with opened(pipeline) as session, pytest.raises(ConfigError, match=message.partition("(")[0]) as caught:
        make_plan(session, None)
    assert message in str(caught.value)


def test_a_table_of_several_streams_cannot_have_deletes(plain: Bench) -> None:
    plain.source.write(people(1))
    shared = plain.document(**FULL, deletes="hard")
    shared["streams"].append({"stream": "others", "destination_table": "people", **FULL})
    plain.source.execute("create table others (id bigint primary key)")
    pipeline = load_pipeline(shared, folder=plain.folder)
    with opened(pipeline) as session, pytest.raises(ConfigError) as caught:
        make_plan(session, None)
    assert "a table that this stream alone writes; stream 'others' writes it too" in str(caught.value)


def run_changed(bench: Bench, body: str, at: datetime, **stream: Any) -> RunResult:
    """Run with a transformer whose function returns this."""
    (bench.folder / "change.py").write_text(f"@transformer\ndef change(df):\n    return {body}\n")
    document = {**bench.document(**stream), "transformers": [{"file": "change.py", "rename": {"seen": "at"}}]}
    return run_pipeline(load_pipeline(document, folder=bench.folder, execution_date=at))


@pytest.mark.parametrize("pair", ["duckdb duckdb", pytest.param("postgres postgres", marks=pytest.mark.full)])
@pytest.mark.parametrize("mode", ["hard", pytest.param("soft", marks=pytest.mark.full)])
def test_a_function_that_leaves_keys_as_they_are_may_stand_beside_deletes(
    request: pytest.FixtureRequest, tmp_path: Path, pair: str, mode: str
) -> None:
    """What it drops stays in the table: its key is at the source."""
    bench = make_bench(request, tmp_path, pair)
    settings = {**FULL, "deletes": mode}
    bench.source.write(people(1, 2, 3, 4))
    first = run_changed(bench, "df.assign(name=df['name'].str.upper(), more=1)", MONDAY, **settings)
    assert first.status == "success", first.streams[0].error
    bench.source.write(people(1, 2, 4, 5))
    second = run_changed(bench, "df[df['id'] != 2]", TUESDAY, **settings)
    assert (second.status, second.streams[0].records_deleted) == ("success", 1), second.streams[0].error
    assert bench.ids(live=True) == [1, 2, 4, 5]


@pytest.mark.parametrize(
    "body", ["df.assign(id=df['id'] + 10)", "df.assign(id=df['id'].astype(str))", "df.assign(id=None)"]
)
def test_a_function_that_makes_keys_fails_a_stream_with_deletes(plain: Bench, body: str) -> None:
    plain.source.write(people(1, 2))
    result = run_changed(plain, body, MONDAY, **FULL, deletes="hard")
    assert result.status == "failure"
    assert "returned 2 record(s)" in str(result.streams[0].error)
    assert "deletes" in str(result.streams[0].error)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("hrad", "there is no mode 'hrad', did you mean 'hard'?"),
        ({"every": "1d"}, "needs mode"),
        ({"mode": "hard", "evry": "1d"}, "there is no key 'evry', did you mean 'every'?"),
        ({"mode": "hard", "every": 3}, "every is a span of time such as 1d"),
        ({"mode": "hard", "limit": 10}, "limit is a share of the table's records, such as 10%"),
        ({"mode": "hard", "limit": "101%"}, "at most 100%"),
    ],
)
def test_a_setting_that_cannot_be_says_how_it_is_written(plain: Bench, given: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_pipeline(plain.document(**FULL, deletes=given), folder=plain.folder)
    assert message in str(caught.value)


@pytest.mark.full
def test_plan_and_run_say_what_they_do(plain: Bench, run_cli: RunCLI) -> None:
    document = plain.document(**FULL, deletes={"mode": "soft", "every": "1d"})
    (plain.folder / "people.yaml").write_text(json.dumps(document))
    plain.source.write(people(1, 2))
    shown = run_cli(["plan", "people.yaml"], plain.folder).stdout
    assert (
        "people: records that the source no longer has are marked in _deleted_at, at most 10 % of the table's" in shown
    )
    assert "keys are compared by checksums in both databases" in shown
    assert run_cli(["run", "people.yaml"], plain.folder).returncode == 0
    plain.source.write(people(1))
    (planned,) = json.loads(run_cli(["plan", "people.yaml", "--json"], plain.folder).stdout)["streams"]
    assert (planned["deletes"]["is_due"], planned["deletes"]["why"][:14]) == (False, "not due before")
    ran = run_cli(["run", "people.yaml", "--deletes"], plain.folder)
    assert "people: 1 record(s) marked as deleted: the source lacks them" in ran.stderr
    assert "1 deleted" in ran.stdout
    wrong = run_cli(["run", "people.yaml", "--allow-deletes", "peple"], plain.folder)
    assert (wrong.returncode, "did you mean 'people'" in wrong.stderr) == (2, True)
    assert run_cli(["run", "people.yaml", "--deletes", "--full-refresh"], plain.folder).returncode == 2


@pytest.mark.full
def test_ranges_that_load_at_once_are_completed_by_the_deletes(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    bench = make_bench(request, tmp_path, "postgres postgres")
    bench.source.write(people(*range(20_000)))
    settings = {**FULL, "deletes": "hard", "parallel_reads": 2}
    bench.run(**settings)
    bench.source.execute("delete from people where id % 1000 = 7")
    assert bench.run(**settings).streams[0].records_deleted == 20
    assert bench.table.execute("select count(*), count(*) filter (where id % 1000 = 7) from people") == [(19_980, 0)]
    (row,) = bench.table.execute("select completed_by is not null, rows from _syncblocks_ledger")
    assert row == (True, 19_980)


def test_a_tap_is_read_once_more_for_its_keys(tmp_path: Path) -> None:
    def said(*ids: int) -> dict[str, Any]:
        records = [record("orders", id=number, note="x") for number in ids]
        config = small(tmp_path, schema("orders"), *records, streams=[full_table("orders")])
        return {
            "pipeline": "tapped",
            "source": {"connector": "singer", "config": config},
            "destination": {"connector": "sqlite", "config": {"path": "out.db"}},
            "streams": [{"stream": "orders", "write_disposition": "merge", "deletes": "hard"}],
        }

    incremental = said(1)
    incremental["streams"][0]["replication_method"] = "INCREMENTAL"
    with opened(load_pipeline(incremental, folder=tmp_path)) as session, pytest.raises(ConfigError) as caught:
        make_plan(session, None)
    assert "`deletes` needs `replication_method: FULL_TABLE` here" in str(caught.value)
    for ids in ([1, 2, 3], [1, 3, 4]):
        result = run_pipeline(load_pipeline(said(*ids), folder=tmp_path))
        assert result.status == "success", result.streams[0].error
    with closing(sqlite3.connect(tmp_path / "out.db")) as database:
        assert sorted(database.execute("select id from orders")) == [(1,), (3,), (4,)]
