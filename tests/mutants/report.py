"""The results of a seed, one line of a file for each mutant, and the score of each part."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

from .sample import PARTS, Record, part_of
from .sites import Mutant


class Results:
    """Mutants and the tests that found them.

    The file `seed-N.unchanged` in the same folder lists mutants that do not change any behavior. Each of its lines
    contains an id, a tab and the reason.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._found_by: dict[str, str | None] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            result = json.loads(line)
            self._found_by[result["id"]] = result["found_by"]
        reasons = path.with_suffix(".unchanged")
        lines = reasons.read_text(encoding="utf-8").splitlines() if reasons.exists() else ()
        self.unchanged = {name: reason for name, _, reason in (line.partition("\t") for line in lines)}

    def __contains__(self, mutant_id: str) -> bool:
        return mutant_id in self._found_by

    def add(self, mutant: Mutant, found_by: str | None, tests: int) -> None:
        with self._lock, self._path.open("a", encoding="utf-8") as out:
            self._found_by[mutant.id] = found_by
            out.write(json.dumps({"id": mutant.id, "found_by": found_by, "tests": tests}) + "\n")

    def is_found(self, mutant: Mutant) -> bool:
        found_by = self._found_by.get(mutant.id)
        return found_by is not None and not found_by.startswith("not counted")

    def survivors(self, sample: Sequence[Mutant]) -> list[Mutant]:
        return [mutant for mutant in sample if not self.is_found(mutant) and mutant.id not in self.unchanged]


def report(sample: Sequence[Mutant], results: Results, record: Record) -> str:
    """Return a text with the score of each part and a list of the survivors."""
    lines = [f"{'part':26}{'mutants':>9}{'unchanged':>10}{'found':>7}{'score':>7}"]
    for part in [*PARTS, "all"]:
        own = [mutant for mutant in sample if part in ("all", part_of(mutant))]
        unchanged = sum(mutant.id in results.unchanged for mutant in own)
        found = sum(results.is_found(mutant) for mutant in own if mutant.id not in results.unchanged)
        if own:
            score = found / max(1, len(own) - unchanged)
            lines.append(f"{part:26}{len(own):9}{unchanged:10}{found:7}{score:7.0%}")
    lines.append("survivors (* no test executes the line):")
    lines += [f"{' ' if record.is_executed(mutant) else '*'} {mutant.id}" for mutant in results.survivors(sample)]
    return "\n".join(lines) + "\n"
