"""Writers beside injected faults: transactions of all kinds over two tables, which connect anew to a crashed server."""

from __future__ import annotations

import random
import threading
from contextlib import suppress

import psycopg

TABLES = """create table a (id bigint primary key, v int, t text, big text);
create table b (id bigint, v int, t text, big text, primary key (id));
alter table a alter big set storage external; alter table b alter big set storage external;
alter table b replica identity full;
insert into a select g, 0, 't' || g, repeat('x', 3000) from generate_series(1, 40) g;
insert into b select g, 0, 't' || g, null from generate_series(1, 40) g"""


class SteadyWriter(threading.Thread):
    """Changes records in transactions that keep the sum over both tables, until it is told to stop."""

    def __init__(self, url: str, number: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._url, self._chance, self._end, self._number = url, random.Random(number), stop, number
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._end.wait(0.02):
                with suppress(psycopg.OperationalError):  # the server is gone, for now
                    self._write()
        except BaseException as error:
            self.error = error

    def _write(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            if self._number % 2:
                connection.execute("set synchronous_commit = on")
            while not self._end.wait(self._chance.choice((0, 0.01, 0.05))):
                self._transaction(connection)

    def _transaction(self, connection: psycopg.Connection) -> None:
        chance = self._chance
        try:
            with connection.transaction(force_rollback=chance.random() < 0.2):
                amount = chance.randrange(1000)
                for table, sign in (("a", 1), ("b", -1)):
                    connection.execute(f"update {table} set v = v + {sign * amount} where id = 1".encode())
                for _ in range(chance.choice((1, 1, 3, 20))):
                    self._change(connection)
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
        if chance.random() < 0.05:
            self._end.wait(0.1)  # open across whatever happens meanwhile


__all__ = ["TABLES", "SteadyWriter"]
