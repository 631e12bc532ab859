"""Two tiers of tests: the fast one (`make test`), and what is marked `full` (`make test-rest`).

`@pytest.mark.full` stands at what costs more than a third of a second of CPU, as `pytest --costs 20` shows it.
`@pytest.mark.one_of("target")` stands at a grid that is dear as a whole: one value of that parameter stays in the fast
tier for each meeting of the others. Of several names it is one meeting of theirs, without a name one case of all.
Which one, the hash of its name says.

A test of Hypothesis that costs much stands in both tiers: `@pytest.mark.sampled`, and `max_examples=examples(300)`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

FULL, ONE_OF, SAMPLED = "full", "one_of", "sampled"
#: How pytest is asked for the fast tier.
FAST = "not full"
#: Whether it was, before any test is imported.
IS_FAST = False

#: Examples of a test in the fast tier.
FEW = 20


def is_full(file: Path) -> bool:
    """Return whether a file says that all of its tests are `full`."""
    return re.search(r"^pytestmark = .*\bpytest\.mark\.full\b", file.read_text("utf-8"), re.MULTILINE) is not None


def examples(count: int) -> int:
    """Return how many examples of a `sampled` test are made in this tier."""
    return min(count, FEW) if IS_FAST else count


def mark_tiers(items: Sequence[pytest.Item]) -> None:
    """Mark `full` the cases of a grid that are not the one of the fast tier, and what has all of its examples."""
    grids: dict[object, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker(SAMPLED) is not None and not IS_FAST:
            item.add_marker(FULL)
        mark = item.get_closest_marker(ONE_OF)
        if mark is not None and item.get_closest_marker(FULL) is None:
            grids.setdefault((item.nodeid.partition("[")[0], _others(item, mark.args)), []).append(item)
    for grid in grids.values():
        fast = min(grid, key=lambda item: hashlib.sha384(item.nodeid.encode()).digest())
        for item in grid:
            if item is not fast:
                item.add_marker(FULL)


def _others(item: pytest.Item, names: Sequence[str]) -> object:
    """Return the parameters of a case but these, as what its neighbours can be compared with."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    missing = set(names) - set(params)
    if missing:
        raise pytest.UsageError(f"{item.nodeid} has no parameter {', '.join(sorted(missing))}, which `{ONE_OF}` names")
    # The same object in each case: some values cannot be compared.
    return tuple(sorted((name, id(value)) for name, value in params.items() if names and name not in names))
