"""`syncblocks connectors`, and what the shell is offered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from syncblocks.connectors.registry import CONNECTORS
from tests.conftest import RunCLI
from tests.sync.cli.cli_pipelines import write_shop


def test_connectors_lists_each_with_its_roles_and_its_extra(run_cli: RunCLI, tmp_path: Path) -> None:
    done = run_cli(["connectors"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(f"\n{name} " in done.stdout for name in CONNECTORS)
    assert "syncblocks[postgres]" in done.stdout
    found = json.loads(run_cli(["connectors", "--json"], tmp_path).stdout)["connectors"]
    assert {entry["name"]: entry["roles"] for entry in found}["duckdb"] == ["source", "destination"]


def test_a_connector_says_what_it_takes_needs_and_promises(run_cli: RunCLI, tmp_path: Path) -> None:
    done = run_cli(["connectors", "mysql", "--json"], tmp_path)
    found = json.loads(done.stdout)
    assert found["needs"] == {"extra": "mysql", "modules": ["pymysql"], "missing": []}
    source, destination = found["source"], found["destination"]
    setting = source["settings"]["range_bytes"]
    assert (setting["required"], setting["default"]) == (False, 16 << 20)
    assert "parallel_reads" in setting["description"]
    assert "reads_ranges" in source["abilities"]
    assert "loads_ranges" not in source["abilities"]
    assert "removes_records" in destination["abilities"]


@pytest.mark.parametrize("name", CONNECTORS)
def test_each_connector_can_be_shown(run_cli: RunCLI, tmp_path: Path, name: str) -> None:
    done = run_cli(["connectors", name], tmp_path, env={"COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    assert "needs" in done.stdout.lower()
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_an_unknown_connector_names_the_nearest(run_cli: RunCLI, tmp_path: Path) -> None:
    done = run_cli(["connectors", "postgress"], tmp_path)
    assert (done.returncode, "did you mean 'postgres'?" in done.stderr) == (2, True)
    done = run_cli(["connectors", "DuckDB"], tmp_path)
    assert (done.returncode, "did you mean 'duckdb'?" in done.stderr) == (2, True)


@pytest.mark.one_of
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["preview", "shop.yaml", "--stream", "ord"], ["orders"]),
        (["run", "--stream", ""], ["customers", "orders"]),
        (["connectors", "postg"], ["postgres"]),
        (["callbacks", "test", "shop.yaml", "--block", ""], []),
        (["check", ""], ["shop.yaml"]),
        (["state", "set", ""], ["shop.yaml", "customers", "orders"]),
        (["state", "rewind", "shop.yaml", "cu"], ["customers"]),
        (["state", "set", "shop.yaml", "orders", ""], []),
        (["fill", "shop.yaml", ""], ["customers", "orders"]),
        (["runs", "show", ""], ["shop.yaml"]),
        (["callbacks", "replay", "sh"], ["shop.yaml"]),
    ],
)
def test_the_shell_is_offered_names(run_cli: RunCLI, tmp_path: Path, words: list[str], offered: list[str]) -> None:
    write_shop(tmp_path)
    assert complete(run_cli, tmp_path, words)[1::3] == offered


@pytest.mark.one_of
@pytest.mark.parametrize("words", [["--stream", ""], ["--stream", "lon"], ["--json", "--stream=l"]])
def test_the_shell_is_offered_the_streams_of_the_file_that_stands_before(
    run_cli: RunCLI, tmp_path: Path, words: list[str]
) -> None:
    shop = write_shop(tmp_path)
    (tmp_path / "other.yaml").write_text(
        shop.read_text().replace("stream: customers", "stream: lonely").replace("stream: orders", "stream: lonelier")
    )
    assert complete(run_cli, tmp_path, ["run", "other.yaml", *words])[1::3] == ["lonelier", "lonely"]
    shop.unlink()  # other.yaml is the only file of this folder now, and none of them is meant
    write_shop(tmp_path / "sub")
    assert complete(run_cli, tmp_path, ["run", "sub/shop.yaml", "--stream", "o"])[1::3] == ["orders"]


@pytest.mark.parametrize("words", [["sync", "da"], ["sync", "data/orders.csv", ""], ["run", "--event", "e"]])
def test_the_shell_is_offered_files_where_files_are_named(run_cli: RunCLI, tmp_path: Path, words: list[str]) -> None:
    write_shop(tmp_path)
    assert complete(run_cli, tmp_path, words)[:2] == ["file", words[-1]]


def complete(run_cli: RunCLI, folder: Path, words: list[str]) -> list[str]:
    """Return what zsh would be told: for each offer its type, value and help."""
    env = {
        "_SYNCBLOCKS_COMPLETE": "zsh_complete",
        "COMP_WORDS": " ".join(["syncblocks", *words]),
        "COMP_CWORD": str(len(words)),
    }
    return run_cli([], folder, env=env, is_warm=False).stdout.splitlines()
