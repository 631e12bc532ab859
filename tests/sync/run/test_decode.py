"""`decode`: texts of base64 or hexadecimal digits arrive as the bytes that they write."""

from __future__ import annotations

import base64
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from syncblocks import RunResult, load_pipeline, run_pipeline
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.session.inspection import opened
from syncblocks.sync.session.session import make_plan
from syncblocks.sync.store import Store
from syncblocks.sync.verify.verification import EQUAL, verify_streams

DATA = [bytes(range(256)), b"", None, b"\x12\x34"]
DECODE = {"one": "base64", "two": "hex"}


def source(system: str, folder: Path, url: str) -> dict[str, Any]:
    """Make a source with the bytes as texts; the last ones look like numbers in hexadecimal digits."""
    rows = [(n, each and base64.b64encode(each).decode(), each and each.hex()) for n, each in enumerate(DATA)]
    rows[1] = (1, "", "")
    if system == "postgres":
        with psycopg.connect(url) as postgres, postgres.cursor() as cursor:
            cursor.execute("create table files (id int primary key, one text, two text)")
            cursor.executemany("insert into files values (%s, %s, %s)", rows)
        return {"connector": system, "config": {"url": url}}
    if system == "csv":
        lines = [",".join("" if each is None else f'"{each}"' for each in row) for row in rows]
        (folder / "files.csv").write_text("\n".join(["id,one,two", *lines, ""]))
    else:
        lines = [json.dumps(dict(zip(("id", "one", "two"), row, strict=True))) for row in rows]
        (folder / "files.jsonl").write_text("\n".join([*lines, ""]))
    return {"connector": system, "config": {"path": f"files.{system}"}}


def document(origin: dict[str, Any], **stream: Any) -> dict[str, Any]:
    return {
        "pipeline": "files",
        "source": origin,
        "destination": {"connector": "duckdb", "config": {"path": "out.db"}},
        "streams": [{"stream": "*files", "decode": DECODE, **stream}],
    }


def run(folder: Path, origin: dict[str, Any], **stream: Any) -> RunResult:
    return run_pipeline(load_pipeline(document(origin, **stream), folder=folder))


@pytest.mark.one_of
@pytest.mark.parametrize("system", ["postgres", "csv", "jsonl"])
def test_texts_arrive_as_bytes(system: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    origin = source(system, tmp_path, request.getfixturevalue("postgres_url") if system == "postgres" else "")
    result = run(tmp_path, origin)
    assert result.status == "success", result.streams[0].error
    with closing(duckdb.connect(tmp_path / "out.db")) as database:
        found = database.execute("select one, two from files order by id").fetchall()
    assert found == [(each, each) for each in DATA]
    pipeline = load_pipeline(document(origin), folder=tmp_path)
    with opened(pipeline) as session, Store.open(session.pipeline.store_url) as store:
        (verified,) = verify_streams(session, make_plan(session, store))
    assert verified.verdict == EQUAL, verified.notes
    assert [note.partition(":")[0] for note in verified.notes] == [
        f"column {column!r} is not compared" for column in DECODE
    ]


@pytest.mark.parametrize("text", ["6162", r"\x6162", "0x6162"])
def test_databases_write_a_prefix_before_hexadecimal_digits(text: str, tmp_path: Path) -> None:
    (tmp_path / "files.csv").write_text(f"id,one,two\n1,YQ==,{text}\n2,YQ==,{text[:-4]}\n")
    result = run(tmp_path, {"connector": "csv", "config": {"path": "files.csv", "null_values": []}})
    assert result.status == "success", result.streams[0].error
    with closing(duckdb.connect(tmp_path / "out.db")) as database:
        assert database.execute("select two from files order by id").fetchall() == [(b"ab",), (b"",)]


@pytest.mark.parametrize(
    ("column", "text"), [("one", "YQ"), ("one", "Y-=="), ("two", "abc"), ("two", "zz"), ("two", r"6\x1")]
)
def test_a_text_that_is_written_otherwise_is_refused_or_rejected(column: str, text: str, tmp_path: Path) -> None:
    row = {"id": 1, "one": "", "two": ""} | {column: text}
    (tmp_path / "files.jsonl").write_text(json.dumps({"id": 0, "one": "YQ==", "two": "61"}) + "\n" + json.dumps(row))
    origin = {"connector": "jsonl", "config": {"path": "files.jsonl"}}
    failed = run(tmp_path, origin)
    assert f"column {column!r}: {text!r} is not {DECODE[column]}, the form that `decode` declares" in str(
        failed.streams[0].error
    )
    assert run(tmp_path, origin, on_rejected="keep").status == "success"
    with closing(duckdb.connect(tmp_path / "out.db")) as database:
        assert database.execute("select one, two from files").fetchall() == [(b"a", b"a")]
        assert len(database.execute("from _syncblocks_rejected").fetchall()) == 1


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ({"decode": {"oen": "hex"}}, "'oen' matches no column"),
        ({"decode": {"one": "base32"}}, "base64.*hex"),
        ({"types": {"one": "string"}}, "'one' is named by `types` too"),
        ({"key_properties": ["one"]}, "'one' is named by `key_properties` too"),
        ({"columns": {"mask": {"one": None}}}, "'one' is masked, and `decode` names it"),
    ],
)
def test_what_cannot_be_meant_is_refused(stream: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, source("csv", tmp_path, ""), **stream)


def test_only_texts_are_decoded(tmp_path: Path, postgres_url: str) -> None:
    origin = source("postgres", tmp_path, postgres_url)
    with pytest.raises(ConfigError, match="column 'id' is integer, and `decode` takes texts only"):
        run(tmp_path, origin, decode={"id": "hex"}, key_properties=["two"], write_disposition="append")
