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
from tests.sync.verify.verify_pairs import Pair

TEXTS = (
    '{"b": 1, "a": 2,  "b": 3}',
    '{"n": 1.0, "e": 1e2, "long": 123456789012345678901234567890.5}',
    '"\\u0000 \\u00e9"',
    "[]",
    "null",
    ' \t{"blanks" : "around"}\n ',
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


def test_json_lines_write_null_for_two_things_and_no_blanks_and_are_verified(
    source: dict[str, Any], tmp_path: Path
) -> None:
    check_lines(source, tmp_path)


def test_so_is_json_of_postgresql(postgres_url: str, tmp_path: Path) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("create table docs (id bigint primary key, doc json not null, other jsonb)")
        for number, text in enumerate(TEXTS):
            other = None if "\\u0000" in text else text
            connection.execute("insert into docs values (%s, %s, %s)", (number, text, other))
    check_lines({"connector": "postgres", "config": {"url": postgres_url}}, tmp_path)


def check_lines(source: dict[str, Any], folder: Path) -> None:
    document = {
        "source": source,
        "destination": {"connector": "jsonl", "config": {"path": "lines"}},
        "streams": [{"stream": "*docs", "destination_table": "docs", "key_properties": ["id"]}],
    }
    (folder / "p.yaml").write_text(yaml.safe_dump(document))
    pair = Pair(folder, "jsonl", document["destination"], "docs")
    pair.run()
    found = pair.verify()
    assert (found.verdict, found.notes, found.source_records) == ("equal", (), len(TEXTS))
    (file,) = (folder / "lines").rglob("*.jsonl")
    file.write_text(file.read_text().replace('"around"', '"gone"'))
    assert pair.verify().verdict == "differs"
