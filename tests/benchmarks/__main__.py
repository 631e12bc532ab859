"""`python -m tests.benchmarks`: measure, show one table, keep the figures in `results/`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest

from tests import services
from tests.benchmarks import report
from tests.benchmarks.airbyte import SCENARIOS as AIRBYTE
from tests.benchmarks.bench import Figure, workshop
from tests.benchmarks.scenarios import SCENARIOS as DATABASES
from tests.benchmarks.singer import SCENARIOS as SINGER

SCENARIOS = DATABASES | SINGER | AIRBYTE
RESULTS = Path(__file__).with_name("results")

_HEADINGS = ("scenario", "case", "records", "seconds", "records/s", "CPU s", "peak MB", "ratio", "target")


def main(arguments: list[str] | None = None) -> int:
    """Run the scenarios that are asked for; 1 if a target is missed."""
    options = _options(arguments)
    services.begin_session()
    try:
        server = services.postgres_server()
    except pytest.skip.Exception as missing:
        sys.stderr.write(f"{missing}\n")
        return 2
    figures: list[Figure] = []
    try:
        with tempfile.TemporaryDirectory(prefix="syncblocks-bench-") as folder:
            for name in options.only or SCENARIOS:
                size = {key: getattr(options, key) for key in ("rows", "tables", "repeat", "large_rows")}
                with workshop(Path(folder, name), server, **size) as bench:
                    made = SCENARIOS[name](bench)
                for figure in made:
                    _show(_line(_cells(figure)))
                figures += made
    finally:
        services.end_session()
        kept = _keep(figures, options)
    _show(f"\n{_table(figures)}\n\n{kept}")
    if options.publish:
        report.main([str(kept)])
    return 1 if any(figure.is_met is False for figure in figures) else 0


def _show(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="records of the large tables")
    parser.add_argument("--large-rows", type=int, help="records of the larger table of `memory`; default: 4 * --rows")
    parser.add_argument("--tables", type=int, default=200, help="how many small tables")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; each measures every case once")
    parser.add_argument("--publish", action="store_true", help="write the figures and the plot in docs/")
    parser.add_argument("--only", nargs="+", choices=list(SCENARIOS), help="some scenarios")
    return parser.parse_args(arguments)


def _keep(figures: list[Figure], options: argparse.Namespace) -> Path:
    now = datetime.now(UTC)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{now:%Y%m%dT%H%M%S}.json"
    names = ("pyarrow", "duckdb", "adbc-driver-postgresql", "asyncpg", "psycopg")
    document = {
        "measured_at": now.isoformat(),
        "rows": options.rows,
        "tables": options.tables,
        "repeat": options.repeat,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
        "versions": {name: version(name) for name in names},
        "figures": [dataclasses.asdict(figure) for figure in figures],
    }
    path.write_text(json.dumps(document, indent=1))
    return path


def _cells(figure: Figure) -> tuple[str, ...]:
    usage = figure.usage
    met = {True: "yes", False: "NO", None: ""}[figure.is_met]
    return (
        figure.scenario,
        figure.case,
        f"{figure.records:,}",
        f"{usage.wall_s:.2f}",
        f"{figure.records / usage.wall_s:,.0f}",
        f"{usage.cpu_s:.2f}",
        f"{usage.peak_rss_bytes / 1e6:.0f}",
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        f"{figure.target} {met}".strip(),
    )


def _line(cells: tuple[str, ...]) -> str:
    widths = (30, 16, 10, 8, 10, 7, 8, 6)
    padded = [
        cell.ljust(width) if place < 2 else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(cells[:-1], widths, strict=True))
    ]
    return "  ".join([*padded, cells[-1]]).rstrip()


def _table(figures: list[Figure]) -> str:
    return "\n".join([_line(_HEADINGS), *(_line(_cells(figure)) for figure in figures)])


if __name__ == "__main__":
    sys.exit(main())
