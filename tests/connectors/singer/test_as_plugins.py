"""Our connectors as Singer plugins, as programs: catalog, selection, state, BATCH, and states only after the commit."""

from __future__ import annotations

import json
import math
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest

from syncblocks.connectors.singer.plugin_config import plugins
from tests.conftest import RunCLI

PEOPLE = [(1, "Ada", 10, 1.5), (2, 'Grace "x"', 20, None), (3, None, 20, 2.5)]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database, database:
        database.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, version INTEGER, height REAL)")
        database.executemany("INSERT INTO people VALUES (?, ?, ?, ?)", PEOPLE)
        database.execute("CREATE TABLE other (id INTEGER PRIMARY KEY)")
        database.execute("INSERT INTO other VALUES (1)")
    (tmp_path / "config.json").write_text('{"path": "shop.db"}')
    return tmp_path


def tap(folder: Path, run_cli: RunCLI, *arguments: str) -> list[dict[str, Any]]:
    done = run_cli(["tap", "sqlite", "--config", "config.json", *arguments], folder)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("kind", ["tap", "target"])
def test_a_config_that_cannot_be_read_is_named(kind: str, shop: Path, run_cli: RunCLI) -> None:
    (shop / "config.json").write_text("path: shop.db\n")
    done = run_cli([kind, "sqlite", "--config", "config.json"], shop)
    assert (done.returncode, "config.json is not JSON" in done.stderr) == (2, True), done.stderr
    done = run_cli([kind, "sqlite", "--config", "missing.json"], shop)
    assert (done.returncode, "missing.json" in done.stderr) == (2, True), done.stderr


def catalog(folder: Path, run_cli: RunCLI, *, deselect: str = "", replication_key: str = "") -> Path:
    """Discover, and select as Meltano does: by metadata."""
    done = run_cli(["tap", "sqlite", "--config", "config.json", "--discover"], folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for stream in found["streams"]:
        for entry in stream["metadata"]:
            if not entry["breadcrumb"]:
                entry["metadata"]["selected"] = stream["stream"] == "people"
                if replication_key and stream["stream"] == "people":
                    entry["metadata"] |= {
                        "replication-method": "INCREMENTAL",
                        "forced-replication-method": "INCREMENTAL",
                        "replication-key": replication_key,
                    }
            elif entry["breadcrumb"] == ["properties", deselect]:
                entry["metadata"]["selected"] = False
        if replication_key and stream["stream"] == "people":
            stream |= {"replication_key": replication_key, "replication_method": "INCREMENTAL"}
    path = folder / "catalog.json"
    path.write_text(json.dumps(found))
    return path


def records(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [message["record"] for message in messages if message["type"] == "RECORD"]


def test_only_selected_streams_and_columns_are_sent(shop: Path, run_cli: RunCLI) -> None:
    path = catalog(shop, run_cli, deselect="height")
    messages = tap(shop, run_cli, "--catalog", str(path))
    assert records(messages) == [{"id": i, "name": n, "version": v} for i, n, v, _ in PEOPLE]
    (schema,) = [message for message in messages if message["type"] == "SCHEMA"]
    assert list(schema["schema"]["properties"]) == ["id", "name", "version"]
    assert schema["key_properties"] == ["id"]


def test_a_wrong_config_is_told_without_its_values(shop: Path, run_cli: RunCLI) -> None:
    (shop / "wrong.json").write_text(json.dumps({"path": 5551234, "checkpoint_records": "s3cr3t-value"}))
    for arguments in (["tap", "sqlite"], ["target", "sqlite"]):
        done = run_cli([*arguments, "--config", "wrong.json"], shop, stdin="")
        assert done.returncode != 0
        assert "path does not fit" in done.stderr
        assert "s3cr3t-value" not in done.stderr + done.stdout
        assert "5551234" not in done.stderr + done.stdout


def test_an_incremental_tap_goes_on_from_its_last_state(shop: Path, run_cli: RunCLI) -> None:
    path = catalog(shop, run_cli, replication_key="version")
    messages = tap(shop, run_cli, "--catalog", str(path))
    assert len(records(messages)) == 3
    state = messages[-1]["value"]
    assert state["bookmarks"]["people"]["replication_key_value"] == 20
    assert "progress_markers" not in json.dumps(state)
    (shop / "state.json").write_text(json.dumps(state))
    with closing(sqlite3.connect(shop / "shop.db")) as database, database:
        database.execute("INSERT INTO people VALUES (4, 'same tick', 20, NULL), (5, 'later', 30, NULL)")
    messages = tap(shop, run_cli, "--catalog", str(path), "--state", "state.json")
    assert [record["id"] for record in records(messages)] == [4, 5], "what stood at the bookmark is not sent again"


def test_a_state_of_another_tap_is_understood(shop: Path, run_cli: RunCLI) -> None:
    path = catalog(shop, run_cli, replication_key="version")
    state = {"bookmarks": {"people": {"replication_key": "version", "replication_key_value": 20}}}
    (shop / "state.json").write_text(json.dumps(state))
    messages = tap(shop, run_cli, "--catalog", str(path), "--state", "state.json")
    assert [record["id"] for record in records(messages)] == [2, 3]


def test_stream_maps_see_single_records(shop: Path, run_cli: RunCLI) -> None:
    maps = {"people": {"name": None, "double": "int(version) * 2"}, "other": "__NULL__"}
    (shop / "config.json").write_text(json.dumps({"path": "shop.db", "stream_maps": maps}))
    found = records(tap(shop, run_cli))
    assert [record["double"] for record in found] == [20, 40, 40]
    assert all("name" not in record for record in found)


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_batches_go_both_ways(shop: Path, run_cli: RunCLI, form: str) -> None:
    encoding = {"format": form, **({"compression": "gzip"} if form == "jsonl" else {})}
    storage = {"root": (shop / "batches").as_uri()}
    config = {"path": "shop.db", "batch_config": {"encoding": encoding, "storage": storage, "batch_size": 2}}
    (shop / "config.json").write_text(json.dumps(config))
    messages = tap(shop, run_cli)
    batches = [message for message in messages if message["type"] == "BATCH" and message["stream"] == "people"]
    assert records(messages) == []
    assert len(batches) == 2, "no more than batch_size records a file"
    if form == "parquet":
        tables = [pq.read_table(message["manifest"][0].removeprefix("file://")) for message in batches]
        assert [table.num_rows for table in tables] == [2, 1]
    (shop / "target.json").write_text(json.dumps({"path": "out.db", "batch_config": config["batch_config"]}))
    (shop / "messages").write_text("".join(json.dumps(message) + "\n" for message in messages))
    done = run_cli(["target", "sqlite", "--config", "target.json", "--input", "messages"], shop)
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(shop / "out.db")) as database, database:
        assert database.execute("SELECT id, name, version, height FROM people ORDER BY id").fetchall() == PEOPLE


MESSAGES = [
    {
        "type": "SCHEMA",
        "stream": "t",
        "schema": {"properties": {"id": {"type": "integer"}, "v": {"type": ["string", "null"]}}},
        "key_properties": ["id"],
    },
    {"type": "RECORD", "stream": "t", "record": {"id": 1, "v": "old"}},
    {"type": "RECORD", "stream": "t", "record": {"id": 1, "v": "new"}},
    {"type": "STATE", "value": {"n": 1}},
]


def feed(folder: Path, run_cli: RunCLI, messages: list[dict[str, Any]], **config: Any) -> Any:
    (folder / "target.json").write_text(json.dumps({"path": "out.db", **config}))
    text = "".join(json.dumps(message) + "\n" for message in messages)
    return run_cli(["target", "sqlite", "--config", "target.json"], folder, stdin=text)


def rows(folder: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "out.db")) as database, database:
        return database.execute("SELECT id, v FROM t ORDER BY id, v").fetchall()


