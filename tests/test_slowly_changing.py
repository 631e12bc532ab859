"""The page about a slowly changing dimension: its pipelines, commands and queries, run as they stand there."""

from __future__ import annotations

import shlex
from pathlib import Path

import duckdb
import pytest
import yaml

from syncblocks import load_pipeline, run_pipeline
from tests.conftest import RunCLI
from tests.docs import examples
from tests.sync.run.test_history import january

PAGE = "docs/how-to/a-slowly-changing-dimension.md"


@pytest.mark.full
def test_every_version_is_kept(tmp_path: Path, run_cli: RunCLI) -> None:
    whole, by_time, ending = (example.text for example in examples("yaml", page=PAGE))
    current, of_a_day = (example.text for example in examples("sql", page=PAGE))
    plan, run, anew = (
        shlex.split(line)[1:] for example in examples("console", page=PAGE) for line in example.text.splitlines()
    )

    def put(text: str) -> None:
        (tmp_path / "crm").mkdir(exist_ok=True)
        (tmp_path / "crm" / "customers.csv").write_text(text)

    def ask(sql: str) -> list[tuple[object, ...]]:
        with duckdb.connect(tmp_path / "warehouse.duckdb", read_only=True) as connection:
            connection.execute("set timezone = 'UTC'")
            return sorted(row[:2] for row in connection.execute(sql).fetchall())

    file = tmp_path / "customers.yaml"
    file.write_text(whole)
    put("id,city\n1,Bonn\n2,Rome\n")
    assert run_cli(plan, tmp_path).returncode == 0
    for day, text in ((2, "id,city\n1,Bonn\n2,Rome\n"), (9, "id,city\n1,Berlin\n2,Rome\n")):
        put(text)
        run_pipeline(load_pipeline(file, execution_date=january(day))).raise_for_status()
    assert ask(of_a_day) == [(1, "Bonn"), (2, "Rome")]
    assert run_cli(run, tmp_path).returncode == 0
    assert ask(current) == [(1, "Berlin"), (2, "Rome")]
    assert run_cli([*run, "--full-refresh"], tmp_path).returncode == 2
    assert run_cli(anew, tmp_path).returncode == 0
    assert ask("select * from customers") == [(1, "Berlin"), (2, "Rome")]
    put("id,city,changed_at\n1,Bonn,2026-01-02T00:00:00\n1,Berlin,2026-01-09T00:00:00\n")
    document = yaml.safe_load(whole) | yaml.safe_load(by_time) | {"pipeline": "again"}
    document["destination"]["config"]["path"] = "again.duckdb"
    file.write_text(yaml.safe_dump(document))
    assert run_cli(run, tmp_path).returncode == 0
    (tmp_path / "again.duckdb").replace(tmp_path / "warehouse.duckdb")
    assert ask(of_a_day) == [(1, "Bonn")]
    document = yaml.safe_load(whole) | yaml.safe_load(ending) | {"pipeline": "ending"}
    document["destination"]["config"]["path"] = "ending.duckdb"
    file.write_text(yaml.safe_dump(document))
    for text in ("id,city\n1,Bonn\n2,Rome\n", "id,city\n1,Bonn\n"):
        put(text)
        assert run_cli(run, tmp_path).returncode == 0
    (tmp_path / "ending.duckdb").replace(tmp_path / "warehouse.duckdb")
    assert ask(current) == [(1, "Bonn")]
    assert ask("select id, city from customers") == [(1, "Bonn"), (2, "Rome")]
