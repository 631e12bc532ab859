"""Without an extra: files and SQLite work, and what needs an extra says which."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from syncblocks.connectors.files.opening import DRIVERS
from syncblocks.connectors.registry import EXTRAS

ROOT = Path(__file__).parents[1]

#: Runs each argument as a command line, in one process that cannot import what the extras install.
SCRIPT = """
import json, sys
HIDDEN = {"adbc_driver_manager", "adbc_driver_postgresql", "adbc_driver_sqlite", "aiohttp", "apprise", "asyncpg",
          "adlfs", "duckdb", "gcsfs", "paramiko", "pgpq", "psycopg", "pymysql", "s3fs"}
class Hiding:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hiding())
from syncblocks.sync.cli import invoke
for command in json.loads(sys.argv[1]):
    print("exit", invoke(command), flush=True)
"""


def run(folder: Path, *commands: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands)], cwd=folder, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def write(folder: Path, name: str, source: dict[str, object], destination: dict[str, object]) -> list[str]:
    document = {"pipeline": name, "source": source, "destination": destination, "streams": [{"stream": "*"}]}
    (folder / f"{name}.yaml").write_text(json.dumps(document))
    return ["run", f"{name}.yaml"]


@pytest.mark.full
def test_files_and_sqlite_need_no_extra(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "people.csv").write_text("id,name,paid\n1,Ann,0.5\n2,Bob,\n")
    csv = {"connector": "csv", "config": {"path": "in"}}
    sqlite = {"connector": "sqlite", "config": {"path": "people.db"}}
    out = run(
        tmp_path,
        write(tmp_path, "load", csv, sqlite),
        write(tmp_path, "unload", sqlite, {"connector": "jsonl", "config": {"path": "out"}}),
    )
    assert out.count("exit 0") == 2, out
    with closing(sqlite3.connect(tmp_path / "people.db")) as connection:
        assert connection.execute("select * from people").fetchall() == [(1, "Ann", 0.5), (2, "Bob", None)]
    lines = [json.loads(line) for line in (tmp_path / "out" / "people.jsonl").read_text().splitlines()]
    assert lines == [{"id": 1, "name": "Ann", "paid": 0.5}, {"id": 2, "name": "Bob", "paid": None}]


@pytest.mark.full
def test_a_missing_extra_is_named_and_is_no_bug(tmp_path: Path) -> None:
    sqlite = {"connector": "sqlite", "config": {"path": "out.db"}}
    needs = {
        "postgres": {"url": "postgresql://127.0.0.1:1/x"},
        "mysql": {"url": "mysql://127.0.0.1:1/x"},
        "mariadb": {"url": "mariadb://127.0.0.1:1/x"},
        "duckdb": {"path": "x.duckdb"},
    }
    urls = {"s3": "s3", "gs": "gcs", "abfss": "azure", "sftp": "sftp"}
    ends = {name: {"connector": name, "config": config} for name, config in needs.items()}
    ends |= {scheme: {"connector": "csv", "config": {"path": f"{scheme}://host/a.csv"}} for scheme in urls}
    commands = [write(tmp_path, f"from_{name}", end, sqlite) for name, end in ends.items()]
    commands.append(write(tmp_path, "to_mysql", sqlite, ends["mysql"]))
    out = run(tmp_path, *commands)
    assert out.count("exit 2") == len(commands), out
    for extra in {*(EXTRAS[name][0] for name in needs), *urls.values()}:
        assert f"pip install 'syncblocks[{extra}]'" in out
    assert "bug" not in out
    assert "Traceback" not in out


def test_all_has_every_connector_and_the_docs_name_what_it_leaves_out() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (everything,) = map(Requirement, extras["all"])
    assert everything.extras >= {"serve", *(extra for extra, _ in EXTRAS.values())}
    page = (ROOT / "docs" / "connectors.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith("`pip install 'syncblocks[all]'`")]
    left_out = line.partition("It leaves out")[2]
    assert set(re.findall(r"`(\w+)`", left_out)) == extras.keys() - everything.extras - {"all"}


@pytest.mark.parametrize("command", sorted({command for _, command in DRIVERS.values() if "syncblocks" in command}))
def test_each_extra_that_an_error_names_is_one(command: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    name = command.split("[")[1].rstrip("]'")
    assert name in extras
