"""A table that changes after its columns were read and before its records are: an error that says why, or the truth."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pytest

from syncblocks import run_pipeline
from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.registry import make_source
from syncblocks.connectors.stream import Checkpoint
from tests import services
from tests.golden.systems import mysql_connection

SYSTEMS = ("postgres", "mysql", "sqlite", "duckdb")

#: What happens -> the records by id as they may be read then; None: they cannot be, and the error says why.
CHANGES: dict[str, tuple[list[str], list[dict[str, Any]] | None]] = {
    "added": (["alter table t add column extra int"], [{"id": 1, "a": 12, "b": "x"}]),
    "dropped": (["alter table t drop column a"], None),
    "renamed": (["alter table t rename column a to c"], None),
    "gone": (["drop table t"], None),
    "made anew, in another order": (
        [
            "drop table t",
            "create table t (b varchar(9), id int primary key, a int)",
            "insert into t values ('y', 2, 34)",
        ],
        [{"id": 2, "a": 34, "b": "y"}],
    ),
    "made anew, of other types": (
        [
            "drop table t",
            "create table t (id int primary key, a varchar(9), b int)",
            "insert into t values (1, 'no', 5)",
        ],
        None,
    ),
    "too large": (
        [
            "drop table t",
            "create table t (id int primary key, a decimal(30,0), b varchar(9))",
            "insert into t values (1, 123456789012345678901, 'x')",
        ],
        None,
    ),
}


def runner(system: str, place: str) -> Callable[[list[str]], None]:
    def run(statements: list[str]) -> None:
        if system == "postgres":
            with psycopg.connect(place) as connection:
                for sql in statements:
                    connection.execute(sql.encode())
        elif system == "mysql":
            with mysql_connection(place) as mysql, mysql.cursor() as cursor:
                for sql in statements:
                    cursor.execute(sql)
        else:
            opened: Any = sqlite3.connect(place) if system == "sqlite" else duckdb.connect(place)
            for sql in statements:
                opened.execute(sql)
            if system == "sqlite":
                opened.commit()
            opened.close()

    return run


@pytest.fixture
def place(system: str, tmp_path: Path) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        if system == "postgres":
            yield stack.enter_context(services.fresh_postgres_database())
        elif system == "mysql":
            yield stack.enter_context(services.fresh_mariadb_database())
        else:
            yield str(tmp_path / f"source.{system}")


@pytest.mark.full
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_table_changes_between_the_look_at_it_and_the_reading(tmp_path: Path, system: str, place: str) -> None:
    run, config = runner(system, place), {"url": place} if system in ("postgres", "mysql") else {"path": place}
    stream = {"postgres": "public.t", "mysql": f"{place.rpartition('/')[2]}.t"}.get(system, "t")
    for number, (name, (statements, expected)) in enumerate(CHANGES.items()):
        drop = [] if number == 0 else ["drop table if exists t"]
        run([*drop, "create table t (id int primary key, a int, b varchar(9))", "insert into t values (1, 12, 'x')"])
        source = make_source(system, config, tmp_path)
        found = next(each for each in source.discover() if each.name == stream)
        source.close()
        run(statements)
        error, records = "", None
        try:
            events = [event for _, event in source.read([found], {}) if not isinstance(event, Checkpoint)]
            records = [record for event in events if isinstance(event, pa.RecordBatch) for record in event.to_pylist()]
        except ConnectorError as raised:
            error = str(raised)
        finally:
            source.close()
        assert records == expected, (name, error)
        assert expected is not None or len(error) > 20
        if name not in ("renamed", "made anew, of other types"):
            continue
        document = {
            "pipeline": f"after_{number}",
            "source": {"connector": system, "config": config},
            "destination": {"connector": "jsonl", "config": {"path": f"out{number}"}},
            "streams": [{"stream": stream, "destination_table": "t"}],
        }
        (tmp_path / "after.yaml").write_text(json.dumps(document))
        assert run_pipeline(tmp_path / "after.yaml").status == "success", f"the next run goes on with what is {name}"


@pytest.mark.full
def test_json_lines_that_gain_a_key_on_the_way_widen_the_table(tmp_path: Path) -> None:
    lines = [f'{{"id": {number}, "text": "{"x" * 900}"}}' for number in range(20_000)]
    (tmp_path / "in.jsonl").write_text("\n".join([*lines, '{"id": -1, "text": "y", "late": 5}']), encoding="utf-8")
    document: dict[str, Any] = {
        "pipeline": "late",
        "source": {"connector": "jsonl", "config": {"path": "in.jsonl"}},
        "destination": {"connector": "duckdb", "config": {"path": "out.duckdb"}},
        "streams": [{"stream": "in", "destination_table": "t", "write_disposition": "append"}],
    }
    file = tmp_path / "late.yaml"
    file.write_text(json.dumps(document))
    assert run_pipeline(file).status == "success"
    with duckdb.connect(str(tmp_path / "out.duckdb")) as connection:
        assert connection.execute("select count(*), sum(late) from t").fetchall() == [(20_001, 5)]
        connection.execute("alter table t drop column late")
    document["streams"][0]["on_schema_change"] = "freeze"
    file.write_text(json.dumps(document))
    result = run_pipeline(file)
    assert result.status == "failure"
    assert "'late' added" in str(result.streams[0].error)
    with duckdb.connect(str(tmp_path / "out.duckdb")) as connection:
        assert connection.execute("select count(*) from t").fetchall() == [(20_001,)], "nothing was written"
