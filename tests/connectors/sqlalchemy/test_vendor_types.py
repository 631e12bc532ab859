"""Types that only one dialect knows, as their packages define them: what they are read as, and what is unknown."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
import sqlalchemy as sa
import yaml
from sqlalchemy.engine.default import DefaultDialect

from syncblocks.connectors.sql.identifiers import TableName
from syncblocks.connectors.sql.tables import Column
from syncblocks.connectors.sqlalchemy.naming import SQLAlchemyNaming
from syncblocks.connectors.sqlalchemy.tables import SQLAlchemyTables
from syncblocks.connectors.sqlalchemy.types import kind_of, reading_type
from syncblocks.connectors.sqlalchemy.values import array_of
from tests.conftest import RunCLI


def dialect(name: str) -> Any:
    made = DefaultDialect()
    made.name = name
    return made


def engine_type(name: str, *bases: type, **attributes: Any) -> Any:
    """Return a type as a dialect's package makes it: an own class, derived from whatever it likes."""
    visit = attributes.pop("visit", name)
    return type(name, bases or (sa.types.TypeEngine,), {"__visit_name__": visit, **attributes})()


DECORATED = {"impl": sa.DateTime, "cache_ok": True}


@pytest.mark.parametrize(
    ("name", "found", "kind"),
    [
        ("snowflake", engine_type("TIMESTAMP_TZ"), "timestamptz"),
        ("snowflake", engine_type("TIMESTAMP_LTZ"), "timestamptz"),
        ("snowflake", engine_type("TIMESTAMP_NTZ"), "timestamp"),
        ("snowflake", engine_type("VARIANT"), "json"),
        ("databricks", engine_type("TIMESTAMP", sa.types.TypeDecorator, **DECORATED), "timestamptz"),
        ("databricks", engine_type("TIMESTAMP_NTZ", sa.types.TypeDecorator, **DECORATED), "timestamp"),
        ("databricks", engine_type("OwnString", sa.types.TypeDecorator, impl=sa.String, cache_ok=True), "text"),
        ("ibm_db_sa", engine_type("DOUBLE", sa.Numeric), "double"),
        ("clickhouse", engine_type("String", sa.String, visit="string"), "text"),
        ("clickhouse", engine_type("UUID", sa.String, visit="uuid"), "uuid"),
        ("clickhouse", engine_type("Nullable", nested_type=engine_type("UUID", sa.String)), "uuid"),
        ("clickhouse", engine_type("UInt64", sa.Integer, visit="uint64"), "decimal(20,0)"),
        ("trino", engine_type("JSON", sa.types.TypeDecorator, impl=sa.JSON, cache_ok=True), "json"),
        ("trino", engine_type("ROW"), "ROW()"),
    ],
)
def test_a_vendors_type_is_what_its_name_stands_for(name: str, found: Any, kind: str) -> None:
    assert str(kind_of(found, dialect(name))) == kind


def test_values_of_such_types_are_taken_as_the_driver_gives_them() -> None:
    kind = kind_of(engine_type("TIMESTAMP_TZ"), dialect("snowflake"))
    assert isinstance(reading_type(kind, dialect("snowflake")), sa.types.NullType)
    unknown = pa.field("x", pa.string(), metadata={b"native_type": b"ROW()"})
    values = [(1, "a"), True, date(2024, 1, 1), datetime(2024, 1, 1, 6, tzinfo=UTC)]
    assert array_of(values, unknown, "s").to_pylist() == ['[1, "a"]', "true", "2024-01-01", "2024-01-01T06:00:00+00:00"]


@pytest.mark.parametrize(("name", "is_made"), [("snowflake", False), ("trino", False), ("firebird", True)])
def test_staging_has_an_index_where_the_system_has_any(name: str, *, is_made: bool) -> None:
    naming = SQLAlchemyNaming(sa.create_engine("sqlite://"))
    naming.engine.dialect.name = name
    tables = SQLAlchemyTables(naming)
    assert bool(tables.index_staging(TableName("", "s"), [Column(name="id", type="bigint")])) is is_made


def test_plan_says_which_columns_are_text_because_their_type_is_unknown(
    run_cli: RunCLI, tmp_path: Path, postgres_url: str
) -> None:
    url = postgres_url.replace("postgresql://", "postgresql+psycopg://")
    with psycopg.connect(postgres_url) as connection:
        connection.execute("create table hosts (id integer primary key, at point, net inet)")
    document = {
        "source": {"connector": "sqlalchemy", "config": {"url": url}},
        "destination": {"connector": "duckdb", "config": {"path": "b.duckdb"}},
        "streams": [{"stream": "hosts"}],
    }
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(document))
    done = run_cli(["plan"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "hosts: read as text, since their types are unknown here: " in done.stdout + done.stderr
    assert "net (INET)" in done.stdout + done.stderr
