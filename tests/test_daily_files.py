"""The page about a bucket of daily files: its pipeline and its commands, run as they stand there."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import duckdb
import pytest
import yaml

from tests.conftest import RunCLI
from tests.docs import examples

PAGE = "docs/how-to/daily-files.md"


def put(folder: Path, name: str, text: str, day: int) -> None:
    path = folder / "exports" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (1775000000 + day * 86_400,) * 2)


@pytest.mark.full
def test_each_day_brings_its_file(tmp_path: Path, run_cli: RunCLI) -> None:
    whole, merged, latest = (example.text for example in examples("yaml", page=PAGE))
    plan, run, anew, *rewinds = (
        shlex.split(line)[1:] for example in examples("console", page=PAGE) for line in example.text.splitlines()
    )

    def call(arguments: list[str]) -> None:
        done = run_cli(arguments, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr

    def counts() -> tuple[int, int]:
        with duckdb.connect(tmp_path / "warehouse.duckdb", read_only=True) as connection:
            (found,) = connection.sql("select (select count(*) from shops), (select count(_file) from met)").fetchall()
        return found[0], found[1]

    (tmp_path / "daily.yaml").write_text(whole)
    put(tmp_path, "met/2026/04/01.csv", "station,day,rain\na,2026-04-01,1\n", 1)
    put(tmp_path, "shops/berlin.csv", "shop\nberlin\n", 1)
    call(plan)
    call(run)
    assert counts() == (1, 1)
    put(tmp_path, "met/2026/04/02.csv", "station,day,rain\na,2026-04-02,2\n", 3)
    put(tmp_path, "shops/paris.csv", "shop\nparis\n", 3)
    call(run)
    assert counts() == (2, 2)
    document = yaml.safe_load(whole)
    document["streams"][1:] = yaml.safe_load(merged)["streams"]
    (tmp_path / "daily.yaml").write_text(yaml.safe_dump(document))
    put(tmp_path, "met/2026/04/02.csv", "station,day,rain\na,2026-04-02,5\n", 4)
    call(anew)
    for rewind in rewinds:
        call(rewind)
        call(run)
    assert counts() == (2, 2)
    document["streams"][1:] = yaml.safe_load(latest)["streams"]
    (tmp_path / "daily.yaml").write_text(yaml.safe_dump(document))
    for name, rain, hour in (("03", 7, 10), ("03-again", 6, 9)):
        record = f"b,2026-04-03,{rain},2026-04-03T{hour:02}:00:00\n"
        put(tmp_path, f"met/2026/04/{name}.csv", f"station,day,rain,measured_at\n{record}", 5)
        call(run)
    with duckdb.connect(tmp_path / "warehouse.duckdb", read_only=True) as connection:
        assert connection.sql("select rain from met where station = 'b'").fetchall() == [(7,)]
