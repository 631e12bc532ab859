"""What the programs inside the orchestrators' environments look at: the tables, and what callbacks have noted."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

GOOD = "id,name\n1,a\n2,b\n"


#: Where a process is killed: around the beginning of the run, the commits, the ends of streams, and the end of the run.
PLACES = (
    "store.begin_run.after:1",
    "stream.before_take_over:1",
    "stream.after_take_over:2",
    "duckdb.commit.inside:5",
    "duckdb.commit.after:5",
    "stream.after_commit:1",
    "store.close.inside:1",
    "store.close.after:2",
    "store.end_attempt.after:1",
    "store.finish_run.before:1",
)


#: A module in a worker's process: it arms the kill, each line for one process, before it imports the package.
ARMED = """
import os
from pathlib import Path
file = Path("places.txt")
if file.exists() and (places := file.read_text().splitlines()):
    os.environ["SYNCBLOCKS_FAILPOINT"] = places[0] + ":kill"
    file.write_text("\\n".join(places[1:]))
"""


def arm(*places: str) -> None:
    """Let the next processes die, each at its place."""
    Path("places.txt").write_text("\n".join(places), encoding="utf-8")


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


def calls() -> list[list[str]]:
    """Return stream, status, run, attempt and key of each callback since the last look."""
    path = Path("note.py.log")
    found = sorted(path.read_text(encoding="utf-8").splitlines()) if path.exists() else []
    path.unlink(missing_ok=True)
    return [line.split() for line in found]


def notes() -> list[str]:
    """Return the same without the keys."""
    return [" ".join(call[:-1]) for call in calls()]


def check_round(place: str, number: int) -> None:
    """Check that a task that was killed, and then repeated, has appended each stream once, and told of it."""
    check(counts(), dict.fromkeys(("orders", "users", "visits"), 2 * number), f"tables after a kill at {place}")
    keys: dict[tuple[str, ...], set[str]] = {}
    for *event, key in calls():
        keys.setdefault(tuple(event), set()).add(key)
    check({len(each) for each in keys.values()}, {1}, f"events of one attempt after a kill at {place}")
    told = sorted(stream for stream, status, _, _ in keys if status == "success")
    check(told, ["orders", "users", "visits"], f"successes told after a kill at {place}")
    attempts = [(stream, run, attempt) for stream, _, run, attempt in keys]
    check(len(attempts), len(set(attempts)), f"one status of each attempt after a kill at {place}")


def check(found: object, expected: object, what: str) -> None:
    """End the program if these differ."""
    if found != expected:
        raise SystemExit(f"{what}: {found!r} instead of {expected!r}")
