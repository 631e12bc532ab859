"""Draws mutants by a seed and chooses the tests that run for each."""

from __future__ import annotations

import json
import random
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from .sites import Mutant, compiles, mutants

#: Name of a part of the product -> prefixes of its files.
PARTS = {
    "sync/plan": ("sync/plan/",),
    "sync/run": ("sync/run/",),
    "sync/store": ("sync/store/",),
    "sync/flow": ("sync/flow/",),
    "sync/serve": ("sync/serve/", "sync/schedules/"),
    "sync/delivery": ("sync/delivery/",),
    "connectors/sql": (
        "connectors/sql/",
        *(f"connectors/{name}/dialect.py" for name in ("postgres", "mysql", "duckdb", "sqlite", "sqlalchemy")),
    ),
    "connectors/postgres/log": ("connectors/postgres/log/",),
    "connectors/files": ("connectors/files/",),
    "connectors/incremental": ("connectors/incremental/",),
    "connectors/delta": ("connectors/delta/",),
    "connectors/airbyte": ("connectors/airbyte/", "connectors/singer/"),
    "callbacks": ("callbacks/",),
}
#: Limits for the tests of one mutant: their number, and the seconds that they took while they were recorded.
MOST_TESTS, MOST_S = 120, 30.0


class Record:
    """Recorded lines of some files, as `lines.py` wrote them."""

    def __init__(self, folder: Path, files: Iterable[str]) -> None:
        wanted = set(files)
        self._by_line: dict[tuple[str, int], set[str]] = defaultdict(set)
        self._by_file: dict[str, set[str]] = defaultdict(set)
        self._cost: dict[str, float] = {}
        for entry in _entries(folder):
            test = entry["test"]
            if entry["cost"] is not None:
                self._cost[test] = entry["cost"]
            for file in wanted & entry["lines"].keys():
                self._by_file[file].add(test)
                for line in entry["lines"][file]:
                    self._by_line[file, line].add(test)

    def tests(self, mutant: Mutant) -> list[str]:
        """Return tests of the line, then tests of the file, with the cheapest case of each function first."""
        lines = range(mutant.line, mutant.end_line + 1)
        near = set().union(*(self._by_line.get((mutant.file, line), set()) for line in lines))
        return _within_limits([*self._in_turn(near), *self._in_turn(self._by_file[mutant.file] - near)], self._cost)

    def is_executed(self, mutant: Mutant) -> bool:
        return any((mutant.file, line) in self._by_line for line in range(mutant.line, mutant.end_line + 1))

    def _in_turn(self, tests: Iterable[str]) -> list[str]:
        """Return the cheapest case of each test function, then the second cheapest, and so on."""
        known = sorted((test for test in tests if test in self._cost), key=lambda test: (self._cost[test], test))
        turns: dict[str, int] = defaultdict(int)
        placed = []
        for test in known:
            function = test.partition("[")[0]
            placed.append((turns[function], test))
            turns[function] += 1
        return [test for _, test in sorted(placed, key=lambda place: place[0])]


def _within_limits(tests: Sequence[str], costs: Mapping[str, float]) -> list[str]:
    chosen: list[str] = []
    total = 0.0
    for test in tests:
        if len(chosen) == MOST_TESTS or (chosen and total + costs[test] > MOST_S):
            break
        chosen.append(test)
        total += costs[test]
    return chosen


def _entries(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def part_of(mutant: Mutant) -> str:
    return next(part for part, places in PARTS.items() if mutant.file.startswith(places))


def drawn(root: Path, seed: int, count: int) -> list[Mutant]:
    """Return the mutants of a seed. Each part has the same number of them, and a line has at most one."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=root, capture_output=True, text=True, check=True)
    files = sorted(listed.stdout.split())
    sample: list[Mutant] = []
    for number, (part, places) in enumerate(PARTS.items()):
        chance = random.Random(f"{seed} {part}")
        lines: dict[tuple[str, int], list[Mutant]] = defaultdict(list)
        for file in files:
            for mutant in mutants(root, file) if file.startswith(places) else ():
                lines[mutant.file, mutant.line].append(mutant)
        size = (count + number) // len(PARTS)  # the sizes add up to `count`
        order = (chance.choice(lines[line]) for line in chance.sample(sorted(lines), len(lines)))
        sample += islice((mutant for mutant in order if compiles(root, mutant)), size)
    return sample
