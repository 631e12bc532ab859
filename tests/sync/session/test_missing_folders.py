"""The folder of a database file that a run would create."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import RunCLI

PIPELINE = """source: {{connector: csv, config: {{path: shop}}}}
destination: {{connector: {connector}, config: {{path: {path}}}}}
streams: [{{stream: orders}}]
"""


@pytest.fixture(autouse=True)
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "orders.csv").write_text("id\n1\n")
    return tmp_path / "shop"


@pytest.mark.parametrize("connector", ["duckdb", "sqlite"])
def test_a_mistyped_folder_of_a_database_file_is_refused_with_the_nearest_one(
    tmp_path: Path, run_cli: RunCLI, connector: str
) -> None:
    (tmp_path / "warehouse").mkdir()
    (tmp_path / "p.yaml").write_text(PIPELINE.format(connector=connector, path="warehuose/2026/shop.db"))
    for command in ("plan", "run"):
        result = run_cli([command, "p.yaml"], tmp_path)
        assert result.returncode == 2
        for part in ("p.yaml:2", "path", "warehuose/2026", f"{tmp_path / 'warehouse'}'?", "mkdir -p"):
            assert part in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.yaml", "shop", "warehouse"]


def test_a_folder_that_disappears_after_the_first_run_is_a_recorded_failure(tmp_path: Path, run_cli: RunCLI) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "p.yaml").write_text(PIPELINE.format(connector="duckdb", path="out/shop.duckdb"))
    assert run_cli(["run", "p.yaml"], tmp_path).returncode == 0
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    assert run_cli(["run", "p.yaml"], tmp_path).returncode == 1
    assert not (tmp_path / "out").exists()
    assert str(tmp_path / "out") in run_cli(["runs", "list", "p.yaml", "--json"], tmp_path).stdout
