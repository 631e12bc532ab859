"""SIGTERM and SIGINT: stop within seconds, tell everybody, exit 143 or 130; a second signal forces."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.connectors.postgres.postgres_proxy import proxy
from tests.faults.conftest import Count
from tests.faults.oracle import untrue, violations
from tests.faults.test_kill_loop import make
from tests.faults.workshop import Workshop
from tests.zygote import Zygote

#: Asked of an idle machine; what is asserted is looser, since machines under test are not idle.
PROMISED_S, ASSERTED_S = 5.0, 20.0


@pytest.mark.full
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_at_any_time_cancels_the_run_and_tells_it(
    zygote: Zygote, folder: Path, postgres_url: str, number: signal.Signals, store: str, injected: Count, is_full: bool
) -> None:
    chance = random.Random(f"{number} {store}")
    workshop = make(zygote, folder, "duckdb", store, postgres_url)
    workshop.source_settings["delay_s"] = 0.05
    workshop.write()
    began = time.monotonic()
    assert workshop.run().code == 0
    usual_s = time.monotonic() - began
    slowest_s, hits, wanted = 0.0, 0, 75 if is_full else 3
    for _ in range(4 * wanted):
        if hits == wanted:
            break
        process = workshop.start()
        process.zygote.read_until(lambda ended=process: ended.code is not None, chance.uniform(0.1, usual_s * 0.8))
        signalled = time.monotonic()
        process.signal(number)
        code = process.wait()
        slowest_s = max(slowest_s, time.monotonic() - signalled)
        # Before or after its work, there is nothing to cancel: the signal does what it does to any process.
        assert code in (128 + number, -number, 0), process.log()
        hits += code == 128 + number
        assert untrue(workshop, process) + violations(workshop, has_data=False) == []
    assert workshop.run().code == 0
    assert violations(workshop) == []
    injected(hits)
    assert hits == wanted
    assert slowest_s < ASSERTED_S, f"promised: {PROMISED_S} s"


@pytest.mark.full
@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("point", ["store.close.before:1", "store.close.claimed:1", "store.close.after:1"])
@pytest.mark.parametrize("action", ["sigterm", "sigint", "kill"])
def test_the_run_ends_between_two_streams_with_the_flag_on_the_one_that_was(
    zygote: Zygote, folder: Path, point: str, action: str, injected: Count
) -> None:
    workshop = make(zygote, folder, "duckdb", "sqlite", "")
    workshop.document["concurrency"] = 1
    workshop.write()
    process = workshop.run(failpoint=f"{point}:{action}")
    assert process.code == {"sigterm": 143, "sigint": 130, "kill": -9}[action]
    kills = int(action == "kill")
    if not kills:
        assert violations(workshop, has_data=False) == []
    assert workshop.run().code == 0
    injected()
    assert violations(workshop, kills=kills) == []
    flags = [
        (call["stream"], call["is_last_block_run"])
        for call in workshop.calls()
        if call["run"] == 1 and call["parent_block_uuid"] == "load"
    ]
    assert [flag for _, flag in flags] == [False] * (len(flags) - 1) + [True]
    assert len(flags) < 4


@pytest.mark.full
def test_a_second_signal_leaves_what_is_due_to_the_next_start(zygote: Zygote, folder: Path, injected: Count) -> None:
    workshop = _with_hanging_callback(zygote, folder)
    process = workshop.start()
    _wait_for(folder / "called")
    process.signal(signal.SIGTERM)
    time.sleep(0.5)
    assert not process.has_ended(), process.log()
    process.signal(signal.SIGTERM)
    began = time.monotonic()
    assert process.wait() == 143
    assert time.monotonic() - began < ASSERTED_S
    (folder / "hang").unlink()
    last = workshop.run()
    injected(2)
    assert last.code == 0, last.log()
    assert violations(workshop, kills=1) == []
    tries = workshop.store_rows("select max(attempts) as n from _syncblocks_delivery")
    assert tries == [{"n": 1}]


@pytest.mark.full
def test_a_signal_ends_a_run_whose_store_hangs_while_callbacks_are_delivered(
    zygote: Zygote, folder: Path, postgres_url: str, injected: Count
) -> None:
    """The time of a store that does not answer does not add to the time of the callbacks."""
    workshop = _with_hanging_callback(zygote, folder)
    workshop.document["callbacks"][-1]["on"] = ["pipeline"]  # no stream runs when it is called
    with proxy(postgres_url) as between:
        workshop.document["store"] = between.url
        workshop.write()
        signals = "syncblocks.sync.run.signals"
        process = workshop.start(constants={f"{signals}.{name}": s for name, s in (("LAST_S", 2), ("END_S", 2))})
        _wait_for(folder / "called")
        between.holds = True
        (folder / "hang").unlink()
        assert between.held.wait(30), process.log()
        process.signal(signal.SIGTERM)
        assert process.wait(15) == 143, process.log()
        assert "the process ends while it waits for an answer" in process.log()
    workshop.document["store"] = postgres_url
    workshop.write()
    last = workshop.run()
    injected()
    assert last.code == 0, last.log()


@pytest.mark.full
def test_a_killed_engine_takes_its_callbacks_along_and_the_next_start_calls_again(
    zygote: Zygote, folder: Path, injected: Count
) -> None:
    workshop = _with_hanging_callback(zygote, folder)
    process = workshop.start()
    _wait_for(folder / "called")
    process.kill()
    (folder / "hang").unlink()
    (folder / "called").unlink()
    last = workshop.run()
    injected()
    assert last.code == 0, last.log()
    assert (folder / "called").exists()
    assert violations(workshop, kills=1) == []


def _with_hanging_callback(zygote: Zygote, folder: Path) -> Workshop:
    workshop = make(zygote, folder, "duckdb", "sqlite", "")
    (folder / "hanging.py").write_text(
        "import time\nfrom pathlib import Path\n"
        "@callback('success')\n@callback('failure')\n@callback('cancelled')\n"
        "def hang(**kwargs):\n"
        "    here = Path(__file__).parent\n"
        "    (here / 'called').touch()\n"
        "    while (here / 'hang').exists():\n"
        "        time.sleep(0.02)\n"
    )
    (folder / "hang").touch()
    workshop.document["callbacks"].append({"file": "hanging.py", "on": ["stream"]})
    workshop.write()
    return workshop


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} did not come"
        time.sleep(0.01)
