"""Every event has arrived: scenarios that bring about each status, a recorder with failpoints, and what must be so."""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults import oracle
from tests.faults.workshop import Workshop
from tests.zygote import Process, Zygote

#: Writes down every call, with a failpoint on each side of the writing: in inline mode they are the engine's own. In a
#: child `ARRIVE_KILL=N:before|after` kills the engine at the N-th call of the child instead.
RECORDER = """
import json, os, signal, time
from pathlib import Path
from syncblocks.connectors.failpoints import failpoint

CALLS = []

def strike(place):
    failpoint(f"call.{place}")
    if os.environ.get("ARRIVE_KILL") == f"{len(CALLS)}:{place}":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)

def write(status, kwargs):
    CALLS.append(status)
    strike("before")
    run, pipeline_run = kwargs.get("block_run"), kwargs["pipeline_run"]
    line = {name: kwargs.get(name) for name in
            ("stream", "index", "is_last_block_run", "parent_block_uuid", "idempotency_key", "block_uuid")}
    line |= {"status": status, "run": pipeline_run.id, "attempt": pipeline_run.attempt,
             "block_run": None if run is None else run.uuid, "block_status": None if run is None else run.status}
    with open(Path(__file__).with_suffix(".log"), "ab", buffering=0) as log:
        log.write(json.dumps(line).encode() + b"\\n")
        os.fsync(log.fileno())
    strike("after")
"""
STATUSES = ("success", "failure", "cancelled", "retry", "schema_changed", "recovered", "crashed")
RECORDER += "".join(
    f'\n@callback("{status}")\ndef on_{status}(**kwargs):\n    write("{status}", kwargs)\n' for status in STATUSES
)

#: Where the dispatcher is after a point of its own: the key's lease is committed and its mark is not.
BETWEEN_CALL_AND_MARK = ("call.after", "store.mark.before", "store.mark.inside")

