"""JSON that is a text in its source stays that text: order, repeated keys, spaces and the digits of numbers."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
import yaml

from tests import services

from .verify_pairs import Pair

TEXTS = (
    '{"b": 1, "a": 2,  "b": 3}',
    '{"n": 1.0, "e": 1e2, "long": 123456789012345678901234567890.5}',
    '"\\u0000 \\u00e9"',
    "[]",
    "null",
)


@pytest.fixture(params=["mariadb", "duckdb"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    if request.param == "mariadb":
        url = request.getfixturevalue("mariadb_url")
        with contextlib.closing(services.connect_mariadb(url)) as connection:
            connection.autocommit(True)
            connection.cursor().execute("create table docs (id bigint primary key, doc json)")
            connection.cursor().executemany("insert into docs values (%s, %s)", list(enumerate(TEXTS)))
        return {"connector": "mariadb", "config": {"url": url}}
    with duckdb.connect(str(tmp_path / "source.duckdb")) as database:
        database.execute("create table docs (id bigint primary key, doc json)")
        database.executemany("insert into docs values (?, ?)", list(enumerate(TEXTS)))
    return {"connector": "duckdb", "config": {"path": "source.duckdb"}}


def test_a_json_text_arrives_in_postgresql_as_it_was_and_is_verified(
    source: dict[str, Any], postgres_url: str, tmp_path: Path
) -> None:
    config = {"url": postgres_url}
    document = {
        "source": source,
        "destination": {"connector": "postgres", "config": config},
        "streams": [{"stream": "*docs", "destination_table": "docs", "write_disposition": "merge"}],
    }
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(document))
    pair = Pair(tmp_path, "postgres", config, "docs")
    for _ in range(2):
        pair.run()
        with psycopg.connect(postgres_url) as connection:
            assert connection.execute("select doc::text from docs order by id").fetchall() == [
                (each,) for each in TEXTS
            ]
    found = pair.verify()
    assert (found.verdict, found.notes) == ("equal", ())
