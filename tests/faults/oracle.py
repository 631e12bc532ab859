"""What must be true after any fault, read through plain drivers and compared with what was sent."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from tests.faults.workshop import EXPORTER, Workshop, values
from tests.zygote import Process

STATUS_ORDER = ("failure", "cancelled", "success")


def violations(
    workshop: Workshop, *, kills: int = 0, has_data: bool = True, has_ended: bool = True, has_zombie: bool = False
) -> list[str]:
    """Return everything that is wrong after a run that came to its end.

    Args:
        workshop: the pipeline.
        kills: processes that were killed so far: so many deliveries may have been repeated.
        has_data: the last run was a success, so that the destination must equal the source.
        has_ended: nothing may be open in the run store.
        has_zombie: a process woke up after it was replaced; what it had leased it calls once more, however late.
    """
    with workshop.kept_open():
        found = [*_open_ends(workshop)] if has_ended else []
        block_runs = workshop.store_rows("select * from _syncblocks_block_run")
        found += _flags(block_runs)
        found += _events(workshop, block_runs, kills)
        found += _order(workshop, may_repeat=has_zombie)
        if has_data:
            found += _data(workshop)
            found += [f"left in the destination: {name}" for name in workshop.leftovers()]
    return found


def untrue(workshop: Workshop, process: Process) -> list[str]:
    """Return how an exit code contradicts the run store; of a process that ended by itself."""
    code, run = process.code, process.result().get("run_id")
    assert code is not None
    if code < 0 or run is None:
        return []
    with workshop.kept_open():
        attempt = workshop.store_rows(
            f"select * from _syncblocks_attempt where run_id = {run} order by attempt desc limit 1"
        )[0]
        due = workshop.store_rows(
            "select state, count(*) as n from _syncblocks_delivery where state <> 'done' group by 1"
        )
    expected = {"success": 3 if due else 0}.get(attempt["status"], 1)
    if code in (130, 143) or code == expected:
        return []
    return [f"exit code {code}, but the run is {attempt['status']!r} and of its deliveries {due} are not done"]


def _open_ends(workshop: Workshop) -> Iterable[str]:
    questions = {
        "active run": "select id from _syncblocks_pipeline_run where is_active",
        "attempt": "select run_id, attempt from _syncblocks_attempt where status = 'running' or ended_at is null",
        "stream": "select run_id, stream from _syncblocks_stream_run where status = 'running'",
        "block run": "select * from _syncblocks_block_run where status = 'running' or is_last is null",
        "delivery": "select run_id, parent, stream, state from _syncblocks_delivery where is_open or state <> 'done'",
        "counter": "select * from _syncblocks_type_counter where open <> 0 or undecided_block is not null",
    }
    for what, sql in questions.items():
        for row in workshop.store_rows(sql):
            yield f"{what} is not final: {row}"
    for path in (workshop.folder / ".syncblocks" / "spool").glob("*"):
        yield f"spool left behind: {path.name}"


def _flags(block_runs: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """Per attempt and block type: indexes without a gap, the flag exactly once and on the last."""
    types = defaultdict(list)
    for row in block_runs:
        if row["status"] != "running":
            types[row["run_id"], row["attempt"], row["block_type"]].append(row)
    for name, rows in types.items():
        indexes = sorted(row["type_index"] for row in rows)
        if indexes != list(range(len(rows))):
            yield f"{name}: indexes {indexes}"
        last = [row["type_index"] for row in rows if row["is_last"]]
        if last != [len(rows) - 1] and all(row["is_last"] is not None for row in rows):
            yield f"{name}: is_last_block_run at {last} of {len(rows)}"


def _events(workshop: Workshop, block_runs: Iterable[Mapping[str, Any]], kills: int) -> Iterable[str]:
    """Every ended block run, stream and attempt was told of, under one key each, with the right words."""
    wanted: dict[tuple[Any, ...], tuple[Any, Any]] = {}
    streams = defaultdict(list)
    for row in block_runs:
        run = (row["run_id"], row["attempt"])
        flag = (row["type_index"], bool(row["is_last"]))
        wanted[(*run, row["block"], row["stream"], row["status"])] = flag
        streams[(*run, row["stream"])].append(row)
    for (*run, stream), rows in streams.items():
        status = next(status for status in (*STATUS_ORDER, "running") if status in {row["status"] for row in rows})
        carrier = next(row for row in rows if row["block"] == EXPORTER)
        wanted[(*run, "stream", stream, status)] = (carrier["type_index"], bool(carrier["is_last"]))
    for row in workshop.store_rows("select run_id, attempt, status from _syncblocks_attempt"):
        wanted[(row["run_id"], row["attempt"], "pipeline", None, row["status"])] = (None, False)

    heard: dict[str, dict[str, Any]] = {}
    keys = defaultdict(set)
    repeats = 0
    parents = {parent for block in workshop.document["callbacks"][:1] for parent in block["on"]}
    stream_keys = _stream_keys(workshop)
    for call in workshop.calls():
        name = (call["run"], call["attempt"], call["parent_block_uuid"], call["stream"], call["status"])
        if call["parent_block_uuid"] == EXPORTER and call["idempotency_key"] in stream_keys:
            name = (*name[:2], "stream", *name[3:])
        key = call["idempotency_key"]
        keys[name].add(key)
        if key in heard:
            repeats += 1
            changed = {field for field in call if call[field] != heard[key][field]} - {"run_status"}
            if changed:
                yield f"{name}: told again with another {changed}"
        heard[key] = call
        if name not in wanted:
            yield f"told of what did not happen: {name}"
        elif wanted[name] != (call["index"], bool(call["is_last_block_run"])):
            yield f"{name}: told {call['index'], call['is_last_block_run']}, is {wanted[name]}"
    for name in wanted:
        if name[2] in parents and name not in keys:
            yield f"not told: {name}"
    yield from (f"{name}: several keys" for name, found in keys.items() if len(found) > 1)
    if repeats > kills:
        yield f"{repeats} deliveries were repeated after {kills} kills"


def _stream_keys(workshop: Workshop) -> set[str]:
    """Return the keys of events of `stream`: to a callback they carry the destination's block_uuid."""
    rows = workshop.store_rows("select idempotency_key from _syncblocks_delivery where parent = 'stream'")
    return {row["idempotency_key"] for row in rows}


