"""What one process leaves due, the next one delivers before new work; or it is dead, and shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults.workshop import Workshop
from tests.zygote import Zygote

HOLD = "import time\n    while Path(__file__).with_name('hold').exists():\n        time.sleep(0.02)\n    "


def left_due(zygote: Zygote, folder: Path) -> Workshop:
    """A run whose `drain_s` passes while its callback stands still: the event is due."""
    workshop = Workshop(zygote, folder, destination="sqlite")
    workshop.stream("a", 2)
    workshop.stream("b", 2)
    workshop.document["callbacks"] = [{"file": "recorder.py", "on": ["pipeline"]}]
    workshop.document["drain_s"] = 0
    file = folder / "recorder.py"
    file.write_text(file.read_text().replace('_write(kwargs, "success")', f'{HOLD}_write(kwargs, "success")'))
    (folder / "hold").touch()
    workshop.write()
    assert workshop.run().code == 3
    assert due(workshop) == 1
    (folder / "hold").unlink()
    workshop.document["drain_s"] = 30
    workshop.write()
    return workshop


def test_a_call_that_ends_while_the_process_stops_is_not_counted_as_due(zygote: Zygote, folder: Path) -> None:
    workshop = Workshop(zygote, folder, destination="sqlite")
    workshop.stream("a", 2)
    workshop.document["drain_s"] = 0
    workshop.write()
    process = workshop.run()
    assert process.code == (3 if due(workshop) else 0), process.log()


def due(workshop: Workshop) -> int:
    return len(workshop.store_rows("select idempotency_key from _syncblocks_delivery where is_open"))


def shown(workshop: Workshop, *arguments: str) -> dict[str, Any]:
    process = workshop.zygote.start(workshop.folder, ("callbacks", *arguments))
    process.wait()
    found: dict[str, Any] = json.loads(process.output.with_suffix(".out").read_text())
    return found


def test_what_drain_s_left_is_delivered_before_the_next_run_begins(zygote: Zygote, folder: Path) -> None:
    workshop = left_due(zygote, folder)
    calls_before = workshop.calls()
    assert workshop.run().code == 0
    assert [call["run"] for call in workshop.calls()] == [1, 2]
    assert calls_before == []
    (told,) = workshop.store_rows(
        "select max(t.ended_at) as at from _syncblocks_delivery_try t join _syncblocks_delivery d"
        " using (idempotency_key) where d.run_id = 1"
    )
    (began,) = workshop.store_rows("select started_at as at from _syncblocks_attempt where run_id = 2")
    assert told["at"] <= began["at"]
    assert due(workshop) == 0


@pytest.mark.full
def test_a_function_that_is_gone_is_dead_at_once_and_shown_and_can_be_called_once_it_is_back(
    zygote: Zygote, folder: Path
) -> None:
    workshop = left_due(zygote, folder)
    file = folder / "recorder.py"
    text = file.read_text()
    file.write_text(text.replace("def success(", "def renamed("))
    process = workshop.run()
    assert process.code == 0, process.log()
    assert "has no function 'success' any more" in process.log()
    assert [(call["run"], call["status"]) for call in workshop.calls()] == [(2, "success")]
    (dead,) = shown(workshop, "list", "pipeline.yaml", "--run", "1")["deliveries"]
    outcomes = [one["outcome"] for one in dead["tries"]]
    # The first run may have been done before it could call at all.
    assert (dead["function"], dead["state"], outcomes[-1]) == ("success", "dead", "missing")
    assert outcomes[:-1] in ([], ["interrupted"])
    file.write_text(text)
    assert shown(workshop, "retry", "pipeline.yaml", "1")["counts"] == {"due": 0, "done": 1, "dead": 0}
    assert [(call["run"], call["idempotency_key"]) for call in workshop.calls()][-1] == (1, dead["key"])


def test_a_file_that_is_gone_is_dead_too(zygote: Zygote, folder: Path) -> None:
    workshop = left_due(zygote, folder)
    (folder / "recorder.py").rename(folder / "other.py")
    workshop.document["callbacks"] = [{"file": "other.py", "on": ["pipeline"]}]
    workshop.write()
    process = workshop.run()
    assert process.code == 0, process.log()
    assert "callback block 'recorder' is not in pipeline.yaml any more" in process.log()
    (dead,) = shown(workshop, "list", "pipeline.yaml", "--run", "1")["deliveries"]
    assert dead["state"] == "dead"
