"""`min_records`: a stream with too few records fails and writes nothing; a table that is emptied is told of."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from syncblocks import RunResult, load_pipeline, run_pipeline
from syncblocks.sync.errors import ConfigError
from tests.conftest import RunCLI

FULL = "id,v\n" + "".join(f"{n},x\n" for n in range(5))


def document(*, to: str = "sqlite", source: dict[str, Any] | None = None, **stream: Any) -> dict[str, Any]:
    return {
        "pipeline": "p",
        "source": source or {"connector": "csv", "config": {"path": "a.csv"}},
        "destination": {"connector": to, "config": {"path": "out" if to in ("csv", "parquet") else "out.db"}},
        "streams": [{"stream": "a", "key_properties": ["id"], **stream}],
    }


def run(folder: Path, records: str, **said: Any) -> RunResult:
    (folder / "a.csv").write_text(records)
    return run_pipeline(load_pipeline(document(**said), folder=folder))


def ids(folder: Path) -> list[int]:
    with closing(sqlite3.connect(folder / "out.db")) as database:
        return [number for (number,) in database.execute("select id from a order by 1").fetchall()]


@pytest.mark.parametrize("disposition", ["replace", "merge", "append"])
def test_fewer_records_fail_before_anything_is_written(disposition: str, tmp_path: Path) -> None:
    said = {"write_disposition": disposition, "min_records": 3}
    assert run(tmp_path, FULL, **said).status == "success"
    failed = run(tmp_path, "id,v\n7,x\n8,x\n", **said)
    assert (failed.status, failed.streams[0].records) == ("failure", 0)
    assert "the source has 2 record(s) now, and the stream says `min_records: 3`: nothing" in str(
        failed.streams[0].error
    )
    assert ids(tmp_path) == list(range(5))
    assert run(tmp_path, FULL.replace("x", "y"), **said).status == "success"


@pytest.mark.postgres
def test_records_of_raw_blocks_and_of_ranges_are_counted(postgres_url: str, tmp_path: Path) -> None:
    with psycopg.connect(postgres_url) as database:
        database.execute("create table a (id int primary key)")
        database.execute("insert into a select generate_series(1, 50)")
    source: dict[str, Any] = {"connector": "postgres", "config": {"url": postgres_url}}
    for least, said in ((51, {}), (51, {"parallel_reads": 2}), (50, {}), (50, {"parallel_reads": 2})):
        source["config"] |= {"range_bytes": 1} if said else {}
        made = document(
            source=source, **{"stream": "public.a", "destination_table": "t.a", "min_records": least, **said}
        )
        made["destination"] = {"connector": "postgres", "config": {"url": postgres_url, "schema": "t"}}
        result = run_pipeline(load_pipeline(made, folder=tmp_path))
        assert result.status == ("success" if least == 50 else "failure"), result.streams[0].error
        assert least == 50 or "has 50 record(s) now" in str(result.streams[0].error)


@pytest.mark.one_of
@pytest.mark.parametrize("to", ["sqlite", "csv"])
def test_a_table_that_no_records_replace_is_told_of(to: str, tmp_path: Path, run_cli: RunCLI) -> None:
    (tmp_path / "p.yaml").write_text(json.dumps(document(to=to, write_disposition="replace")))
    told = []
    for records in (FULL, "id,v\n", "id,v\n"):
        (tmp_path / "a.csv").write_text(records)
        done = run_cli(["run", "p.yaml"], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        told.append("table 'a' was replaced by no records, and its 5 record(s) are gone" in done.stdout + done.stderr)
    assert told == [False, True, False]
    assert "its 5 record(s) are gone" in run_cli(["runs", "show", "2"], cwd=tmp_path).stdout


def test_a_full_refresh_that_empties_a_table_is_told_of(tmp_path: Path, run_cli: RunCLI) -> None:
    said = {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
    (tmp_path / "p.yaml").write_text(json.dumps(document(**said)))
    for records, options in ((FULL, []), (FULL, []), ("id,v\n", ["--full-refresh"])):
        (tmp_path / "a.csv").write_text(records)
        done = run_cli(["run", "p.yaml", *options], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "replaced by no records, and the records that it had are gone" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}, "is for FULL_TABLE"),
        ({"min_records": 0}, "min_records"),
    ],
)
def test_where_it_could_not_hold_it_is_refused(said: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=why):
        run(tmp_path, FULL, **{"min_records": 1, **said})
