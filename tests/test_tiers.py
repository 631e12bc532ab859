"""What is in the fast tier, and what it may cost."""

from __future__ import annotations

import subprocess
import sys
from itertools import product

import pytest

from tests import budget, tiers
from tests.tiers import FULL, mark_tiers
from tests.zygote import Zygote

SYSTEMS = ("duckdb", "mysql", "postgres", "sqlite")


class Case:
    """What `mark_tiers` asks of a test."""

    def __init__(self, name: str, marks: dict[str, tuple[str, ...]], **params: object) -> None:
        self.nodeid = f"test_x.py::{name}[{'-'.join(map(str, params.values()))}]"
        self.marks, self.callspec, self.params = dict(marks), self, params

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return pytest.Mark(name, self.marks[name], {}, _ispytest=True) if name in self.marks else None

    def add_marker(self, name: str) -> None:
        self.marks[name] = ()


def grid(name: str, *parameters: str) -> list[Case]:
    """Return one system a case, and how."""
    return [Case(name, {"one_of": parameters}, system=system, how=how) for system, how in product(SYSTEMS, (1, 2, 3))]


def fast(cases: list[Case]) -> list[tuple[object, object]]:
    """Return which cases are in the fast tier."""
    mark_tiers(cases)  # type: ignore[arg-type]
    return [(case.params["system"], case.params["how"]) for case in cases if FULL not in case.marks]


def test_one_value_stays_for_each_of_the_others() -> None:
    assert sorted(how for _, how in fast(grid("a", "system"))) == [1, 2, 3]
    assert sorted(system for system, _ in fast(grid("a", "how"))) == sorted(SYSTEMS)
    assert len(fast(grid("a", "system", "how"))) == len(fast(grid("a"))) == 1


def test_the_name_says_which_and_each_system_has_its_share() -> None:
    assert fast(grid("a", "system")) == fast(grid("a", "system"))
    chosen = [system for number in range(200) for system, _ in fast(grid(f"test_{number}"))]
    assert all(chosen.count(system) >= 200 * 0.2 for system in SYSTEMS)


def test_a_case_that_is_full_is_not_the_one() -> None:
    cases = grid("a")
    for case in cases[1:]:
        case.add_marker(FULL)
    assert fast(cases) == [("duckdb", 1)]


def test_a_parameter_that_is_not_there_is_told() -> None:
    with pytest.raises(pytest.UsageError, match="has no parameter sytem"):
        mark_tiers(grid("a", "sytem"))  # type: ignore[arg-type]


@pytest.mark.parametrize("is_fast", [True, False])
def test_a_sampled_test_is_in_both_tiers(monkeypatch: pytest.MonkeyPatch, is_fast: bool) -> None:
    monkeypatch.setattr(tiers, "IS_FAST", is_fast)
    case = Case("a", {"sampled": ()})
    tiers.mark_tiers([case])  # type: ignore[list-item]
    assert (FULL in case.marks, tiers.examples(300)) == ((False, tiers.FEW) if is_fast else (True, 300))


@pytest.mark.parametrize(
    ("cost", "slow", "expected"),
    [
        (0.99, 1.0, None),
        (2.0, 1.0, "costs 2.0 s of CPU, 1.0 is allowed: make it cheaper or mark it `full`"),
        (1.7, 2.0, None),
        (4.0, 2.0, "costs 2.0 s of CPU, 1.0 is allowed: make it cheaper or mark it `full`"),
    ],
)
def test_a_test_may_cost_one_second_of_this_machine(cost: float, slow: float, expected: str | None) -> None:
    assert budget.too_much(cost, slow) == expected


def test_a_tier_may_cost_more_where_the_machine_is_slow() -> None:
    tally = budget.Tally()
    assert tally.allowed() == budget.TIER_S
    tally.add(200.0, 1.0)
    tally.add(300.0, 2.0)
    assert (tally.cost, tally.allowed()) == (500.0, budget.TIER_S * 1.5)


#: Uses 0.2 s of processor time.
BURN = "import time\nwhile time.process_time() < 0.2: pass"


def test_processes_that_a_test_starts_are_counted(zygote: Zygote) -> None:
    before = budget.spent()
    subprocess.run([sys.executable, "-c", BURN], check=True)
    between = budget.spent()
    assert between - before >= 0.2
    zygote.module("tests.tiers")
    assert budget.spent() > between
