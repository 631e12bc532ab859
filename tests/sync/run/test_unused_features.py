"""How much a plain merge runs past features that it does not use: lines of executed functions that name one."""

from __future__ import annotations

import inspect
import re
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from syncblocks import run_pipeline

#: Folders of the engine and of loads of SQL databases.
FOLDERS = ("sync/plan", "sync/run", "sync/flow", "connectors/sql/load")
#: Names in code that belong to a feature which the merge does not use.
UNUSED = re.compile(
    r"reject|delete|histor|latest_by|deleted_when|replace_range|min_records|mask|is_logged|log_based|LogLag|\bchecks|"
    r"warn_checks|\bunique\b|\bfill|before_statement|PlannedBefore|\blimit\b|repair|parallel|\branges|mapped_run|"
    r"interval|spool|added|drops_history|is_appended_anew|former_key|null_bookmarks|lookback",
    re.IGNORECASE,
)
#: Most such lines. A new capability may raise the number by at most 20, and its note tells why.
LIMIT = 580


class Executed:
    """Collects the functions that run in any thread."""

    def __init__(self) -> None:
        self._codes = set[CodeType]()

    def __enter__(self) -> Executed:
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: Any) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            self._codes.add(frame.f_code)

    def lines(self) -> Iterator[tuple[str, int, str]]:
        """Yield file, number and text of each line of the functions in `FOLDERS`, once."""
        seen = set[tuple[str, int]]()
        for code in self._codes:
            path = Path(code.co_filename)
            file = next((f"{each}{str(path).split(each, 1)[1]}" for each in FOLDERS if f"/{each}/" in str(path)), None)
            if file is None or code.co_name == "<module>":
                continue
            texts, first = inspect.getsourcelines(code)
            for number, text in enumerate(texts, first):
                if (file, number) not in seen:
                    seen.add((file, number))
                    yield file, number, text


def merge_twice(folder: Path) -> list[tuple[str, int, str]]:
    """Merge records of one SQLite file into another, twice, and return the lines of the functions of the second run."""
    with closing(sqlite3.connect(folder / "source.db")) as source, source:
        source.execute("create table t (id integer primary key, v text)")
        source.executemany("insert into t values (?, ?)", [(each, f"v{each}") for each in range(10)])
    pipeline = {
        "pipeline": "plain",
        "source": {"connector": "sqlite", "config": {"path": str(folder / "source.db")}},
        "destination": {"connector": "sqlite", "config": {"path": str(folder / "destination.db")}},
        "streams": [{"stream": "t", "write_disposition": "merge"}],
        "store": f"sqlite:///{folder}/store.db",
    }
    run_pipeline(pipeline)
    with Executed() as executed:
        run_pipeline(pipeline)
    return sorted(executed.lines())


def test_a_plain_merge_names_few_features_that_it_does_not_use(tmp_path: Path) -> None:
    lines = merge_twice(tmp_path)
    unused = [line for line in lines if UNUSED.search(line[2])]
    assert len(lines) > 3000  # of the whole way from the plan to the commit
    assert len(unused) <= LIMIT, "\n".join(f"{file}:{number}: {text.strip()}" for file, number, text in unused)
    assert {file.rsplit("/", 1)[0] for file, *_ in lines} >= {*FOLDERS}
