"""The page about JSON of an API: its document, pipelines and commands, run as they stand there."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import duckdb
import pytest

from tests.conftest import RunCLI
from tests.docs import examples

PAGE = "docs/how-to/json-from-an-api.md"


@pytest.mark.full
def test_the_export_of_the_page_is_loaded(tmp_path: Path, run_cli: RunCLI) -> None:
    (document,) = (example.text for example in examples("json", page=PAGE))
    for example in examples("yaml", page=PAGE):
        (tmp_path / str(example.file)).write_text(example.text)
    (tmp_path / "exports/orders").mkdir(parents=True)
    (tmp_path / "exports/orders/1.json").write_text(document)
    (tmp_path / "orders.json").write_text(json.dumps(json.loads(document)["data"]["items"]))
    commands = [line for example in examples("console", page=PAGE) for line in example.text.splitlines()]
    for line in [*commands, "syncblocks sync orders.json other.duckdb --yes"]:
        done = run_cli(shlex.split(line)[1:], tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    for database in ("warehouse", "other"):
        with duckdb.connect(tmp_path / f"{database}.duckdb", read_only=True) as connection:
            found = connection.sql("select id, customer ->> 'city', tags, total from orders order by id").fetchall()
        assert found == [(1, "London", '["new"]', 12.5), (2, "Paris", "[]", 7.0)]
    with duckdb.connect(tmp_path / "flat.duckdb", read_only=True) as connection:
        assert connection.sql("from orders order by id").fetchall() == [
            (1, "Ada", '["new"]', 12.5),
            (2, "Bob", "[]", 7.0),
        ]
