"""Tests all survivors in one copy, because a test that does not execute the line of a mutant can still find it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .copies import Copy
from .sites import Mutant

#: Seconds that a whole tier may take with many mutants.
LIMIT_S = 3600.0


def attributed(copy: Copy, survivors: Sequence[Mutant], selection: Sequence[str]) -> Iterator[tuple[Mutant, str]]:
    """Yield each survivor that a test of the selection finds alone, with that test."""
    left = list(survivors)
    failed = copy.failures(left, selection, LIMIT_S) if left else []
    sound = set(copy.failures([], failed, LIMIT_S)) if failed else set()
    for test in failed:
        # A test can find several mutants, so it runs again without the mutants that it has already found.
        while test not in sound and (mutant := _one_of(copy, left, test)) is not None:
            left.remove(mutant)
            yield mutant, test


def _one_of(copy: Copy, mutants: Sequence[Mutant], test: str) -> Mutant | None:
    """Return one mutant that a test finds alone, by halving, or `None` if the test finds none of them."""
    if not mutants or copy.found_by(mutants, [test]) is None:
        return None
    if len(mutants) == 1:
        return mutants[0]
    middle = len(mutants) // 2
    return _one_of(copy, mutants[:middle], test) or _one_of(copy, mutants[middle:], test)
