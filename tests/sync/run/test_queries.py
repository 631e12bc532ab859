"""A query as a stream: its columns as the database describes them, read as any table is."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from syncblocks import PipelineFailed, load_pipeline, run_pipeline
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.session.inspection import opened
from syncblocks.sync.session.session import make_plan
from syncblocks.sync.store import Store
from syncblocks.sync.verify.verification import DIFFERS, EQUAL, verify_streams
from tests.conftest import RunCLI
from tests.connectors.sqlalchemy import firebird_files
from tests.golden.systems import mysql_connection

SYSTEMS = ("sqlite", "duckdb", "postgres", "mysql")
#: The same, and others, read by the connector `sqlalchemy`.
ALCHEMY = ("alchemy-sqlite", "alchemy-postgres", "alchemy-mysql", "alchemy-firebird")

# Firebird's own cursors complain about the order in which they are freed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

TABLES = (
    "create table people (id integer primary key, name varchar(20), born date, spent decimal(10,2), seen timestamp)",
    "create table orders (id integer primary key, person integer, total decimal(12,2))",
    "insert into people values (1, 'Ann', '2001-02-03', 10.50, '2024-01-02 03:04:05')",
    "insert into people values (2, 'Bob', null, 0.10, '2024-01-03 03:04:05')",
    "insert into people values (3, 'it''s; -- Zoe', '1999-12-31', null, null)",
    "insert into orders values (1, 1, 10.00)",
    "insert into orders values (2, 1, 5.25)",
    "insert into orders values (3, 2, 99.99)",
)

BIG = """
-- People with their orders; a comment with an apostrophe isn't one's end
select p.id, p.name, p.born, p.spent, sum(o.total) as total, count(o.id) as orders
from people p left join orders o on o.person = p.id
group by p.id, p.name, p.born, p.spent;
"""


class Bench:
    """A database as the source, a DuckDB file as the destination."""

    def __init__(self, system: str, folder: Path, url: str) -> None:
        self.is_alchemy, self.system = system.startswith("alchemy-"), system.removeprefix("alchemy-")
        self.folder, self.url = folder, url
        self.plan, self.counted, self.driver = "", 0, "psycopg"
        self.execute(*TABLES)

    def execute(self, *statements: str) -> None:
        with closing(self._connect()) as connection:
            for each in statements:
                if self.system in ("sqlite", "duckdb"):
                    connection.execute(each)
                else:
                    with closing(connection.cursor()) as cursor:
                        cursor.execute(each)
                connection.commit()  # Firebird shows a table only then

    def _connect(self) -> Any:
        path = self.folder / "source.db"
        if self.system == "mysql":
            return mysql_connection(self.url)
        if self.system == "postgres":
            return psycopg.connect(self.url)
        if self.system == "firebird":
            return firebird_files.connect(path)
        return duckdb.connect(path) if self.system == "duckdb" else sqlite3.connect(path)

    @property
    def source(self) -> dict[str, Any]:
        if not self.is_alchemy:
            return {"connector": self.system, "config": {"url": self.url} if self.url else {"path": "source.db"}}
        names = {"postgres": "postgresql:", "mysql": "mysql:", "sqlite": "sqlite:", "firebird": "firebird+firebird:"}
        drivers = {"postgres": f"postgresql+{self.driver}:", "mysql": "mysql+pymysql:"}
        url = self.url or "sqlite:///source.db"
        return {
            "connector": "sqlalchemy",
            "config": {"url": url.replace(names[self.system], drivers.get(self.system, names[self.system]))},
        }

    def verdict(self, file: Path) -> str:
        """Plan, count and verify; keep the plan and the count."""
        with opened(load_pipeline(file)) as session, Store.open(session.pipeline.store_url) as store:
            plan = make_plan(session, store)
            self.plan = "\n".join([*(str(planned.resumption) for planned in plan.streams), *plan.warnings])
            self.counted = session.source.count(plan.streams[0].stream)
            (found,) = verify_streams(session, plan)
        return found.verdict

    def file(self, query: str = BIG, variables: Mapping[str, Any] | None = None, **stream: Any) -> Path:
        document = {
            "pipeline": "queries",
            "variables": variables or {},
            "source": self.source,
            "destination": {"connector": "duckdb", "config": {"path": "out.db"}},
            "streams": [{"stream": "big_orders", "query": query, **stream}],
        }
        path = self.folder / "queries.yaml"
        path.write_text(json.dumps(document))
        return path

    def table(self) -> list[Mapping[str, Any]]:
        with closing(duckdb.connect(self.folder / "out.db")) as database:
            found = database.execute("select * from big_orders order by 1")
            return [dict(zip([c[0] for c in found.description], row, strict=True)) for row in found.fetchall()]

    def types(self) -> dict[str, str]:
        with closing(duckdb.connect(self.folder / "out.db")) as database:
            rows = database.execute("describe big_orders").fetchall()
            return {name: kind for name, kind, *_ in rows}


def made(request: pytest.FixtureRequest, folder: Path) -> Bench:
    urls = {"postgres": "postgres_url", "mysql": "mariadb_url"}
    system = request.param.removeprefix("alchemy-")
    url = request.getfixturevalue(urls[system]) if system in urls else ""
    if system == "firebird":
        url = firebird_files.create(folder / "source.db")
    return Bench(request.param, folder, url)


@pytest.fixture(params=SYSTEMS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return made(request, tmp_path)


@pytest.fixture(params=[*SYSTEMS, *ALCHEMY])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return made(request, tmp_path)


@pytest.mark.one_of("anywhere")
def test_a_join_is_a_stream(anywhere: Bench) -> None:
    bench = anywhere
    result = run_pipeline(bench.file())
    assert result.status == "success", result.streams[0].error
    found = bench.table()
    assert [(r["id"], r["name"], str(r["born"]), int(r["orders"])) for r in found] == [
        (1, "Ann", "2001-02-03", 2),
        (2, "Bob", "None", 1),
        (3, "it's; -- Zoe", "1999-12-31", 0),
    ]
    assert [r["spent"] for r in found] == [Decimal("10.50"), Decimal("0.10"), None]
    assert [None if r["total"] is None else float(r["total"]) for r in found] == [15.25, 99.99, None]
    # Firebird tells no digits, only how many bytes a number has.
    assert bench.types()["spent"] == ("DECIMAL(18,2)" if bench.system == "firebird" else "DECIMAL(10,2)")
    assert bench.types()["born"] == "DATE"


@pytest.mark.full
@pytest.mark.one_of("bench")
def test_it_is_merged_by_keys_from_its_bookmark_on(bench: Bench) -> None:
    stream = {
        "query": "select id, name, seen from people where seen is not null",
        "key_properties": ["id"],
        "replication_method": "INCREMENTAL",
        "bookmark_properties": ["seen"],
    }
    assert run_pipeline(bench.file(**stream)).status == "success"
    bench.execute("update people set seen = '2024-02-01 00:00:00', name = 'Zoe' where id = 3")
    result = run_pipeline(bench.file(**stream))
    assert result.status == "success", result.streams[0].error
    assert [(r["id"], r["name"]) for r in bench.table()] == [(1, "Ann"), (2, "Bob"), (3, "Zoe")]
    # Older records that another query finds would never come.
    changed = {**stream, "query": "select id, name, seen from people where seen is not null or id = 9"}
    with pytest.raises(PipelineFailed, match="the query of stream 'big_orders' has changed"):
        run_pipeline(bench.file(**changed)).raise_for_status()
    assert run_pipeline(bench.file(**changed), full_refresh=True).status == "success"


@pytest.mark.one_of("bench")
def test_a_query_that_is_read_anew_may_change(bench: Bench) -> None:
    assert run_pipeline(bench.file("select id from people")).status == "success"
    assert run_pipeline(bench.file("select id, name from people where id > 1")).status == "success"
    assert [(r["id"], r["name"]) for r in bench.table()] == [(2, "Bob"), (3, "it's; -- Zoe")]


@pytest.mark.full
@pytest.mark.one_of("bench")
def test_count_verify_and_preview_take_the_query(bench: Bench, run_cli: RunCLI) -> None:
    file = bench.file("select id, name, spent from people where id < 3", key_properties=["id"])
    assert run_pipeline(file).status == "success"
    assert json.loads(run_cli(["count", file, "--json"], bench.folder).stdout)["streams"][0]["source"] == 2
    assert "Bob" in run_cli(["preview", file, "--stream", "big_orders"], bench.folder).stdout
    with opened(load_pipeline(file)) as session, Store.open(session.pipeline.store_url) as store:
        (found,) = verify_streams(session, make_plan(session, store))
    assert found.verdict == EQUAL, found.notes


#: What is no `:bookmark` and no `;`: in a constant, a comment, a quoted name, dollar quotes, behind another colon.
HOSTILE = {
    "sqlite": "'; :bookmark --' as a, \"a:bookmark\", `a:bookmark` as b",
    "duckdb": "'; :bookmark --' as a, $$ :bookmark $$ as b, \"a:bookmark\", '1'::int as f",
    "postgres": "'; :bookmark --' as a, $$ :bookmark $$ as b, $x1$ ; $$ :bookmark $x1$ as c, \"a:bookmark\", "
    "E'it\\'s :bookmark' as e, '1':: int as f, '50 % of %s \\:bookmark' as g",
    "mysql": "'; :bookmark --' as a, `a:bookmark`, 'it''s \\\\' as e, '%s' as g /* :bookmark */ # :bookmark isn't\n",
    "firebird": "'; :bookmark --' as a, \"a:bookmark\", '? %s $1' as g",
}


def bounded(system: str) -> dict[str, Any]:
    """Return a stream whose query says `:bookmark`, amid what only looks like it."""
    quote = "`" if system == "mysql" else '"'
    query = f"""
    -- from :bookmark on; isn't it
    select id, name, seen, {HOSTILE[system]}
    from (select p.*, p.seen as {quote}a:bookmark{quote} from people p where p.seen >= :bookmark /* :bookmark */) p
    where id < 100 or seen>=:bookmark ; -- :bookmark
    """
    return {
        "query": query,
        "key_properties": ["id"],
        "replication_method": "INCREMENTAL",
        "bookmark_properties": ["seen"],
        "bookmark_start": "2024-01-03",
        "lookback": 3600,
    }


@pytest.mark.full
def test_the_word_bookmark_is_where_a_query_is_read_from(anywhere: Bench) -> None:
    bench = anywhere
    file = bench.file(**bounded(bench.system))
    assert (bench.verdict(file), bench.counted) == (DIFFERS, 1)
    result = run_pipeline(file)
    assert result.status == "success", result.streams[0].error
    assert [(r["id"], r["name"]) for r in bench.table()] == [(2, "Bob")]
    bench.execute(
        "update people set name = 'late', seen = '2024-01-03 02:30:00' where id = 3",
        "update people set name = 'too late', seen = '2024-01-03 02:00:00' where id = 1",
    )
    assert run_pipeline(file).status == "success"
    assert [(r["id"], r["name"]) for r in bench.table()] == [(2, "Bob"), (3, "late")]
    assert bench.verdict(file) == DIFFERS
    assert bench.counted == 3
    assert run_pipeline(file, full_refresh=True).status == "success"
    assert [r["id"] for r in bench.table()] == [1, 2, 3]
    assert bench.verdict(file) == EQUAL


#: A text that would end a constant, and that no system may take for SQL.
EVIL = "\\' or 1=1;--:b $1 %s"


@pytest.mark.one_of("anywhere")
def test_a_template_of_a_query_is_a_value(anywhere: Bench) -> None:
    bench = anywhere
    bench.execute("insert into people values (9, 'y', null, null, '2024-02-01 00:00:00')")
    query = """
    select id, name, seen from people where {{ variables('evil') }} <> name and seen >= {{ variables('from') }}
    and seen<{{ execution_date }} and id in ({{variables('number')}}, {{ variables('below') }}) -- isn't it
    """
    values = {"evil": EVIL, "from": "2024-01-03", "number": 9, "below": -1}
    stream = {"where": {"id": {">": 0}}, "key_properties": ["id"], "write_disposition": "merge"}
    file = bench.file(query, variables=values, **stream)
    result = run_pipeline(file)
    assert result.status == "success", result.streams[0].error
    assert [(r["id"], r["name"]) for r in bench.table()] == [(9, "y")]
    assert (bench.verdict(file), bench.counted) == (EQUAL, 1)


def test_a_date_in_a_query_is_no_change_of_it_and_a_variable_is(tmp_path: Path) -> None:
    bench = Bench("sqlite", tmp_path, "")
    query = "select id from people where id = {{ variables('n') }} and seen < {{ ds }}"
    stream = {"key_properties": ["id"], "write_disposition": "append"}
    first, second = (datetime(2024, month, 1, tzinfo=UTC) for month in (1, 2))
    for moment in (first, second):
        file = bench.file(query, variables={"n": 1}, **stream)
        assert run_pipeline(load_pipeline(file, execution_date=moment)).status == "success"
    assert bench.table() == [{"id": 1}]
    with pytest.raises(PipelineFailed, match="the query of stream 'big_orders' has changed"):
        run_pipeline(bench.file(query, variables={"n": 2}, **stream)).raise_for_status()


@pytest.mark.parametrize(
    ("query", "changes", "message"),
    [
        ("select id from people where name = '{{ variables(\"x\") }}'", {}, "query: template 1 .* is in quotes"),
        ("select id from people -- {{ variables('x') }}", {}, "query: template 1 .* in a comment"),
        ("select id from people where id = {{ variables('gone') }}", {}, "query: .*'gone'"),
        ("select id from people where id = {{ variables('xs') }}", {}, "query: .* is a list: a query takes a text"),
        ("select id {% if true %}{% endif %}, {{ ds }} as d from people", {}, "query: statements"),
        ("select id, seen from people where seen < {{ ds }}", {"deletes": "hard"}, "deletes: .* all records of other"),
        (
            "select id, seen from people where seen < {{ execution_date }}",
            {"replication_method": "INCREMENTAL", "bookmark_properties": ["seen"], "deletes": None},
            "query: .*execution_date }} is another date in each run",
        ),
    ],
)
def test_a_template_that_is_no_value_is_refused(
    tmp_path: Path, query: str, changes: Mapping[str, Any], message: str
) -> None:
    bench = Bench("sqlite", tmp_path, "")
    stream = {"key_properties": ["id"], "write_disposition": "merge", **changes}
    with pytest.raises(ConfigError, match=message):
        run_pipeline(bench.file(query, variables={"x": "1", "xs": [1]}, **stream))


SINCE = {
    "query": "select id, name, seen from people where seen >= :bookmark",
    "key_properties": ["id"],
    "replication_method": "INCREMENTAL",
    "bookmark_properties": ["seen"],
    "bookmark_start": "2024-01-03",
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bookmark_start": None}, '`bookmark_start: "2024-01-01"`'),
        ({"bookmark_start": "soon"}, "bookmark_start: .*'soon' is not a value of 'seen' .*write it like 2024-01-31"),
        ({"bookmark_start": True}, "bookmark_start: must be one value"),
        ({"replication_method": "FULL_TABLE"}, "query: .*`:bookmark` stands for .* and FULL_TABLE has none"),
        ({"deletes": "hard"}, "deletes: .*a query with `:bookmark`"),
        ({"query": "select id, name, seen from people -- :bookmark"}, "bookmark_start: .*leave it out"),
        ({"query": "select id, ':bookmark' as name, seen from people"}, "bookmark_start: .*leave it out"),
    ],
)
def test_the_word_bookmark_needs_a_start_and_a_bookmark(
    tmp_path: Path, changes: Mapping[str, Any], message: str
) -> None:
    bench = Bench("sqlite", tmp_path, "")
    with pytest.raises(ConfigError, match=message):
        run_pipeline(bench.file(**{**SINCE, **changes}))


def test_the_plan_shows_the_start_and_may_ask_functions_for_the_bookmark(tmp_path: Path, postgres_url: str) -> None:
    bench = Bench("postgres", tmp_path, postgres_url)
    # Of an unknown value PostgreSQL cannot tell which function is meant.
    query = "select id, seen from people where seen >= date_trunc('day', :bookmark)"
    file = bench.file(**{**SINCE, "query": query})
    assert bench.verdict(file) == DIFFERS
    assert "without one from 2024-01-03 00:00:00 on" in bench.plan
    assert run_pipeline(file).status == "success"
    assert [r["id"] for r in bench.table()] == [2]


@pytest.mark.parametrize("is_written", ["by the run", "by a statement"])
def test_a_query_of_a_sqlite_file_that_the_process_writes(tmp_path: Path, is_written: str) -> None:
    bench = Bench("sqlite", tmp_path, "")
    before = [{"sql": "insert into orders values (4, 3, 1)", "connection": "source"}]
    file = bench.file(key_properties=["id"], **({} if is_written == "by the run" else {"before": before}))
    if is_written == "by the run":
        document = json.loads(file.read_text())
        file.write_text(json.dumps({**document, "destination": document["source"]}))
    result = run_pipeline(file)
    assert (result.status, result.streams[0].error) == ("success", None)
    with closing(sqlite3.connect(tmp_path / "source.db")) as database:
        ways = {"by the run": "select count(*) from big_orders", "by a statement": "select count(*) from orders"}
        assert database.execute(ways[is_written]).fetchone() == ({"by the run": 3, "by a statement": 4}[is_written],)


def test_sqlite_writes_times_in_several_ways_and_loses_none(tmp_path: Path) -> None:
    bench = Bench("sqlite", tmp_path, "")
    ways = ["2024-01-04", "2024-01-04 00:00", "2024-01-04T00:00:00", "2024-01-04 00:00:00.000", "2024-01-04T00:00:01"]
    bench.execute(*(f"insert into people (id, seen) values ({n}, '{way}')" for n, way in enumerate(ways, 10)))
    file = bench.file(**SINCE)
    assert run_pipeline(file).status == "success"
    bench.execute("insert into people (id, seen) values (20, '2024-01-04T00:00:01.000'), (21, '2024-01-04 00:00:01')")
    assert run_pipeline(file).status == "success"
    assert [r["id"] for r in bench.table()] == [2, 10, 11, 12, 13, 14, 20, 21]


@pytest.mark.one_of("bench")
@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("select id, name as ID from people", "two columns of the query are called"),
        ("select nothing_there from people", "nothing_there"),
        ("delete from people", r"SELECT|syntax|at or near|column|READ ONLY"),
        ("select 1 as a; delete from people", r"SELECT|syntax|multiple commands|one statement"),
        ("with gone as (delete from people returning id) select id from gone", r"syntax|top level|SELECT"),
        ("select 1 as a from people) x, (select 2 as b from people", "syntax"),
    ],
)
def test_what_is_no_query_is_refused_before_anything_runs(bench: Bench, query: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        run_pipeline(bench.file(query))
    assert "query" in str(caught.value)
    assert run_pipeline(bench.file("select count(*) as n from people")).status == "success"
    assert bench.table() == [{"n": 3}]


#: What is no query, or does not stay one as a subquery. No driver of `sqlalchemy` is asked to prepare it alone.
REFUSED = [
    (
        "select id, name as ID from people",
        "two columns of the query are called|Duplicate column|specified multiple times",
    ),
    ("select nothing_there from people", "(?i)nothing_there"),
    ("delete from people", "is not a SELECT"),
    ("select 1 as a from people; delete from people", "more than one statement"),
    (
        "select 1 as a from people) x; delete from people; select 1 as b from (select 2 as a from people",
        "more than one",
    ),
    ("select 1 as a from people) x, (select 2 as b from people", r"an extra \)"),
    ("select 1 as a from people where name = 'it", "an extra '"),
    ("select (1 as a from people", r"extra \("),
    ("select 1 as a from people /* not ended", r"an extra /\*"),
    ("with gone as (delete from people returning id) select id from gone", "(?i)top level|syntax|token unknown"),
]


@pytest.mark.full
@pytest.mark.parametrize("anywhere", ALCHEMY, indirect=True)
def test_sqlalchemy_refuses_what_is_no_query(anywhere: Bench) -> None:
    for query, message in REFUSED:
        with pytest.raises(ConfigError, match=message) as caught:
            anywhere.verdict(anywhere.file(query))
        assert "queries.yaml:1: streams[0].query: " in str(caught.value)
    if anywhere.system in ("postgres", "firebird"):  # others name a column by its text
        with pytest.raises(ConfigError, match=r"has no name|[Nn]o column name"):
            anywhere.verdict(anywhere.file("select count(*), 1 from people"))
    assert run_pipeline(anywhere.file("select count(*) as n from people")).status == "success"
    assert anywhere.table() == [{"n": 3}]


WRITING = {
    "postgres": (
        "create function gone() returns int language plpgsql as 'begin delete from people; return 1; end'",
        "read-only transaction",
    ),
    "mysql": ("create function gone() returns int begin delete from people; return 1; end", "READ ONLY"),
}


@pytest.mark.parametrize("anywhere", ["alchemy-postgres", "alchemy-mysql"], indirect=True)
def test_a_query_of_sqlalchemy_changes_nothing(anywhere: Bench) -> None:
    statement, message = WRITING[anywhere.system]
    anywhere.execute(statement)
    file = anywhere.file("select id, gone() as gone from people")
    if anywhere.system == "mysql":  # knows it when it looks at the function
        with pytest.raises(ConfigError, match=message):
            run_pipeline(file)
    else:
        assert message in (run_pipeline(file).streams[0].error or "")
    assert anywhere.verdict(anywhere.file("select id from people")) == DIFFERS
    assert "may change data" not in anywhere.plan
    assert anywhere.counted == 3


@pytest.mark.parametrize("anywhere", ["alchemy-firebird"], indirect=True)
def test_where_nobody_knows_that_a_query_only_reads_the_plan_warns(anywhere: Bench) -> None:
    stream = {"where": {"id": {">=": 2}, "name": {"!=": "Bob"}}, "key_properties": ["id"]}
    file = anywhere.file("select id, name, seen from people -- where", **stream)
    assert run_pipeline(file).status == "success"
    assert [r["id"] for r in anywhere.table()] == [3]
    assert anywhere.verdict(file) == EQUAL
    assert "big_orders: a function in the query may change data" in anywhere.plan


class Unwrapped(PGDialect_psycopg):
    """A dialect whose system takes no such query as a subquery; SQL Server is one, for a query that begins by WITH."""

    supports_statement_cache = True

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        if "FROM (\nwith" in statement:
            raise psycopg.errors.SyntaxError("incorrect syntax near the keyword 'with'")
        super().do_execute(cursor, statement, parameters, context)


registry.register("postgresql.unwrapped", __name__, "Unwrapped")


@pytest.mark.full
def test_a_query_that_is_no_subquery_is_read_alone(tmp_path: Path, postgres_url: str) -> None:
    bench = Bench("alchemy-postgres", tmp_path, postgres_url)
    bench.driver = "unwrapped"
    query = (
        "with few as (select id, name, spent, ':x' as x from people where id < {{ variables('n') }}) select * from few;"
    )
    stream = {"variables": {"n": 3}, "key_properties": ["id"], "columns": {"exclude": ["name"]}}
    file = bench.file(query, **stream)
    assert run_pipeline(file).status == "success"
    rows = [{"id": 1, "spent": Decimal("10.50"), "x": ":x"}, {"id": 2, "spent": Decimal("0.10"), "x": ":x"}]
    assert bench.table() == rows
    assert (bench.verdict(file), bench.counted) == (EQUAL, 2)
    for changes, message in [
        ({"where": {"id": 1}}, "where: .* does not take the query as a subquery"),
        ({"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}, "replication_method: .* as a subquery"),
    ]:
        with pytest.raises(PipelineFailed, match=message):
            run_pipeline(bench.file(query, **stream, **changes)).raise_for_status()
    for other, message in [
        ("with x as (delete from people returning id) select id from x", "incorrect syntax near the keyword 'with'"),
        ('with few as (select 1 as id) select id, id as "ID" from few', "two columns of the query are called 'ID'"),
    ]:
        with pytest.raises(PipelineFailed, match=message):
            run_pipeline(bench.file(other)).raise_for_status()


def test_postgres_finds_tables_as_the_user_does(postgres_url: str, tmp_path: Path) -> None:
    bench = Bench("postgres", tmp_path, postgres_url)
    bench.execute(
        "create schema sales",
        "create table sales.deals (id int, region text, amount numeric)",
        "insert into sales.deals values (1, 'eu', 1.5)",
        "create domain positive as int check (value > 0)",
        "create type mood as enum ('sad', 'glad')",
    )
    query = "select d.id::positive as id, 'glad'::mood as mood, d.amount, array[1, 2] as parts from deals d"
    config = f"{postgres_url}?options=-csearch_path%3Dsales,public"
    bench.url = config
    result = run_pipeline(bench.file(query))
    assert result.status == "success", result.streams[0].error
    (record,) = bench.table()
    assert (record["id"], record["mood"], str(record["amount"])) == (1, "glad", "1.5")


def test_postgres_compiles_the_users_queries_and_none_of_ours(postgres_url: str, tmp_path: Path) -> None:
    bench = Bench("postgres", tmp_path, postgres_url)
    bench.execute(
        f"alter database {postgres_url.rpartition('/')[2]} set jit = on",
        "create view setting as select current_setting('jit') as jit",
    )
    path = bench.file("select jit from setting")
    document = json.loads(path.read_text())
    document["streams"].append({"stream": "public.setting"})
    path.write_text(json.dumps(document))
    assert run_pipeline(path).status == "success"
    with closing(duckdb.connect(tmp_path / "out.db")) as database:
        assert database.execute("select b.jit, s.jit from big_orders b, setting s").fetchall() == [("on", "off")]


def test_a_source_without_queries_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id\n1\n")
    document = {
        "source": {"connector": "csv", "config": {"path": "a.csv"}},
        "destination": {"connector": "duckdb", "config": {"path": "out.db"}},
        "streams": [{"stream": "q", "query": "select 1 as n"}],
    }
    (tmp_path / "p.yaml").write_text(json.dumps(document))
    with pytest.raises(ConfigError, match="csv does not read queries"):
        run_pipeline(tmp_path / "p.yaml")


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        ([{"stream": "q*", "query": "select 1 as n"}], "cannot be a pattern"),
        ([{"stream": "q", "query": "select 1 as n"}] * 2, "another entry has a query with this name"),
        ([{"stream": "q", "query": " "}], "is empty"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, streams: list[dict[str, str]], message: str) -> None:
    document = {
        "source": {"connector": "duckdb", "config": {"path": "in.db"}},
        "destination": {"connector": "duckdb", "config": {"path": "out.db"}},
        "streams": streams,
    }
    (tmp_path / "p.yaml").write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=message):
        load_pipeline(tmp_path / "p.yaml")