def test_the_load_method_decides_what_becomes_of_known_keys(tmp_path: Path, run_cli: RunCLI) -> None:
    assert feed(tmp_path, run_cli, MESSAGES).stdout == '{"n": 1}\n'
    assert rows(tmp_path) == [(1, "new")]
    other = [MESSAGES[0], {"type": "RECORD", "stream": "t", "record": {"id": 2, "v": "x"}}]
    assert feed(tmp_path, run_cli, other).returncode == 0
    assert rows(tmp_path) == [(1, "new"), (2, "x")]
    assert feed(tmp_path, run_cli, other, load_method="overwrite").returncode == 0
    assert rows(tmp_path) == [(2, "x")]
    assert feed(tmp_path, run_cli, MESSAGES[:1], load_method="overwrite").returncode == 0
    assert rows(tmp_path) == []


def orders(stream: str, region: str) -> list[dict[str, Any]]:
    record = {"type": "RECORD", "stream": stream, "record": {"id": 1, "v": region}}
    return [{**MESSAGES[0], "stream": stream}, record]


def test_two_streams_are_not_written_into_one_table(tmp_path: Path, postgres_url: str, run_cli: RunCLI) -> None:
    state = {"type": "STATE", "value": {"n": 1}}
    messages = [*orders("us-orders", "us"), *orders("eu-orders", "eu"), state]
    text = "".join(json.dumps(message) + "\n" for message in messages)
    (tmp_path / "target.json").write_text(json.dumps({"url": postgres_url, "schema": "shop"}))
    done = run_cli(["target", "postgres", "--config", "target.json"], tmp_path, stdin=text)
    assert done.returncode != 0
    assert done.stdout == "", "no state: everything is sent again"
    for part in ("'us-orders'", "'eu-orders'", "table 'orders'", "remove `schema`", "`__alias__`"):
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    (tmp_path / "target.json").write_text(json.dumps({"url": postgres_url}))
    done = run_cli(["target", "postgres", "--config", "target.json"], tmp_path, stdin=text)
    assert done.returncode == 0, done.stderr
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("select v from us.orders union all select v from eu.orders").fetchall() == [
            ("us",),
            ("eu",),
        ]


