"""What every scenario works with: databases and tables of its own, pipeline files, commands; and what it returns."""

from __future__ import annotations

import json
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from syncblocks.connectors.struct_helpers import replace
from tests.benchmarks.measure import Usage, median_extra_s, median_ratio, median_usage, run

#: Twelve columns, about 270 bytes a record.
COLUMNS = """id bigint primary key, customer_id integer, amount_cents bigint, price numeric(12,2),
  weight double precision, is_paid boolean, created_at timestamp with time zone, due_on date,
  status character varying(20), description text, note text, extra jsonb"""

#: Texts with line breaks, quotes and characters of four bytes; a tenth of the notes is NULL.
RECORDS = r"""select g, (g * 7919) %% 100000, g * 31 %% 5000000, (g %% 1000000) / 100.0, sqrt(g), g %% 3 = 0,
  timestamptz '2024-01-01 00:00:00+00' + g * interval '37.5 seconds', date '2020-01-01' + (g %% 2000)::int,
  (array['new', 'paid', 'shipped', 'returned'])[1 + g %% 4],
  E'Order no. ' || g || E': "fragile" \U0001F4E6, it''s to be left\nat the door, thanks\u2026 ' || md5(g::text),
  case when g %% 10 <> 0 then 'note ' || md5((g + 1)::text) || repeat('x', (g %% 20)::int) end,
  jsonb_build_object('channel', (array['web', 'app', 'shop'])[1 + g %% 3], 'items', g %% 9,
    'tags', array[g %% 5, g %% 7])
  from generate_series(1, %(records)s::bigint) g"""

