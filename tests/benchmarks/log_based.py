"""PostgreSQL's log: its changes read to Arrow, merged into PostgreSQL, and the memory of one large transaction."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from syncblocks.connectors.struct_helpers import replace
from tests import services
from tests.benchmarks.bench import DUCKDB_FILE, Bench, Figure, duckdb, figures, postgres, single_figure
from tests.benchmarks.measure import Usage, alternate

#: Eight columns, about 100 bytes a record.
_COLUMNS = """id bigint primary key, round integer, price numeric(12,2), weight double precision, is_paid boolean,
  created_at timestamp with time zone, status character varying(20), note text"""
_NAMES = ("round", "price", "weight", "is_paid", "created_at", "status", "note")

#: The record of a key `k` in a round, without the key.
_RECORD = """{round}, (k % 1000000) / 100.0, sqrt(k), k % 3 = 0,
  timestamptz '2024-01-01 00:00:00+00' + k * interval '37.5 seconds',
  (array['new', 'paid', 'shipped', 'returned'])[1 + k % 4], 'note ' || md5((k + {round})::text)"""

#: Of ten changes one deletes, two insert, and the others update; each has a key of its own, all over the table.
_KINDS = {"delete": "c % 10 = 0", "insert": "c % 10 in (1, 2)", "update": "c % 10 > 2"}
_KEYS = "(select (c::bigint * 7919) % {rows} + 1 as k from generate_series({first}, {last}) c where {condition}) s"

#: Changes in a large transaction; changes a second of CPU that are asked, by changes a transaction.
_LARGE = 10_000
_PER_CPU_S = {_LARGE: 300_000, 1: 90_000}

#: Megabytes that are asked of one transaction of five times the records; of DuckDB over its `memory_limit`.
_POSTGRES_MB, _DUCKDB_MB, _DUCKDB_LIMIT_MB = 300, 200, 200

_SUMS = "select count(*), sum(id), sum(round), sum(price), sum(length(note)) from items"


class _Items:
    """A table `items`, which a pipeline has copied and reads out of the log from now on."""

    def __init__(self, bench: Bench, url: str, pipeline: Path) -> None:
        self.url, self.pipeline, self.rows, self._bench = url, pipeline, bench.rows, bench

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        return self._bench.execute(self.url, sql)

    def fill(self) -> None:
        self.execute(f"create table items ({_COLUMNS})")
        self.execute(f"insert into items select k, {_RECORD.format(round=0)} from generate_series(1, {self.rows}) k")
        self.execute("vacuum analyze items")

    def change(self, number: int, count: int, size: int) -> None:
        """Make so many changes in transactions of a size; each round has keys of its own."""
        first, last = number * count, (number + 1) * count - 1
        assert last < self.rows
        most = f"least(n + {size - 1}, {last})"
        made = {kind: self._statement(kind, number, "n", most) for kind in _KINDS}
        if size == 1:
            made = {kind: f"if {_KINDS[kind].replace('c', 'n')} then {sql}; end if" for kind, sql in made.items()}
        loop = f"for n in {first} .. {last} by {size} loop {'; '.join(made.values())}; commit; end loop"
        self.execute(f"do $$ begin {loop}; end $$")
        self.end()

    def end(self) -> None:
        """Change one record, and bring the log to the server's disk: nobody reads further than that."""
        self.execute("set synchronous_commit = on; update items set round = round where id = 1")

    def write_changes(self, number: int, count: int, file: Path) -> None:
        """Write what a round's changes amount to: whether a key goes, and its record."""
        import psycopg

        keys = self._keys("delete", number * count, (number + 1) * count - 1)
        query = (
            f"select false, * from items where round = {number + 1} union all select true, k{', null' * 7} from {keys}"
        )
        with (
            file.open("wb") as opened,
            psycopg.connect(self.url) as connection,
            connection.cursor().copy(f"copy ({query}) to stdout (format binary)") as blocks,
        ):
            for block in blocks:
                opened.write(block)

    def _keys(self, kind: str, first: object, last: object) -> str:
        return _KEYS.format(rows=self.rows, first=first, last=last, condition=_KINDS[kind])

    def _statement(self, kind: str, number: int, first: str, last: str) -> str:
        record, keys = _RECORD.format(round=number + 1), self._keys(kind, first, last)
        return {
            "delete": f"delete from items using {keys} where id = k",
            "insert": f"insert into items select k + {self.rows}, {record} from {keys}",
            "update": f"update items set ({', '.join(_NAMES)}) = row({record}) from {keys} where id = k",
        }[kind]


@contextmanager
def _items(bench: Bench, destination: dict[str, Any], name: str) -> Iterator[_Items]:
    """Make the table and its copy; the slot is dropped in the end."""
    with ExitStack() as stack:
        url = stack.enter_context(services.fresh_postgres_database(services.logging_postgres_server()))
        stream = {"stream": "public.items", "replication_method": "LOG_BASED"}
        items = _Items(bench, url, bench.pipeline(name, postgres(url), destination, [stream]))
        items.fill()
        stack.callback(bench.run, bench.syncblocks("log", "drop", items.pipeline))
        bench.sync(items.pipeline)()
        yield items


