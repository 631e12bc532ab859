"""A column that is text because of a few values says so: in `plan`, at the end of a run, and in `runs show`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from syncblocks.connectors.field_facts import notices_of
from syncblocks.connectors.files.csv_source import CSVSource
from syncblocks.sync.config import load_pipeline
from syncblocks.sync.session.inspection import opened
from syncblocks.sync.session.session import make_plan
from tests.conftest import RunCLI

COLUMN = "column 'v' is read as text: 3 of 12 values are not numbers ('NA' 2, 'N/A' 1)"
NULLS = "null_values: ['', 'NA', 'N/A']"


def write(folder: Path, values: list[str]) -> None:
    (folder / "t.csv").write_text("id,v\n" + "".join(f"{place},{value}\n" for place, value in enumerate(values)))


def pipeline(folder: Path, config: dict[str, Any] | None = None) -> Path:
    document = {
        "pipeline": "notices",
        "source": {"connector": "csv", "config": {"path": "t.csv", **(config or {})}},
        "destination": {"connector": "duckdb", "config": {"path": "out.duckdb"}},
        "streams": [{"stream": "t"}],
    }
    file = folder / "notices.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["1.5", "NA", "2", "", "3", "NA", *"45678"], "2 of 10 values are not numbers ('NA' 2)"),
        (["1", "2", "NA"], "1 of 3 values is not a number ('NA' 1)"),
        (["true", "false", "-"], "1 of 3 values is not true or false ('-' 1)"),
        (["true", "false", "true", "-", "-"], "2 of 5 values are not true or false ('-' 2)"),
        (["1", "x", "y"], ""),  # most are no numbers
        (["1", "2", "3", "007"], ""),  # a code
        (["1", "2", "3", "4", "5", "1,5"], ""),  # a number in another form
        (["2024-01-01", "2024-01-02", "-"], "1 of 3 values is no date ('-' 1)"),
        ([*"123456789", "10", "11", "12", "a", "b", "c", "d", "e", "f"], ""),  # too many different ones
        (["a", "b", "c"], ""),
        (["1", "2", ""], ""),
    ],
)
def test_only_a_few_words_among_other_values_are_worth_a_notice(tmp_path: Path, values: list[str], said: str) -> None:
    write(tmp_path, values)
    (stream,) = CSVSource({"path": "t.csv"}, tmp_path).discover()
    found = "; ".join(notices_of(stream.schema))
    assert said in found
    assert bool(said) == bool(found)


@pytest.mark.full
def test_plan_run_and_runs_show_say_it_and_what_to_copy(tmp_path: Path, run_cli: RunCLI) -> None:
    write(tmp_path, ["1.5", "NA", "2", "3", "NA", "4", "5", "6", "N/A", "7", "8", "9"])
    file = pipeline(tmp_path)
    for command in (["plan", file], ["run", file], ["runs", "show", file]):
        done = run_cli(command, tmp_path)
        text = " ".join((done.stdout + done.stderr).split())
        assert done.returncode == 0, text
        assert COLUMN in text
        assert NULLS in text
        assert "types: {v: string}" in text
    copied = yaml.safe_load(NULLS)
    done = run_cli(["run", pipeline(tmp_path, copied), "--full-refresh"], tmp_path)
    assert "is text" not in done.stdout + done.stderr
    said = run_cli(["plan", pipeline(tmp_path, {"types": {"v": "string"}})], tmp_path)
    assert "is text" not in said.stdout + said.stderr


def test_numbers_that_turn_into_text_in_a_replace_are_told(tmp_path: Path, run_cli: RunCLI) -> None:
    write(tmp_path, ["1.5", "2"])
    assert run_cli(["run", pipeline(tmp_path)], tmp_path).returncode == 0
    write(tmp_path, ["1.5", "x", "y"])
    done = run_cli(["plan", pipeline(tmp_path), "--full-refresh", "--json"], tmp_path)
    assert any("'v' turns from DOUBLE into VARCHAR" in warning for warning in json.loads(done.stdout)["warnings"])
    done = run_cli(["run", pipeline(tmp_path), "--full-refresh"], tmp_path)
    assert "turns from DOUBLE into VARCHAR" in done.stdout + done.stderr


def test_columns_that_are_one_name_in_the_table_are_told_when_it_gets_them(tmp_path: Path, run_cli: RunCLI) -> None:
    (tmp_path / "t.csv").write_text("Id,id\n1,2\n")
    file = str(pipeline(tmp_path))
    told = "t: column 'id' is called 'id_a56145270ce6b3be' in the table, since 'Id' is the same name there"
    with opened(load_pipeline(Path(file))) as session:
        assert told in make_plan(session, None).warnings
    assert told in run_cli(["run", file], tmp_path).stderr
    with opened(load_pipeline(Path(file))) as session:
        assert told not in make_plan(session, None).warnings, "the table has it"
