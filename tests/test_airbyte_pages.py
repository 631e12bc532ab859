"""The page and the sample about APIs: their manifests and pipelines, run as they stand, on a double of the API."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from tests.conftest import RunCLI
from tests.docs import ROOT, examples
from tests.web_api import Api, serving

# Airbyte's reader of manifests costs two seconds for each start, and is installed first.
pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]


def test_the_manifest_of_the_page_is_loaded(tmp_path: Path, run_cli: RunCLI, airbyte_plugins: dict[str, str]) -> None:
    page = "docs/how-to/a-rest-api.md"
    for example in examples("text", "yaml", page=page):
        (tmp_path / str(example.file)).write_text(example.text)
    records = [{"id": n, "note": f"n{n}", "updated_at": f"2026-02-01T00:{n // 60:02d}:00Z"} for n in range(250)]
    commands = [line for example in examples("console", page=page) for line in example.text.splitlines()]
    with serving(Api({"orders": records})) as api:
        env = {**airbyte_plugins, "SHOP_URL": api.url, "SHOP_TOKEN": "token-of-the-shop"}
        for line in [*commands, commands[-1]]:
            done = run_cli(shlex.split(line)[1:], tmp_path, env, timeout_s=600)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "token-of-the-shop" not in done.stdout + done.stderr
    assert api.queries[-1] == ("orders", {"since": "2026-02-01T00:04:00Z"})
    with duckdb.connect(tmp_path / "shop.duckdb", read_only=True) as connection:
        found = connection.sql("select count(*), count(distinct id), max(updated_at) at time zone 'UTC' from orders")
        assert [str(value) for value in found.fetchall()[0]] == ["250", "250", "2026-02-01 00:04:00"]


def test_api_to_lake(tmp_path: Path, run_cli: RunCLI, airbyte_plugins: dict[str, str]) -> None:
    deltalake = pytest.importorskip("deltalake")
    samples = shutil.copytree(ROOT / "sample_configs", tmp_path / "samples")
    server = subprocess.Popen([sys.executable, samples / "api/server.py", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        env = {**airbyte_plugins, "SHOP_URL": server.stdout.readline().strip()}
        done = run_cli(["run", "api_to_lake.yaml"], samples, env, timeout_s=600)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        server.kill()
        server.communicate()
    tables = {name: deltalake.DeltaTable(samples / "out/lake" / name) for name in ("customers", "orders")}
    rows = {name: table.to_pyarrow_table() for name, table in tables.items()}
    assert {name: found.num_rows for name, found in rows.items()} == {"customers": 200, "orders": 1000}
    assert len(set(rows["orders"]["id"].to_pylist())) == 1000
