"""Records that the source no longer has: how many keys are read to find them, and that a wrong filter removes none."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests import services
from tests.benchmarks.bench import Bench, Figure, postgres, single_figure
from tests.benchmarks.measure import CommandFailed

_COLUMNS = "id bigint primary key, name varchar(40), seen bigint"
#: Records that are deleted, all over the table; of a small table at most one in so many.
_FEW, _MANY, _AT_MOST = 100, 50_000, 20
_READ = re.compile(r"compared the keys of (\d+) records with \d+ of the table: (\d+) keys were read, (\d+) ")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """A source and a destination in the same system, and how to reach the table `items` of each."""

    source: Mapping[str, Any]
    destination: Mapping[str, Any]
    stream: str
    execute: Callable[[str], Any]
    #: The number of records in the destination.
    count: Callable[[], int]
    #: Query of `{records}` records.
    records: str


def deletes(bench: Bench) -> list[Figure]:
    """Compare a hundred deletes all over the table, and 50,000 at once; then a filter that leaves nothing."""
    figures = []
    for name, opened in _PAIRS.items():
        with ExitStack() as stack:
            try:
                pair = opened(bench, stack)
            except pytest.skip.Exception:
                continue  # there is no such server
            figures += _measured(bench, name, pair)
    return figures


def _measured(bench: Bench, name: str, pair: _Pair) -> list[Figure]:
    pair.execute(f"create table items ({_COLUMNS})")
    pair.execute(f"insert into items {pair.records.format(records=bench.rows)}")
    stream = {
        "stream": pair.stream,
        "destination_table": "items_copy",
        "replication_method": "INCREMENTAL",
        "bookmark_properties": ["seen"],
        "key_properties": ["id"],
        "deletes": "hard",
    }
    pipeline = bench.pipeline(f"deletes-{name}", pair.source, pair.destination, [stream])
    bench.sync(pipeline)()
    figures, left = [], bench.rows
    for gone in (0, _FEW, min(_MANY, bench.rows // _AT_MOST)):
        if gone:
            pair.execute(f"delete from items where mod(id, {left // gone}) = 7")
        usage = bench.run(bench.syncblocks("run", "--debug", pipeline))
        found = _READ.search((bench.folder / "stderr.txt").read_text())
        assert found is not None
        source, read, missing = map(int, found.groups())
        assert bool(missing) == bool(gone)
        assert pair.count() == source == left - missing
        left = source
        share = read / left
        asked = gone == _FEW and bench.rows >= 1_000_000
        figures.append(
            single_figure(
                f"deletes, {name}",
                f"{missing:,} gone",
                left,
                [usage],
                target=f"{'< 1 % of the keys read: ' if asked else ''}{share:.2%}",
                is_met=share < 0.01 if asked else None,
            )
        )
    stream |= {"replication_method": "FULL_TABLE", "write_disposition": "merge", "where": {"seen": {"<": 0}}}
    del stream["bookmark_properties"]
    wrong = bench.pipeline(f"deletes-{name}-wrong", pair.source, pair.destination, [stream])
    wrong.write_text(wrong.read_text().replace(f"deletes-{name}-wrong", f"deletes-{name}"))
    with pytest.raises(CommandFailed, match="nothing was deleted"):
        bench.sync(wrong)()
    assert pair.count() == left
    return figures


def _postgres(bench: Bench, stack: ExitStack) -> _Pair:
    source, destination = bench.database(), bench.database()
    return _Pair(
        source=postgres(source),
        destination=postgres(destination),
        stream="public.items",
        execute=lambda sql: bench.execute(source, sql),
        count=lambda: int(bench.execute(destination, "select count(*) from items_copy")[0][0]),
        records="select g, 'name of ' || g, g from generate_series(1, {records}) g",
    )


def _mariadb(bench: Bench, stack: ExitStack) -> _Pair:
    url = stack.enter_context(services.fresh_mariadb_database())

    def execute(sql: str) -> Any:
        with services.connect_mariadb(url) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            found = cursor.fetchall() if sql.startswith("select") else None
            connection.commit()
            return found

    block = {"connector": "mariadb", "config": {"url": url}}
    return _Pair(
        source=block,
        destination=block,
        stream=f"{url.rpartition('/')[2]}.items",
        execute=execute,
        count=lambda: int(execute("select count(*) from items_copy")[0][0]),
        records="select seq, concat('name of ', seq), seq from seq_1_to_{records}",
    )


def _duckdb(bench: Bench, stack: ExitStack) -> _Pair:
    import duckdb

    source, destination = bench.folder / "source.duckdb", bench.folder / "copy.duckdb"

    def count() -> int:
        with duckdb.connect(str(destination), read_only=True) as connection:
            (found,) = connection.execute("select count(*) from items_copy").fetchall()
        return int(found[0])

    return _Pair(
        source={"connector": "duckdb", "config": {"path": str(source)}},
        destination={"connector": "duckdb", "config": {"path": str(destination)}},
        stream="items",
        # In a process of its own: what is measured later must not begin with this one's memory.
        execute=lambda sql: bench.run(bench.program("duckdb_execute", source, sql)),
        count=count,
        records="select g, 'name of ' || g, g from range(1, {records} + 1) t(g)",
    )


_PAIRS: dict[str, Callable[[Bench, ExitStack], _Pair]] = {
    "postgres": _postgres,
    "mariadb": _mariadb,
    "duckdb": _duckdb,
}

__all__ = ["deletes"]