def test_names_that_differ_in_case_only_are_one_table_too(tmp_path: Path, run_cli: RunCLI) -> None:
    done = feed(tmp_path, run_cli, [*orders("Orders", "a"), *orders("orders", "b")])
    assert done.returncode != 0
    assert "streams 'Orders' and 'orders' would both be written into table" in done.stderr
    assert "remove `schema`" not in done.stderr


@pytest.mark.parametrize("alias", ["orders", "all"])
def test_two_streams_of_one_alias_are_not_written_into_one_table(tmp_path: Path, run_cli: RunCLI, alias: str) -> None:
    maps = {"us-orders": {"__alias__": alias}, "orders" if alias == "orders" else "eu-orders": {"__alias__": alias}}
    messages = [*orders("us-orders", "us"), *orders("orders" if alias == "orders" else "eu-orders", "eu")]
    done = feed(tmp_path, run_cli, messages, stream_maps=maps)
    assert done.returncode != 0
    assert f"would both be written into table {alias!r}" in done.stderr


def test_no_state_is_echoed_for_what_was_not_committed(tmp_path: Path, run_cli: RunCLI) -> None:
    (tmp_path / "out.db").mkdir()  # nothing can be written here
    done = feed(tmp_path, run_cli, MESSAGES)
    assert done.returncode != 0
    assert done.stdout == ""


RECORD = {"type": "RECORD", "stream": "t", "record": {"id": 1}}
UNREADABLE = {
    "half a surrogate in a column's name": (
        [{**MESSAGES[0], "schema": {"properties": {"\ud800": {"type": "integer", "minimum": math.nan}}}}],
        "a SCHEMA of stream 't' contains half a surrogate pair",
    ),
    "half a surrogate in a record": (
        [MESSAGES[0], {**RECORD, "record": {"id": 1, "\ud800": 2}}],
        "a RECORD of stream 't' contains half a surrogate pair",
    ),
    "no key": ([MESSAGES[0], {**RECORD, "record": {"v": "x"}}], "Record is missing one or more key_properties"),
    "another type": ([MESSAGES[0], {**RECORD, "record": {"id": "x"}}], "'x' is not of type 'integer'"),
    "no type": ([{"x": 1}], "missing required type"),
    "an unknown type": ([{"type": "NEWS"}], "unknown type 'NEWS'"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_message_that_cannot_be_read_is_the_taps_mistake(tmp_path: Path, run_cli: RunCLI, name: str) -> None:
    messages, said = UNREADABLE[name]
    done = feed(tmp_path, run_cli, messages)
    assert done.returncode == 1
    assert "error[connector]" in done.stderr
    assert said in done.stderr


@pytest.mark.full
def test_every_connector_has_its_scripts(tmp_path: Path) -> None:
    declared = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["scripts"]
    kinds = {"tap": plugins("source"), "target": plugins("destination")}
    expected = {f"{kind}-syncblocks-{name}" for kind, names in kinds.items() for name in names if name != "memory"}
    assert {*declared} - {"syncblocks"} == expected
    for name, setting in (("tap-syncblocks-postgres", "url"), ("target-syncblocks-postgres", "schema")):
        script = Path(sys.executable).with_name(name)
        done = subprocess.run([str(script), "--about", "--format=json"], capture_output=True, text=True, check=True)
        about = json.loads(done.stdout)
        assert about["name"] == name
        assert setting in about["settings"]["properties"]
        assert {"about", "batch", "stream-maps"} <= set(about["capabilities"])


def test_an_unknown_connector_is_named(tmp_path: Path, run_cli: RunCLI) -> None:
    done = run_cli(["tap", "postgrse", "--config", "config.json"], tmp_path)
    assert done.returncode == 2
    assert "did you mean 'postgres'" in done.stderr


@pytest.mark.full
def test_a_normal_run_does_not_import_singer_sdk(tmp_path: Path) -> None:
    program = (
        "import sys, syncblocks.sync.cli, syncblocks.connectors.singer.target, syncblocks.connectors.singer.source; "
        "syncblocks.sync.cli.invoke(['plan', '--json', 'nothing.yaml']); sys.exit('singer_sdk' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.one_of
@pytest.mark.parametrize("place", ["stdin", "--input"])
def test_messages_are_utf8_whatever_the_locale_says(shop: Path, run_cli: RunCLI, place: str) -> None:
    messages = [
        {"type": "SCHEMA", "stream": "s", "schema": {"properties": {"v": {"type": "string"}}}, "key_properties": []},
        {"type": "RECORD", "stream": "s", "record": {"v": "é😀"}},
    ]
    text = "".join(json.dumps(message, ensure_ascii=False) + "\n" for message in messages)
    (shop / "messages").write_text(text, "utf-8")
    arguments = ["target", "sqlite", "--config", "config.json"]
    arguments, stdin = ([*arguments, "--input", "messages"], "") if place == "--input" else (arguments, text)
    locale = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "latin-1"}
    done = run_cli(arguments, shop, locale, stdin=stdin, is_warm=False)
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(shop / "shop.db")) as database:
        assert database.execute("select v from s").fetchall() == [("é😀",)]
