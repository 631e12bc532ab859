"""What a plain run imports: most of a small sync's time goes there."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

#: A library that a plain run has no use for -> why it might slip in.
NEVER = {
    "pandas": "no transformer",
    "singer_sdk": "no Singer connector",
    "distributed": "no Dask executor",
    "syncblocks.sync.integrations": "no orchestrator",
    "rich": "no terminal",
    "fsspec": "no URL",
    "jinja2": "no template",
    "adbc_driver_manager.dbapi": "it imports pandas",
    "sqlalchemy": "the connector `sqlalchemy` alone needs it",
    "psycopg": "the run store is SQLite",
    "syncblocks.callbacks.dispatcher": "no callback",
    "syncblocks.callbacks.loader": "no file of functions",
    "difflib": "no mistake",
}

#: A module of ours that a plain run has no use for -> the feature that imports it.
FEATURES = {
    "syncblocks.connectors.known_files": "new files of a folder",
    "syncblocks.connectors.sql.files_read": "new files of a folder",
    "syncblocks.connectors.sql.load.deletes": "`deletes`",
    "syncblocks.connectors.sql.load.fill": "`fill_new_columns`",
    "syncblocks.connectors.sql.load.history": "`write_disposition: history`",
    "syncblocks.connectors.sql.load.ranges": "`parallel_reads`",
    "syncblocks.connectors.sql.load.replace_range": "`write_disposition: replace_range`",
    "syncblocks.sync.config.catalog_file": "`catalog`",
    "syncblocks.sync.flow.filtered": "`where`, `limit`",
    "syncblocks.sync.flow.history": "`write_disposition: history`",
    "syncblocks.sync.flow.masked": "`mask`",
    "syncblocks.sync.flow.spooled_feed": "a group with more streams than loads",
    "syncblocks.sync.plan.planned_repair": "`verify --repair`",
    "syncblocks.sync.run.before_statements": "`before`",
    "syncblocks.sync.run.steps.before": "`before`",
    "syncblocks.sync.run.steps.deletes": "`deletes`",
    "syncblocks.sync.run.steps.fill_new_columns": "`fill_new_columns`",
    "syncblocks.sync.run.notebook": "no notebook",
    "syncblocks.sync.run.ranges": "`parallel_reads`",
    "syncblocks.sync.schedules": "`schedule`",
    "syncblocks.sync.session.ledgerless": "a destination without a ledger",
    "syncblocks.sync.session.read_back": "`deletes`",
    "syncblocks.sync.verify": "`verify`",
}
#: What reads other formats than CSV.
OTHER_FORMATS = {
    "pyarrow.parquet",
    *(f"syncblocks.connectors.files.{name}_format" for name in ("json", "jsonl", "arrow")),
}
#: How records are written by other dispositions than replace.
DISPOSITIONS = {f"syncblocks.connectors.sql.load.{name}" for name in ("append", "merge", "history", "replace_range")}

RUN = "import sys; from syncblocks.sync.cli import invoke; code = invoke(['run', 'pipeline.yaml'])"


def imported_by_a_second_run(folder: Path, url: str, destination: dict[str, Any], **entry: Any) -> set[str]:
    with psycopg.connect(url) as connection:
        connection.execute("create table source (id bigint primary key, price numeric(12,2), at timestamptz)")
        connection.execute("insert into source values (1, 2.50, '2024-01-01 00:00+00')")
    document = {
        "pipeline": "imports",
        "source": {"connector": "postgres", "config": {"url": url}},
        "destination": destination,
        "streams": [{"stream": "public.source", "destination_table": "copied", **entry}],
    }
    (folder / "pipeline.yaml").write_text(json.dumps(document))
    code = f"{RUN}; print(*sys.modules); sys.exit(code)"
    for _ in range(2):  # the first one makes the run store
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.full
def test_records_that_go_by_as_bytes_need_none_of_arrows_functions(postgres_url: str, tmp_path: Path) -> None:
    to = {"connector": "postgres", "config": {"url": postgres_url}}
    found = imported_by_a_second_run(tmp_path, postgres_url, to)
    assert not found & ({*NEVER, *FEATURES, *DISPOSITIONS, "pyarrow.compute", "duckdb", "adbc_driver_manager"})
    assert "syncblocks.connectors.sql.load.replace" in found
    assert {"pyarrow", "asyncpg"} <= found  # the probe sees what there is


@pytest.mark.full
def test_records_that_go_by_as_arrow_need_no_more_than_their_connectors(postgres_url: str, tmp_path: Path) -> None:
    to = {"connector": "duckdb", "config": {"path": "warehouse.duckdb"}}
    found = imported_by_a_second_run(tmp_path, postgres_url, to)
    assert not found & ({*NEVER, *FEATURES, *DISPOSITIONS, "asyncpg", "psycopg"})
    assert {"pyarrow", "duckdb"} <= found


@pytest.mark.full
def test_an_incremental_run_that_finds_nothing_needs_no_more_than_its_connectors(
    postgres_url: str, tmp_path: Path
) -> None:
    to = {"connector": "postgres", "config": {"url": postgres_url}}
    marks = {"replication_method": "INCREMENTAL", "bookmark_properties": ["at"]}
    found = imported_by_a_second_run(tmp_path, postgres_url, to, **marks)
    assert not found & (
        {
            *NEVER,
            *FEATURES,
            "asyncpg",
            "psycopg",
            "duckdb",
            "syncblocks.connectors.checksums",
            "syncblocks.sync.verify.verification",
        }
    )


@pytest.mark.parametrize("source", ["csv", "sqlite"])
@pytest.mark.parametrize(
    ("destination", "entry"),
    [
        ("csv", {}),
        ("duckdb", {}),
        ("sqlite", {}),
        ("duckdb", {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}),
        ("sqlite", {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}),
    ],
)
@pytest.mark.full
def test_values_of_files_do_not_make_arrow_import_pandas(
    tmp_path: Path, source: str, destination: str, entry: dict[str, Any]
) -> None:
    (tmp_path / "t.csv").write_text("id,n,x,d,at,v\n1,2,1.5,2024-01-01,2024-01-01 00:00:00,a\n3,,1e9,,,\n")
    with closing(sqlite3.connect(tmp_path / "t.db")) as connection, connection:
        connection.execute("create table t (id integer primary key, x real, v text, at timestamp)")
        connection.execute("insert into t values (1, 1.5, 'a', '2024-01-01 00:00:00'), (2, null, null, null)")
    connection.close()
    where = (
        {"csv": "t.csv", "sqlite": "t.db"}[source],
        {"csv": "out", "sqlite": "o.db", "duckdb": "o.duckdb"}[destination],
    )
    document = {
        "source": {"connector": source, "config": {"path": where[0]}},
        "destination": {"connector": destination, "config": {"path": where[1]}},
        "streams": [{"stream": "t", **entry}],
    }
    (tmp_path / "pipeline.yaml").write_text(json.dumps(document))
    for _ in range(2):
        code = f"{RUN}; print(*sys.modules); sys.exit(code)"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        found = set(done.stdout.split())
        assert not found & {"pandas", "sqlalchemy"}
        if destination != "csv":  # what writes files can write any format
            assert not found & OTHER_FORMATS


#: A Python where the extra `serve` is not installed, as far as the command line can see.
WITHOUT_THE_EXTRA = """
import sys
from syncblocks.sync.cli import invoke
sys.modules |= dict.fromkeys(("starlette", "uvicorn"))
"""


@pytest.mark.full
def test_only_the_pages_of_serve_need_its_extra(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id\n1\n")
    (tmp_path / "crm.yaml").write_text(
        "source: {connector: csv, config: {path: .}}\ndestination: {connector: sqlite, config: {path: o.db}}\n"
        "streams: [{stream: rows}]\nschedule: {cron: 0 0 1 1 *}\n"
    )
    commands = [["--help"], ["run", "crm.yaml"], ["recover", "crm.yaml"], ["status"], ["token", "list"]]
    commands += [["schedule", "next", "crm.yaml"], ["runs", "list"]]
    code = f"{WITHOUT_THE_EXTRA}for command in {commands}:\n    assert invoke(command) == 0, command\n"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    code = f"{WITHOUT_THE_EXTRA}sys.exit(invoke(['serve']))"
    refused = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert (refused.returncode, "pip install 'syncblocks[serve]'" in refused.stderr) == (2, True), refused.stderr
    code = f"{WITHOUT_THE_EXTRA}sys.exit(invoke(['serve', '--no-pages']))"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as serving:
        assert serving.stderr is not None
        try:
            told = serving.stderr.readline()
            assert "serving" in told, told + serving.stderr.read()
        finally:
            serving.terminate()
        assert (serving.wait(30), "pages" in serving.stderr.read()) == (0, False)
