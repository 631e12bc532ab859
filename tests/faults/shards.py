"""Parts of the full set, each run by itself, and the sum of what they found.

`SHARD=3/20 make faults` runs the third of twenty parts; `python -m tests.faults.shards` adds up what the parts left in
`.faults/`, and fails if one is missing or has found something.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

#: Which part this session runs: `3/20`.
SHARD = "SYNCBLOCKS_SHARD"
#: Where the parts leave what they found.
FOLDER = Path(__file__).parents[2] / ".faults"


class Shard(NamedTuple):
    """The `number`-th of so many parts, from 1."""

    number: int
    count: int

    def holds(self, test: str) -> bool:
        """Whether it runs a test: by the test's name alone, so that a new test moves no other."""
        return crc32(test.encode()) % self.count == self.number - 1

    def file(self, folder: Path = FOLDER) -> Path:
        return folder / f"{self.number}-of-{self.count}.json"


def this_shard() -> Shard:
    """Return the part that this session runs; all of it unless the environment says otherwise."""
    said = os.environ.get(SHARD) or "1/1"
    found = re.fullmatch(r"(\d+)/(\d+)", said)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"SHARD={said}: a part is written as 3/20")
    return Shard(int(found[1]), int(found[2]))


def write(shard: Shard, result: dict[str, Any], folder: Path = FOLDER) -> None:
    folder.mkdir(exist_ok=True)
    shard.file(folder).write_text(json.dumps({"shard": shard, **result}, indent=1), encoding="utf-8")


def added_up(results: Iterable[dict[str, Any]]) -> tuple[list[str], bool]:
    """Return lines that tell what all parts found together, and whether they are complete and found nothing."""
    parts = {tuple(result["shard"]): result for result in results}
    counts = {count for _, count in parts}
    if len(counts) != 1:
        return [f"parts of {sorted(counts)} sets: one set is needed"], False
    (count,) = counts
    lines = [
        f"{number}/{count}: {part['tests']} tests, {part['injected']} injected faults, "
        f"{len(part['violations'])} violations, {part['seconds']:.0f} s"
        for (number, _), part in sorted(parts.items())
    ]
    missing = [number for number in range(1, count + 1) if (number, count) not in parts]
    lines += [f"{number}/{count}: missing" for number in missing]
    violations = [violation for part in parts.values() for violation in part["violations"]]
    total = {name: sum(part[name] for part in parts.values()) for name in ("tests", "injected")}
    moments = sum(part.get("moments", 0) for part in parts.values())
    lines.append(
        f"{total['tests']} tests, {total['injected']} injected faults, {moments} of them kills at random moments, "
        f"{len(violations)} violations"
    )
    return [*lines, *violations], not missing and not violations


def main(folder: Path = FOLDER) -> int:
    lines, is_good = added_up(json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*-of-*.json"))
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
