"""`syncblocks recover`: a run that was killed is ended and told of, and no stream is started."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Count
from tests.faults.oracle import untrue, violations
from tests.faults.test_failpoints import make
from tests.faults.test_zombie import freeze
from tests.zygote import Zygote

ARGUMENTS = ("recover", "pipeline.yaml")


@pytest.mark.full
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
@pytest.mark.parametrize(
    ("point", "status"), [("duckdb.commit.after:2", "failure"), ("store.release_gate.before:1", "success")]
)
def test_a_killed_run_is_ended_and_told_of_and_nothing_is_synced(
    zygote: Zygote, folder: Path, postgres_url: str, store: str, point: str, status: str, injected: Count
) -> None:
    workshop = make(zygote, folder, "duckdb", store, postgres_url, "append")
    workshop.write()
    assert workshop.run(failpoint=f"{point}:kill").code == -signal.SIGKILL
    injected()
    before = workshop.rows("orders")
    found = recovered(zygote, folder)
    assert found["run"]["status"] == status
    assert found["callbacks"]["done"] > 0
    assert violations(workshop, kills=1, has_data=False) == []
    assert workshop.rows("orders") == before
    (count,) = workshop.store_rows("select count(*) as n from _syncblocks_pipeline_run")
    assert count["n"] == 1
    assert recovered(zygote, folder) == {**found, "run": None, "callbacks": {}}
    last = workshop.run()
    assert untrue(workshop, last) + violations(workshop, kills=1) == []


def recovered(zygote: Zygote, folder: Path) -> dict[str, Any]:
    process = zygote.start(folder, ARGUMENTS)
    assert process.wait() == 0, process.log()
    found: dict[str, Any] = json.loads(process.output.with_suffix(".out").read_text().splitlines()[-1])
    return found


def test_a_run_that_goes_on_is_left_alone(zygote: Zygote, folder: Path) -> None:
    workshop = make(zygote, folder, "sqlite", "sqlite", "", "append")
    workshop.write()
    running = freeze(workshop, "stream.after_commit:1")
    refused = zygote.start(folder, ARGUMENTS)
    assert refused.wait() == 2, refused.log()
    running.signal(signal.SIGCONT)
    assert running.wait() == 0
    assert violations(workshop) == []
