"""What the programs inside the orchestrators' environments look at: the tables, and what callbacks have noted."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

GOOD = "id,name\n1,a\n2,b\n"


def break_again() -> None:
    """Make the file bad that `mend` has made good."""
    Path("in/visits.csv").write_text("id,name\n1,a\n1,b,c\n", encoding="utf-8")


def mend() -> None:
    """Make the file good that fails."""
    Path("in/visits.csv").write_text(GOOD, encoding="utf-8")


def counts() -> dict[str, int]:
    """Return the number of records of each table."""
    import duckdb

    with duckdb.connect("crm.duckdb") as connection:
        names = [name for (name,) in connection.execute("select table_name from duckdb_tables()").fetchall()]
        found = {name: connection.execute(f"select count(*) from {name}").fetchone() for name in names}
    return {name: row[0] for name, row in found.items() if row and not name.startswith("_")}


def counts_of_streams() -> dict[str, int]:
    """Return the number of records of each table of the pipeline with a task for each stream."""
    with closing(sqlite3.connect("streams.db")) as connection:
        names = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
        found = {name: connection.execute(f"select count(*) from {name}").fetchone()[0] for name in names}
    return {name: number for name, number in found.items() if not name.startswith("_")}


def notes() -> list[str]:
    """Return stream, status, run and attempt of each callback since the last look."""
    path = Path("note.py.log")
    found = sorted(path.read_text(encoding="utf-8").splitlines()) if path.exists() else []
    path.unlink(missing_ok=True)
    return [line.rpartition(" ")[0] for line in found]


def check_log(lines: Iterable[str]) -> None:
    """End the program unless a log has what the callbacks of three streams have printed."""
    printed = {name: f"noted {name} success" for name in ("orders", "users", "visits")}
    text = "\n".join(lines)
    check([name for name, line in printed.items() if line not in text], [], "streams whose callback is not in the log")


def check(found: object, expected: object, what: str) -> None:
    """End the program if these differ."""
    if found != expected:
        raise SystemExit(f"{what}: {found!r} instead of {expected!r}")