def _order(workshop: Workshop, *, may_repeat: bool) -> Iterable[str]:
    """The flag's event comes after all others of its block type, the pipeline's after everything."""
    first_last: dict[tuple[Any, ...], int] = {}
    ended: dict[tuple[Any, ...], int] = {}
    heard = set()
    for place, call in enumerate(workshop.calls()):
        if may_repeat and call["idempotency_key"] in heard:
            continue
        heard.add(call["idempotency_key"])
        run = (call["run"], call["attempt"])
        if run in ended and call["parent_block_uuid"] != "pipeline":
            yield f"{call['parent_block_uuid']}:{call['stream']} of run {run} was told after its pipeline's end"
        if call["parent_block_uuid"] == "pipeline":
            ended.setdefault(run, place)
            continue
        kind = (*run, call["parent_block_uuid"])
        if call["is_last_block_run"]:
            first_last.setdefault(kind, place)
        elif kind in first_last:
            yield f"{call['block_run']} of run {run} was told after the last of its block type"


def _data(workshop: Workshop) -> Iterable[str]:
    """Merge, replace and INCREMENTAL equal the source; FULL_TABLE append is the source times its successes."""
    stream_keys = _stream_keys(workshop)
    successes = Counter(
        stream
        for stream, key in {(call["stream"], call["idempotency_key"]) for call in workshop.calls() if _is_success(call)}
        if key in stream_keys
    )
    for entry in workshop.document["streams"]:
        name = entry["stream"]
        is_full = entry.get("replication_method", "FULL_TABLE") == "FULL_TABLE"
        times = successes[name] if is_full and entry.get("write_disposition") == "append" else 1
        expected = sorted(values(workshop.tables[name]["records"]) * times)
        held = workshop.rows(name)
        if held is None:
            yield f"table {name!r} is missing"
        elif held != expected:
            more, less = Counter(held) - Counter(expected), Counter(expected) - Counter(held)
            yield (
                f"table {name!r}: {len(held)} records instead of {len(expected)}; too many: "
                f"{sorted(more.elements())[:3]}, too few: {sorted(less.elements())[:3]}"
            )


def _is_success(call: Mapping[str, Any]) -> bool:
    return bool(call["status"] == "success" and call["stream"] is not None)
