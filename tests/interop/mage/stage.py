"""A folder in which a check runs pipelines as a user does, and reads back by drivers that are not ours."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from syncblocks import RunResult, load_pipeline, run_pipeline
from syncblocks.sync.errors import ConfigError
from tests.conftest import RunCLI

#: What a callback file of the checks begins with: `say` writes down what a function received.
SAY = """\
import json
from pathlib import Path
def plain(value):
    return value if isinstance(value, str | int | bool | dict | list | None) else repr(value)
def say(name, data=None, kwargs={}):
    told = {"name": name, "rows": None if data is None else len(data)}
    told["kwargs"] = {key: plain(value) for key, value in kwargs.items() if key != "__input"}
    with Path(__file__).with_name("told").open("a") as file:
        file.write(json.dumps(told, default=repr) + "\\n")
"""


class Call(NamedTuple):
    """A call of a callback function."""

    name: str
    #: Rows of its data; None: it got none.
    rows: int | None
    kwargs: Mapping[str, Any]


class Stage:
    """One check's folder: two CSV files as a source, a SQLite file as the destination."""

    def __init__(self, folder: Path, run_cli: RunCLI) -> None:
        self.folder = folder
        self._run_cli = run_cli
        self.write("shop/visits.csv", "id,word,changed\n1,a,2024-01-01\n2,b,2024-01-02\n3,c,2024-01-03\n")
        self.write("shop/words.csv", "id,word\n1,x\n2,y\n")

    def write(self, name: str, text: str) -> Path:
        """Write a file; a callback file gets `say`."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SAY + text if "say(" in text else text, encoding="utf-8")
        return path

    def document(self, *streams: Mapping[str, Any], **keys: Any) -> dict[str, Any]:
        """Return a pipeline: `visits` alone, where no stream is given."""
        base = {
            "pipeline": "shop",
            "source": {"block": "read", "connector": "csv", "config": {"path": "shop"}},
            "destination": {"block": "write", "connector": "sqlite", "config": {"path": "out.db"}},
            "streams": [*streams] or [{"stream": "visits"}],
        }
        return base | keys

    def run(self, *streams: Mapping[str, Any], options: Mapping[str, Any] = {}, **keys: Any) -> RunResult:
        """Run a pipeline in this process, without a file."""
        loading = {name: options[name] for name in ("variables", "trigger", "interval", "environ") if name in options}
        running = {name: value for name, value in options.items() if name not in loading}
        pipeline = load_pipeline(self.document(*streams, **keys), folder=self.folder, **loading)
        return run_pipeline(pipeline, inline_callbacks=True, **running)

    def refused(self, *streams: Mapping[str, Any], **keys: Any) -> str:
        """Run a pipeline that must be refused, and return what is said."""
        with pytest.raises(ConfigError) as caught:
            self.run(*streams, **keys)
        return str(caught.value)

    def save(self, *streams: Mapping[str, Any], **keys: Any) -> None:
        """Write the pipeline file for `command`."""
        self.write("shop.yaml", yaml.safe_dump(self.document(*streams, **keys), sort_keys=False))

    def command(self, *words: str, code: int = 0, is_warm: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the command line, and demand an exit code."""
        done = self._run_cli([*words], self.folder, env, is_warm=is_warm)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def rows(self, sql: str = "SELECT * FROM visits ORDER BY 1", file: str = "out.db") -> list[Any]:
        """Return what a query finds in a SQLite file."""
        with closing(sqlite3.connect(self.folder / file)) as connection:
            return connection.execute(sql).fetchall()

    def change(self, *statements: str, file: str = "in.db") -> None:
        """Run statements in a SQLite file."""
        with closing(sqlite3.connect(self.folder / file)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    def shop_database(self) -> dict[str, Any]:
        """Make a SQLite database with a table, and return the source that reads it."""
        self.change(
            "CREATE TABLE visits (id INTEGER PRIMARY KEY, word TEXT, changed INTEGER)",
            "INSERT INTO visits VALUES (1, 'a', 10), (2, 'b', 20), (3, 'c', 20)",
        )
        return {"block": "read", "connector": "sqlite", "config": {"path": "in.db"}}

    def told(self, name: str | None = None, **kwargs: Any) -> list[Call]:
        """Return the calls that were written down, those of a function and with some keyword arguments."""
        path = next(self.folder.rglob("told"), None)
        calls = [] if path is None else [Call(**json.loads(line)) for line in path.read_text().splitlines()]
        return [call for call in calls if name in (None, call.name) and kwargs.items() <= call.kwargs.items()]


#: Of an INCREMENTAL stream that reads `shop_database`.
INCREMENTAL = {"stream": "visits", "replication_method": "INCREMENTAL", "bookmark_properties": ["changed"]}
