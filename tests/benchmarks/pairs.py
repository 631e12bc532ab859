"""Systems and files in pairs, each beside the least work that moves the same records."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb

from tests.benchmarks import moves
from tests.benchmarks.bench import COLUMNS, Bench, Figure, figures, postgres
from tests.benchmarks.measure import Usage, alternate

#: Source and destination.
PAIRS = [
    ("jsonl", "duckdb"),
    ("csv", "parquet"),
    ("jsonl", "postgres"),
    ("csv", "duckdb"),
    ("sqlite", "postgres"),
    ("postgres", "jsonl"),
    ("duckdb", "parquet"),
    ("sqlite", "duckdb"),
    ("postgres", "sqlite"),
    ("postgres", "parquet"),
    ("postgres", "csv"),
    ("parquet", "postgres"),
    ("parquet", "duckdb"),
    ("duckdb", "postgres"),
]

_LEAST = 0.8

#: Places of what is in files: kind -> the name of the file.
_FILES = {"csv": "orders.csv", "jsonl": "orders.jsonl", "parquet": "orders.parquet", "duckdb": "orders.duckdb"}

#: What syncblocks writes as files of a folder.
_WRITTEN = {"csv", "jsonl", "parquet"}

#: What SQLite has types for.
_PLAIN = """select * replace (price::double as price, is_paid::int as is_paid, created_at::varchar as created_at,
    due_on::varchar as due_on, extra::varchar as extra) from made.orders"""


def pairs(bench: Bench) -> list[Figure]:
    """Measure each pair; asked is 0.8 of the limit."""
    sources = _sources(bench)
    result = []
    for kind, into in PAIRS:
        folder = bench.folder / f"{kind}-{into}"
        folder.mkdir()
        least, own = _least_work(bench, kind, sources[kind], into, folder), _sync(bench, kind, sources[kind], into)
        taken = alternate({"least work": least[0], "syncblocks": own[0]}, bench.repeat)
        expected = moves.sums(kind, sources[kind])
        for place in (least[1], own[1]):
            found = moves.sums(into, place())
            assert found == expected, f"{kind} > {into}: {found}, not {expected}"
        result += figures(f"{kind} > {into}", bench.rows, taken, limit="least work", least=_LEAST)
        shutil.rmtree(folder)
    return result


def _sources(bench: Bench) -> Mapping[str, str]:
    """Make the same records in each system and format; return their places."""
    places = {kind: str(bench.folder / name) for kind, name in _FILES.items()}
    places |= {"sqlite": str(bench.folder / "orders.db"), "postgres": bench.database()}
    bench.orders(places["postgres"], moves.TABLE, bench.rows)
    bench.write_csv(places["postgres"], moves.TABLE, Path(places["csv"]))
    with duckdb.connect(places["duckdb"]) as made:
        made.execute(f"create table {moves.TABLE} ({COLUMNS.replace('primary key', '').replace('jsonb', 'json')})")
        made.execute(f"insert into {moves.TABLE} from read_csv('{places['csv']}')")
    for into in ("parquet", "jsonl"):
        moves.move("duckdb", places["duckdb"], into, places[into])
    with duckdb.connect() as plain:
        plain.execute(f"attach '{places['duckdb']}' as made (read_only)")
        with moves.adbc("sqlite", places["sqlite"]) as opened, opened.cursor() as cursor:
            cursor.adbc_ingest(moves.TABLE, plain.sql(_PLAIN).to_arrow_reader(10_000), mode="create")
            opened.commit()
    return places


def _least_work(
    bench: Bench, kind: str, source: str, into: str, folder: Path
) -> tuple[Callable[[], Usage], Callable[[], str]]:
    place = bench.database() if into == "postgres" else str(folder / _FILES.get(into, "orders.db"))

    def run() -> Usage:
        _remove(bench, place)
        return bench.run([sys.executable, moves.__file__, kind, source, into, place])

    return run, lambda: place


def _sync(bench: Bench, kind: str, source: str, into: str) -> tuple[Callable[[], Usage], Callable[[], str]]:
    place = bench.database() if into == "postgres" else "out" if into in _WRITTEN else f"out.{into}"
    stream = {"stream": "public.orders" if kind == "postgres" else "orders", "destination_table": "orders"}
    pipeline = bench.pipeline(f"sync-{kind}-{into}", _config(kind, source), _config(into, place), [stream])
    if into != "postgres":
        place = str(pipeline.with_name(place))

    def run() -> Usage:
        _remove(bench, place)
        return bench.sync(pipeline)()

    def written() -> str:
        if into not in _WRITTEN:
            return place
        (found,) = Path(place).rglob(f"*.{into}")
        return str(found)

    return run, written


def _remove(bench: Bench, place: str) -> None:
    """Remove what an earlier round wrote, so that each writes a new table; a server writes its pages before."""
    if place.startswith("postgresql:"):
        bench.execute(place, f"drop table if exists {moves.TABLE}")
        bench.execute(place, "checkpoint")
    elif Path(place).is_dir():
        shutil.rmtree(place)
    else:
        Path(place).unlink(missing_ok=True)


def _config(kind: str, place: str) -> dict[str, Any]:
    return postgres(place) if kind == "postgres" else {"connector": kind, "config": {"path": place}}


__all__ = ["PAIRS", "pairs"]
