"""A thousand workers that die and freeze close every stream once, whatever the order of events."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence

import pytest

from syncblocks.sync.store.claims import Claims
from tests.sync.store.simulation import in_memory, simulate

STREAMS = 5_000
#: Each stream has two block runs: a million of them in one store in the full set.
RUNS = 100 if os.environ.get("SYNCBLOCKS_FAULTS") == "full" else 1


@pytest.fixture
def url() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=in_memory()) as folder:
        yield f"sqlite:///{folder}/store.db"


@pytest.mark.timeout(0)
@pytest.mark.full
def test_a_thousand_workers_that_crash_close_every_stream_once(url: str) -> None:
    runs = 0
    for found in simulate(url, runs=RUNS, streams=STREAMS, workers=1_000, seed=19):
        assert found.violations == []
        assert found.block_runs == 2 * STREAMS
        assert min(found.died, found.frozen, found.refused) > 20, "it has crashes, and zombies that are refused"
        runs += 1
    assert runs == RUNS


def test_the_simulation_finds_a_claim_that_is_not_taken_back(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(
        self: Claims, run_id: int, attempt: int, streams: Sequence[str], nonce: str, former: str, **_: bool
    ) -> Sequence[str]:
        return streams

    monkeypatch.setattr(Claims, "take_back", keep)
    with pytest.raises(Exception, match="was taken from this worker"):
        list(simulate(url, streams=200, workers=20, seed=1, crash=0.2))
