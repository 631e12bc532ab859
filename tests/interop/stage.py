"""What the cases stand on: records, a folder each, the command line, and servers for as long as a case takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

#: Seconds for one command, the installation of a plugin included.
LIMIT_S = 900

#: What goes into targets, and out of taps: text that files and SQL must quote, an exact decimal, NULL.
RECORDS: Sequence[Mapping[str, Any]] = (
    {"id": 1, "name": 'a "quoted" \\ text, with commas', "amount": "1234567890.10"},
    {"id": 2, "name": "täglich 😀", "amount": "-0.01"},
    {"id": 3, "name": "third", "amount": None},
)
NAMES = [str(record["name"]) for record in RECORDS]


class Failed(Exception):
    """A case did not do what it should; says what happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The folder of one case."""

    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)

    def write(self, document: Mapping[str, Any], name: str = "p.yaml") -> None:
        """Write a pipeline file."""
        (self.folder / name).write_text(yaml.safe_dump(dict(document), sort_keys=False), encoding="utf-8")

    def command(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command line."""
        return subprocess.run(
            [sys.executable, "-m", "syncblocks", *arguments],
            cwd=self.folder,
            env={**os.environ, **self.env, **(env or {})},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    def sync(self, name: str = "p.yaml") -> str:
        """Run a pipeline.

        Raises:
            Failed: with the end of what it said.
        """
        done = self.command("run", name)
        if done.returncode:
            raise Failed((done.stderr.strip() or done.stdout.strip())[-600:])
        return done.stdout

    def check(self, found: Sequence[Any], expected: Sequence[Any], what: str) -> None:
        """Raise `Failed` if these are not the same."""
        if list(found) != list(expected):
            raise Failed(f"{what}: {list(found)!r:.300} instead of {list(expected)!r:.300}")


def records_source() -> dict[str, Any]:
    """Return a source with the records."""
    columns = {"id": "int64", "name": "string", "amount": "decimal(12,2)"}
    tables = {"items": {"columns": columns, "key": ["id"], "records": [dict(record) for record in RECORDS]}}
    return {"connector": "memory", "config": {"tables": tables}}


def write_csv(path: Path) -> None:
    """Write the records as CSV."""
    lines = ["id,name,amount"]
    for record in RECORDS:
        name = str(record["name"]).replace('"', '""')
        lines.append(f'{record["id"]},"{name}",{record["amount"] or ""}')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_json(path: Path, *, lines: bool) -> None:
    """Write the records as JSON lines, or as one array."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [json.dumps(record, ensure_ascii=False) for record in RECORDS]
    path.write_text("\n".join(texts) + "\n" if lines else f"[{', '.join(texts)}]", encoding="utf-8")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def http_folder(folder: Path) -> Iterator[str]:
    """Serve a folder over http."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


#: One case: it returns what happened, in a few words.
Act = Callable[[Stage], str]
