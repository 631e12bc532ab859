"""File destinations: what others see of a table, strangers' files, merges, names and settings."""

from __future__ import annotations

import gzip
import json
import os
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import fsspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncblocks.connectors.errors import ConnectorConfigError, FatalConnectorError, TakenOver
from syncblocks.connectors.files.csv_source import CSVSource
from syncblocks.connectors.files.destination import CSVDestination
from syncblocks.connectors.files.manifest import MAX_NAME_BYTES, file_stem, quote
from syncblocks.connectors.stream import Stream
from syncblocks.connectors.write_spec import ConflictMethod
from tests.connectors.files import files_readback
from tests.connectors.files.files_load import batch_of, key_of, load_of, run
from tests.connectors.files.files_pair import FINAL, destination_of, every_format, looked_at, read

# What others see


def test_a_plain_glob_sees_the_table(tmp_path: Path) -> None:
    destination = destination_of("parquet", tmp_path)
    for token in ("a", "b", "c"):
        run(destination, load_of("append", token), batch_of((1, token)), FINAL)
    with closing(duckdb.connect()) as connection:
        query = f"select count(*), count(distinct name) from read_parquet('{tmp_path}/orders/*.parquet')"
        assert connection.execute(query).fetchall() == [(3, 3)]


def test_our_source_takes_only_what_the_manifest_names(tmp_path: Path) -> None:
    destination = destination_of("csv", tmp_path)
    run(destination, load_of("append", "a"), batch_of((1, "a")), FINAL)
    (tmp_path / "orders" / "part-stray.csv").write_text("id,name\n7,stray\n")
    (tmp_path / "orders.csv").write_text("id,name\n8,stray\n")
    (tmp_path / "foreign.csv").write_text("x\n1\n")
    for path in (tmp_path, tmp_path / "orders", tmp_path / "orders" / "*.csv", tmp_path / "ord*"):
        assert read("csv", path) == [{"id": 1, "name": "a"}]
    names = [stream.name for stream in CSVSource({"path": str(tmp_path)}, tmp_path).discover()]
    assert names == ["foreign", "orders"]


def test_a_table_changes_between_one_file_and_a_folder_of_parts(tmp_path: Path) -> None:
    destination = destination_of("jsonl", tmp_path)
    run(destination, load_of("replace", "a"), batch_of((1, "a")), FINAL)
    assert [path.name for path in tmp_path.glob("*.jsonl")] == ["orders.jsonl"]
    run(destination, load_of("append", "b"), batch_of((2, "b")), FINAL)
    assert not list(tmp_path.glob("*.jsonl"))
    assert looked_at("jsonl", tmp_path) == [(1, "a"), (2, "b")]
    (tmp_path / "orders.jsonl").write_text("not ours any more\n")
    run(destination, load_of("append", "c"), batch_of((3, "c")), FINAL)
    (tmp_path / "orders.jsonl").unlink()
    assert looked_at("jsonl", tmp_path) == [(1, "a"), (2, "b"), (3, "c")]
    run(destination, load_of("replace", "d"), batch_of((4, "d")), FINAL)
    assert not (tmp_path / "orders").exists()


@pytest.mark.parametrize(
    ("name", "compression", "start"),
    [
        ("csv", "gzip", b"\x1f\x8b"),
        ("csv", "zstd", b"\x28\xb5\x2f\xfd"),
        ("jsonl", "gzip", b"\x1f\x8b"),
        ("parquet", "none", b"PAR1"),
        ("parquet", "snappy", b"PAR1"),
    ],
)
def test_files_are_compressed_as_told(tmp_path: Path, name: str, compression: str, start: bytes) -> None:
    destination = destination_of(name, tmp_path, compression=compression)
    for disposition in ("replace", "append", "merge"):
        run(destination, load_of(disposition, disposition), batch_of((1, "a")), FINAL)
    (path,) = [path for path in tmp_path.glob("orders*") if path.is_file()]
    assert path.read_bytes().startswith(start)
    assert read(name, tmp_path) == [{"id": 1, "name": "a"}]
    if compression == "gzip":
        with gzip.open(path, "rt") as file:
            assert "a" in file.read()


def test_a_new_compression_takes_old_parts_along(tmp_path: Path) -> None:
    run(destination_of("csv", tmp_path), load_of("replace", "a"), batch_of((1, "a")), FINAL)
    destination = destination_of("csv", tmp_path, compression="gzip")
    run(destination, load_of("append", "b"), batch_of((2, "b")), FINAL)
    assert [record["id"] for record in read("csv", tmp_path)] == [1, 2]
    run(destination, load_of("replace", "c"), batch_of((3, "c")), FINAL)
    assert sorted(path.name for path in tmp_path.glob("orders*")) == ["orders.csv.gz"]