def to_arrow(bench: Bench) -> list[Figure]:
    """Read changes, ten thousand a transaction and one; the limit is pg_recvlogical, which writes what it gets."""
    made = []
    for size, asked in _PER_CPU_S.items():
        count, destination, name = bench.rows if size > 1 else bench.rows // 4, bench.database(), f"log-{size}"
        with _items(bench, postgres(destination), name) as items:
            items.change(0, count, size)
            read = bench.program("log_to_arrow", items.url, destination, name, count)
            taken = alternate(
                {"pg_recvlogical": partial(_received, bench, items), "log to Arrow": partial(bench.run, read)},
                bench.repeat,
            )
        limit, own = figures(f"log, {size:,} a transaction", count, taken, limit="pg_recvlogical", least=0.9)
        per_cpu_s = count / own.usage.cpu_s
        target = f"{own.target}, >= {asked:,} a second of CPU: {per_cpu_s:,.0f}"
        made += [limit, replace(own, target=target, is_met=bool(own.is_met) and per_cpu_s >= asked)]
    return made


def _received(bench: Bench, items: _Items) -> Usage:
    """Let pg_recvlogical read what the pipeline's slot has, from a copy of the slot."""
    ((slot, end),) = items.execute(
        "select slot_name, pg_current_wal_lsn()::text from pg_replication_slots where database = current_database()"
    )
    items.end()  # it ends with the first message past the place
    items.execute(f"select pg_copy_logical_replication_slot('{slot}', '{slot}_bare')")
    program = [services._postgres_programs() / "pg_recvlogical", "-d", items.url, "--slot", f"{slot}_bare", "--start"]
    options = ["-o", "proto_version=1", "-o", f"publication_names={slot}", "--endpos", end, "-f", "-"]
    try:
        return bench.run([*program, *options])
    finally:
        items.execute(f"select pg_drop_replication_slot('{slot}_bare')")


def merge(bench: Bench) -> list[Figure]:
    """Merge changes into PostgreSQL; the limit finds what they amount to in a file, and reads no log."""
    destination, file, count = bench.database(), bench.folder / "changes.bin", 3 * bench.rows // 10
    with _items(bench, postgres(destination), "log-merge") as items:
        bench.execute(destination, f"create table bare ({_COLUMNS})")
        bench.execute(destination, "insert into bare select * from items")
        bench.execute(destination, "vacuum analyze")
        sync, is_made, rounds = bench.sync(items.pipeline), set[int](), {name: itertools.count() for name in "ab"}

        def prepare(name: str) -> None:
            number = next(rounds[name])
            if number not in is_made:
                items.change(number, count, _LARGE)
                items.write_changes(number, count, file)
                is_made.add(number)

        def psql() -> Usage:
            prepare("a")
            sets = ", ".join(f"{name} = excluded.{name}" for name in _NAMES)
            names = ", ".join(("id", *_NAMES))
            steps = (
                "begin",
                "create temporary table staging (is_deleted boolean, like bare) on commit drop",
                f"\\copy staging from '{file}' (format binary)",
                "delete from bare using staging where bare.id = staging.id and is_deleted",
                f"insert into bare select {names} from staging where not is_deleted "
                f"on conflict (id) do update set {sets}",
                "commit",
            )
            first, *others = steps
            return bench.run([*bench.psql(destination, first), *(part for step in others for part in ("-c", step))])

        def own() -> Usage:
            prepare("b")
            return sync()

        taken = alternate({"psql": psql, "syncblocks": own}, bench.repeat)
        bench.check_equal(items.url, destination, "items", "items=bare")
    return figures("log, merged into postgres", count, taken, limit="psql", least=0.6)


def memory(bench: Bench) -> list[Figure]:
    """Merge one transaction of five times the table's records: inserts, updates and deletes."""
    limited = duckdb()
    limited["config"]["memory_limit"] = f"{_DUCKDB_LIMIT_MB}MB"
    url, rows, made = bench.database(), bench.rows, []
    cases = {"postgres": (postgres(url), _POSTGRES_MB), "duckdb": (limited, _DUCKDB_LIMIT_MB + _DUCKDB_MB)}
    for kind, (destination, most_mb) in cases.items():
        with _items(bench, destination, f"log-{kind}") as items:
            inserted = f"select k, {_RECORD.format(round=1)} from generate_series({rows + 1}, {3 * rows}) k"
            items.execute(
                f"insert into items {inserted}; update items set round = 2 where id > {rows // 2}; "
                f"delete from items where id <= {rows // 2}"
            )
            items.end()
            usage = bench.sync(items.pipeline)()
            found = (
                _duckdb_sums(items.pipeline.with_name(DUCKDB_FILE)) if kind == "duckdb" else bench.execute(url, _SUMS)
            )
            assert found == items.execute(_SUMS)
        target, is_met = f"<= {most_mb} MB", usage.peak_rss_bytes <= most_mb * 1e6
        name = f"log, one transaction into {kind}"
        made.append(single_figure(name, f"{5 * rows:,} changes", 5 * rows, [usage], target=target, is_met=is_met))
    return made


def _duckdb_sums(file: Path) -> list[tuple[Any, ...]]:
    import duckdb as driver

    with driver.connect(str(file), read_only=True) as connection:
        return connection.execute(_SUMS).fetchall()


__all__ = ["memory", "merge", "to_arrow"]
