"""The page about reloading a range: its pipelines and its commands, run as they stand there."""

from __future__ import annotations

import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

import duckdb
import pytest
import yaml

from tests.conftest import RunCLI
from tests.docs import examples

PAGE = "docs/how-to/reload-a-range.md"

EVENTS = [(1, "2026-02-10"), (2, "2026-03-31"), (3, "2026-04-01"), (4, "2026-04-30"), (5, "2026-05-01")]


@pytest.mark.full
def test_a_range_is_reloaded(tmp_path: Path, run_cli: RunCLI) -> None:
    whole, by_value, by_file = (example.text for example in examples("yaml", page=PAGE))
    commands = [
        shlex.split(line)[1:] for example in examples("console", page=PAGE) for line in example.text.splitlines()
    ]

    def call(arguments: list[str]) -> None:
        done = run_cli(arguments, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr

    def source(*statements: str) -> None:
        with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
            for sql in statements:
                database.execute(sql)
            database.commit()

    def ids(table: str = "events") -> list[int]:
        with duckdb.connect(tmp_path / "warehouse.duckdb", read_only=True) as connection:
            return [number for (number,) in connection.sql(f"select id from {table} order by id").fetchall()]

    plan, april, verify, verify_april, values = commands
    (tmp_path / "events.yaml").write_text(whole)
    source("create table events (id integer, day date, month text)")
    for number, day in EVENTS:
        source(f"insert into events values ({number}, '{day}', '{day[:7]}')")
    call(plan)
    call([*april[:2], "--interval-start", "2026-01-01", "--interval-end", "2026-06-01"])
    assert ids() == [1, 2, 3, 4, 5]
    source("delete from events where id <> 3", "insert into events values (6, '2026-04-02', '2026-04')")
    for command in (april, verify, verify_april):
        call(command)
    assert ids() == [1, 2, 3, 5, 6]
    document = yaml.safe_load(whole)
    document["streams"] = yaml.safe_load(by_value)["streams"]
    (tmp_path / "events.yaml").write_text(yaml.safe_dump(document))
    source("delete from events where id = 3", "insert into events values (7, '2026-02-11', '2026-02')")
    call(values)
    assert ids() == [2, 5, 6, 7]
    (tmp_path / "exports/met").mkdir(parents=True)
    document |= yaml.safe_load(by_file)
    (tmp_path / "events.yaml").write_text(yaml.safe_dump(document))
    for text, expected in (("id\n1\n2\n", [1, 2]), ("id\n2\n", [2]), ("id\n", [])):
        (tmp_path / "exports/met/a.csv").write_text(text)
        call(values)
        assert ids("met") == expected
