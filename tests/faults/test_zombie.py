"""A process that was frozen past its lease wakes up after another one has taken over: nothing it writes is kept."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Count
from tests.faults.oracle import untrue, violations
from tests.faults.workshop import Workshop, postgres
from tests.zygote import Process, Zygote

pytestmark = pytest.mark.full

INCREMENTAL = {"replication_method": "INCREMENTAL", "bookmark_properties": ["t"]}
IS_FULL = os.environ.get("SYNCBLOCKS_FAULTS") == "full"


def make(zygote: Zygote, folder: Path, destination: str, store: str, url: str) -> Workshop:
    """Streams that a zombie would double or overwrite, one after the other."""
    workshop = Workshop(zygote, folder, destination=destination, store=store, url=url)
    workshop.document["concurrency"] = 1
    workshop.source_settings.update({"checkpoint_records": 3, "batch_size": 3})
    workshop.stream("added", 9, write_disposition="append", **INCREMENTAL)
    workshop.stream("full", 6, write_disposition="append")
    workshop.stream("replaced", 6)
    return workshop


def freeze(workshop: Workshop, point: str, broken: str | None = None) -> Process:
    """Run until a point, where the process stops itself."""
    process = workshop.start(failpoint=f"{point}:stop", broken=broken)
    deadline = time.monotonic() + 30
    while _state(process.pid) != "T":
        assert time.monotonic() < deadline, f"{point} was not reached"
        assert not process.has_ended(), f"{point} was not reached: {process.log()}"
        time.sleep(0.005)
    return process


def lose_lease(workshop: Workshop) -> None:
    """Make the active run one of another machine, whose lease is over."""
    if workshop.store == "postgres":
        # What becomes of a transaction that another thread of the frozen process was in: the store's timeout ends it
        # after a minute, the destination's ends with its connection. A statement may still be at work for it.
        with postgres(workshop.url) as connection:
            while connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() "
                "and backend_type = 'client backend' and xact_start is not null and pid <> pg_backend_pid()"
            ).fetchall():
                time.sleep(0.01)
    (row,) = workshop.store_rows("select id, owner from _syncblocks_pipeline_run where is_active")
    owner = json.dumps(json.loads(row["owner"]) | {"boot_id": "another", "host": "elsewhere"}, sort_keys=True)
    past = "2001-01-01 00:00:00" + ("+00" if workshop.store == "postgres" else ".000000")
    for table in ("pipeline_run", "delivery"):
        column = "owner" if table == "pipeline_run" else "lease_owner"
        workshop.change_store(
            f"update _syncblocks_{table} set {column} = '{owner}', lease_until = '{past}' "
            f"where {column} = '{row['owner']}' and {'is_active' if table == 'pipeline_run' else 'is_open'}"
        )


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


#: Outside of transactions: one in a file that is open holds its locks as long as its process is frozen.
POINTS = [
    "stream.before_take_over:1",
    "stream.after_take_over:1",
    "stream.after_take_over:2",
    "stream.after_commit:1",
    "stream.after_commit:3",
    "stream.after_commit:4",
    "store.close.before:1",
    "store.close.after:1",
    "store.close.before:2",
    "store.claim.before:1",
    "store.release_gate.before:1",
    "store.release_gate.after:1",
    "store.finish_run.before:1",
]
#: A commit of Delta holds no lock: it may be frozen anywhere.
POINTS_OF_DELTA = [
    *POINTS,
    *(f"delta.commit.{place}:{hit}" for hit in (1, 2, 3, 6, 8) for place in ("before", "after")),
]
#: Reached by a thread that delivers, while another one may be in a transaction.
BUSY_POINTS = ["store.lease.after:1", "store.lease.ahead:1", "store.mark.before:2"]


def revive(workshop: Workshop, point: str, broken: str | None = None) -> list[str]:
    """Freeze, take over, wake up; return what is wrong then."""
    workshop.write()
    zombie = freeze(workshop, point, broken)
    lose_lease(workshop)
    other = workshop.run()
    found = [] if other.code == 0 else [f"the other run ended with {other.code}: {other.result()} {other.log()}"]
    found += untrue(workshop, other)
    zombie.signal(signal.SIGCONT)
    if zombie.wait() != 1:
        found.append(f"the zombie ended with {zombie.code}: {zombie.result()} {zombie.log()}")
    return found + violations(workshop, kills=2, has_zombie=True)


@pytest.mark.parametrize(
    ("destination", "store", "point"),
    [
        *(("postgres", "postgres", point) for point in (*POINTS, *BUSY_POINTS)),
        *(("sqlite", "sqlite", point) for point in (POINTS if IS_FULL else POINTS[::3])),
        *(("delta", "sqlite", point) for point in (POINTS_OF_DELTA if IS_FULL else POINTS_OF_DELTA[::5])),
    ],
)
def test_what_a_zombie_commits_and_closes_is_rejected(
    zygote: Zygote, folder: Path, postgres_url: str, destination: str, store: str, point: str, injected: Count
) -> None:
    workshop = make(zygote, folder, destination, store, postgres_url)
    found = revive(workshop, point)
    injected()
    assert found == []
