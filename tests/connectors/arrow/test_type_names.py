"""Names of columns in the lines that messages advise: what is copied names the column."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncblocks import load_pipeline
from syncblocks.connectors.arrow.type_names import yaml_text

FILE = """
source: {{connector: csv, config: {{path: .}}}}
destination: {{connector: sqlite, config: {{path: shop.db}}}}
streams:
  - stream: orders
    types: {{{name}: string}}
    columns: {{exclude: [{name}]}}
"""


@pytest.mark.parametrize("name", ["total", "Net price", "größe", "net/gross", "_id", "at.day", "a-b"])
def test_a_name_that_yaml_reads_as_it_is_has_no_quotes(name: str) -> None:
    assert yaml_text(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("'1'", '"1"', '"x', "1", "1.0", "2024-01-01", "null", "Yes", "on", "~", "nan", "0x10", "10:30", "<<", "="),
        *("a: b", "a #b", "#a", "[a]", "{a}", "a,b", "- a", "!x", "&x", "*x", "@x", "%x", "`x`", "?", "|", " a", "a "),
        *(
            "a\tb",
            "a\nb",
            "a\\b",
            "a\x85b",
            "a\u2028b",
            "\ufeffid",
            "😀",
            "\U0010ffff",
            "a:",
            "n",
            "Net price",
            "größe",
        ),
    ],
)
def test_a_pipeline_file_names_the_column_of_an_advised_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(FILE.format(name=yaml_text(name)), encoding="utf-8")
    (stream,) = load_pipeline(path).streams
    assert (list(stream.types), list(stream.columns.exclude)) == ([name], [name])
