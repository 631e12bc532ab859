"""LOG_BASED beside many writers: what is appended amounts to the source's tables, and each change is there once."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.sync.run.log_based import Logged, replayed

pytestmark = pytest.mark.full

TABLES = """create table a (id bigint primary key, v int, t text, big text);
create table b (id bigint, v int, t text, big text, primary key (id));
alter table a alter big set storage external; alter table b alter big set storage external;
alter table b replica identity full;
insert into a select g, 0, 't' || g, repeat('x', 3000) from generate_series(1, 40) g;
insert into b select g, 0, 't' || g, null from generate_series(1, 40) g"""

ROUNDS, WRITERS = 6, 6


class Writer(threading.Thread):
    """Changes records in transactions that keep the sum over both tables, until it is told to stop."""

    def __init__(self, url: str, number: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._url, self._chance, self._end, self._number = url, random.Random(number), stop, number
        self.committed = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with psycopg.connect(self._url, autocommit=True) as connection:
                if self._number % 2:
                    connection.execute("set synchronous_commit = on")
                while not self._end.is_set():
                    self._transaction(connection)
        except BaseException as error:
            self.error = error

    def _transaction(self, connection: psycopg.Connection) -> None:
        chance = self._chance
        try:
            with connection.transaction(force_rollback=chance.random() < 0.2):
                amount = chance.randrange(1000)
                for table, sign in (("a", 1), ("b", -1)):
                    connection.execute(f"update {table} set v = v + {sign * amount} where id = 1".encode())
                for _ in range(chance.choice((1, 1, 3, 20))):
                    self._change(connection)
            self.committed += 1
        except (psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation):
            pass  # others were faster

    def _change(self, connection: psycopg.Connection) -> None:
        chance, table = self._chance, self._chance.choice("ab")
        number, other = chance.randrange(2, 60), chance.randrange(2, 60)
        what = chance.choices(
            (
                f"insert into {table} values ({number}, 0, 'new', repeat('y', {chance.choice((5, 4000))}))"
                " on conflict (id) do nothing",
                f"update {table} set t = t || 'z' where id = {number}",
                f"update {table} set big = repeat('z', {chance.choice((5, 4000))}) where id = {number}",
                f"delete from {table} where id = {number}",
                f"update {table} set id = {other} where id = {number} and not exists"
                f" (select from {table} where id = {other})",
                f"savepoint s; delete from {table} where id = {number}; rollback to s",
                f"update {table} set id = id + 100 where id > 50 and id < 60",
                f"delete from {table} where id > 100",
            ),
            (8, 8, 4, 4, 3, 2, 1, 1),
        )[0]
        connection.execute(what.encode())


@pytest.mark.parametrize("connector", ["duckdb", "postgres"])
@pytest.mark.parametrize("deletes", ["hard", pytest.param("soft", marks=pytest.mark.full)])
def test_merged_tables_are_those_of_the_source(
    tmp_path: Path, log_url: str, connector: str, postgres_url: str, deletes: str
) -> None:
    def live(table: str) -> list[tuple[Any, ...]]:
        return [row[:4] for row in logged.merged(table) if row[4:] in ((), (None,))]

    logged = Logged(tmp_path, log_url, connector)
    if connector == "postgres":
        logged.document["destination"]["config"] = {"url": postgres_url}
    logged.document["source"]["config"] |= {"checkpoint_records": 500, "checkpoint_s": 0.05}
    logged.document["streams"] = [{"stream": "public.*", "replication_method": "LOG_BASED", "deletes": deletes}]
    logged.sql(TABLES)
    logged.succeed()
    with writing(log_url):
        for _ in range(ROUNDS):
            logged.succeed()
            assert sum(row[1] for table in "ab" for row in live(table)) == 0, "no moment of the source"
    logged.sql("checkpoint")
    logged.succeed()
    for table in "ab":
        assert live(table) == logged.sql(f"select * from {table} order by 1")


@contextmanager
def writing(url: str) -> Iterator[None]:
    """Have many writers change the tables meanwhile."""
    stop = threading.Event()
    writers = [Writer(url, number, stop) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    try:
        yield
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert [writer.error for writer in writers if writer.error] == []
    assert sum(writer.committed for writer in writers) > 50


def test_each_change_of_many_writers_is_there_once(tmp_path: Path, log_url: str) -> None:
    logged = Logged(tmp_path, log_url, "memory")
    logged.document["source"]["config"] |= {"checkpoint_records": 500, "checkpoint_s": 0.05}
    logged.sql(TABLES)
    with writing(log_url):
        for _ in range(ROUNDS):
            logged.succeed()
            tables = [replayed(logged.changes(table)) for table in "ab"]
            assert sum(record["v"] for table in tables for record in table.values()) == 0, "no moment of the source"
    logged.sql("checkpoint")
    logged.succeed()
    for table in "ab":
        there = {row[0]: row[1:] for row in logged.sql(f"select id, v, t, big from {table}")}
        found = replayed(logged.changes(table))
        assert {each: (it["v"], it["t"], it["big"]) for each, it in found.items()} == there
