"""What a connector says of a config: words of other tools, and what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from syncblocks.connectors.errors import ConnectorConfigError
from syncblocks.connectors.registry import make_source
from syncblocks.connectors.settings import Settings, parse_settings


@pytest.mark.parametrize(
    ("connector", "config", "said"),
    [
        ("duckdb", {"database": "x"}, "did you mean 'path'?"),
        ("duckdb", {"credentials": "x"}, "did you mean 'url'?"),
        ("sqlite", {"database": "x"}, "did you mean 'path'?"),
        ("postgres", {"database": "x"}, "did you mean 'dbname'?"),
        ("postgres", {"sqlalchemy_url": "x"}, "did you mean 'url'?"),
        ("mysql", {"db": "x"}, "did you mean 'database'?"),
        ("csv", {"bucket_url": "x"}, "did you mean 'path'?"),
        ("csv", {"path": "x", "file_glob": "*.csv"}, "did you mean 'streams'?"),
        ("csv", {"path": "x", "files": ["a.csv"]}, "did you mean 'streams'?"),
        ("json", {"path": "x", "jsonpath": "a"}, "did you mean 'records'?"),
        # Of many settings the nearest three, and where the rest is.
        ("csv", {"delimitr": ";", "path": "x"}, "'delimiter'? Allowed: delimiter, "),
        ("csv", {"delimitr": ";", "path": "x"}, " more, see `syncblocks connectors csv` and docs/connectors.md"),
        ("csv", {}, "config of connector 'csv': path: is required"),
        ("postgres", {"log": {"max_retained": "10 GiB"}}, "log.max_retained: must be written like `500MB`, `10GB` or"),
        ("singer", {"class": "tap"}, "class: must be written like `package.module:Class` or `./file.py:Class`"),
        ("csv", {"path": "x", "numbers": "german"}, "numbers: must be 'double' or 'exact'"),
    ],
)
def test_a_mistake_of_a_config_says_how_it_is_written_here(
    tmp_path: Path, connector: str, config: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConnectorConfigError) as caught:
        make_source(connector, config, tmp_path)
    assert said in str(caught.value)
    assert caught.value.others == ()


def test_a_pattern_of_another_connector_needs_no_example() -> None:
    class Own(Settings):
        code: str = Field(pattern="^[a-z]+$")

    with pytest.raises(ConnectorConfigError, match=r"code: .*\[a-z\]"):
        parse_settings(Own, {"code": "7"}, "own")