#: Name and type of each of `COLUMNS`.
_TYPES = [tuple(part.strip().removesuffix(" primary key").split(" ", 1)) for part in re.split(r",\s", COLUMNS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table."""

    scenario: str
    case: str
    #: The case that it is compared with; None: it is one.
    limit: str | None
    records: int
    usage: Usage
    #: Speed in relation to the limit, by whole processes.
    ratio: float | None = None
    #: Seconds over the limit, where that is what is asked.
    extra_s: float | None = None
    #: What is asked of it, in words, and whether it holds; None: only for information.
    target: str = ""
    is_met: bool | None = None


@dataclass(slots=True, kw_only=True)
class Bench:
    """One scenario's workshop; `workshop` makes and removes it."""

    folder: Path
    server: str
    rows: int
    tables: int
    repeat: int
    #: Records of the larger table, where memory is compared.
    large_rows: int
    #: Gives the URL of an empty database, and sees to its end; None: they are made here and dropped.
    fresh: Callable[[], str] | None = None
    databases: list[str] = field(default_factory=list)

    # -- databases -----------------------------------------------------------------------------------------------

    def database(self) -> str:
        """Create a database and return its URL."""
        if self.fresh is not None:
            return self.fresh()
        name = f"syncblocks_bench_{uuid.uuid4().hex[:12]}"
        self.execute(self.server, f'create database "{name}"')
        self.databases.append(name)
        return urlunsplit(urlsplit(self.server)._replace(path=f"/{name}"))

    def execute(self, url: str, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows."""
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []

    def orders(self, url: str, table: str, records: int) -> None:
        """Create the table and fill it."""
        self.execute(url, f"create table {table} ({COLUMNS})")
        if records:
            self.execute(url, f"insert into {table} {RECORDS}", {"records": records})
            self.execute(url, f"vacuum analyze {table}")

    def new_orders(self, url: str, table: str) -> None:
        """Put an empty table in the place of the one that is there."""
        self.execute(url, f"drop table if exists {table}")
        self.orders(url, table, 0)

    def write_csv(self, url: str, table: str, file: Path) -> None:
        """Write a table's records as the server writes CSV."""
        import psycopg

        with (
            file.open("wb") as opened,
            psycopg.connect(url) as connection,
            connection.cursor().copy(f"copy {table} to stdout (format csv, header)") as blocks,
        ):
            for block in blocks:
                opened.write(block)

    def check_equal(self, source: str, destination: str, *tables: str, as_values: bool = False) -> None:
        """Compare the records of tables in two databases by a checksum over all columns.

        Args:
            source: database that holds the tables.
            destination: database that holds what became of them.
            tables: their names, the same on both sides; `name=other` where they differ.
            as_values: cast both sides to the types of `COLUMNS`: the values count, not what a CSV file says of types.
        """
        record = f"row({', '.join(f'{name}::{kind}' for name, kind in _TYPES)})" if as_values else "t"
        for pair in tables:
            name, _, other = pair.partition("=")
            sums = [
                self.execute(url, f"select count(*), sum(hashtextextended({record}::text, 0)) from {table} t")
                for url, table in ((source, name), (destination, other or name))
            ]
            assert sums[0] == sums[1], f"{pair}: {sums[0]} became {sums[1]}"

    def check_duckdb(self, source: str, table: str, file: Path) -> None:
        """Read a DuckDB file's table back into the source's server, by CSV, and compare it there."""
        returned, text = f"{table}_back", self.folder / "back.csv"
        self.new_orders(source, returned)
        self.run(self.program("export_duckdb", file, table, text))
        self.run(self.program("copy_csv", source, returned, text, 1))
        text.unlink()
        self.check_equal(source, source, f"{table}={returned}")
        self.execute(source, f"drop table {returned}")

    # -- commands ------------------------------------------------------------------------------------------------

    def psql(self, url: str, sql: str) -> list[str]:
        """Return the command that runs one statement by psql."""
        found = shutil.which("psql")
        assert found is not None, "the limit is measured with psql: install PostgreSQL's client"
        return [found, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql]

    def program(self, name: str, *arguments: object) -> list[str]:
        """Return the command for one of `programs`."""
        path = Path(__file__).with_name("programs.py")
        return [sys.executable, str(path), name, *map(str, arguments)]

    def syncblocks(self, *arguments: object) -> list[str]:
        """Return a command line of syncblocks: the console script, as users start it."""
        return [str(Path(sys.executable).with_name("syncblocks")), *map(str, arguments)]

    def pipeline(
        self,
        name: str,
        source: Mapping[str, Any],
        destination: Mapping[str, Any],
        streams: Sequence[Mapping[str, Any]],
        *,
        callback: str | None = None,
    ) -> Path:
        """Write a pipeline file, in a folder of its own, with a callback file if there is one."""
        folder = self.folder / name
        folder.mkdir()
        document: dict[str, Any] = {
            "pipeline": name,
            "source": {"connector": source["connector"], "config": source["config"]},
            "destination": {"connector": destination["connector"], "config": destination["config"]},
            "streams": list(streams),
        }
        if callback is not None:
            (folder / "callback.py").write_text(callback)
            document["callbacks"] = [{"file": "callback.py"}]
        path = folder / "pipeline.yaml"
        path.write_text(json.dumps(document))  # which is YAML, too
        return path

    def run(self, *pipe: Sequence[str | Path]) -> Usage:
        """Run commands in the workshop's folder."""
        return run(*pipe, cwd=self.folder)

    def sync(self, pipeline: Path) -> Callable[[], Usage]:
        """Return what runs a pipeline as users do."""
        return lambda: self.run(self.syncblocks("run", pipeline))


@contextmanager
def workshop(
    folder: Path, server: str, *, rows: int, tables: int, repeat: int, large_rows: int | None = None
) -> Iterator[Bench]:
    """Make a scenario's workshop in a new folder and drop its databases in the end."""
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(
        folder=folder, server=server, rows=rows, tables=tables, repeat=repeat, large_rows=large_rows or 4 * rows
    )
    try:
        yield bench
    finally:
        for name in bench.databases:
            bench.execute(server, f'drop database if exists "{name}" with (force)')


def figures(
    scenario: str,
    records: int,
    taken: Mapping[str, Sequence[Usage]],
    *,
    limit: str,
    least: float | None = None,
) -> list[Figure]:
    """Compare each case with one of them; `least` is the ratio that is asked for."""
    result = []
    for case, usages in taken.items():
        is_limit = case == limit
        ratio = None if is_limit else median_ratio(taken[limit], usages)
        asked = least is not None and ratio is not None
        result.append(
            Figure(
                scenario=scenario,
                case=case,
                limit=None if is_limit else limit,
                records=records,
                usage=median_usage(usages),
                ratio=ratio,
                target=f">= {least:g}" if asked else "",
                is_met=ratio >= least if ratio is not None and least is not None else None,
            )
        )
    return result


def extra_figures(
    scenario: str, records: int, taken: Mapping[str, Sequence[Usage]], *, limit: str, most_s: float
) -> list[Figure]:
    """Compare by seconds instead of by speed: where what is asked is a fixed cost on top of the limit."""
    result = []
    for figure in figures(scenario, records, taken, limit=limit):
        if figure.limit is None:
            result.append(figure)
            continue
        extra_s = median_extra_s(taken[limit], taken[figure.case])
        target = f"<= {most_s:g} s more: {extra_s:.2f} s"
        result.append(replace(figure, extra_s=extra_s, target=target, is_met=extra_s <= most_s))
    return result


def single_figure(
    scenario: str, case: str, records: int, usages: Sequence[Usage], *, target: str = "", is_met: bool | None = None
) -> Figure:
    """Show a case that has no limit to compare with."""
    usage = median_usage(usages)
    return Figure(scenario=scenario, case=case, limit=None, records=records, usage=usage, target=target, is_met=is_met)


def postgres(url: str) -> dict[str, Any]:
    """Return a Postgres source or destination as pipelines name it."""
    return {"connector": "postgres", "config": {"url": url}}


def duckdb() -> dict[str, Any]:
    """Return a DuckDB destination beside the pipeline file."""
    return {"connector": "duckdb", "config": {"path": DUCKDB_FILE}}


#: The file of `duckdb()`.
DUCKDB_FILE = "warehouse.duckdb"

__all__ = [
    "COLUMNS",
    "DUCKDB_FILE",
    "Bench",
    "Figure",
    "duckdb",
    "extra_figures",
    "figures",
    "postgres",
    "single_figure",
    "workshop",
]
