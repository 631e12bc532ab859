"""The page about deleted records: its pipeline and its commands, run as they stand there."""

from __future__ import annotations

import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

import duckdb
import pytest
import yaml

from tests.conftest import RunCLI
from tests.docs import examples

PAGE = "docs/how-to/deleted-records.md"


@pytest.mark.full
def test_deleted_records_go_or_are_marked(tmp_path: Path, run_cli: RunCLI) -> None:
    hard, soft = (example.text for example in examples("yaml", page=PAGE))
    plan, run, at_once, allowed = (
        shlex.split(line)[1:] for example in examples("console", page=PAGE) for line in example.text.splitlines()
    )

    def call(arguments: list[str], code: int = 0) -> str:
        done = run_cli(arguments, tmp_path)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def source(*statements: str) -> None:
        with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
            for sql in statements:
                database.execute(sql)
            database.commit()

    def count(where: str = "true") -> int:
        with duckdb.connect(tmp_path / "warehouse.duckdb", read_only=True) as connection:
            (found,) = connection.sql(f"select count(*) from orders where {where}").fetchall()
        return int(found[0])

    (tmp_path / "shop.yaml").write_text(hard)
    numbers = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000) "
    source(
        "create table orders (id integer primary key, updated_at integer)",
        f"insert into orders {numbers} select i, i from n",
    )
    assert "every key is read once on both sides" in call(plan)
    call(run)
    source("delete from orders where id = 7")
    call(run)
    assert count() == 1000, "it is too early for `every`"
    call(at_once)
    assert count() == 999
    source("delete from orders where id > 500")
    assert "--allow-deletes orders" in call(at_once, code=1)
    assert count() == 999
    call(allowed)
    assert count() == 499
    document = yaml.safe_load(hard)
    document["streams"] = yaml.safe_load(soft)["streams"]
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(document))
    source("delete from orders where id = 8")
    call(run)
    assert (count(), count("_deleted_at is null")) == (499, 498)
