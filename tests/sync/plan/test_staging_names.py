"""Columns of a source that are named like those of staging: they get another name at the destination, and arrive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from syncblocks import load_pipeline, run_pipeline
from syncblocks.sync.session.inspection import existing_store, opened
from syncblocks.sync.session.session import make_plan

NAMES = ["_syncblocks_seq", "_syncblocks_rank", "_SYNCBLOCKS_SEQ"]


@pytest.mark.one_of
@pytest.mark.thinned(2)
@pytest.mark.parametrize("keeps_rejected", [False, True], ids=["", "keeps rejected records"])
@pytest.mark.parametrize("disposition", ["append", "merge", "replace"])
@pytest.mark.parametrize("connector", ["postgres", "mysql", "sqlite", "duckdb", "sqlalchemy"])
def test_they_arrive_and_are_verified(
    connector: str,
    disposition: str,
    keeps_rejected: bool,
    postgres_url: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    with psycopg.connect(postgres_url) as database:
        columns = ", ".join(f'"{name}" int' for name in NAMES)
        database.execute(f"create schema s; create table s.items (id int primary key, {columns})".encode())
        database.execute("insert into s.items values (1, 10, 20, 30), (2, 11, null, 31)")
    config: dict[str, Any] = {"path": str(tmp_path / "out.db")}
    if connector == "postgres":
        config = {"url": postgres_url}
    elif connector == "sqlalchemy":
        config = {"url": postgres_url.replace("postgresql:", "postgresql+psycopg:")}
    elif connector == "mysql":
        config = {"url": request.getfixturevalue("mariadb_url")}
    stream: dict[str, Any] = {"stream": "s.items", "destination_table": "items", "write_disposition": disposition}
    if keeps_rejected:
        stream["on_rejected"] = "keep"
    document = {
        "source": {"connector": "postgres", "config": {"url": postgres_url}},
        "destination": {"connector": connector, "config": config},
        "streams": [stream | {"verify": True}],
    }
    file = tmp_path / "p.yaml"
    file.write_text(yaml.safe_dump(document))
    for _ in range(1 if disposition == "append" else 2):
        result = run_pipeline(file)
        assert (result.status, result.streams[0].error) == ("success", None)
    pipeline = load_pipeline(file)
    with existing_store(pipeline) as store, opened(pipeline) as session:
        columns_there = [each.kept.column for each in make_plan(session, store).streams[0].mapping.columns if each.kept]
    assert len(set(columns_there)) == 4
    assert not {"_syncblocks_seq", "_syncblocks_rank"} & set(columns_there)
