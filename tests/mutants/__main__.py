"""Change one place of the code at a time and report which changes the tests find.

The folder `.mutants/` contains copies of the last commit with their own environments, the recorded lines, and the
results of each seed. An interrupted run continues with the next change.
"""

from __future__ import annotations

import argparse
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from .copies import Copy
from .report import Results, report
from .sample import PARTS, Record, drawn, part_of
from .sites import Mutant
from .together import attributed

ROOT = Path(__file__).parents[2]
WORK = ROOT / ".mutants"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=400, help="number of changes in all parts together")
    parser.add_argument("--part", choices=PARTS, action="append", help="test only this part (can be repeated)")
    parser.add_argument("--copies", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--no-together", action="store_true", help="skip the last step, which tests all survivors in one copy"
    )
    arguments = parser.parse_args()

    WORK.mkdir(exist_ok=True)
    copies = [Copy(WORK / f"copy-{number}", ROOT) for number in range(arguments.copies)]
    for copy in copies:
        copy.prepare()
    sample = [
        mutant
        for mutant in drawn(copies[0].folder, arguments.seed, arguments.count)
        if not arguments.part or part_of(mutant) in arguments.part
    ]
    lines = WORK / "lines"
    if not lines.exists():
        copies[0].record(lines)
    record = Record(lines, {mutant.file for mutant in sample})
    results = Results(WORK / f"seed-{arguments.seed}.jsonl")
    _try_each([mutant for mutant in sample if mutant.id not in results], copies, record, results)
    if not arguments.no_together:
        _try_together(results.survivors(sample), copies[0], results)
    sys.stdout.write(report(sample, results, record))
    return 0


def _try_each(sample: Iterable[Mutant], copies: Sequence[Copy], record: Record, results: Results) -> None:
    """Run the tests of each mutant. Each copy runs one mutant at a time."""
    waiting: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
    for mutant in sample:
        waiting.put(mutant)

    def work(copy: Copy) -> None:
        while True:
            try:
                mutant = waiting.get_nowait()
            except queue.Empty:
                return
            tests = record.tests(mutant)
            found_by = copy.found_by([mutant], tests) if tests else None
            results.add(mutant, found_by, len(tests))
            sys.stderr.write(f"{waiting.qsize()} left  {found_by or 'SURVIVED'}  {mutant.id}\n")

    threads = [threading.Thread(target=work, args=(copy,)) for copy in copies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _try_together(survivors: Sequence[Mutant], copy: Copy, results: Results) -> None:
    """Run the survivors against the whole fast tier, then against the full tier of their parts."""
    folders = sorted({f"tests/{place.rstrip('/')}" for mutant in survivors for place in PARTS[part_of(mutant)]})
    existing = [folder for folder in folders if (ROOT / folder).is_dir()]
    for selection in (["-m", "not full"], ["-m", "full", *existing]):
        for mutant, test in attributed(copy, results.survivors(survivors), selection):
            results.add(mutant, test, 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}\n{(error.stdout or '')[-4000:]}{(error.stderr or '')[-4000:]}")
