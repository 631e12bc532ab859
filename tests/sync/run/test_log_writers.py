"""LOG_BASED beside many writers: what is appended amounts to the source's tables, and each change is there once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.sync.run.log_based import Logged, replayed
from tests.thinned import only_full

pytestmark = pytest.mark.full

#: Columns of each kind -> a value of a number; then how each is read: at the source, and out of DuckDB.
KINDS = {
    "n numeric(9,2)": "{0} / 7.0",
    "f float8": "{0} / 7.0::float8",
    "flag bool": "{0} % 3 = 0",
    "day date": "date '2020-02-28' + {0}",
    "moment timestamptz": "timestamptz '2024-01-02 03:04:05.678901Z' + {0} * interval '1 hour'",
    "raw bytea": "decode(md5({0}::text), 'hex')",
    "doc jsonb": "jsonb_build_object('a', {0}, 'b', null)",
    "tags text[]": "array['x y', null, {0}::text]",
    "uid uuid": "md5({0}::text)::uuid",
}
NAMES = [kind.split()[0] for kind in KINDS]
READ = {"moment": "(extract(epoch from moment) * 1000000)::bigint", "big": "md5(big)"}
READ |= {name: f"{name}::text" for name in ("doc", "tags", "uid")}
#: A real is shown with fewer digits than its value has, where it is one still.
READ["r"] = "r::float8"
OF_DUCKDB = {"moment": "epoch_us(moment)", "big": "md5(big)", "r": "r::double"}

#: The whole version is run by `make faults`: for minutes, beside values of 200 MB that do not change.
IS_WHOLE = bool(only_full("whole"))
ROUNDS, WRITERS, LARGE_MB = (25, 8, 200) if IS_WHOLE else (3, 4, 2)

#: `a` and `b` are written by transactions that keep the sum of `v` over both; the columns of `c` are altered.
TABLES = f"""create table a (id bigint primary key, v int, t text, big text, {", ".join(KINDS)});
create table b (id bigint, v int, t text, big text, {", ".join(KINDS)}, primary key (id));
create table c (id int primary key, k smallint, s varchar(40), m numeric(5,2), r real, big text);
create table d (id int primary key, v int, big text); alter table d alter big set storage external;
alter table a alter big set storage external; alter table b alter big set storage external;
alter table c alter big set storage external; alter table b replica identity full;
insert into a select g, 0, 't' || g, repeat('x', 3000) from generate_series(1, 40) g;
insert into b select g, 0, 't' || g, null from generate_series(1, 40) g;
insert into c select g, 0, 's' || g, g, g / 7.0, repeat('x', 3000) from generate_series(1, 40) g;
insert into d select g, 0, repeat(chr(65 + g % 50), 1000000) from generate_series(1, {LARGE_MB}) g"""

#: Statements that widen columns of `c`, in order.
WIDENED = (
    "alter k type int",
    "alter s type varchar(80)",
    "alter m type numeric(9,3), alter r type float8",
    "alter k type bigint",
    "alter s type text",
)

LOST = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.UniqueViolation,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.NumericValueOutOfRange,
)


class Writer(threading.Thread):
    """Changes records in transactions that keep the sum over both tables, until it is told to stop."""

    def __init__(self, url: str, number: int, stop: threading.Event, may_truncate: threading.Event) -> None:
        super().__init__(daemon=True)
        self._may_truncate = may_truncate
        self._url, self._chance, self._end, self._number = url, random.Random(number), stop, number
        self.committed = self.prepared = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with psycopg.connect(self._url, autocommit=True) as connection:
                connection.prepare_threshold = None  # columns of `c` change
                (most,) = connection.execute("show max_prepared_transactions").fetchone() or ("0",)
                if self._number % 2:
                    connection.execute("set synchronous_commit = on")
                while not self._end.is_set():
                    self._transaction(connection, may_prepare=most != "0")
        except BaseException as error:
            self.error = error

    def _transaction(self, connection: psycopg.Connection, *, may_prepare: bool) -> None:
        chance = self._chance
        try:
            connection.execute("begin")
            amount = chance.randrange(1000)
            for table, sign in (("a", 1), ("b", -1)):
                connection.execute(f"update {table} set v = v + {sign * amount} where id = 1".encode())
            for _ in range(chance.choice((1, 1, 3, 20))):
                connection.execute(self._change(connection).encode())
            end = "rollback" if chance.random() < 0.2 else "commit"
            if may_prepare and chance.random() < 0.1:
                name = f"{connection.info.dbname} {self._number}"
                connection.execute(f"prepare transaction '{name}'".encode())
                connection.execute(f"{end} prepared '{name}'".encode())
                self.prepared += 1
            else:
                connection.execute(end.encode())
            self.committed += end == "commit"
        except LOST:
            connection.execute("rollback")  # others were faster

    def _change(self, connection: psycopg.Connection) -> str:
        chance, table = self._chance, self._chance.choice("aab")
        number, other = chance.randrange(2, 60), chance.randrange(2, 60)
        values = ", ".join(
            f"{name} = " + ("null" if chance.random() < 0.1 else value.format(chance.randrange(9000)))
            for name, value in zip(NAMES, KINDS.values(), strict=True)
            if chance.random() < 0.4
        )
        size, may_truncate = chance.choice((5, 4000)), self._may_truncate.is_set()
        return chance.choices(
            (
                f"insert into {table} values ({number}, 0, 'new', repeat('y', {size})) on conflict (id) do nothing",
                f"update {table} set t = t || 'z' where id = {number}",
                f"update {table} set {values or 't = null'} where id = {number}",
                f"update {table} set big = repeat('z', {size}) where id = {number}",
                f"delete from {table} where id = {number}",
                f"update {table} set id = {other} where id = {number} and not exists"
                f" (select from {table} where id = {other})",
                f"update {table} set id = -{number} where id = {number}; update {table} set id = {number}"
                f" where id = {other}; update {table} set id = {other} where id = -{number}",
                f"do $$ declare high bigint; begin for high in select id from {table} where id > 60 order by 1 desc"
                f" loop update {table} set id = id + 1 where id = high; end loop; end $$",
                f"savepoint s; delete from {table} where id = {number}; rollback to s",
                f"savepoint s; update {table} set t = 'sub' where id = {number}; savepoint u;"
                f" delete from {table} where id = {other}; release s",
                f"update {table} set id = id + 100 where id > 50 and id < 60",
                f"delete from {table} where id > 100",
                f"do $$ declare kept {table}[] := array(select w from {table} w); begin truncate {table};"
                f" insert into {table} select * from unnest(kept); end $$",
                f"update d set v = v + 1 where id = {chance.randrange(1, LARGE_MB + 1)}",
                "truncate c",
                self._of_c(connection, number),
            ),
            (8, 8, 12, 4, 4, 3, 3, 2, 2, 2, 1, 1, 0.3 * may_truncate, 0.3, 0.1 * may_truncate, 12),
        )[0]

    def _of_c(self, connection: psycopg.Connection, number: int) -> str:
        """Write a change of the table whose columns come and go."""
        chance = self._chance
        query = "select attname from pg_attribute where attrelid = 'c'::regclass and attname ~ '^x[0-9]' and attnum > 0"
        added = [str(name) for (name,) in connection.execute(query.encode()).fetchall()]
        values = ", ".join(f"{name} = '{chance.randrange(99)}'" for name in added)
        return chance.choice(
            (
                f"insert into c (id, k, s, big) values ({number}, 0, 'new', repeat('y', {chance.choice((5, 4000))}))"
                " on conflict (id) do nothing",
                f"update c set k = k + 1, r = {chance.random()}, m = {number / 7} where id = {number}",
                f"update c set s = left(s, 30) || 's', id = {number + 60} where id = {number}"
                f" and not exists (select from c where id = {number + 60})",
                f"delete from c where id > {number + 40}",
                f"update c set {values or 's = null'} where id = {number}",
            )
        )


def alter(url: str, chance: random.Random, ddl: list[str], number: int) -> None:
    """Alter the columns of `c` once, beside whatever runs."""
    added = f"add x{number} {chance.choice(('int', 'text', 'numeric(9,2)'))}"
    with psycopg.connect(url, autocommit=True) as connection:
        query = "select attname from pg_attribute where attrelid = 'c'::regclass and attname ~ '^x[0-9]' and attnum > 0"
        there = [str(name) for (name,) in connection.execute(query.encode()).fetchall()]
        widened = WIDENED[sum(each in WIDENED for each in ddl) :][:1]
        what = chance.choice((added, *(f"drop {name}" for name in there), *widened))
        try:
            connection.execute(f"alter table c {what}".encode())
            ddl.append(what)
        except psycopg.errors.DeadlockDetected:
            pass  # a writer was faster


#: Why a run may fail while a table is altered: between plan and read, or twice since the last run that succeeded.
ALTERED = ("the table was altered after the run was planned", "the table was altered more than once")


@pytest.mark.parametrize("connector", ["duckdb", "postgres"])
@pytest.mark.parametrize("deletes", ["hard", "soft"])
@pytest.mark.thinned(1)
def test_merged_tables_are_those_of_the_source(
    tmp_path: Path,
    log_url: str,
    connector: str,
    postgres_url: str,
    deletes: str,
    record_property: Callable[[str, object], None],
) -> None:
    logged = Logged(tmp_path, log_url, connector)
    if connector == "postgres":
        logged.document["destination"]["config"] = {"url": postgres_url}
    logged.document["source"]["config"] |= {"checkpoint_records": 500, "checkpoint_s": 0.05}
    logged.document["streams"] = [{"stream": "public.*", "replication_method": "LOG_BASED", "deletes": deletes}]
    logged.sql(TABLES)
    logged.succeed()
    ddl, failures, chance = list[str](), 0, random.Random(connector)

    def live(table: str, columns: list[str]) -> list[tuple[Any, ...]]:
        """Read a table of the destination."""
        read = READ if connector == "postgres" else {name: f"{name}::varchar" for name in READ} | OF_DUCKDB
        listed = ", ".join(read.get(name, name) for name in columns)
        where = " where _deleted_at is null" if deletes == "soft" else ""
        return logged.query(f"select {listed} from {table}{where} order by 1")

    def run(altering: threading.Thread | None = None) -> bool:
        result = logged.run()
        if altering is not None:
            altering.join()
        if result.status == "success":
            return True
        errors = " ".join(str(stream.error) for stream in result.streams if stream.error)
        assert any(words in errors for words in ALTERED), errors
        if ALTERED[1] in errors:
            may_truncate.clear()
            logged.succeed(streams=["public.c"], full_refresh=True)
            may_truncate.set()
        return False

    with writing(log_url) as may_truncate:
        may_truncate.set()
        for number in range(ROUNDS):
            altering = threading.Timer(chance.random(), alter, (log_url, chance, ddl, number))
            altering.start()
            if run(altering):
                assert sum(v for table in "ab" for _, v in live(table, ["id", "v"])) == 0, "no moment of the source"
            else:
                failures += 1
    assert failures < ROUNDS or not IS_WHOLE  # few rounds may each meet a table that is altered
    logged.sql("checkpoint")
    while not run():
        pass
    for table in "abcd":
        named = logged.sql(
            f"select attname from pg_attribute where attrelid = '{table}'::regclass and attnum > 0 and not attisdropped"
            " order by attnum"
        )
        columns = [str(name) for (name,) in named]
        query = f"select {', '.join(READ.get(name, name) for name in columns)} from {table} order by 1"
        assert live(table, columns) == logged.sql(query)
    record_property("statements of DDL, and runs that they failed", (len(ddl), failures))


@contextmanager
def writing(url: str) -> Iterator[threading.Event]:
    """Have many writers change the tables meanwhile; yield what lets them truncate: none does while a table is copied.

    A copy holds its tables' locks, and waits for transactions that have begun.
    """
    stop, may_truncate = threading.Event(), threading.Event()
    writers = [Writer(url, number, stop, may_truncate) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    try:
        yield may_truncate
        # Runs may end before writers on a busy machine have done much: the next run reads the rest.
        while sum(writer.committed for writer in writers) <= 50 and all(writer.is_alive() for writer in writers):
            stop.wait(0.05)
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
    with writing(log_url) as may_truncate:
        for _ in range(ROUNDS):
            logged.succeed()
            may_truncate.set()
            tables = [replayed(logged.changes(table)) for table in "ab"]
            assert sum(record["v"] for table in tables for record in table.values()) == 0, "no moment of the source"
    logged.sql("checkpoint")
    logged.succeed()
    for table in "ab":
        there = {row[0]: row[1:] for row in logged.sql(f"select id, v, t, big from {table}")}
        found = replayed(logged.changes(table))
        assert {each: (it["v"], it["t"], it["big"]) for each, it in found.items()} == there
