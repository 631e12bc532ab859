"""Eight streams at once, again and again: one last block run a type, delivered last. And no block waits for another."""

from __future__ import annotations

import json
import os
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Count
from tests.faults.oracle import _flags, _open_ends, _order
from tests.faults.test_flags import make_many
from tests.faults.workshop import Workshop
from tests.zygote import Zygote

pytestmark = pytest.mark.full

STREAMS = 8
RUNS = 100 if os.environ.get("SYNCBLOCKS_FAULTS") == "full" else 8
SHARDS = 2


@pytest.mark.timeout(600)
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
@pytest.mark.parametrize("shard", range(SHARDS))
def test_each_run_of_eight_streams_at_once_has_one_last_of_each_type_delivered_last(
    zygote: Zygote, folder: Path, postgres_url: str, store: str, shard: int, injected: Count
) -> None:
    runs = RUNS // SHARDS
    workshop = make_many(zygote, folder, store, postgres_url, f"{store} {shard}", streams=STREAMS)
    workshop.source_settings["delay_s"] = 0.002
    (folder / "shape.py").write_text("@transformer\ndef shape(df):\n    return df\n")
    workshop.document["transformers"] = [{"file": "shape.py"}]
    workshop.document["callbacks"][0]["on"].append("shape")
    for number in range(runs):
        chance = random.Random(f"{store} {shard} {number}")
        chance.shuffle(workshop.document["streams"])
        workshop.write()
        process = workshop.run(*(() if number % 4 else ("--inline-callbacks",)))
        assert process.code == 0, process.log()
    injected(0)
    found = [*_open_ends(workshop), *_flags(workshop.store_rows("select * from _syncblocks_block_run"))]
    assert found + list(_order(workshop, may_repeat=False)) == []
    flags = defaultdict(list)
    for call in workshop.calls():
        flags[call["run"], call["parent_block_uuid"]].append((call["index"], call["is_last_block_run"]))
    one_each = [(index, index == STREAMS - 1) for index in range(STREAMS)]
    for (run, parent), told in flags.items():
        if parent == "export":  # its own events and those of its streams
            assert sorted(told) == sorted(one_each * 2), (run, parent)
            assert told[-1] == one_each[-1]
        elif parent != "pipeline":
            assert told == one_each, (run, parent)
    assert len({run for run, _ in flags}) == runs


#: Says when it is called, and waits until the finalizer of another block was called: it would wait for ever if that one
#: waited for it.
ALERT = """
import os
from pathlib import Path

@callback("success")
def alert(stream, **kwargs):
    here = Path(__file__).parent
    with (here / "alerted").open("a") as alerted:
        alerted.write(f"{stream}\\n")
    with open(here / "gate", "rb") as gate:
        gate.read()
"""
FINALIZER = """
import json
from pathlib import Path

@callback("success")
def finalize(stream, index, is_last_block_run, **kwargs):
    here = Path(__file__).parent
    alerted = (here / "alerted").read_text().split() if (here / "alerted").exists() else []
    with (here / "finalized").open("a") as finalized:
        finalized.write(json.dumps([stream, index, is_last_block_run, len(alerted)]) + "\\n")
"""


def test_alerts_that_hang_for_each_of_50_streams_do_not_delay_the_finalizer_of_another_block(
    zygote: Zygote, folder: Path
) -> None:
    workshop: Workshop = make_many(zygote, folder, "sqlite", "", "hang", streams=50)
    workshop.source_settings["delay_s"] = 0.0
    (folder / "alert.py").write_text(ALERT)
    (folder / "finalizer.py").write_text(FINALIZER)
    os.mkfifo(folder / "gate")  # who opens it for reading hangs: nobody ever opens it for writing
    workshop.document["callbacks"] = [
        {"file": "alert.py", "on": ["stream"], "timeout_s": 600, "attempts": 1},
        {"file": "finalizer.py", "on": ["stream"]},
    ]
    workshop.document["drain_s"] = 4
    workshop.write()
    process = workshop.run()
    assert process.code == 3, process.log()
    told: list[Any] = [json.loads(line) for line in (folder / "finalized").read_text().splitlines()]
    assert [(index, is_last) for _, index, is_last, _ in told] == [(number, number == 49) for number in range(50)]
    # The first alert hangs from its beginning on; all of the finalizer's calls were made meanwhile.
    assert (folder / "alerted").read_text().split() in ([], [told[0][0]])
    assert told[-1][3] <= 1
    due = workshop.store_rows("select callback_block, count(*) as n from _syncblocks_delivery where is_open group by 1")
    assert due == [{"callback_block": "alert", "n": 50}]
