"""Columns whose names differ by case only: each keeps its own column of the table, in whatever order they come."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from syncblocks import load_pipeline, run_pipeline
from syncblocks.connectors.sql.identifiers import tell_apart
from syncblocks.sync.session.inspection import opened
from syncblocks.sync.session.session import make_plan
from syncblocks.sync.store import Store
from syncblocks.sync.verify.verification import EQUAL, StreamVerification, verify_streams
from tests.conftest import RunCLI
from tests.golden.systems import mysql_connection

SYSTEMS = ("sqlite", "duckdb", "mysql", "postgres", "sqlalchemy", "jsonl")

#: One day's records each, with the order of their columns.
Day = Sequence[Mapping[str, Any]]

DAYS: Mapping[str, tuple[Day, ...]] = {
    "one, then both": (
        [{"id": 1, "w": "w1"}],
        [{"id": 2, "W": "W2", "w": "w2"}, {"id": 3, "W": "W3", "w": "w3"}],
    ),
    "both, in another order": (
        [{"id": 1, "w": "w1", "W": "W1"}],
        [{"id": 2, "W": "W2", "w": "w2"}],
        [{"id": 2, "w": "w2", "W": "W2"}, {"id": 3, "w": "w3", "W": "W3"}],
    ),
    "one goes and comes again": (
        [{"id": 1, "w": "w1", "W": "W1"}],
        [{"id": 2, "W": "W2"}],
        [{"id": 3, "w": "w3"}],
        [{"id": 4, "W": "W4"}],
        [{"id": 5, "W": "W5", "w": "w5"}],
    ),
    "three": (
        [{"id": 1, "Foo": "a", "foo": "b"}],
        [{"id": 2, "FOO": "c", "foo": "d", "Foo": "e"}],
        [{"id": 3, "foo": "f"}, {"id": 4, "FOO": "g", "Foo": "h", "foo": None}],
    ),
    "a third one alone": (
        [{"id": 1, "Foo": "a", "foo": "b"}],
        [{"id": 2, "FOO": "c"}],
        [{"id": 3, "foo": "d", "FOO": "e", "Foo": "f"}],
    ),
}

MERGE = {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"], "key_properties": ["id"]}
APPEND = {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"], "write_disposition": "append"}
REPLACE = {"write_disposition": "replace"}
HOW = {"merge": MERGE, "append": APPEND, "replace": REPLACE}


def config(system: str, request: pytest.FixtureRequest, folder: Path) -> dict[str, Any]:
    """Return a destination's block for the pipeline file."""
    if system == "sqlalchemy":
        return {"connector": system, "config": {"url": f"sqlite:///{folder}/out.db"}}
    if system in ("mysql", "postgres"):
        url = request.getfixturevalue("mariadb_url" if system == "mysql" else "postgres_url")
        return {"connector": system, "config": {"url": url}}
    return {"connector": system, "config": {"path": "out.db" if system != "jsonl" else "out"}}


def records(destination: Mapping[str, Any], folder: Path, table: str = "t") -> list[dict[str, Any]]:
    """Read the table back, by the driver itself."""
    system, opened = destination["connector"], destination["config"]
    if system == "jsonl":
        lines = (line for file in sorted((folder / "out").rglob("*.jsonl")) for line in file.read_text().splitlines())
        return [json.loads(line) for line in lines]
    if system == "mysql":
        with mysql_connection(opened["url"]) as mysql, mysql.cursor() as cursor:
            cursor.execute(f"select * from `{table}`")
            return [dict(zip([c[0] for c in cursor.description or ()], row, strict=True)) for row in cursor.fetchall()]
    if system == "postgres":
        with psycopg.connect(opened["url"]) as connection:
            found = connection.execute(f'select * from "{table}"'.encode())
            return [dict(zip([c[0] for c in found.description or ()], row, strict=True)) for row in found]
    database: Any = duckdb.connect(folder / "out.db") if system == "duckdb" else sqlite3.connect(folder / "out.db")
    with closing(database):
        cursor = database.execute(f'select * from "{table}"')
        return [dict(zip([c[0] for c in cursor.description], row, strict=True)) for row in cursor.fetchall()]