# Strangers


@every_format
def test_a_strangers_table_is_described_and_only_replaced(tmp_path: Path, name: str) -> None:
    run(destination_of(name, tmp_path), load_of("replace", "a"), batch_of((1, "a")), FINAL)
    for path in (tmp_path / files_readback.LEDGER).iterdir():
        if path.is_file():
            path.unlink()
    destination = destination_of(name, tmp_path)
    state = destination.describe(["orders"])["orders"]
    assert state.schema is not None
    assert (state.schema.names, state.ledger, state.stream_name) == (["id", "name"], (), "orders")
    for disposition in ("append", "merge"):
        with pytest.raises(FatalConnectorError, match="replace"):
            run(destination, load_of(disposition, "b"), batch_of((2, "b")), FINAL)
    run(destination, load_of("replace", "c"), batch_of((3, "c")), FINAL)
    assert looked_at(name, tmp_path) == [(3, "c")]


def test_files_deleted_by_hand_are_no_table(tmp_path: Path) -> None:
    destination = destination_of("csv", tmp_path)
    run(destination, load_of("append", "a"), batch_of((1, "a")), FINAL)
    for path in (tmp_path / "orders").iterdir():
        path.unlink()
    assert destination.describe(["orders"])["orders"].schema is None
    run(destination, load_of("append", "b"), batch_of((2, "b")), FINAL)
    assert looked_at("csv", tmp_path) == [(2, "b")]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (b"", "is damaged"),
        (b"{", "is damaged"),
        (b"[]", "is damaged"),
        (b'{"version": "1"}', "is damaged"),
        (b'{"version": 1, "table": 5}', "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (
            b'{"version": 99}',
            "was written by a newer version of syncblocks: use that version",
        ),
    ],
)
def test_a_damaged_manifest_is_never_taken_for_an_empty_one(tmp_path: Path, damage: bytes, said: str) -> None:
    destination = destination_of("csv", tmp_path)
    run(destination, load_of("append", "a"), batch_of((1, "a")), FINAL)
    (tmp_path / files_readback.LEDGER / "orders.csv.json").write_bytes(damage)
    for look in (
        lambda: destination.describe(["orders"]),
        lambda: destination.take_over(key_of(), token="b", owner=""),
        lambda: read("csv", tmp_path),
    ):
        with pytest.raises(FatalConnectorError, match=rf"orders\.csv\.json {said}"):
            look()


@pytest.mark.parametrize("name", ["../secret.csv", "/etc/passwd", "a/../../secret.csv", "a\\b", "", "./x", "a//b"])
@pytest.mark.parametrize("key", ["name", "moved_from", "dead"])
def test_a_manifest_cannot_name_files_outside_of_its_folder(tmp_path: Path, name: str, key: str) -> None:
    folder = tmp_path / "out"
    run(destination_of("csv", folder), load_of("append", "a"), batch_of((1, "a")), FINAL)
    (tmp_path / "secret.csv").write_text("id,name\n7,secret\n")
    path = folder / files_readback.LEDGER / "orders.csv.json"
    document = json.loads(path.read_text())
    if key == "dead":
        document["dead"] = [name]
    else:
        document["files"][0][key] = name
    path.write_text(json.dumps(document))
    with pytest.raises(FatalConnectorError):
        read("csv", folder)
    with pytest.raises(FatalConnectorError):
        destination_of("csv", folder).take_over(key_of(), token="b", owner="")
    assert (tmp_path / "secret.csv").exists()


# Merge


