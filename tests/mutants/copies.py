"""A copy of the project with its own environment. Child processes of a test therefore also run the mutant."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import LINES_FOLDER, WORKER
from .sites import Mutant

#: Seconds that the tests of a mutant may take. A mutant can wait where the original code does not.
LIMIT_S = 240.0
#: Matches the line of pytest's summary that names a failed test.
FAILED = re.compile(r"^(?:FAILED|ERROR) (tests/\S+?(?:\[.*?\])?)(?: - .*)?$", re.MULTILINE)


class Copy:
    """One copy. Only one thread at a time may use it."""

    def __init__(self, folder: Path, origin: Path) -> None:
        self.folder, self._origin = folder, origin

    def prepare(self) -> None:
        """Update the copy to the last commit and its environment to the locked versions."""
        if not self.folder.exists():
            _run(["git", "clone", "--quiet", str(self._origin), str(self.folder)], self._origin)
        _run(["git", "fetch", "--quiet", "origin", "HEAD"], self.folder)
        _run(["git", "reset", "--quiet", "--hard", "FETCH_HEAD"], self.folder)
        _run(["make", "--silent", "locked"], self.folder)
        _run([str(self._python), "-m", "pip", "install", "--quiet", "--group", "mutants"], self.folder)
        packages = _run([str(self._python), "-c", "import coverage; print(coverage.__path__[0])"], self.folder).strip()
        follow = "__import__('tests.mutants.lines').mutants.lines.follow()"
        Path(packages).with_name("zz_lines.pth").write_text(
            f"{self.folder}\nimport os; os.environ.get('{WORKER}') and {follow}\n", encoding="utf-8"
        )

    def record(self, lines: Path) -> None:
        """Run the fast tier and record which test executes which line."""
        partial = lines.with_name("lines.partial")
        partial.mkdir(exist_ok=True)
        for former in partial.iterdir():
            former.unlink()
        command = [*self._pytest, "-n", "auto", "--dist", "worksteal", "-p", "tests.mutants.lines", "--reruns=0"]
        # Recording makes tests slower, so some of them exceed their budget and fail. This does not matter.
        subprocess.run(
            [*command, "-m", "not full"], cwd=self.folder, env={**os.environ, LINES_FOLDER: str(partial)}, check=False
        )
        partial.rename(lines)

    def found_by(self, mutants: Sequence[Mutant], tests: Sequence[str]) -> str | None:
        """Return the first test that fails with mutants and passes without them, or `None` if all tests pass."""
        with self.changed(mutants):
            failed = self._first_failure(tests)
        if failed is None:
            return None
        again = [failed] if failed in tests else tests
        return failed if self._first_failure(again) is None else f"not counted: {failed} fails on sound code, too"

    def failures(self, mutants: Sequence[Mutant], selection: Sequence[str], limit_s: float) -> list[str]:
        """Return the tests of a selection that fail with mutants."""
        with self.changed(mutants):
            output, _ = self._tested(["-n", "auto", "--dist", "worksteal", *selection], limit_s)
        return list(dict.fromkeys(FAILED.findall(output)))

    @contextmanager
    def changed(self, mutants: Sequence[Mutant]) -> Iterator[None]:
        """Apply mutants to the copy, and restore its files at the end. A mutant inside another one is left out."""
        by_file: dict[str, list[Mutant]] = defaultdict(list)
        for mutant in mutants:
            by_file[mutant.file].append(mutant)
        sources = {file: (self.folder / file).read_bytes() for file in by_file}
        try:
            for file, found in by_file.items():
                changed, before = sources[file], len(sources[file])
                for mutant in sorted(found, key=lambda mutant: -mutant.start):
                    if mutant.end <= before:
                        changed, before = mutant.applied(changed), mutant.start
                self._write(file, changed)
            yield
        finally:
            for file, source in sources.items():
                self._write(file, source)

    def _write(self, file: str, source: bytes) -> None:
        path = self.folder / file
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink(missing_ok=True)
        path.write_bytes(source)

    def _first_failure(self, tests: Sequence[str]) -> str | None:
        output, code = self._tested(["-x", "-n", "0", "-m", "not full", *tests], LIMIT_S)
        if code == 0:
            return None
        found = FAILED.search(output)
        return found[1] if found else f"no test: pytest ended with {code}"

    def _tested(self, arguments: Sequence[str], limit_s: float) -> tuple[str, int | str]:
        process = subprocess.Popen(
            [*self._pytest, "-q", "-rfE", "--tb=no", "--no-header", *arguments],
            cwd=self.folder,
            env={**os.environ, "CI": "true"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return "", f"no end within {limit_s:.0f} s"
        return output, process.returncode

    @property
    def _python(self) -> Path:
        return self.folder / ".venv" / "bin" / "python"

    @property
    def _pytest(self) -> list[str]:
        return [str(self._python), "-m", "pytest", "-p", "no:cacheprovider"]


def _run(command: Sequence[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        done.check_returncode()
    return done.stdout
