"""Third-party taps from the package index, installed by the product itself, against offline data."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import subprocess
import threading
import zipfile
from collections.abc import Mapping
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from syncblocks.connectors.errors import ConnectorConfigError
from syncblocks.connectors.programs.environments import installed
from syncblocks.connectors.registry import make_source
from tests.connectors.singer.singer_helpers import pipeline, run

TAP_JSONL = "tap-jsonl==0.3.1"
TAP_POSTGRES = "meltanolabs-tap-postgres==0.10.0"

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]


@pytest.fixture(scope="session")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of plugins that all workers of this test run share."""
    chosen = os.environ.get("SYNCBLOCKS_TEST_PLUGINS")
    folder = tmp_path_factory.getbasetemp()
    return Path(chosen) if chosen else (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "plugins"


@pytest.fixture(autouse=True)
def _shared(plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNCBLOCKS_PLUGINS", str(plugins))


def rows(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "out.db")) as connection, connection:
        return connection.execute(sql).fetchall()


SQLITE = {"connector": "sqlite", "config": {"path": "out.db"}}


def test_tap_jsonl_is_installed_and_synced(tmp_path: Path) -> None:
    data = [{"id": n, "name": f"n{n}", "amount": n / 4, "tags": ["a"], "ok": n % 2 == 0} for n in range(1000)]
    (tmp_path / "people.jsonl").write_text("".join(json.dumps(each) + "\n" for each in data))
    own = {"path": str(tmp_path / "people.jsonl"), "stream_name": "people", "primary_keys": ["id"]}
    path = pipeline(tmp_path, {"pip": TAP_JSONL, "config": own}, SQLITE)
    first = run(path)
    assert (first.status, first.streams[0].records) == ("success", 1000)
    assert rows(tmp_path, "select id, name, amount from people order by id") == [
        (each["id"], each["name"], each["amount"]) for each in data
    ]
    again = run(path)
    assert (again.status, again.streams[0].records) == ("success", 0), "the tap goes on from its own state"


def test_tap_postgres_keeps_what_its_catalog_says(tmp_path: Path, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute(
            "create table orders (id bigint primary key, amount numeric(12, 2), exact numeric, at timestamptz, "
            "day date, doc jsonb, tags text[], note text)"
        )
        connection.execute(
            "insert into orders select g, g * 1.01, g + 0.12345678901234567891, "
            "timestamptz '2024-01-01 00:00:00+00' + g * interval '1 hour', date '2024-01-01' + g, "
            "jsonb_build_object('a', g), array['x', null], 'n' || g from generate_series(1, 500) g"
        )
        connection.execute("create table users (id int primary key, name text)")
        connection.execute("insert into users select g, 'u' || g from generate_series(1, 50) g")
    own = {"sqlalchemy_url": psycopg_url(postgres_url), "filter_schemas": ["public"]}
    config = {"pip": TAP_POSTGRES, "config": own}
    streams: list[Mapping[str, Any]] = [
        {"stream": "public-*"},
        {"stream": "public-orders", "replication_method": "INCREMENTAL", "bookmark_properties": ["at"]},
    ]
    path = pipeline(tmp_path, config, SQLITE, streams=streams)
    result = run(path)
    assert result.status == "success", result
    assert {stream.stream: stream.records for stream in result.streams} == {"public-orders": 500, "public-users": 50}
    assert {stream.destination_table for stream in result.streams} == {"orders", "users"}
    found = rows(tmp_path, "select id, amount, exact, at, day, doc, tags, note from orders where id = 7")[0]
    assert found[0] == 7
    assert Decimal(str(found[1])) == Decimal("7.07")
    assert Decimal(str(found[2])) == Decimal("7.12345678901234567891")
    assert found[3].startswith("2024-01-01 07:00:00")
    assert found[4] == "2024-01-08"
    assert json.loads(found[5]) == {"a": 7}
    assert json.loads(found[6]) == ["x", None]
    with psycopg.connect(postgres_url) as connection:
        connection.execute("insert into orders (id, at) values (501, '2025-01-01')")
        connection.execute("delete from users where id > 40")
    result = run(path)
    assert {stream.stream: stream.records for stream in result.streams} == {"public-orders": 1, "public-users": 40}
    assert rows(tmp_path, "select count(*), count(distinct id) from orders") == [(501, 501)]


def psycopg_url(url: str) -> str:
    """Return the URL as this tap takes it: it wants a password."""
    rest = url.partition("://")[2]
    user, _, place = rest.rpartition("@")
    name, _, password = user.partition(":")
    return f"postgresql+psycopg2://{name or 'postgres'}:{password or 'any'}@{place}"


def test_a_plugin_is_made_once_and_anew_when_its_pin_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNCBLOCKS_PLUGINS", str(tmp_path / "plugins"))
    caplog.set_level(logging.INFO, "syncblocks")

    def get(version: str) -> Path:
        pip = wheel(tmp_path, "tap-one", version).name
        return installed(f"./{pip}", program="tap-one", python="", folder=tmp_path, timeout_s=300)

    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(get("1.0"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    told = [entry.getMessage() for entry in caplog.records]
    assert sum("installed" in text for text in told) == 1
    assert any("waiting for another process" in text for text in told)
    outputs = [subprocess.run([program], capture_output=True, text=True).stdout for program in (found[0], get("2.0"))]
    assert outputs == ["1.0\n", "2.0\n"]


def test_an_installation_runs_no_code_of_the_folder_sees_no_secrets_and_checks_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNCBLOCKS_PLUGINS", str(tmp_path / "plugins"))
    for name in ("venv.py", "pip.py"):
        (tmp_path / name).write_text("raise SystemExit('code of the folder ran')\n")
    package = wheel(tmp_path, "tap-one", "1.0")
    right = hashlib.sha256(package.read_bytes()).hexdigest()

    def get(digest: str) -> Path:
        pip = f"--no-index ./{package.name} --hash=sha256:{digest}"
        return installed(pip, program="tap-one", python="", folder=tmp_path, timeout_s=300)

    assert subprocess.run([get(right)], capture_output=True, text=True).stdout == "1.0\n"
    with pytest.raises(ConnectorConfigError, match=r"(?i)do not match|mismatch"):
        get("0" * 64)


def test_what_cannot_be_installed_is_told(tmp_path: Path) -> None:
    source = make_source("singer", {"pip": "./no-such-folder", "tap": "tap-x"}, tmp_path)
    with pytest.raises(ConnectorConfigError, match="cannot be installed"):
        source.discover()
    package = wheel(tmp_path, "tap-one", "1.0")
    source = make_source("singer", {"pip": f"./{package.name}", "tap": "tap-two"}, tmp_path)
    with pytest.raises(ConnectorConfigError, match=r"brings no program 'tap-two'; it has tap-one"):
        source.discover()


def wheel(folder: Path, name: str, version: str) -> Path:
    """Write a package that pip installs without the network."""
    module = name.replace("-", "_")
    path, info = folder / f"{module}-{version}-py3-none-any.whl", f"{module}-{version}.dist-info"
    files = {
        f"{module}.py": f"def main():\n    print('{version}')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {module}:main\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"]))
    return path
