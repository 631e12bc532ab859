"""What the contracts do not ask of `sqlalchemy`: missing packages, odd types and systems, names, foreign keys."""

from __future__ import annotations

import gc
import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mssql, oracle

from syncblocks.connectors.capabilities import capabilities_of, shown_address
from syncblocks.connectors.errors import ConnectorConfigError, FatalConnectorError
from syncblocks.connectors.registry import make_destination, make_source
from syncblocks.connectors.sqlalchemy import catalog
from syncblocks.connectors.sqlalchemy.destination import SQLAlchemyDestination
from syncblocks.connectors.sqlalchemy.ledger import SQLAlchemyLedger
from syncblocks.connectors.sqlalchemy.source import SQLAlchemySource
from syncblocks.connectors.sqlalchemy.types import SQLAlchemyKind, ddl, widen
from syncblocks.connectors.stream import Checkpoint, LedgerKey, Load, Stream
from syncblocks.connectors.write_spec import ConflictMethod, WriteDisposition, WriteSpec
from tests.connectors.postgres.postgres_pair import rows as psycopg_rows
from tests.connectors.sqlalchemy import firebird_files as firebird

FINAL = Checkpoint(is_final=True)

# The driver's own cursors complain about the order in which they are freed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module", autouse=True)
def _freed() -> Iterator[None]:
    """Free those cursors here, and not in another module's test, where a complaint is an error."""
    yield
    gc.collect()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.fdb"


@pytest.fixture
def url(path: Path) -> str:
    return firebird.create(path)


def load(
    url: str,
    records: pa.Table,
    disposition: WriteDisposition,
    *,
    key: Sequence[str] = ("id",),
    table: str = "things",
    removed: pa.Table | None = None,
    conflict_method: ConflictMethod = ConflictMethod.UPDATE,
    connector: type[SQLAlchemyDestination] = SQLAlchemyDestination,
) -> None:
    destination = connector({"url": url})
    token = secrets.token_hex(16)
    ledger_key = LedgerKey(pipeline="tests", stream="s", destination_table=table)
    stream = Stream(name="s", schema=records.schema, key_properties=tuple(key))
    order = Load(
        key=ledger_key,
        stream=stream,
        write=WriteSpec(disposition=disposition, conflict_method=conflict_method),
        token=token,
        run="1:1",
        removed=removed,
    )
    try:
        destination.take_over(ledger_key, token=token, owner="tests", source="tests://")
        list(destination.load(order, iter([*records.to_batches(), FINAL])))
    finally:
        destination.close()


def read(url: str, table: str) -> pa.Table:
    source = SQLAlchemySource({"url": url})
    try:
        stream = next(each for each in source.discover() if each.name == table)
        return pa.Table.from_batches([event for _, event in source.read([stream], {})], stream.schema)
    finally:
        source.close()


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("snowflake://u:secret@account/db", "pip install snowflake-sqlalchemy"),
        ("nosuch://u:secret@host/db", "install the package that contains it"),
        ("oracle+oracledb://u:secret@host/x", "oracle.oracledb needs oracledb: pip install oracledb"),
        ("no url at all", "dialect.driver://user:password@host"),
    ],
)
@pytest.mark.parametrize("make", [make_source, make_destination])
def test_what_is_missing_is_named_with_the_package_to_install(make: Any, url: str, named: str) -> None:
    with pytest.raises(ConnectorConfigError, match=named) as caught:
        make("sqlalchemy", {"url": url}, Path.cwd())
    assert "secret" not in str(caught.value)


def test_places_are_spelled_as_the_own_connectors_spell_them() -> None:
    url = "postgresql+psycopg://u:p@127.0.0.1:5432/shop?sslmode=require"
    assert (
        SQLAlchemySource({"url": url}).identity()
        == make_source("postgres", {"url": url.replace("+psycopg", "")}, Path.cwd()).identity()
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "DB.example", "localhost"])
@pytest.mark.parametrize("make", [make_source, make_destination])
def test_the_host_is_shown_as_the_url_writes_it(make: Any, host: str) -> None:
    url = f"postgresql+psycopg://u:s3cret@{host}:5433/shop?password=s3cret"
    made = make("sqlalchemy", {"url": url}, Path.cwd())
    assert shown_address(made, capabilities_of(made)) == f"postgres://{host}:5433/shop"
    assert made.identity() == f"postgres://{host.lower().replace('127.0.0.1', 'localhost')}:5433/shop"


