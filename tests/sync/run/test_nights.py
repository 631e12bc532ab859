"""A month of nights: each change of the source is said as it has to be, and none is missed (`nights`)."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from .nights import Nights, postgres_place, sqlite_place

IS_FULL = os.environ.get("SYNCBLOCKS_FAULTS") == "full"
SEEDS, NIGHTS = (range(12), 31) if IS_FULL else (range(1), 8)


@pytest.mark.full
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("in_turn", [False, True])
def test_no_change_of_a_sqlite_file_is_missed(tmp_path: Path, in_turn: bool, seed: int) -> None:
    with sqlite_place(tmp_path) as place:
        nights = Nights(tmp_path, place, random.Random(seed), in_turn=in_turn)
        for _ in range(NIGHTS):
            nights.night()


@pytest.mark.full
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("in_turn", [False, True])
def test_no_change_of_a_postgres_database_is_missed(
    tmp_path: Path, postgres_url: str, in_turn: bool, seed: int
) -> None:
    with postgres_place(postgres_url) as place:
        nights = Nights(tmp_path, place, random.Random(seed), in_turn=in_turn)
        for _ in range(NIGHTS):
            nights.night()
