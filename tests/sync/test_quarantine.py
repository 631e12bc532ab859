"""Bad records are set aside beside the good ones, in the same commit, and counted everywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sync.errors import ConfigError
from tests import services

from .pipelines import Bench, statuses

DESTINATIONS = ("sqlite", "duckdb", "postgres", "mysql")
QUARANTINE = {"stream": "a", "on_bad_record": "quarantine"}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.document["streams"] = [QUARANTINE]
    made.record(on=["stream", "load"])
    return made


class Target:
    """A real database as the destination, read back by its own driver."""

    def __init__(self, kind: str, folder: Path, url: str) -> None:
        self.kind, self.folder, self.url = kind, folder, url

    @property
    def document(self) -> dict[str, Any]:
        place = {"url": self.url} if self.url else {"path": f"target.{self.kind}"}
        return {"block": "export", "connector": self.kind, "config": place}

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(self._connect()) as connection:
            cursor = connection.cursor()
            cursor.execute(sql)
            rows = list(cursor.fetchall()) if cursor.description else []
            connection.commit()
            return rows

    def _connect(self) -> Any:
        path = str(self.folder / f"target.{self.kind}")
        if self.kind == "sqlite":
            import sqlite3

            return sqlite3.connect(path)
        if self.kind == "duckdb":
            import duckdb

            return duckdb.connect(path)
        if self.kind == "postgres":
            import psycopg

            return psycopg.connect(self.url)
        import pymysql

        parts = self.url.rpartition("/")
        return pymysql.connect(host="127.0.0.1", user="root", database=parts[2])

    def rejected(self) -> list[tuple[Any, str]]:
        rows = self.query("select record, reason from _syncblocks_rejected order by record")
        return [(json.loads(record), reason) for record, reason in rows]


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    kind = request.param
    if kind == "postgres":
        with services.fresh_postgres_database() as url:
            yield Target(kind, tmp_path, url)
    elif kind == "mysql":
        with services.fresh_mariadb_database() as url:
            yield Target(kind, tmp_path, url)
    else:
        yield Target(kind, tmp_path, "")


@pytest.mark.parametrize("target", DESTINATIONS, indirect=True)
@pytest.mark.parametrize("disposition", ["replace", "merge"])
def test_a_null_key_is_set_aside(bench: Bench, target: Target, disposition: str) -> None:
    bench.document["destination"] = target.document
    bench.document["streams"] = [{**QUARANTINE, "key_properties": ["id"], "write_disposition": disposition}]
    bench.seed("a", [{"id": 1, "v": "x"}, {"id": None, "v": "y"}, {"id": 3, "v": None}], key=())
    result = bench.run()
    assert statuses(result) == {"a": "success"}
    assert target.query("select id, v from a order by id") == [(1, "x"), (3, None)]
    assert target.rejected() == [({"id": None, "v": "y"}, "column 'id': NULL in the key")]
    ((pipeline, stream, table, place),) = target.query(
        "select pipeline, stream, destination_table, place from _syncblocks_rejected"
    )
    assert (pipeline, stream, table, place) == ("bench", "a", "a", "")
    assert result.streams[0].records == 2
    assert result.streams[0].records_rejected == 1
    assert [(call["parent_block_uuid"], call["rows"], call["rows_rejected"]) for call in bench.calls()] == [
        ("load", 3, 0),
        ("export", 2, 1),
    ]


@pytest.mark.parametrize("target", ["postgres"], indirect=True)
@pytest.mark.parametrize("disposition", ["replace", "merge", "append"])
def test_what_the_database_refuses_is_found_among_many(bench: Bench, target: Target, disposition: str) -> None:
    bench.document["destination"] = target.document
    bench.document["streams"] = [{**QUARANTINE, "key_properties": ["id"], "write_disposition": disposition}]
    names = [f"name {number}" for number in range(5000)]
    names[17], names[4711] = "\0", "a\0b"
    bench.seed("a", [{"id": number, "v": name} for number, name in enumerate(names)])
    bench.document["source"]["config"]["batch_size"] = 2000
    assert statuses(bench.run()) == {"a": "success"}
    assert target.query("select count(*), sum(id) from a") == [(4998, sum(range(5000)) - 17 - 4711)]
    assert [record for record, _ in target.rejected()] == [{"id": 17, "v": "\0"}, {"id": 4711, "v": "a\0b"}]
    assert all("0x00" in reason for _, reason in target.rejected())


@pytest.mark.parametrize("target", DESTINATIONS, indirect=True)
def test_too_many_fail_the_stream_and_nothing_is_kept(bench: Bench, target: Target) -> None:
    bench.document["destination"] = target.document
    bench.document["streams"] = [{**QUARANTINE, "key_properties": ["id"], "max_bad_records": 1}]
    bench.seed("a", [{"id": None, "v": "x"}, {"id": None, "v": "y"}, {"id": 3, "v": None}], key=())
    result = bench.run()
    assert statuses(result) == {"a": "failure"}
    assert "more than 1 bad records (`max_bad_records`)" in (result.streams[0].error or "")
    assert "NULL in the key" in (result.streams[0].error or "")
    assert target.rejected() == []
    bench.document["streams"][0]["max_bad_records"] = 2
    assert statuses(bench.run()) == {"a": "success"}


def test_without_it_a_bad_record_fails_the_stream(bench: Bench) -> None:
    bench.document["streams"] = [{"stream": "a", "key_properties": ["id"], "write_disposition": "merge"}]
    bench.seed("a", [{"id": None, "v": "x"}], key=())
    assert statuses(bench.run()) == {"a": "failure"}
    assert bench.destination.rejected == []


def test_a_destination_without_a_place_for_them_is_refused(bench: Bench, tmp_path: Path) -> None:
    bench.document["destination"] = {"block": "export", "connector": "csv", "config": {"path": "out"}}
    bench.seed("a", 1)
    with pytest.raises(ConfigError, match="`on_bad_record: quarantine` needs a destination"):
        bench.run()
