"""index and is_last_block_run: one flag a block type, on the last, whatever the order in which streams end."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.conftest import Count
from tests.faults.oracle import untrue, violations
from tests.faults.workshop import Workshop
from tests.zygote import Zygote

STREAMS = 50


def make_many(
    zygote: Zygote, folder: Path, store: str, url: str, seed: str, *, streams: int = STREAMS, concurrency: int = 8
) -> Workshop:
    """Streams of random sizes and thus durations, into memory."""
    chance = random.Random(seed)
    workshop = Workshop(zygote, folder, destination="memory", store=store, url=url)
    workshop.document["destination"]["config"] = {"database": "destination"}
    workshop.document["concurrency"] = concurrency
    workshop.source_settings.update({"batch_size": 2, "delay_s": 0.01, "fail_kind": "fatal"})
    for number in range(streams):
        workshop.stream(f"s{number:02}", chance.randrange(0, 12))
    return workshop


def flags(workshop: Workshop, parent: str) -> list[tuple[int, bool]]:
    """Return index and flag of each event of a parent of the latest run, in the order of delivery."""
    run = max(call["run"] for call in workshop.calls())
    calls = [call for call in workshop.calls() if (call["run"], call["parent_block_uuid"]) == (run, parent)]
    seen = {call["idempotency_key"]: (call["index"], call["is_last_block_run"]) for call in calls}
    return list(seen.values())


@pytest.mark.full
@pytest.mark.thinned(1)
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
@pytest.mark.parametrize("seed", ["a", "b"])
def test_fifty_streams_at_once_have_one_last(
    zygote: Zygote, folder: Path, postgres_url: str, store: str, seed: str
) -> None:
    workshop = make_many(zygote, folder, store, postgres_url, seed)
    workshop.write()
    process = workshop.run()
    assert process.code == 0, process.log()
    assert untrue(workshop, process) + violations(workshop, has_data=False) == []
    assert flags(workshop, "load") == [(index, index == STREAMS - 1) for index in range(STREAMS)]


@pytest.mark.full
@pytest.mark.thinned(1)
@pytest.mark.parametrize("allow", [False, True], ids=["stopping", "allowed"])
@pytest.mark.parametrize("seed", ["a", "b", "c"])
def test_any_one_of_them_may_fail(
    zygote: Zygote, folder: Path, postgres_url: str, seed: str, allow: bool, injected: Count
) -> None:
    chance = random.Random(seed)
    store = chance.choice(("sqlite", "postgres"))
    workshop = make_many(zygote, folder, store, postgres_url, seed, streams=20)
    unlucky = chance.choice([name for name, table in workshop.tables.items() if table["records"]])
    workshop.source_settings["fail_at"] = {unlucky: 1}
    workshop.document["allow_blocks_to_fail"] = allow
    workshop.write()
    process = workshop.run()
    injected()
    assert process.code == 1, process.log()
    assert untrue(workshop, process) + violations(workshop, has_data=False) == []
    assert sum(flag for _, flag in flags(workshop, "load")) == 1
    if allow:
        assert len(flags(workshop, "load")) == 20


@pytest.mark.thinned(1)
@pytest.mark.parametrize("concurrency", [1, 2, 3])
@pytest.mark.parametrize("allow", [False, True], ids=["stopping", "allowed"])
def test_a_transformer_of_the_first_and_third_stream_has_its_last_while_the_second_fails(
    zygote: Zygote, folder: Path, concurrency: int, allow: bool, injected: Count
) -> None:
    workshop = make_many(zygote, folder, "sqlite", "", "x", streams=0, concurrency=concurrency)
    for name in ("first", "second", "third"):
        workshop.stream(name, 4)
    (folder / "shape.py").write_text("@transformer\ndef shape(df):\n    return df\n")
    workshop.document["transformers"] = [{"file": "shape.py", "streams": ["first", "third"]}]
    workshop.document["callbacks"][0]["on"].append("shape")
    workshop.source_settings["fail_at"] = {"second": 1}
    workshop.document["allow_blocks_to_fail"] = allow
    workshop.write()
    process = workshop.run()
    injected()
    assert process.code == 1, process.log()
    assert untrue(workshop, process) + violations(workshop, has_data=False) == []
    assert sum(flag for _, flag in flags(workshop, "shape")) == 1


@pytest.mark.full
@pytest.mark.one_of
@pytest.mark.thinned(2)
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
@pytest.mark.parametrize("action", ["kill", "sigterm"])
@pytest.mark.parametrize(
    "point", ["store.claim.before:3", "store.close.before:7", "store.close.claimed:5", "store.close.after:12"]
)
def test_it_has_one_last_when_the_process_is_stopped_or_killed_among_many_streams(
    zygote: Zygote, folder: Path, postgres_url: str, store: str, action: str, point: str, injected: Count
) -> None:
    workshop = make_many(zygote, folder, store, postgres_url, point, streams=16, concurrency=4)
    workshop.write()
    process = workshop.run(failpoint=f"{point}:{action}")
    injected()
    assert process.code == {"kill": -9, "sigterm": 143}[action], process.log()
    if action == "sigterm":
        assert violations(workshop, has_data=False) == []
    workshop.document["streams"] = workshop.document["streams"][:2]
    workshop.write()
    assert workshop.run().code == 0
    assert violations(workshop, kills=1, has_data=False) == []
