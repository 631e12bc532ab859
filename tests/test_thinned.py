"""In CI a thinned grid has each value, or each pair of values."""

from __future__ import annotations

from itertools import product

import pytest

from tests.thinned import thinned

GRID = {"system": ("a", "b", "c", "d"), "how": (1, 2, 3), "wire": (True, False)}
CASES = [dict(zip(GRID, values, strict=True)) for values in product(*GRID.values())]


class Case:
    """The part of a test that `thinned` reads."""

    def __init__(self, name: str, size: int | None, *, mark: str = "thinned", **params: object) -> None:
        self.mark = mark
        self.nodeid = f"test_x.py::{name}[{'-'.join(map(str, params.values()))}]"
        self.size, self.callspec = size, self
        self.params = params

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        has_mark = self.size is not None and name == self.mark
        return pytest.Mark(name, (self.size,), {}, _ispytest=True) if has_mark else None


@pytest.mark.parametrize(("size", "count"), [(1, 4), (2, 12)])
def test_each_meeting_of_so_many_values_is_in_one_of_few_cases(
    monkeypatch: pytest.MonkeyPatch, size: int, count: int
) -> None:
    monkeypatch.delenv("SYNCBLOCKS_FAULTS", raising=False)
    cases = [Case("whole", None, **case) for case in CASES] + [Case("grid", size, **case) for case in CASES]
    kept, left_out = thinned(cases)  # type: ignore[arg-type]
    assert len(kept) + len(left_out) == len(cases)
    assert [case.nodeid for case in kept[: len(CASES)]] == [case.nodeid for case in cases[: len(CASES)]]
    grid = [case.params for case in kept[len(CASES) :]]  # type: ignore[attr-defined]
    assert len(grid) == count
    for name, values in GRID.items():
        assert {case[name] for case in grid} == set(values)
    if size == 2:
        assert {(case["system"], case["how"]) for case in grid} == set(product(GRID["system"], GRID["how"]))
        assert {(case["how"], case["wire"]) for case in grid} == set(product(GRID["how"], GRID["wire"]))


def test_the_full_set_has_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNCBLOCKS_FAULTS", "full")
    cases = [Case("grid", 1, **case) for case in CASES]
    assert thinned(cases) == (cases, [])  # type: ignore[arg-type]


@pytest.mark.parametrize(("variable", "count"), [("", 1), ("full", 2)])
def test_only_the_full_set_has_a_case_that_is_marked_so(
    monkeypatch: pytest.MonkeyPatch, variable: str, count: int
) -> None:
    monkeypatch.setenv("SYNCBLOCKS_FAULTS", variable)
    cases = [Case("one", 0, mark="only_faults"), Case("other", None)]
    kept, left_out = thinned(cases)  # type: ignore[arg-type]
    assert (len(kept), len(left_out)) == (count, 2 - count)
    assert cases[1] in kept
