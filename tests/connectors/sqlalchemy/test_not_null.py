"""New tables refuse NULL where the source does, and cease to when the source does."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from syncblocks import run_pipeline
from syncblocks.connectors.sql.identifiers import TableName
from syncblocks.connectors.sql.tables import Column
from syncblocks.connectors.sqlalchemy.dialect import KEEP_NOT_NULL, SQLAlchemyTypes, dialect
from syncblocks.connectors.sqlalchemy.naming import SQLAlchemyNaming
from tests.connectors.postgres.postgres_pair import rows as psycopg_rows
from tests.connectors.sqlalchemy import firebird_files as firebird
from tests.connectors.sqlite import sqlite_files

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
Query = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture(scope="module", autouse=True)
def _freed() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def system(request: pytest.FixtureRequest, name: str, tmp_path: Path) -> tuple[str, Query, str]:
    """URL, how to look there, and the question which columns take NULL."""
    if name == "firebird":
        path = tmp_path / "x.fdb"
        asked = (
            "select trim(rdb$field_name) from rdb$relation_fields where rdb$relation_name in ('things', 'THINGS') "
            "and rdb$null_flag is distinct from 1 order by rdb$field_position"
        )
        return firebird.create(path), lambda sql: [tuple(row) for row in firebird.query(path, sql)[1]], asked
    url = request.getfixturevalue("postgres_url")
    asked = (
        "select attname::text from pg_attribute where attrelid = 'things'::regclass and attnum > 0 "
        "and not attisdropped and not attnotnull order by attnum"
    )
    return url.replace("postgresql://", "postgresql+psycopg://"), lambda sql: psycopg_rows(url, sql), asked


@pytest.mark.one_of
@pytest.mark.parametrize(
    ("name", "disposition"), [("firebird", "merge"), ("firebird", "replace"), ("postgresql", "append")]
)
def test_a_table_refuses_null_as_its_source_does(
    tmp_path: Path, system: tuple[str, Query, str], disposition: str
) -> None:
    url, query, asked = system
    there = tmp_path / "source.db"
    columns = "id integer primary key, n integer not null, t text not null, free text"
    sqlite_files.script(there, f"create table things ({columns}); insert into things values (1, 2, '', null)")
    file = tmp_path / "p.yaml"
    document = {
        "source": {"connector": "sqlite", "config": {"path": str(there)}},
        "destination": {"connector": "sqlalchemy", "config": {"url": url}},
        "streams": [{"stream": "things", "write_disposition": disposition, "key_properties": ["id"]}],
    }
    file.write_text(json.dumps(document))
    for _ in range(2):
        assert run_pipeline(file).raise_for_status()
        assert [str(name).lower() for (name,) in query(asked)] == ["free"]
    loose = columns.replace(" not null", "")
    records = "(1, 3, 'a', 'b'), (2, null, null, '')"
    sqlite_files.script(there, f"drop table things; create table things ({loose}); insert into things values {records}")
    assert run_pipeline(file).raise_for_status()
    assert [str(name).lower() for (name,) in query(asked)] == ["n", "t", "free"]
    assert query("select n, t, free from things where id = 2") == [(None, None, "")]


def test_a_column_of_sql_server_keeps_its_type() -> None:
    engine: Any = sa.create_mock_engine("mssql+pyodbc://x", lambda *_: None)
    (written,) = dialect(SQLAlchemyNaming(engine), SQLAlchemyTypes(engine.dialect)).tables.relax(
        TableName("dbo", "t"), Column(name="n", type="bigint")
    )
    assert written == "alter table [dbo].[t] alter column [n] BIGINT null"
    assert "oracle" not in KEEP_NOT_NULL, "an empty text is NULL there"
