"""Filters by a run's interval: each run reads its interval, and no record between the runs is lost."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from syncblocks import load_pipeline, run_pipeline
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.run.results import RunResult
from tests.conftest import RunCLI
from tests.connectors.singer.singer_helpers import record, schema, small

#: Of each record: id, time, a day that does not follow the time, and the day as text.
RECORDS = [
    (number, f"2026-01-0{day} {hour:02d}:00:00", f"2026-01-0{1 + number % 2}", f"2026-01-0{day}")
    for number, (day, hour) in enumerate([(1, 0), (1, 9), (2, 0), (2, 23), (3, 0), (3, 1)], 1)
]
NAMES = ("id", "moment", "day", "written")
TABLE = "create table events (id int primary key, moment timestamp, day date, written text)"

INCREMENTAL = {"replication_method": "INCREMENTAL", "bookmark_properties": ["moment"], "key_properties": ["id"]}
MERGE = {"write_disposition": "merge", "key_properties": ["id"]}


def within(column: str) -> dict[str, Any]:
    return {column: {">=": "{{ interval_start_datetime }}", "<": "{{ interval_end_datetime }}"}}


def source_of(system: str, folder: Path, url: str = "") -> dict[str, Any]:
    marks = "insert into events values (?, ?, ?, ?)"
    if system == "postgres":
        with psycopg.connect(url) as postgres, postgres.cursor() as cursor:
            cursor.execute(TABLE.encode())
            cursor.executemany(marks.replace("?", "%s").encode(), RECORDS)
        return {"connector": "postgres", "config": {"url": url}}
    if system == "duckdb":
        with closing(duckdb.connect(folder / "events.db")) as database:
            database.execute(TABLE)
            database.executemany(marks, RECORDS)
        return {"connector": "duckdb", "config": {"path": "events.db"}}
    if system.endswith("sqlite"):
        with closing(sqlite3.connect(folder / "events.db")) as lite:
            lite.execute(TABLE.replace("events", "base"))
            lite.executemany(marks.replace("events", "base"), RECORDS)
            lite.execute("create view events as select * from base")
            lite.commit()
        url = f"sqlite:///{folder}/events.db"
        return {"connector": system, "config": {"url": url} if system == "sqlalchemy+sqlite" else {"path": "events.db"}}
    if system == "csv":
        (folder / "events.csv").write_text(
            "\n".join([",".join(NAMES), *(",".join(map(str, each)) for each in RECORDS)])
        )
    elif system == "jsonl":
        lines = (json.dumps(dict(zip(NAMES, each, strict=True))) for each in RECORDS)
        (folder / "events.jsonl").write_text("".join(f"{line}\n" for line in lines))
    else:
        source_of("duckdb", folder)
        with closing(duckdb.connect(folder / "events.db")) as database:
            database.execute(f"copy events to '{folder}/events.parquet' (format parquet)")
    return {"connector": system, "config": {"path": f"events.{system}"}}


def document(source: dict[str, Any], **stream: Any) -> dict[str, Any]:
    source = {**source, "connector": source["connector"].split("+")[0]}
    name = "public.events" if source["connector"] == "postgres" else "events"
    return {
        "pipeline": "events",
        "source": source,
        "destination": {"connector": "duckdb", "config": {"path": "out.db"}},
        "streams": [{"stream": name, "destination_table": "events", **stream}],
    }


def run(folder: Path, day: int, file: dict[str, Any]) -> RunResult:
    interval = (datetime(2026, 1, day, tzinfo=UTC), datetime(2026, 1, day + 1, tzinfo=UTC))
    result = run_pipeline(load_pipeline(file, folder=folder, interval=interval))
    assert result.status == "success", result.error or result.streams[0].error
    return result


def ids(folder: Path) -> list[int]:
    with closing(duckdb.connect(folder / "out.db")) as database:
        return [key for (key,) in database.execute("select id from events order by 1").fetchall()]


@pytest.mark.parametrize(
    "system",
    [
        "csv",
        "sqlite",
        *(pytest.param(each, marks=pytest.mark.full) for each in ("jsonl", "parquet", "duckdb", "sqlalchemy+sqlite")),
    ],
)
def test_only_records_of_the_interval_move_the_bookmark(system: str, tmp_path: Path) -> None:
    file = document(source_of(system, tmp_path), where=within("moment"), **INCREMENTAL)
    bookmarks = []
    for day in (1, 2):
        (stream,) = run(tmp_path, day, file).streams
        assert stream.bookmark is not None
        bookmarks.append(stream.bookmark["moment"])
    assert bookmarks == ["2026-01-01T09:00:00", "2026-01-02T23:00:00"]
    assert ids(tmp_path) == [1, 2, 3, 4]
    run(tmp_path, 3, file)
    assert ids(tmp_path) == [1, 2, 3, 4, 5, 6]


@pytest.mark.full
def test_an_append_sends_each_record_of_its_intervals_once(tmp_path: Path) -> None:
    """Also with a second run of an interval, and a record that is new at the bookmark."""
    file = document(source_of("csv", tmp_path), where=within("moment"), **INCREMENTAL)
    file["streams"][0] |= {"write_disposition": "append"}
    run(tmp_path, 1, file)
    with (tmp_path / "events.csv").open("a") as lines:
        lines.write("\n7,2026-01-01 09:00:00,2026-01-01,2026-01-01\n")
    for day in (1, 2, 2, 3):
        run(tmp_path, day, file)
    assert ids(tmp_path) == [1, 2, 3, 4, 5, 6, 7]


def test_a_filter_without_an_interval_leaves_the_bookmark_at_its_last_record(tmp_path: Path) -> None:
    """With a limit, too: only records that match count."""
    file = document(source_of("sqlite", tmp_path), where={"day": "2026-01-02"}, limit=2, **INCREMENTAL)
    (stream,) = run(tmp_path, 1, file).streams
    assert (stream.records, ids(tmp_path)) == (2, [1, 3])
    assert stream.bookmark is not None
    assert stream.bookmark["moment"] == "2026-01-02T00:00:00"
    run(tmp_path, 1, file)
    assert ids(tmp_path) == [1, 3, 5]


@pytest.mark.parametrize(
    ("stream", "key", "words"),
    [
        ({"where": within("day")}, "where", ("'moment'", "replace_range", "FULL_TABLE", "merge")),
        ({"where": {**within("moment"), **within("day")}}, "where", ("'day'", "'moment'")),
        ({"bookmark_properties": ["id", "moment"], "where": within("moment")}, "where", ("'id'",)),
        ({"where": within("moment"), "limit": 1}, "limit", ("`where`",)),
        (
            {"where": within("moment"), "bookmark_properties": ["moment", "id"], "null_bookmarks": "once"},
            "null_bookmarks",
            ("`always`", "`never`"),
        ),
    ],
)
def test_what_would_move_the_bookmark_past_other_intervals_is_refused(
    tmp_path: Path, stream: dict[str, Any], key: str, words: tuple[str, ...]
) -> None:
    file = document(source_of("duckdb", tmp_path), **{**INCREMENTAL, **stream})
    with pytest.raises(ConfigError) as caught:
        run(tmp_path, 1, file)
    assert str(caught.value.key).endswith(key)
    assert [word for word in words if word not in str(caught.value)] == []
    assert not (tmp_path / "out.db").exists()


def test_files_that_are_read_once_have_no_filter_by_an_interval(tmp_path: Path) -> None:
    source, stream = source_of("csv", tmp_path), {**INCREMENTAL, "bookmark_properties": ["_file_modified"]}
    with pytest.raises(ConfigError, match="_file_modified"):
        run(tmp_path, 1, document(source, where=within("moment"), **stream))


def test_files_that_an_interval_selects_are_not_read_from_a_bookmark(tmp_path: Path) -> None:
    for day, hour in ((1, 9), (2, 8)):
        folder = tmp_path / "in" / f"2026-01-0{day}T00:00:00+00:00"
        folder.mkdir(parents=True)
        (folder / "new.csv").write_text(f"id,moment\n{day},2026-01-01 0{hour}:00:00\n")
    streams = {"events": "{{ interval_start_datetime }}/*.csv"}
    source = {"connector": "csv", "config": {"path": "in", "streams": streams}}
    with pytest.raises(ConfigError, match="_file_modified") as caught:
        run(tmp_path, 1, document(source, **INCREMENTAL))
    assert "FULL_TABLE" in str(caught.value)
    for stream in ({**INCREMENTAL, "bookmark_properties": ["_file_modified"]}, MERGE):
        (tmp_path / "out.db").unlink(missing_ok=True)
        for day in (1, 2):
            run(tmp_path, day, document(source, **stream))
        assert ids(tmp_path) == [1, 2]


def test_a_source_with_its_own_bookmark_has_no_filter_by_an_interval(tmp_path: Path) -> None:
    told = [schema("events"), record("events", id=1, note="x")]
    catalog = {
        "tap_stream_id": "events",
        "stream": "events",
        "schema": {"properties": {"id": {"type": "integer"}, "at": {"type": "string", "format": "date-time"}}},
        "key_properties": ["id"],
        "metadata": [{"breadcrumb": [], "metadata": {"selected": True, "replication-method": "INCREMENTAL"}}],
    }
    source = {"connector": "singer", "config": small(tmp_path, *told, streams=[catalog])}
    stream = {"replication_method": "INCREMENTAL", "bookmark_properties": ["at"], "where": within("at")}
    with pytest.raises(ConfigError, match="keeps its own bookmark"):
        run(tmp_path, 1, document(source, **stream))


@pytest.mark.parametrize("system", ["postgres", "sqlite", "duckdb"])
@pytest.mark.parametrize("types", [{}, {"written": "date"}])
def test_an_interval_is_not_compared_with_texts(
    request: pytest.FixtureRequest, tmp_path: Path, system: str, types: dict[str, str]
) -> None:
    url = request.getfixturevalue("postgres_url") if system == "postgres" else ""
    file = document(source_of(system, tmp_path, url), where=within("written"), types=types or None, **MERGE)
    with pytest.raises(ConfigError) as caught:
        run(tmp_path, 2, file)
    words = ("'written'", "types: {written: date}", "cast(written as date)", "{{ ds }}")
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.full
def test_the_remedies_of_a_text_column_load_the_right_day(tmp_path: Path) -> None:
    source = source_of("duckdb", tmp_path)
    query = "select id, cast(written as date) as written from events"
    condition = "select id from events where cast(written as date) >= {{ interval_start_datetime }} and id < 5"
    for stream, expected in (
        ({"query": query, "where": within("written")}, [3, 4]),
        ({"query": condition}, [3, 4]),
        ({"where": {"written": "2026-01-02"}}, [3, 4]),
    ):
        (tmp_path / "out.db").unlink(missing_ok=True)
        run(tmp_path, 2, document(source, **MERGE, **stream))
        assert ids(tmp_path) == expected, stream


def test_types_of_a_file_let_an_interval_filter_it(tmp_path: Path) -> None:
    def day(lines: str, **stream: Any) -> list[int]:
        (tmp_path / "events.csv").write_text(f"id,written\n{lines}")
        source = {"connector": "csv", "config": {"path": "events.csv", "types": {"written": "string"}}}
        if stream.pop("is_guessed", False):
            del source["config"]["types"]  # type: ignore[attr-defined]
        run(tmp_path, 2, document(source, where=within("written"), **MERGE, **stream))
        return ids(tmp_path)

    with pytest.raises(ConfigError, match=r"types: \{written: date\}"):
        day("1,2026-01-02\n2,2026-01-03\n")
    assert day("1,2026-01-02\n2,2026-01-03\n", types={"written": "date"}) == [1]
    # The table has dates by now, so a file without a value is known to have none, and texts are refused.
    assert day("3,\n", is_guessed=True) == [1]
    with pytest.raises(AssertionError, match="'written' is string"):
        day("3,soon\n4,2026-01-02\n", is_guessed=True)


def test_a_column_without_a_value_matches_no_interval(tmp_path: Path) -> None:
    source = {"connector": "csv", "config": {"path": "events.csv"}}
    (tmp_path / "events.csv").write_text("id,written\n1,\n2,\n")
    assert run(tmp_path, 2, document(source, where=within("written"), **MERGE)).streams[0].records == 0


@pytest.mark.full
def test_values_behind_the_sample_are_not_compared_with_an_interval_as_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncblocks.connectors.files.source.INFER_BYTES", 100)
    empty = "".join(f"{number},\n" for number in range(300_000))
    (tmp_path / "events.csv").write_text(f"id,written\n{empty}-1,2026-01-03\n")
    source = {"connector": "csv", "config": {"path": "events.csv"}}
    with pytest.raises(AssertionError, match="'written' is string"):
        run(tmp_path, 2, document(source, where=within("written"), **MERGE))


@pytest.mark.full
def test_an_interval_that_no_stream_uses_is_a_warning(tmp_path: Path, run_cli: RunCLI) -> None:
    interval = ("--interval-start", "2026-01-01", "--interval-end", "2026-01-02")
    source = source_of("csv", tmp_path)
    path = tmp_path / "events.json"
    for stream, is_used in (
        ({}, False),
        (INCREMENTAL, False),
        ({"where": within("moment")}, True),
        ({"write_disposition": "replace_range", "range_column": "moment"}, True),
    ):
        path = tmp_path / "events.yaml"
        path.write_text(json.dumps(document(source, **stream)))
        (tmp_path / "out.db").unlink(missing_ok=True)
        done = run_cli(["run", path, *interval], tmp_path)
        assert done.returncode == 0, done.stderr
        assert ("no stream uses the interval" not in done.stderr) is is_used, stream