@pytest.mark.full
def test_seconds_are_kept_as_finely_as_the_system_says(url: str, path: Path) -> None:
    """Ten-thousandths pass, in every record; what is finer is refused and says so."""
    schema = pa.schema([("id", pa.int64()), ("at", pa.timestamp("us", "UTC")), ("of_day", pa.time64("us"))])
    moments = [datetime(2024, 2, 29, 23, 59, 59, micros, tzinfo=UTC) for micros in (0, 100, 999_900)]
    rows = [{"id": n, "at": at, "of_day": time(1, 2, 3, 400)} for n, at in enumerate(moments)]
    load(url, pa.Table.from_pylist(rows, schema), WriteDisposition.REPLACE)
    assert read(url, "things").to_pylist() == rows
    rows[1]["at"] = moments[1].replace(microsecond=101)
    with pytest.raises(FatalConnectorError, match=r"'at' contains .*59\.000101.* 4 decimal places"):
        load(url, pa.Table.from_pylist(rows, schema), WriteDisposition.REPLACE)
    assert len(firebird.query(path, "select * from things")[1]) == 3


def test_the_plan_knows_how_fine_seconds_are(url: str) -> None:
    destination = SQLAlchemyDestination({"url": url})
    schema = pa.schema([("at", pa.timestamp("us")), ("day", pa.timestamp("s")), ("name", pa.string())])
    table = destination.describe(["things"])["things"]
    kept = destination.keeps(Stream(name="s", schema=schema), table, WriteDisposition.APPEND)
    assert [(one.type, one.arrow) for one in kept] == [
        ("timestamp", pa.timestamp("ms")),
        ("timestamp", pa.timestamp("ms")),
        ("text", pa.string()),
    ]
    destination.close()


def test_a_system_that_takes_nothing_back_is_no_destination(tmp_path: Path) -> None:
    """A real database whose driver commits each statement by itself."""

    class Autocommitting(SQLAlchemyDestination):
        def __init__(self, config: Any, folder: Path | None = None) -> None:
            super().__init__(config, folder)
            self._own.engine = self._own.engine.execution_options(isolation_level="AUTOCOMMIT")

    with pytest.raises(FatalConnectorError, match="can be a source, but not a destination"):
        load(
            f"sqlite:///{tmp_path / 'x.db'}",
            pa.table({"id": [1]}),
            WriteDisposition.APPEND,
            connector=Autocommitting,
        )


def test_types_that_only_the_system_knows_are_read_as_text_or_refused(url: str, path: Path) -> None:
    with firebird.connect(path) as connection:
        cursor = connection.cursor()
        cursor.execute("create table odd (id int not null primary key, big int128, money decfloat(34), short float)")
        connection.commit()
        cursor.execute("insert into odd values (1, 170141183460469231731687303715884105727, 1.10, 0.1)")
        connection.commit()
        cursor.close()
    found = read(url, "odd")
    assert found.column("big").to_pylist() == [str(2**127 - 1)]
    assert Decimal(found.column("money").to_pylist()[0]) == Decimal("1.1")
    assert found.schema.field("short").type == pa.float32()
    assert found.column("short").to_pylist() == [pa.scalar(0.1, pa.float32()).as_py()]


def test_a_key_is_updated_where_foreign_keys_point_at_it(url: str, path: Path) -> None:
    load(url, pa.table({"id": [1, 2], "name": ["a", "b"]}), WriteDisposition.MERGE)
    with firebird.connect(path) as connection:
        cursor = connection.cursor()
        cursor.execute("create table child (thing bigint references things (id))")
        connection.commit()
        cursor.execute("insert into child values (1)")
        connection.commit()
        cursor.close()
    load(url, pa.table({"id": [1, 3], "name": ["A", "c"]}), WriteDisposition.MERGE)
    assert firebird.query(path, "select * from things order by id")[1] == [(1, "A"), (2, "b"), (3, "c")]
    load(url, pa.table({"id": [1, 4], "name": ["AA", "d"]}), WriteDisposition.REPLACE)
    assert firebird.query(path, "select * from things order by id")[1] == [(1, "AA"), (4, "d")]


def test_records_that_the_source_does_not_have_are_removed(url: str, path: Path) -> None:
    records = pa.table({"id": [1, 2, 3], "name": ["a", "b", "c"]})
    load(url, records, WriteDisposition.MERGE)
    load(url, records.slice(0, 1), WriteDisposition.MERGE, removed=pa.table({"id": [1, 3]}))
    assert firebird.query(path, "select * from things order by id")[1] == [(1, "a"), (2, "b")]
    assert firebird.tables(path) == {"things", "_syncblocks_ledger"}


