"""Tables and sentences fit a terminal, with whole words; what is piped has whole names."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from syncblocks.sync.cli.layout import cell_lines, parts_of, shortened, wrapped
from syncblocks.sync.text_width import text_width
from tests.conftest import RunCLI

from .test_runs import run_on_terminal


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("orders", 6, "orders"),
        ("customer_orders", 9, "cust…ders"),
        ("customer_orders", 8, "cust…ers"),
        ("注文明細テーブル", 9, "注文…ブル"),
        ("e\u0301" * 9, 5, "e\u0301e\u0301…e\u0301e\u0301"),
    ],
)
def test_a_name_is_shortened_in_its_middle_by_the_columns_it_takes(text: str, width: int, expected: str) -> None:
    assert shortened(text, width) == expected
    assert text_width(expected) <= width


def test_a_sentence_is_broken_between_words_and_never_in_a_command_or_a_long_word() -> None:
    text = "say `syncblocks runs retry shop.yaml` or look into /very/long/path/of/a/file.csv, line 3"
    lines = wrapped(text, 40, indent="  ")
    assert " ".join(line.strip() for line in lines) == text
    assert max(map(text_width, lines)) <= 40
    assert "`syncblocks runs retry shop.yaml`" in lines[0]
    assert wrapped("a" * 50 + " b", 40) == ["a" * 50, "b"]


def test_cells_are_broken_between_words_before_names_are_shortened() -> None:
    assert cell_lines("no destination table", 12) == ["no", "destination", "table"]
    cells = [["stream", "start", "records"], ["customers", "no destination table", "1,000,000"]]
    assert parts_of(cells, {2}, None)[0].widths == {0: 9, 1: 20, 2: 9}
    assert parts_of(cells, {2}, 35)[0].widths == {0: 9, 1: 13, 2: 9}


def test_columns_that_find_no_place_come_below_after_the_first_one() -> None:
    names = [f"column_{number:02}" for number in range(20)]
    parts = parts_of([names, names], (), 60)
    assert [place for part in parts for place in part.widths if place] == list(range(1, 20))
    assert all(0 in part.widths for part in parts)
    assert all(sum(part.widths.values()) + 2 * (len(part.widths) - 1) <= 60 for part in parts)


@pytest.mark.full
def test_long_and_wide_names_fit_a_terminal_of_80_columns_and_are_whole_in_a_pipe(
    run_cli: RunCLI, tmp_path: Path
) -> None:
    names = ["a_very_long_name_of_a_stream_that_nobody_would_want_to_type_" + "x" * 20, "注文明細" * 12]
    (tmp_path / "data").mkdir()
    for name in names:
        (tmp_path / "data" / f"{name}.csv").write_text("id,note\n1,a\n")
    (tmp_path / "shop.yaml").write_text(
        "source: {connector: csv, config: {path: data}}\n"
        'destination: {connector: sqlite, config: {path: shop.db}}\nstreams: [{stream: "*"}]\n'
    )
    for command in (["plan"], ["run"], ["state", "show"]):
        code, drawn = run_on_terminal(tmp_path, *command, env={"COLUMNS": "80"})
        lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn).replace("\r", "\n").split("\n")
        assert (code, max(map(text_width, lines)) <= 80) == (0, True), drawn
        assert "…" in drawn
    piped = run_cli(["state", "show"], tmp_path).stdout
    assert all(name in piped for name in names)


def test_the_schema_of_the_file_is_json_on_a_terminal_too(tmp_path: Path) -> None:
    code, drawn = run_on_terminal(tmp_path, "schema", env={"COLUMNS": "80"})
    assert (code, json.loads(drawn)["type"]) == (0, "object")


def test_an_error_is_broken_between_words_on_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text("source: {connector: csv}\nzzz: 1\n")
    code, drawn = run_on_terminal(tmp_path, "plan", "shop.yaml", env={"COLUMNS": "80", "NO_COLOR": "1"})
    assert code == 2
    assert max(len(line) for line in drawn.split("\r\n")) <= 80
    assert "allowed: verify, variables" in drawn.replace("\r\n", " ")
