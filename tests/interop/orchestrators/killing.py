"""What workers that are killed leave: four streams, where their process dies, and what must be there afterwards.

Runs in the environments of the orchestrators, in the program of a case and in the workers that it kills.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

#: PostgreSQL: destination and run store.
URL = os.environ["KILLS_DATABASE"]
FOLDER = Path(os.environ["KILLS_FOLDER"])
FILE = FOLDER / "shop.yaml"
RECORDS = 100

STREAMS = {
    "merged": {"write_disposition": "merge"},
    "replaced": {"write_disposition": "replace"},
    "appended": {
        "write_disposition": "append",
        "replication_method": "INCREMENTAL",
        "bookmark_properties": ["id"],
    },
    "whole": {"write_disposition": "append"},
}

NOTE = """\
@callback("success")
@callback("failure")
@callback("cancelled")
def note(stream, pipeline_run, block_run, index, is_last_block_run, idempotency_key, **kwargs):
    run = pipeline_run
    with open(__file__ + ".log", "a") as log:
        print(stream, block_run.status, run.id, run.attempt, index, is_last_block_run, idempotency_key, file=log)
"""

#: Holds a stream up while a file is there; another one then holds the number of its process.
HOLD = """\
import os
import time
from pathlib import Path

@transformer
def hold(df, **kwargs):
    here = Path(__file__).parent
    while (here / "hold").exists():
        (here / "held").write_text(str(os.getpid()))
        time.sleep(0.05)
    return df
