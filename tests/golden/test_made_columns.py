"""Columns that a run makes, as the destination's own catalog shows them, are those of docs/types.md."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from syncblocks import run_pipeline
from tests.golden.systems import mysql_connection

FIRST, SECOND = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "00000000-0000-0000-0000-00000000000f"
DECLARED = "select data_type from information_schema.columns where table_name = 'made' order by ordinal_position"


def _asked(system: str, place: str, sql: str) -> list[Any]:
    """Return the records of a query, asked by the system's own client."""
    if system == "mysql":
        with mysql_connection(place) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())
    opened: Any = duckdb.connect(place) if system == "duckdb" else sqlite3.connect(place)
    with closing(opened) as connection:
        return list(connection.execute(sql).fetchall())


@pytest.mark.parametrize(
    ("system", "declared"),
    [
        ("duckdb", ["UUID", "UUID", "FLOAT"]),
        ("mysql", ["char", "char", "double"]),
        ("sqlite", ["UUID", "UUID", "REAL"]),
    ],
)
def test_a_uuid_and_a_real_of_postgres_get_the_types_of_the_docs_and_hold_the_next_days_values(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_url: str, system: str, declared: list[str]
) -> None:
    place = request.getfixturevalue("mariadb_url") if system == "mysql" else str(tmp_path / "made.db")
    file = tmp_path / "made.yaml"
    document = {
        "source": {"connector": "postgres", "config": {"url": postgres_url}},
        "destination": {"connector": system, "config": {"url" if system == "mysql" else "path": place}},
        "streams": [
            {"stream": "public.made", "destination_table": "made", "write_disposition": "merge", "on_lossy": "fail"}
        ],
    }
    file.write_text(json.dumps(document))
    with psycopg.connect(postgres_url, autocommit=True) as postgres:
        postgres.execute("create table made (id uuid primary key, other uuid, r real)")
        for number in (FIRST, SECOND):
            postgres.execute("insert into made values (%s, null, 0.1234567)", [number])
            result = run_pipeline(file)
            assert result.status == "success", [stream.error for stream in result.streams]
    if system == "sqlite":
        assert [row[2] for row in _asked(system, place, "pragma table_info(made)")] == declared
    else:
        assert [row[0] for row in _asked(system, place, DECLARED)] == declared
    found = _asked(system, place, "select id, r from made order by r, id")
    assert sorted(str(row[0]) for row in found) == sorted((FIRST, SECOND))
    assert {round(row[1], 7) for row in found} == {0.1234567}


def test_a_uuid_that_a_transformer_makes_another_text_is_text(tmp_path: Path, postgres_url: str) -> None:
    (tmp_path / "mark.py").write_text(
        "@transformer\ndef mark(df, **kwargs):\n    df['other'] = 'x-' + df['other'].astype(str)\n    return df\n"
    )
    file = tmp_path / "made.yaml"
    document = {
        "source": {"connector": "postgres", "config": {"url": postgres_url}},
        "transformers": [{"block": "mark", "file": "mark.py"}],
        "destination": {"connector": "duckdb", "config": {"path": "made.db"}},
        "streams": [{"stream": "public.made", "destination_table": "made"}],
    }
    file.write_text(json.dumps(document))
    with psycopg.connect(postgres_url, autocommit=True) as postgres:
        postgres.execute("create table made (id uuid primary key, other uuid)")
        postgres.execute("insert into made values (%s, %s)", [FIRST, SECOND])
    result = run_pipeline(file)
    assert result.status == "success", [stream.error for stream in result.streams]
    assert [row[0] for row in _asked("duckdb", str(tmp_path / "made.db"), DECLARED)] == ["UUID", "VARCHAR"]
