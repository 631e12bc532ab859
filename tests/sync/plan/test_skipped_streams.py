"""Streams without columns: what only a glob finds is skipped and told; what is named or was written is an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from syncblocks import run_pipeline
from syncblocks.sync.errors import ConfigError
from tests.conftest import RunCLI


def pipeline(folder: Path, source: dict[str, Any], *streams: str) -> Path:
    document = {
        "source": source,
        "destination": {"connector": "duckdb", "config": {"path": "out.duckdb"}},
        "streams": [{"stream": stream} for stream in streams],
    }
    file = folder / "p.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


@pytest.fixture
def source(postgres_url: str) -> dict[str, Any]:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("create schema s; create table s.a (id int primary key); create table s.nothing ()")
        connection.execute("insert into s.a values (1)")
    return {"connector": "postgres", "config": {"url": postgres_url, "schema": "s"}}


@pytest.mark.full
def test_a_table_without_columns_that_a_glob_matches_is_skipped_and_told(
    source: dict[str, Any], tmp_path: Path, run_cli: RunCLI
) -> None:
    file = pipeline(tmp_path, source, "s.*")
    planned = run_cli(["plan", file, "--json"], tmp_path)
    shown = json.loads(planned.stdout)
    assert planned.returncode == 0
    assert [stream["stream"] for stream in shown["streams"]] == ["s.a"]
    assert any("'s.nothing' is skipped" in warning for warning in shown["warnings"])
    done = run_cli(["run", file], tmp_path)
    assert done.returncode == 0
    assert "'s.nothing' is skipped: the source has no columns for it" in done.stderr + done.stdout
    narrowed = run_cli(["run", file, "--stream", "s.a"], tmp_path)
    assert narrowed.returncode == 0
    assert "skipped" not in narrowed.stderr + narrowed.stdout


def test_one_that_is_named_or_the_only_one_is_a_mistake(source: dict[str, Any], tmp_path: Path) -> None:
    for streams in (["s.*", "s.nothing"], ["s.no*"]):
        with pytest.raises(
            ConfigError, match=r"'s\.nothing': the source has no columns .*its table .* `selected: false`"
        ):
            run_pipeline(pipeline(tmp_path, source, *streams))


def test_an_empty_file_is_skipped_until_it_has_been_written_once(tmp_path: Path) -> None:
    """What was in it is gone then: the table may not go on as if nothing had happened."""
    for name, text in {"a": "id\n1\n", "b": ""}.items():
        (tmp_path / f"{name}.csv").write_text(text)
    file = pipeline(tmp_path, {"connector": "csv", "config": {"path": "."}}, "*")
    result = run_pipeline(file)
    assert (result.status, [stream.stream for stream in result.streams]) == ("success", ["a"])
    (tmp_path / "b.csv").write_text("id\n1\n")
    assert len(run_pipeline(file).streams) == 2
    (tmp_path / "b.csv").write_text("")
    result = run_pipeline(file)
    assert result.status == "failure"
    assert "'b': the source has no columns for it: is it empty?" in (result.error or "")
