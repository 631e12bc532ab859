"""Every destination of ours as a Singer target: singer-sdk's own suite, and its files read back and compared."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from syncblocks.connectors.singer.plugin_config import plugins
from syncblocks.connectors.singer.versions import VERSION
from tests.conftest import RunCLI
from tests.connectors.singer.singer_sdk_suite import TARGET, run_suite
from tests.zygote import Zygote

#: Tests of the SDK's target suite.
SUITE = 16


def config_of(connector: str, folder: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the config of a target that writes to a fresh place."""
    if connector in ("postgres", "sqlalchemy"):
        url = request.getfixturevalue("postgres_url")
        url = url if connector == "postgres" else url.replace("postgresql://", "postgresql+psycopg://")
        # One of the SDK's files holds a NUL, which PostgreSQL has not: as other targets, ours leaves it out if asked.
        return {"url": url, "sanitize_null_text_characters": True}
    if connector in ("mysql", "mariadb"):
        return {"url": request.getfixturevalue("mariadb_url")}
    if connector == "memory":
        return {"database": folder.name}
    suffix = {"sqlite": ".db", "duckdb": ".duckdb"}.get(connector, "")
    return {"path": str(folder / f"out{suffix}")}


@pytest.mark.full
@pytest.mark.parametrize("connector", sorted(plugins("destination")))
def test_the_sdks_own_suite_passes_over_every_destination(
    connector: str, tmp_path: Path, request: pytest.FixtureRequest, zygote: Zygote
) -> None:
    passed, output = run_suite(zygote, TARGET, connector, config_of(connector, tmp_path, request), tmp_path)
    assert passed >= SUITE, output


def stream_files() -> list[Path]:
    spec = find_spec("singer_sdk")
    assert spec is not None
    assert spec.origin is not None
    return sorted((Path(spec.origin).parent / "testing" / "target_test_streams").glob("*.singer"))


#: Files that every target must refuse.
REFUSED = {
    "invalid_schema",
    "record_before_schema",
    "record_missing_key_property",
    "record_missing_required_property",
}


def expected_of(file: Path, *, keeps_versions: bool = True) -> dict[str, list[dict[str, Any]]]:
    """Return what each table must hold afterwards: the last record of a key; a target keeps its version, if any."""
    schemas: dict[str, dict[str, Any]] = {}
    tables: dict[str, dict[Any, dict[str, Any]]] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
        message = json.loads(line)
        if message["type"] == "SCHEMA":
            schemas[message["stream"]] = message
        elif message["type"] == "RECORD":
            keys = schemas[message["stream"]].get("key_properties") or []
            record = message["record"]
            if keeps_versions and "version" in message:
                schemas[message["stream"]]["schema"]["properties"][VERSION] = {}
                record = {**record, VERSION: message["version"]}
            identity = tuple(record[key] for key in keys) if keys else number
            tables.setdefault(message["stream"], {})[identity] = record
    return {
        stream: [
            {name: record.get(name) for name in schemas[stream]["schema"]["properties"]} for record in kept.values()
        ]
        for stream, kept in tables.items()
    }


def as_read(value: Any) -> Any:
    """Return a value as SQLite holds it: objects and arrays as JSON text, booleans as numbers."""
    if isinstance(value, str) and value[:1] in "[{":
        return json.loads(value)
    is_whole = isinstance(value, bool) or (isinstance(value, float) and value.is_integer())
    return int(value) if is_whole else value  # 101 of a `number` comes back as 101.0


def in_order(records: list[dict[str, Any]]) -> list[str]:
    return sorted(
        json.dumps({name: as_read(value) for name, value in record.items()}, sort_keys=True) for record in records
    )


@pytest.mark.parametrize("file", stream_files(), ids=lambda file: file.stem)
def test_the_sdks_files_are_read_back_as_they_were_sent(file: Path, tmp_path: Path, run_cli: RunCLI) -> None:
    (tmp_path / "config.json").write_text('{"path": "out.db"}')
    done = run_cli(["target", "sqlite", "--config", "config.json", "--input", file], tmp_path)
    if file.stem in REFUSED:
        assert done.returncode != 0
        assert done.stdout == "", "no state of what was not kept"
        return
    assert done.returncode == 0, done.stderr
    states = [line for line in file.read_text(encoding="utf-8").splitlines() if '"STATE"' in line]
    assert [json.loads(line) for line in done.stdout.splitlines()][-1:] == (
        [json.loads(states[-1])["value"]] if states and json.loads(states[-1])["value"] else []
    )
    expected = expected_of(file)
    with closing(sqlite3.connect(tmp_path / "out.db")) as database, database:
        database.row_factory = sqlite3.Row
        for stream, records in expected.items():
            rows = database.execute('select * from "{}"'.format(stream.replace('"', '""'))).fetchall()
            assert in_order([dict(row) for row in rows]) == in_order(records)