def test_reserved_words_and_cases_that_the_dialect_does_not_know(url: str, path: Path) -> None:
    """`rows` is a word of Firebird's that its dialect has no list entry for."""
    records = pa.table({"id": [1], "rows": ["r"], "LEFT": ["l"], "Mixed": ["m"]})
    for _ in range(2):
        load(url, records, WriteDisposition.MERGE, table="rows")
    assert firebird.query(path, 'select * from "ROWS"') == (["id", "rows", "left", "Mixed"], [(1, "r", "l", "m")])
    assert read(url, "rows").to_pylist() == [{"id": 1, "rows": "r", "left": "l", "Mixed": "m"}]


def test_names_in_lower_case_are_found_where_plain_ones_are_upper(url: str, path: Path) -> None:
    with firebird.connect(path) as connection:
        cursor = connection.cursor()
        cursor.execute('create table "lower" (id int, "name" varchar(10))')
        connection.commit()
        cursor.execute("""insert into "lower" values (1, 'x')""")
        connection.commit()
        cursor.close()
    assert read(url, "lower").to_pylist() == [{"id": 1, "name": "x"}]


def test_one_statement_of_the_users_is_run_and_committed(url: str, path: Path) -> None:
    load(url, pa.table({"id": [1, 2], "name": ["a", "b"]}), WriteDisposition.REPLACE)
    destination = SQLAlchemyDestination({"url": url})
    assert destination.execute("update things set name = :name where id = 2", {"name": "it's :x"}) == 1
    destination.close()
    assert firebird.query(path, "select * from things order by id")[1] == [(1, "a"), (2, "it's :x")]


def test_a_row_of_a_lock_is_no_ledger_row(url: str) -> None:
    load(url, pa.table({"id": [1]}), WriteDisposition.MERGE)
    destination = SQLAlchemyDestination({"url": url})
    assert isinstance(destination._ledger, SQLAlchemyLedger)
    assert [row.completed_by for row in destination.describe(["things"])["things"].ledger] == ["1:1"]
    destination.close()


@pytest.mark.parametrize(
    ("dialect", "kind", "expected"),
    [
        (mssql.dialect(), "text", "NVARCHAR(max)"),
        (mssql.dialect(), "varchar(85)", "NVARCHAR(85)"),
        (mssql.dialect(), "timestamp", "DATETIME2(6)"),
        (mssql.dialect(), "timestamptz", "DATETIMEOFFSET(6)"),
        (mssql.dialect(), "double", "DOUBLE PRECISION"),
        (oracle.dialect(), "timestamp", "TIMESTAMP"),
        (oracle.dialect(), "timestamptz", "TIMESTAMP WITH TIME ZONE"),
        (oracle.dialect(), "text", "CLOB"),
        (oracle.dialect(), "decimal(38,10)", "NUMERIC(38, 10)"),
    ],
)
def test_types_that_would_cut_values_off_are_avoided(dialect: sa.Dialect, kind: str, expected: str) -> None:
    assert ddl(SQLAlchemyKind.parse(kind), dialect) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("int", "bigint", "bigint"),
        ("bigint", "int", "bigint"),
        ("decimal(19,0)", "bigint", "decimal(19,0)"),
        ("decimal(5,2)", "bigint", "decimal(21,2)"),
        ("varchar(255)", "text", "varchar(255)"),
        ("varchar(10)", "text", "text"),
        ("smallint", "bool", "smallint"),
        ("text", "int", None),
        ("char(10)", "text", None),
        ("timestamp", "timestamptz", None),
    ],
)
def test_kinds_are_widened_or_refused(before: str, after: str, expected: str | None) -> None:
    found = widen(SQLAlchemyKind.parse(before), SQLAlchemyKind.parse(after))
    assert (None if found is None else str(found)) == expected


def test_a_table_that_is_dropped_while_the_catalog_is_read_is_in_nobodys_way(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = catalog._columns

    def look_too_early(inspector: Any, name: str, schema: str | None) -> Any:
        found = look(inspector, name, schema)
        if name == "gone":
            psycopg_rows(postgres_url, "drop table gone")
        return found

    psycopg_rows(postgres_url, "create table gone (id int primary key); create table here (id int primary key)")
    monkeypatch.setattr(catalog, "_columns", look_too_early)
    source = make_source("sqlalchemy", {"url": postgres_url.replace("://", "+psycopg://", 1)}, Path())
    assert "here" in [stream.name for stream in source.discover()]
    source.close()