@every_format
def test_merge_on_every_type_of_key(tmp_path: Path, name: str) -> None:
    keys: list[tuple[pa.DataType, list[Any]]] = [
        (pa.int16(), [1, 2, 3]),
        (pa.string(), ["a", "", "ä"]),
        (pa.decimal128(12, 2), [Decimal("1.00"), Decimal("1.10"), Decimal("-1.00")]),
        (pa.timestamp("us", "UTC"), [datetime(2024, 1, 1, 0, 0, n, tzinfo=UTC) for n in range(3)]),
        (pa.date32(), [date(2024, 1, n) for n in (1, 2, 3)]),
        (pa.uuid(), [bytes([n]) * 16 for n in (1, 2, 3)]),
        (pa.binary(), [b"", b"\0", b"\xff"]),
        (pa.bool_(), [True, False]),
    ]
    destination = destination_of(name, tmp_path)
    for place, (kind, values) in enumerate(keys):
        schema = pa.schema([pa.field("id", kind, nullable=False), ("v", pa.int64())])
        table = f"t{place}"
        for number, sent in ((1, values[:2]), (2, values[1:])):
            column = (
                pa.array(sent, kind.storage_type).cast(kind) if isinstance(kind, pa.UuidType) else pa.array(sent, kind)
            )
            batch = pa.record_batch([column, pa.array([number] * len(sent))], schema=schema)
            load = load_of("merge", f"token{number}", schema, key=key_of(table))
            run(destination, load, batch, FINAL)
        assert [record["v"] for record in read(name, tmp_path, table)] == [1] + [2] * (len(values) - 1), kind


@every_format
def test_a_record_without_a_key_is_refused(tmp_path: Path, name: str) -> None:
    batch = pa.record_batch({"id": pa.array([1, None]), "name": pa.array(["a", "b"])})
    with pytest.raises(FatalConnectorError, match="'id'"):
        run(destination_of(name, tmp_path), load_of("merge", "a", batch.schema), batch, FINAL)


def test_parts_of_composite_keys_do_not_run_into_each_other(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("a", pa.string(), False), pa.field("b", pa.string(), False)])
    load = load_of("merge", "t", schema)
    stream = Stream(name="s", schema=schema, key_properties=("a", "b"))
    load = type(load)(key=load.key, stream=stream, write=load.write, token="t", run="r")
    batch = pa.RecordBatch.from_pylist(
        [{"a": "1:", "b": "x"}, {"a": "1", "b": ":x"}, {"a": "", "b": "1:x"}], schema=schema
    )
    run(destination_of("csv", tmp_path), load, batch, FINAL)
    assert len(read("csv", tmp_path)) == 3


def test_ignore_keeps_what_is_there_and_takes_the_first_of_what_is_new(tmp_path: Path) -> None:
    destination = destination_of("parquet", tmp_path)
    run(destination, load_of("merge", "a"), batch_of((1, "old")), FINAL)
    load = load_of("merge", "b", conflict_method=ConflictMethod.IGNORE)
    run(destination, load, batch_of((1, "new"), (2, "first"), (2, "last")), FINAL)
    assert looked_at("parquet", tmp_path) == [(1, "old"), (2, "first")]


# Names

HOSTILE = [
    "a/b", "../up", "..", ".", ".hidden", "_syncblocks_ledger", "a\\b", "nul\0", "new\nline", "dot.name", "a=b", "%2F",
    "ü", "e\u0301", "\u202e", "x" * 300, "é" * 100, "CON", "-rf", "*", "?", "[a]", "~", "a.csv", "analytics.dim_users",
]  # fmt: skip


