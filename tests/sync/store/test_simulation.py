"""A thousand workers that die and freeze close every stream once, whatever the order of events."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from syncblocks.sync.store.claims import Claims
from tests.sync.store.simulation import Simulation

#: Each has two block runs: a million of them in the full set.
STREAMS = 500_000 if os.environ.get("SYNCBLOCKS_FAULTS") == "full" else 5_000


@pytest.mark.timeout(0)
def test_a_thousand_workers_that_crash_close_every_stream_once(tmp_path: Path) -> None:
    found = Simulation(f"sqlite:///{tmp_path}/store.db", streams=STREAMS, workers=1_000, seed=19).run()
    assert found.violations == []
    assert found.block_runs == 2 * STREAMS
    assert min(found.died, found.frozen, found.refused) > 20, "it has crashes, and zombies that are refused"


def test_the_simulation_finds_a_claim_that_is_not_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(
        self: Claims, run_id: int, attempt: int, streams: Sequence[str], nonce: str, former: str, **_: bool
    ) -> Sequence[str]:
        return streams

    monkeypatch.setattr(Claims, "take_back", keep)
    with pytest.raises(Exception, match="was taken from this worker"):
        Simulation(f"sqlite:///{tmp_path}/store.db", streams=200, workers=20, seed=1, crash=0.2).run()
