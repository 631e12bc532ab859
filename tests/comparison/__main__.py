"""Record what this commit plans, executes and stores, or compare two recordings.

    python -m tests.comparison record FOLDER [--cases N] [--seed S]
    python -m tests.comparison compare BEFORE AFTER

A change that is only meant to move code records before and after, and explains each difference.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

from tests import services
from tests.comparison.cases import Case, cases
from tests.comparison.statements import Servers, record_statements, written

#: Texts that differ in each run -> what replaces them.
_TIMES = [
    (re.compile(r"datetime\.datetime\([^()]*(\([^()]*\))?\)"), "<time>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d(:?\d\d)?)?"), "<time>"),
    (re.compile(r"\b(1[78]\d{8}|1[78]\d{14})(\.\d+)?\b"), "<epoch>"),
    (re.compile(r"\b\d+(\.\d+)? ?(ms|s|min)\b"), "<duration>"),
    (re.compile(r"\"(duration_s|elapsed_s|seconds|pid|identity|hostname|host|started)\": [^,}\n]+"), r'"\1": <varies>'),
    (re.compile(r'"traceback":"(\\.|[^"\\])*"'), '"traceback":<varies>'),
    (re.compile(r"127\.0\.0\.1:\d+|localhost:\d+"), "<server>"),
]
_IDENTIFIER = re.compile(r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b|(?<![0-9A-Za-z])[0-9a-f]{10,64}(?![0-9A-Za-z])")


def normalized(text: str, folder: Path, database: str, *, is_by_connection: bool) -> str:
    """Return a text with sections, without what differs in each run."""
    text = shown(text, folder, database)
    sections = re.split(r"(?m)^(?=-- |== )", text)
    # Rows and connections were sorted by identifiers and times that differ.
    between = "\n\n" if is_by_connection else "\n"
    return "".join(_sorted(section, between) for section in sections)


def shown(text: str, folder: Path, database: str) -> str:
    """Return what a command printed, without what differs in each run."""
    text = text.replace(str(folder), "FOLDER").replace(database, "DATABASE")
    for pattern, replacement in _TIMES:
        text = pattern.sub(replacement, text)
    text = "".join(line for line in text.splitlines(keepends=True) if '"stream_progress"' not in line)
    return _IDENTIFIER.sub(_anonymous, text)


def _anonymous(match: re.Match[str]) -> str:
    return "<id>" if any(letter.isdigit() for letter in match[0]) else match[0]


def _sorted(section: str, between: str) -> str:
    title, line, rest = section.partition("\n") if section.startswith(("-- ", "== ")) else ("", "", section)
    return title + line + between.join(sorted(rest.strip("\n").split(between))) + "\n"


def in_child(work: Callable[[], None], output: Path) -> int:
    """Run work in a forked process whose output goes to a file. Return its exit code."""
    sys.stdout.flush()
    if (pid := os.fork()) == 0:
        code = 70
        try:
            handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            work()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        finally:
            with suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def command(folder: Path, trace: Path, *arguments: str) -> str:
    """Run a command of the product in a fresh process, and return its exit code and what it printed."""

    def work() -> None:
        os.chdir(folder)
        record_statements(trace)
        sys.argv = ["syncblocks", *arguments]
        from syncblocks.sync.cli import main

        main()

    output = folder / "output"
    output.unlink(missing_ok=True)
    code = in_child(work, output)
    return f"$ {' '.join(arguments[:1] + arguments[2:])} -> {code}\n{output.read_text(errors='replace')}"


def state(case: Case, folder: Path, servers: Servers) -> str:
    """Return the state of a case. A process of its own reads it, because some drivers do not survive a fork."""
    output = folder / "state"
    output.unlink(missing_ok=True)
    in_child(lambda: say(case.state(folder, servers)), output)
    return output.read_text()


def record_case(case: Case, into: Path, servers: Servers) -> None:
    """Run a case in a new folder, and write what can be seen of it."""
    folder = Path(tempfile.mkdtemp(prefix="comparison-"))
    trace, found = folder / "trace", dict[str, list[str]]()
    try:
        database = servers.create(case)
        file = case.write(folder, servers)
        for day, change in enumerate((case.first_day, case.second_day)):
            change(folder, servers)
            for arguments in (["plan", str(file)], ["plan", str(file), "--json"], ["run", str(file), "--json"]):
                name = " ".join(arguments[:1] + arguments[2:])
                with servers.logged(case, trace):
                    found.setdefault(name, []).append(command(folder, trace, *arguments))
            found.setdefault("statements", []).append(f"-- day {day + 1}\n{written(trace)}")
            found.setdefault("state", []).append(f"-- day {day + 1}\n{state(case, folder, servers)}")
        for name, texts in found.items():
            (into / f"{case.name}.{name.replace(' --', '-')}.txt").write_text(
                normalized("\n".join(texts), folder, database, is_by_connection=name == "statements")
                if name in ("statements", "state")
                else shown("\n".join(texts), folder, database)
            )
    finally:
        servers.drop(case)
        shutil.rmtree(folder, ignore_errors=True)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


#: Modules that take long to import. Each command runs in a fork of a process that has them.
_SLOW = ("duckdb", "pyarrow.compute", "pyarrow.csv", "sqlalchemy", "pydantic", "syncblocks.sync.cli.run",
         "syncblocks.sync.cli.plan", "syncblocks.sync.run.pipeline")  # fmt: skip


def record(into: Path, number: int, seed: int) -> None:
    for name in _SLOW:
        import_module(name)
    into.mkdir(parents=True, exist_ok=True)
    with _servers() as servers:
        for case in cases(number, seed):
            say(case.name)
            (into / f"{case.name}.yaml").write_text(case.text())
            record_case(case, into, servers)


@contextmanager
def _servers() -> Iterator[Servers]:
    with services.own_postgres("logging_collector=on", "log_directory=log", "log_statement=all",
                               "log_line_prefix=%d,%p,", "log_filename=all.log") as postgres:  # fmt: skip
        yield Servers(postgres)


def compare(before: Path, after: Path) -> int:
    """Print the differences of two recordings, and return their number."""
    names = sorted({path.name for folder in (before, after) for path in folder.iterdir()})
    differing = 0
    for name in names:
        texts = [
            (folder / name).read_text().splitlines() if (folder / name).exists() else [] for folder in (before, after)
        ]
        lines = list(difflib.unified_diff(*texts, f"before/{name}", f"after/{name}", lineterm="", n=1))
        differing += bool(lines)
        for line in lines:
            say(line)
    say(f"{differing} of {len(names)} files differ")
    return differing


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.comparison", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("folder", type=Path)
    recording.add_argument("--cases", type=int, default=200)
    recording.add_argument("--seed", type=int, default=1)
    comparing = commands.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    given = parser.parse_args()
    if given.command == "record":
        record(given.folder.resolve(), given.cases, given.seed)
    else:
        sys.exit(compare(given.before, given.after) > 0)


if __name__ == "__main__":
    main()