"""


def prepare() -> None:
    """Write the pipeline file, its source and its callback."""
    document = {
        "pipeline": "shop",
        "store": URL,
        "source": {"connector": "sqlite", "config": {"path": str(FOLDER / "source.db"), "checkpoint_records": 40}},
        "transformers": [{"file": "hold.py", "streams": ["whole"]}],
        "destination": {"connector": "postgres", "config": {"url": URL}},
        "allow_blocks_to_fail": True,
        "concurrency": 2,
        "streams": [{"stream": name, **settings} for name, settings in STREAMS.items()],
        "callbacks": [{"file": "note.py"}],
    }
    FILE.write_text(json.dumps(document), encoding="utf-8")
    (FOLDER / "note.py").write_text(NOTE, encoding="utf-8")
    (FOLDER / "hold.py").write_text(HOLD, encoding="utf-8")
    (FOLDER / "kills").mkdir()
    (FOLDER / "reached").mkdir()
    with closing(sqlite3.connect(FOLDER / "source.db")) as connection, connection:
        for name in STREAMS:
            connection.execute(f"create table {name} (id integer primary key, name text)")
            if name != "appended":  # each round has new ones
                _insert(connection, name, 0)


def _insert(connection: sqlite3.Connection, table: str, start: int) -> None:
    records = [(start + number, f"n{start + number}") for number in range(RECORDS)]
    connection.executemany(f"insert into {table} values (?, ?)", records)


def arm(task: str) -> None:
    """In a worker: let it die at the place that stands in the task's file, each line for one process.

    `parent` kills the process that looks after the worker instead, at once.
    """
    file = FOLDER / "kills" / task
    if not file.exists() or not (places := file.read_text(encoding="utf-8").splitlines()):
        return
    file.write_text("\n".join(places[1:]), encoding="utf-8")
    if places[0] == "parent":
        os.kill(os.getppid(), signal.SIGKILL)
        return
    from syncblocks.connectors import failpoints

    reached = FOLDER / "reached" / f"{task} {os.getpid()}"
    reached.write_text(f"{places[0]}\n", encoding="utf-8")
    failpoints._ARMED, failpoints._TRACE, failpoints._ON = f"{places[0]}:kill", str(reached), True


class Rounds:
    """Orders one run of the orchestrator after another, kills workers of each, and looks at what is there."""

    def __init__(self) -> None:
        prepare()
        self.number = 0
        self.kills = 0
        #: How runs went on after kills -> rounds.
        self.outcomes: Counter[str] = Counter()
        #: Calls of callbacks that a kill has cut off, made once more with their key.
        self.repeated = 0
        self.violations: list[str] = []
        self._last_run = 0

    def begin(self, **places: str | Sequence[str]) -> None:
        """Choose where tasks die; the source has new records."""
        with closing(sqlite3.connect(FOLDER / "source.db")) as connection, connection:
            _insert(connection, "appended", self.number * RECORDS)
        self.number += 1
        for task, place in places.items():
            lines = [place] if isinstance(place, str) else list(place)
            self.kills += len(lines)
            (FOLDER / "kills" / task).write_text("\n".join(lines), encoding="utf-8")

    def end(self, state: object, expected: object) -> None:
        """Look whether each record and each callback is there once, after the orchestrator's run has ended."""
        found = [] if state == expected else [f"the orchestrator's run is {state!r}, and not {expected!r}"]
        left = [file.name for file in (FOLDER / "kills").iterdir() if file.read_text(encoding="utf-8").strip()]
        found += [f"{name} was not armed" for name in left]
        for file in (FOLDER / "reached").iterdir():
            place, *passed = file.read_text(encoding="utf-8").splitlines()
            found += [] if passed and passed[-1] == place else [f"{file.name} has not died at {place}"]
            file.unlink()
        found += [*self._of_tables(), *self._of_callbacks()]
        self.violations += [f"run {self.number}: {each}" for each in found]

    def _of_tables(self) -> Iterator[str]:
        import psycopg

        expected = {
            "merged": Counter(range(RECORDS)),
            "replaced": Counter(range(RECORDS)),
            "appended": Counter(range(RECORDS * self.number)),
            "whole": Counter(dict.fromkeys(range(RECORDS), self.number)),
        }
        with psycopg.connect(URL) as connection:
            for name, ids in expected.items():
                if connection.execute("select to_regclass(%s)", [name]).fetchone() == (None,):
                    yield f"there is no table {name}"
                    continue
                there = Counter(id_ for (id_,) in connection.execute(f"select id from {name}").fetchall())
                if there != ids:
                    doubled, missing = (there - ids).total(), (ids - there).total()
                    yield f"{name}: {doubled} records too many, {missing} missing"
            rows = connection.execute(
                "select id, attempt, is_active from _syncblocks_pipeline_run where id > %s order by id",
                [self._last_run],
            ).fetchall()
        attempts = [attempt for _, attempt, _ in rows]
        self.outcomes["begun anew" if len(rows) > 1 else "tried again" if attempts > [1] else "only told of"] += 1
        self._last_run = max((run for run, _, _ in rows), default=self._last_run)
        yield from (f"run {run} is still active" for run, _, is_active in rows if is_active)

    def _of_callbacks(self) -> Iterator[str]:
        log = FOLDER / "note.py.log"
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        calls = [tuple(line.split()) for line in lines]
        self.repeated += len(calls) - len(set(calls))
        events = Counter((stream, run, attempt) for stream, _, run, attempt, *_ in set(calls))
        yield from (f"told {number} times: {event}" for event, number in events.items() if number > 1)
        successes = sorted(stream for stream, status, *_ in set(calls) if status == "success")
        if successes != sorted(STREAMS):
            yield f"successes told: {successes}"
        of_attempts: dict[tuple[str, str], list[tuple[int, bool]]] = {}
        for _, _, run, attempt, index, is_last, _ in set(calls):
            of_attempts.setdefault((run, attempt), []).append((int(index), is_last == "True"))
        for attempt, ended in of_attempts.items():
            right = [(place, place == len(ended) - 1) for place in range(len(ended))]
            if sorted(ended) != right:
                yield f"index and last flag of attempt {attempt}: {sorted(ended)}"

    def latest_run(self) -> tuple[str, bool]:
        """Return status and is_active of the latest run."""
        import psycopg

        with psycopg.connect(URL) as connection:
            return connection.execute(
                "select a.status, r.is_active from _syncblocks_pipeline_run r join _syncblocks_attempt a "
                "on a.run_id = r.id and a.attempt = r.attempt order by r.id desc limit 1"
            ).fetchone() or ("none", False)

    def report(self) -> None:
        """Print the row of the table; end the program if something was violated."""
        if self.violations:
            raise SystemExit("; ".join(self.violations))
        outcomes = ", ".join(f"{number} {how}" for how, number in sorted(self.outcomes.items()))
        print(f"{self.kills} kills in {self.number} runs: {outcomes}; {self.repeated} calls repeated; 0 violations")