def test_hostile_table_names_are_files_in_the_folder_and_read_back(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    destination = destination_of("csv", folder)
    for place, table in enumerate(HOSTILE):
        disposition = ("append", "replace")[place % 2]
        run(destination, load_of(disposition, "t", key=key_of(table)), batch_of((place, "x")), FINAL)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    for place, table in enumerate(HOSTILE):
        assert read("csv", folder, table) == [{"id": place, "name": "x"}], table
    assert set(destination.describe(HOSTILE)) == set(HOSTILE)


def test_files_are_called_as_their_table_and_found_as_an_earlier_version_called_them(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    destination = destination_of("csv", folder)
    for name in ("Order Details", "Größe 1/2", "_x. "):
        run(destination, load_of("replace", "t", key=key_of(name)), batch_of((1, "x")), FINAL)
    found = {path.name for path in folder.glob("*.csv")}
    assert found == {"Order Details.csv", "Größe 1%2F2.csv", "%5Fx.%20.csv"}
    manifest = folder / "_syncblocks_ledger" / "Order%20Details.csv.json"
    manifest.write_text(manifest.read_text().replace("Order Details.csv", "Order%20Details.csv"))
    (folder / "Order Details.csv").rename(folder / "Order%20Details.csv")
    with closing(CSVSource({"path": "out"}, tmp_path)) as source:
        assert "Order Details" in {stream.name for stream in source.discover()}
    run(destination, load_of("append", "u", key=key_of("Order Details")), batch_of((2, "y")), FINAL)
    assert [record["id"] for record in read("csv", folder, "Order Details")] == [1, 2]


@pytest.mark.full
@settings(max_examples=500, deadline=None)
@given(st.text(min_size=1))
def test_quoted_names_are_safe_short_and_reversible(name: str) -> None:
    try:
        quoted = quote(name)
    except FatalConnectorError:
        with pytest.raises(UnicodeEncodeError):
            name.encode()
        return
    assert len(quoted) <= MAX_NAME_BYTES
    assert quoted not in ("", ".", "..")
    assert not set(quoted) & set('/\\\0:*?"<>|\n ')
    assert not quoted.startswith((".", "_"))
    assert len(quoted) == MAX_NAME_BYTES - 5 or "~" in quoted or unquote(quoted, errors="replace") == name
    stem = file_stem(name)
    assert len(stem.encode()) <= MAX_NAME_BYTES
    assert stem.strip(" ") == stem
    assert not set(stem) & set('/\\\0:*?"<>|\n')
    assert not stem.startswith((".", "_"))
    assert "~" in stem or unquote(stem, errors="replace") == name


# Object stores


def test_object_stores_keep_the_same_promises(tmp_path: Path) -> None:
    root = f"memory://bucket{tmp_path.name}/out"
    destination = CSVDestination({"path": root}, tmp_path)
    destination.check()
    assert destination.describe(["orders"])["orders"].schema is None
    run(destination, load_of("append", "a"), batch_of((1, "a")), FINAL)
    run(destination, load_of("append", "b"), batch_of((2, "b")), FINAL)
    run(destination, load_of("merge", "c"), batch_of((2, "c"), (3, "c")), FINAL)
    assert read("csv", root) == [{"id": 1, "name": "a"}, {"id": 2, "name": "c"}, {"id": 3, "name": "c"}]
    with fsspec.open(f"{root}/orders.csv", "rt") as file:
        assert file.read() == 'id,name\n1,"a"\n2,"c"\n3,"c"\n'
    with pytest.raises(TakenOver):
        list(destination.load(load_of("append", "a"), iter([batch_of((9, "zombie")), FINAL])))
    assert len(read("csv", root)) == 3
    fs = fsspec.filesystem("memory")
    assert not [name for name in fs.find(root.removeprefix("memory:/")) if "staging" in name]


# Settings


def test_a_file_as_destination_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConnectorConfigError, match="folder"):
        destination_of("csv", tmp_path / "file").check()


def test_an_unwritable_folder_is_refused_by_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    with pytest.raises(ConnectorConfigError, match="permission"):
        destination_of("csv", tmp_path / "new").check()
    assert not (tmp_path / "new").exists()


def test_no_other_wire_is_taken(tmp_path: Path) -> None:
    with pytest.raises(ConnectorConfigError, match="pgcopy"):
        list(destination_of("csv", tmp_path).load(load_of("append", "t"), iter([]), wire="pgcopy"))


# Links


def test_no_link_leads_a_write_out_of_the_folder(tmp_path: Path) -> None:
    folder, outside = tmp_path / "out", tmp_path / "outside"
    for each in (folder / "_syncblocks_ledger", outside / "orders"):
        each.mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (folder / "_syncblocks_ledger" / ".orders.csv.json.tmp").symlink_to(victim)
    destination = destination_of("csv", folder)
    run(destination, load_of("replace", "a"), batch_of((1, "a")), FINAL)
    assert victim.read_text() == "mine"
    (folder / "orders").symlink_to(outside / "orders")
    with pytest.raises(ConnectorConfigError, match="outside of"):  # a second part would go into a folder `orders`
        run(destination, load_of("append", "b"), batch_of((2, "b")), FINAL)
    assert list((outside / "orders").iterdir()) == []


def test_a_ledger_or_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    folder, outside = tmp_path / "out", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "_syncblocks_ledger").symlink_to(outside)
    with pytest.raises(ConnectorConfigError, match="outside of"):
        run(destination_of("csv", folder), load_of("replace", "a"), batch_of((1, "a")), FINAL)
    assert list(outside.iterdir()) == []


def test_what_a_killed_process_left_of_a_manifest_is_removed(tmp_path: Path) -> None:
    (tmp_path / "_syncblocks_ledger").mkdir()
    left = tmp_path / "_syncblocks_ledger" / ".orders.csv.json.0123456789abcdef.tmp"
    left.touch()
    run(destination_of("csv", tmp_path), load_of("replace", "a"), batch_of((1, "a")), FINAL)
    assert not left.exists()
