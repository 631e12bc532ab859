"""The parts of the full set make up the whole, and their sum tells what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.shards import SHARD, Shard, added_up, this_shard, write


def test_each_test_is_in_one_part() -> None:
    tests = [f"tests/faults/test_x.py::test_y[{number}]" for number in range(100)]
    shards = [Shard(number, 7) for number in range(1, 8)]
    assert all(sum(shard.holds(test) for shard in shards) == 1 for test in tests)


def test_a_part_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for said in ("0/3", "4/3", "2", "a/b"):
        monkeypatch.setenv(SHARD, said)
        with pytest.raises(ValueError, match="a part is written as"):
            this_shard()


def test_the_sum_names_what_is_missing_and_what_was_found(tmp_path: Path) -> None:
    part = {"tests": 2, "injected": 30, "moments": 7, "violations": [], "seconds": 1.0}
    write(Shard(1, 2), part, tmp_path)

    def results() -> list[dict[str, object]]:
        return [json.loads(file.read_text()) for file in tmp_path.iterdir()]

    lines, is_good = added_up(results())
    assert not is_good
    assert "2/2: missing" in lines
    write(Shard(2, 2), part, tmp_path)
    assert added_up(results()) == (
        [
            *lines[:1],
            lines[0].replace("1/2", "2/2"),
            "4 tests, 60 injected faults, 14 of them kills at random moments, 0 violations",
        ],
        True,
    )
    write(Shard(2, 2), {**part, "violations": ["test_x: lost"]}, tmp_path)
    lines, is_good = added_up(results())
    assert (lines[-1], is_good) == ("test_x: lost", False)