Change = Callable[[Workshop], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """How a status comes about."""

    #: What must have been told at the end, whatever was killed on the way.
    status: str
    #: Settings of the run that is killed, and of the one after it.
    settings: Change
    #: Settings of a run before these, and its failpoint.
    before: Change | None = None
    before_failpoint: str = ""


def _nothing(_: Workshop) -> None:
    """As it is."""


def _fail(**settings: Any) -> Change:
    def change(workshop: Workshop) -> None:
        workshop.source_settings.update({"fail_at": {"a": 1}, "fail_kind": "fatal", **settings})

    return change


def _one_fails(workshop: Workshop) -> None:
    _fail()(workshop)
    workshop.document["allow_blocks_to_fail"] = True


def _one_takes_too_long(workshop: Workshop) -> None:
    workshop.source_settings.update({"batch_size": 2, "delay_s": 0.05})
    workshop.grow("b", 40)
    workshop.document["streams"][1]["timeout_s"] = 0.2
    workshop.document["allow_blocks_to_fail"] = True


def _retried(workshop: Workshop) -> None:
    _fail(fail_kind="retriable", fail_times=2)(workshop)
    workshop.document |= {"retries": 3, "retry_delay_s": 0.0}


def _with_another_column(workshop: Workshop) -> None:
    workshop.tables["a"]["columns"]["extra"] = "int64"
    workshop.tables["a"]["records"][0]["extra"] = 1


def _without_streams(workshop: Workshop) -> None:
    workshop.document["streams"] = [{"stream": "gone"}]


SCENARIOS = {
    "success": Scenario(status="success", settings=_nothing),
    "failure": Scenario(status="failure", settings=_one_fails),
    "cancelled": Scenario(status="cancelled", settings=_one_takes_too_long),
    "retry": Scenario(status="retry", settings=_retried),
    "schema_changed": Scenario(status="schema_changed", settings=_with_another_column, before=_nothing),
    "recovered": Scenario(status="recovered", settings=_nothing, before=_one_fails),
    "crashed": Scenario(
        status="crashed", settings=_nothing, before=_nothing, before_failpoint="stream.after_take_over:2:kill"
    ),
    "before the first stream": Scenario(status="failure", settings=_without_streams, before=_nothing),
}


def make(zygote: Zygote, folder: Path, change: Change, *, store: str = "sqlite", url: str = "") -> Workshop:
    """Two streams into SQLite, one recorder for all of their events and for the pipeline's."""
    workshop = Workshop(zygote, folder, destination="sqlite", store=store, url=url)
    (folder / "recorder.py").write_text(RECORDER, encoding="utf-8")
    workshop.document["callbacks"] = [{"file": "recorder.py", "on": ["load", "stream", "pipeline"]}]
    workshop.document["concurrency"] = 1
    workshop.stream("a", 3, write_disposition="merge")
    workshop.stream("b", 2, write_disposition="merge")
    change(workshop)
    workshop.write()
    return workshop


def prepared(
    zygote: Zygote, folder: Path, name: str, *, kept: Path, mode: str, store: str = "sqlite", url: str = ""
) -> Workshop:
    """Bring a folder to where the run that is to be killed begins.

    What comes before is run once and copied from `kept`, but for a store that is not in the folder.
    """
    scenario = SCENARIOS[name]
    if scenario.before is not None:
        if store == "postgres":
            _run_before(make(zygote, folder, scenario.before, store=store, url=url), scenario, mode)
        else:
            kept = kept / f"before {name}"
            if not kept.exists():
                _run_before(make(zygote, kept, scenario.before), scenario, mode)
            shutil.copytree(kept, folder)
    workshop = make(zygote, folder, scenario.settings, store=store, url=url)
    if scenario.before is not None and store == "sqlite":
        # What is still due is called in the file that was recorded.
        workshop.change_store(f"update _syncblocks_attempt set plan = replace(plan, '{kept}/', '{folder}/')")
    return workshop


def _run_before(workshop: Workshop, scenario: Scenario, mode: str) -> None:
    process = workshop.run(*arguments(mode), failpoint=scenario.before_failpoint)
    assert process.code == (-9 if scenario.before_failpoint else int(scenario.before is _one_fails)), process.log()


def arguments(mode: str) -> tuple[str, ...]:
    """Return the command line's part of a mode: "inline" or "child"."""
    return ("--inline-callbacks",) if mode == "inline" else ()


# -- what must be so -------------------------------------------------------------------------------------------------


def violations(workshop: Workshop, name: str, *, doubled: str) -> list[str]:
    """Return what is wrong once a run has followed a killed one.

    Args:
        workshop: the pipeline.
        name: of the scenario.
        doubled: whether one event was delivered twice: "must", "may" or "not".
    """
    with workshop.kept_open():
        found = [
            *oracle._open_ends(workshop),
            *oracle._flags(workshop.store_rows("select * from _syncblocks_block_run")),
        ]
        found += oracle._order(workshop, may_repeat=True)
        calls = workshop.calls()
        found += _unheard(workshop, calls)
        if SCENARIOS[name].status not in {call["status"] for call in calls}:
            found.append(f"nothing was told as {SCENARIOS[name].status}")
        return found + list(_doubled(workshop, calls, doubled, kills_before=bool(SCENARIOS[name].before_failpoint)))


def _unheard(workshop: Workshop, calls: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """Compare what happened, by the history, with what was told: each thing under one key, the one in the outbox."""
    keys = defaultdict(set)
    for call in calls:
        parent = "stream" if call["parent_block_uuid"] == "export" else call["parent_block_uuid"]
        name = (call["run"], call["attempt"], parent, call["stream"], call["status"])
        keys[name].add(call["idempotency_key"])
    wanted = _happened(workshop)
    for name in sorted(wanted.keys() | keys.keys(), key=str):
        if len(keys[name]) != wanted[name]:
            yield f"{name}: happened {wanted[name]} times, told under {len(keys[name])} keys"
    outbox = {
        row["idempotency_key"]: (row["run_id"], row["attempt"], row["parent"], row["stream"], row["status"])
        for row in workshop.store_rows(
            "select d.*, e.status from _syncblocks_delivery d join _syncblocks_event e using (run_id, seq)"
        )
    }
    for name, found in keys.items():
        yield from (f"{name}: told under {key}, which is not its own" for key in found if outbox.get(key) != name)


def _happened(workshop: Workshop) -> Counter[tuple[Any, ...]]:
    wanted: Counter[tuple[Any, ...]] = Counter()
    for row in workshop.store_rows("select * from _syncblocks_attempt"):
        wanted[(row["run_id"], row["attempt"], "pipeline", None, row["status"])] += 1
    # An attempt keeps its first error, so that its row does not say whether its process died: the event does.
    died = "select run_id, attempt from _syncblocks_event where parent = 'pipeline' and status = 'crashed'"
    for row in workshop.store_rows(died):
        wanted[(row["run_id"], row["attempt"], "pipeline", None, "crashed")] += 1
    crashed = set()
    for row in workshop.store_rows("select * from _syncblocks_block_run"):
        if row["error"] and json.loads(row["error"])["type"] == "ProcessDied":
            crashed.add((row["run_id"], row["attempt"], row["stream"]))
    former: dict[str, str] = {}
    streams = workshop.store_rows("select * from _syncblocks_stream_run order by run_id, attempt, position")
    loads = {
        (row["run_id"], row["attempt"], row["stream"]): row["status"]
        for row in workshop.store_rows("select * from _syncblocks_block_run where block = 'load'")
    }
    for row in streams:
        run, stream = (row["run_id"], row["attempt"]), row["stream"]
        if row["status"] == "unclaimed":
            continue
        for parent, status in (("load", loads[(*run, stream)]), ("stream", row["status"])):
            wanted[(*run, parent, stream, status)] += 1
            if (*run, stream) in crashed and status == "failure":
                wanted[(*run, parent, stream, "crashed")] += 1
            elif row["status"] == "success" and former.get(stream) == "failure":
                wanted[(*run, parent, stream, "recovered")] += 1
        if row["status"] in ("success", "failure"):
            former[stream] = row["status"]
    wanted += _numbered(workshop)
    return wanted


def _numbered(workshop: Workshop) -> Counter[tuple[Any, ...]]:
    """What was told while a block run went on: retries and schema changes, as often as they were written."""
    rows = workshop.store_rows("select * from _syncblocks_event where occurrence is not null")
    return Counter((row["run_id"], row["attempt"], row["parent"], row["stream"], row["status"]) for row in rows)


def _doubled(
    workshop: Workshop, calls: Iterable[Mapping[str, Any]], doubled: str, *, kills_before: int
) -> Iterable[str]:
    told = defaultdict(list)
    for call in calls:
        told[call["idempotency_key"]].append(call)
    twice = {key: found for key, found in told.items() if len(found) > 1}
    lost = {
        row["idempotency_key"]
        for row in workshop.store_rows("select * from _syncblocks_delivery_try where outcome = 'lost'")
    }
    limit = {"must": (1,), "may": (0, 1), "not": (0,)}[doubled]
    # A run that was killed before this one may have died between a call and its mark as well.
    if not limit[0] <= len(twice) <= limit[-1] + kills_before:
        yield f"{len(twice)} events were told twice, which {doubled} be: {list(twice.values())}"
    for key, found in twice.items():
        # Each kill may cut off one call of it.
        if len(found) > 2 + kills_before or any(call != found[0] for call in found):
            yield f"{key}: told {len(found)} times, or with other words: {found}"
        if key not in lost:
            yield f"{key}: told twice, and no lease of it was lost"


def expected_double(points: Iterable[str], mode: str, killed_at: str) -> str:
    """Tell from the points that a killed process had reached whether it died between a call and its mark.

    Args:
        points: those it reached, of all its threads, in order.
        mode: "inline" or "child".
        killed_at: the point of the kill; where another thread died, the mark may have been committed at that moment.
    """
    own = [point.rpartition(":")[0] for point in points]
    own = [point for point in own if point.startswith(("call.", "store.mark.", "store.lease."))]
    last = own[-1] if own else ""
    if last in BETWEEN_CALL_AND_MARK:
        return "may" if last == "store.mark.inside" and not killed_at.startswith(last) else "must"
    if mode == "inline":
        return "may" if last == "call.before" else "not"
    # Whether a child was being called is not in the engine's trace.
    return "may" if last in ("store.lease.after", "store.lease.ahead") else "not"


def is_killed(process: Process) -> bool:
    """Whether the kill happened: threads come to a point in another order each time."""
    return process.code == -9