def by_source(found: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the records under the source's names; a column with a hash counts as the name that it was made of."""
    marked = {tell_apart(name, None): name for name in names}
    shown = [{marked.get(column, column): value for column, value in record.items()} for record in found]
    return sorted((tuple(record.get(name) for name in names) for record in shown), key=repr)


class Days:
    """A file that is synced day by day into one table, and what must stand there after each day."""

    def __init__(self, folder: Path, destination: Mapping[str, Any], stream: Mapping[str, Any]) -> None:
        self.folder, self.destination, self.stream = folder, destination, dict(stream)
        self.extra: dict[str, Any] = {}
        self.expected: list[dict[str, Any]] = []

    def file(self) -> Path:
        document = {
            "pipeline": "days",
            "source": {"connector": "jsonl", "config": {"path": "in.jsonl"}},
            "destination": self.destination,
            "streams": [{"stream": "in", "destination_table": "t", **self.stream}],
            **self.extra,
        }
        path = self.folder / "days.yaml"
        path.write_text(json.dumps(document))
        return path

    def verified(self) -> StreamVerification:
        """Compare source and destination."""
        with opened(load_pipeline(self.file())) as session, Store.open(session.pipeline.store_url) as store:
            (found,) = verify_streams(session, make_plan(session, store))
        return found

    def run(self, day: Day) -> None:
        """Sync one day's records."""
        (self.folder / "in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in day))
        assert run_pipeline(self.file()).status == "success"
        self._expect(day)

    def _expect(self, day: Day) -> None:
        method = self.stream.get("write_disposition", "merge")
        if method == "replace":
            self.expected = [dict(record) for record in day]
        elif method == "append":  # the record at the bookmark was written before
            there = max((record["id"] for record in self.expected), default=0)
            self.expected += [dict(record) for record in day if record["id"] > there]
        else:
            merged = {record["id"]: record for record in [*self.expected, *map(dict, day)]}
            self.expected = list(merged.values())

    def check(self, names: Sequence[str]) -> None:
        """Hold the table against what was sent."""
        found = by_source(records(self.destination, self.folder), names)
        assert found == sorted((tuple(r.get(name) for name in names) for r in self.expected), key=repr)


@pytest.mark.one_of
@pytest.mark.thinned(2)
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("days", DAYS)
def test_each_name_keeps_its_column(
    tmp_path: Path, request: pytest.FixtureRequest, system: str, how: str, days: str
) -> None:
    bench = Days(tmp_path, config(system, request, tmp_path), HOW[how])
    names = list(dict.fromkeys(name for day in DAYS[days] for record in day for name in record))
    for day in DAYS[days]:
        bench.run(day)
        bench.check(names)


def test_letters_that_share_a_capital_keep_their_columns(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """MySQL and MariaDB take them for one."""
    bench = Days(tmp_path, config("mysql", request, tmp_path), HOW["merge"])
    names = (
        "i",
        "\N{LATIN SMALL LETTER DOTLESS I}",
        "\N{MICRO SIGN}",
        "\N{GREEK SMALL LETTER MU}",
        "s",
        "\N{LATIN SMALL LETTER LONG S}",
    )
    bench.run([{"id": 1} | {name: f"1 {name}" for name in names[::2]}])
    bench.run([{"id": each} | {name: f"{each} {name}" for name in names} for each in (2, 3)])
    bench.check(["id", *names])


SQL = tuple(system for system in SYSTEMS if system != "jsonl")


@pytest.mark.full
@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("system", SQL)
def test_a_ledger_without_names_is_read_on(
    tmp_path: Path, request: pytest.FixtureRequest, system: str, how: str
) -> None:
    bench = Days(tmp_path, config(system, request, tmp_path), HOW[how])
    bench.run([{"id": 1, "w": "w1", "W": "W1"}])
    bookmark = None if how == "replace" else '{"id": 1}'
    change(bench.destination, tmp_path, "update _syncblocks_ledger set bookmark = ", bookmark)
    for day in ([{"id": 2, "W": "W2", "w": "w2"}], [{"id": 3, "W": "W3"}], [{"id": 4, "W": "W4", "w": "w4"}]):
        bench.run(day)
        bench.check(["id", "w", "W"])


def change(destination: Mapping[str, Any], folder: Path, statement: str, text: str | None) -> None:
    """Run a statement that ends in a text."""
    sql = statement + ("null" if text is None else f"'{text}'")
    system, opened = destination["connector"], destination["config"]
    if system == "mysql":
        with mysql_connection(opened["url"]) as mysql, mysql.cursor() as cursor:
            cursor.execute(sql)
    elif system == "postgres":
        with psycopg.connect(opened["url"]) as connection:
            connection.execute(sql.encode())
    else:
        database: Any = duckdb.connect(folder / "out.db") if system == "duckdb" else sqlite3.connect(folder / "out.db")
        with closing(database):
            database.execute(sql)
            database.commit()


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("how", ["merge", "append"])
@pytest.mark.parametrize("system", ["sqlite", "duckdb", "mysql", "sqlalchemy"])
def test_a_column_that_the_table_spells_in_another_way_stays_its_name_s(
    tmp_path: Path, request: pytest.FixtureRequest, run_cli: RunCLI, system: str, how: str
) -> None:
    bench = Days(tmp_path, config(system, request, tmp_path), HOW[how])
    bench.run([{"id": 1, "w": "W1"}])
    bench.run([{"id": 2, "W": "W2"}])
    done = run_cli(["state", "set", bench.file(), "in", "id=2"], tmp_path)
    assert done.returncode == 0, done.stderr
    bench.run([{"id": 3, "w": "w3", "W": "W3"}])
    found = sorted(records(bench.destination, tmp_path), key=lambda record: record["id"])
    marked = tell_apart("w", None)
    assert [(r["w"], r[marked]) for r in found] == [("W1", None), ("W2", None), ("W3", "w3")]


@pytest.mark.one_of("system")
@pytest.mark.parametrize("system", SQL)
def test_a_header_that_changes_its_case_is_the_same_column(
    tmp_path: Path, request: pytest.FixtureRequest, system: str
) -> None:
    bench = Days(tmp_path, config(system, request, tmp_path), MERGE)
    for number, name in enumerate(["Name", "NAME", "Name", "name"]):
        bench.run([{"id": number, name: str(number)}])
    found = records(bench.destination, tmp_path)
    if system == "postgres":
        assert set(found[0]) == {"id", "Name", "NAME", "name"}
    else:
        assert sorted((r["id"], r["Name"]) for r in found) == [(n, str(n)) for n in range(4)]
        assert set(found[0]) == {"id", "Name"}


@pytest.mark.one_of("system")
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_rename_beside_the_same_name_in_another_case(
    tmp_path: Path, request: pytest.FixtureRequest, system: str
) -> None:
    bench = Days(tmp_path, config(system, request, tmp_path), MERGE)
    bench.run([{"id": 1, "w": "w1"}])
    (tmp_path / "names.py").write_text("@transformer\ndef names(df):\n    return df\n")
    bench.extra = {"transformers": [{"file": "names.py", "rename": {"v": "W"}}]}
    (tmp_path / "in.jsonl").write_text('{"id": 2, "v": "v2", "w": "w2"}\n{"v": "v3", "id": 3, "w": "w3"}\n')
    assert run_pipeline(bench.file()).status == "success"
    bench.expected += [{"id": 2, "W": "v2", "w": "w2"}, {"id": 3, "W": "v3", "w": "w3"}]
    bench.check(["id", "w", "W"])


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("system", SYSTEMS)
def test_verify_compares_each_name_with_its_own_column(
    tmp_path: Path, request: pytest.FixtureRequest, system: str, how: str
) -> None:
    bench = Days(tmp_path, config(system, request, tmp_path), HOW[how])
    bench.run([{"id": 1, "w": "w1", "W": "W1"}])
    bench.run([{"id": 1, "W": "W1", "w": "w1"}, {"id": 2, "W": "W2", "w": "w2"}])
    found = bench.verified()
    assert found.verdict == EQUAL, found.notes
    assert not found.notes
    assert found.comparison is not None


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("system", SQL)
def test_long_names_that_begin_alike_keep_their_columns(
    tmp_path: Path, request: pytest.FixtureRequest, system: str, how: str
) -> None:
    one, other, upper = "l" * 70 + "one", "l" * 70 + "other", "L" * 70 + "one"
    bench = Days(tmp_path, config(system, request, tmp_path), HOW[how])
    bench.run([{"id": 1, one: "a", other: "b"}])
    bench.run([{"id": 2, upper: "c", other: "d", one: "e"}])
    bench.run([{"id": 3, other: "f"}])
    bench.run([{"id": 4, one: "g", upper: "h", other: "i"}])
    found = [tuple(sorted(map(str, record.values()))) for record in records(bench.destination, tmp_path)]
    sent = [tuple(sorted(str(r.get(name)) for name in ("id", one, other, upper))) for r in bench.expected]
    assert sorted(found) == sorted(sent)
    if how == "replace":  # else the file no longer has what the table has
        assert bench.verified().verdict == EQUAL


def test_csv_files_as_they_are_told_of(tmp_path: Path, run_cli: RunCLI) -> None:
    file = tmp_path / "csv.yaml"
    document = {
        "source": {"connector": "csv", "config": {"path": "in.csv"}},
        "destination": {"connector": "sqlite", "config": {"path": "out.db"}},
        "streams": [{"stream": "in", "destination_table": "t", "key_properties": ["id"], "write_disposition": "merge"}],
    }
    file.write_text(json.dumps(document))
    for text in ("id,w\n1,w1\n", "id,W,w\n1,X,w1\n2,X2,w2\n"):
        (tmp_path / "in.csv").write_text(text)
        assert run_cli(["run", file], tmp_path).returncode == 0
    found = records(document["destination"], tmp_path)  # type: ignore[arg-type]
    assert by_source(found, ["id", "W", "w"]) == [(1, "X", "w1"), (2, "X2", "w2")]
    assert "equal" in run_cli(["verify", file], tmp_path).stdout
