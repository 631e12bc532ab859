"""File destinations: what counts after a crash, who may commit, and how types survive text."""

from __future__ import annotations

import gzip
import io
import json
import math
import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from connectors.errors import ConnectorConfigError, FatalConnectorError, TakenOver
from connectors.files.destination import CSVDestination, FileDestination, JSONLDestination, ParquetDestination
from connectors.files.manifest import MAX_NAME_BYTES, quote, unquote_name
from connectors.files.parquet_format import ParquetFormat
from connectors.files.source import CSVSource, FileSource, JSONLSource, ParquetSource
from connectors.stream import Checkpoint, ConflictMethod, Event, LedgerRow, Stream
from tests.zygote import Zygote

from . import files_load, files_readback
from .files_load import batch_of, key_of, load_of, run

FINAL = Checkpoint(bookmark={"n": 1}, is_final=True)
FORMATS: dict[str, tuple[type[FileDestination], type[FileSource]]] = {
    "csv": (CSVDestination, CSVSource),
    "jsonl": (JSONLDestination, JSONLSource),
    "parquet": (ParquetDestination, ParquetSource),
}
every_format = pytest.mark.parametrize("name", FORMATS)
PAIRS = list[tuple[int, str | None]]


def destination_of(name: str, folder: Path, **config: Any) -> FileDestination:
    return FORMATS[name][0]({"path": str(folder), **config}, folder)


def looked_at(name: str, folder: Path) -> PAIRS:
    """What another reader sees."""
    records = files_readback.read_table(folder, "orders", f".{name}", files_load.SCHEMA) or []
    return sorted((record["id"], record["name"]) for record in records)


def read(name: str, folder: Path | str, table: str = "orders") -> list[dict[str, Any]]:
    """What our own source sees."""
    source = FORMATS[name][1]({"path": str(folder)}, Path.cwd())
    (stream,) = [stream for stream in source.discover() if stream.name == table]
    batches = [event for _, event in source.read([stream], {}) if isinstance(event, pa.RecordBatch)]
    return [record for batch in batches for record in batch.to_pylist()]


def row_of(destination: FileDestination) -> LedgerRow:
    (row,) = destination.describe(["orders"])["orders"].ledger
    return row


# A crash at every step


def crash(zygote: Zygote, name: str, folder: Path, disposition: str, number: int, **how: Any) -> int:
    arguments = (name, str(folder), disposition, str(number))
    return zygote.module("tests.connectors.files_load", *arguments, **how).returncode


def expected(before: PAIRS, number: int, disposition: str, parts: int) -> PAIRS:
    """What the table holds after so many commits of one run."""
    sent: list[PAIRS] = [[(1, f"a{number}"), (10 * number, "b")], [(10 * number + 1, "c")]]
    if disposition == "replace":
        return sorted(before if not parts else [record for part in sent for record in part])
    records = before
    for part in sent[:parts]:
        keys = {record[0] for record in part} if disposition == "merge" else set()
        records = [record for record in records if record[0] not in keys] + part
    return sorted(records)


@pytest.mark.slow
@pytest.mark.parametrize("disposition", ["replace", "append", "merge"])
@pytest.mark.parametrize("name", ["csv", "parquet"])
def test_a_kill_at_every_failpoint_leaves_what_the_ledger_says(
    zygote: Zygote, tmp_path: Path, name: str, disposition: str
) -> None:
    first = tmp_path / "first"
    trace = tmp_path / "trace"
    assert crash(zygote, name, first, "append" if disposition == "append" else "replace", 1) == 0
    before = looked_at(name, first)
    assert crash(zygote, name, _copy(first, tmp_path / "traced"), disposition, 2, trace=trace) == 0
    points = trace.read_text().split()
    assert len(points) > 10
    for place, point in enumerate(points):
        folder = _copy(first, tmp_path / str(place))
        assert crash(zygote, name, folder, disposition, 2, failpoint=f"{point}:kill") == -9, point
        destination = destination_of(name, folder)
        row = row_of(destination)
        committed = 0
        if row.token == "token2" and row.committed_at and row.bookmark == {"part": 1}:
            committed = 1
        elif row.completed_by == "token2:1":
            committed = 1 if disposition == "replace" else 2
        after = expected(before, 2, disposition, committed)
        assert sorted((r["id"], r["name"]) for r in read(name, folder)) == after, f"{point}: our source"
        row = destination.take_over(key_of(), token="recovery", owner="recovery")
        destination.drop_staging(["token2"])
        assert looked_at(name, folder) == after, f"{point}: after recovery"
        assert files_readback.tables(folder) == {"orders"}, point
        run(destination, load_of(disposition, "token3"), *files_load.generation(3, disposition))
        assert looked_at(name, folder) == expected(after, 3, disposition, 1 if disposition == "replace" else 2), point


def _copy(folder: Path, target: Path) -> Path:
    import shutil

    shutil.copytree(folder, target)
    return target


@every_format
def test_a_kill_between_the_manifest_and_the_move_is_mended_by_the_next_load(
    zygote: Zygote, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "out"
    run(destination_of(name, folder), load_of("replace", "t0"), batch_of((9, "old")), FINAL)
    assert crash(zygote, name, folder, "replace", 1, failpoint="files.move.before:1:kill") == -9
    assert looked_at(name, folder) == [(9, "old")], "not moved yet"
    assert [record["id"] for record in read(name, folder)] == [1, 10, 11], "but committed"
    run(destination_of(name, folder), load_of("append", "t2"), batch_of((5, "e")), FINAL)
    assert [pair[0] for pair in looked_at(name, folder)] == [1, 5, 10, 11]


@every_format
def test_a_full_disk_keeps_the_former_table_and_names_the_file(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = destination_of(name, tmp_path)
    run(destination, load_of("replace", "t0"), batch_of((9, "old")), FINAL)
    monkeypatch.setattr("connectors.failpoints._ON", True)
    monkeypatch.setattr("connectors.failpoints._ARMED", "files.replace.inside:2:enospc")
    monkeypatch.setattr("connectors.failpoints._hits", __import__("collections").Counter())
    with pytest.raises(FatalConnectorError, match=r"orders\.\w+\.json.*space"):
        run(destination, load_of("replace", "t1"), batch_of((1, "new")), FINAL)
    assert looked_at(name, tmp_path) == [(9, "old")]
    assert files_readback.tables(tmp_path) == {"orders"}


# Tokens


@every_format
def test_a_takeover_during_a_load_fences_it_off(tmp_path: Path, name: str) -> None:
    destination, other = destination_of(name, tmp_path), destination_of(name, tmp_path)

    def events() -> Iterator[Event]:
        yield batch_of((1, "a"))
        other.take_over(key_of(), token="second", owner="run 12 on host-3")
        yield FINAL

    load = load_of("append", "first")
    destination.take_over(load.key, token="first", owner="run 11", source="tests://")
    with pytest.raises(TakenOver, match="run 12 on host-3"):
        list(destination.load(load, events()))
    assert looked_at(name, tmp_path) == []
    assert row_of(destination).token == "second"
    assert files_readback.tables(tmp_path) == set()


def _append(folder: str, stream: str, times: int) -> None:
    for number in range(times):
        load = load_of("append", f"{stream}{number}", key=key_of(stream=stream))
        run(destination_of("parquet", Path(folder)), load, batch_of((number, stream)), FINAL)


def test_processes_that_append_to_one_table_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append, args=(str(tmp_path), stream, 8)) for stream in ("left", "right")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert looked_at("parquet", tmp_path) == sorted((n, s) for n in range(8) for s in ("left", "right"))


def test_a_merge_that_another_commit_overtakes_is_worked_out_anew(tmp_path: Path) -> None:
    destination = destination_of("csv", tmp_path)
    run(destination, load_of("merge", "t0"), batch_of((1, "old"), (2, "old")), FINAL)
    threads = []
    for stream, number in (("left", 1), ("right", 2)):
        load = load_of("merge", stream, key=key_of(stream=stream))
        arguments = (destination, load, batch_of((number, stream)), FINAL)
        threads.append(threading.Thread(target=run, args=arguments))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert looked_at("csv", tmp_path) == [(1, "left"), (2, "right")]


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


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"version": 99}', b'{"version": 1, "table": 5}', b"\xff\xfe"])
def test_a_damaged_manifest_is_never_taken_for_an_empty_one(tmp_path: Path, damage: bytes) -> None:
    destination = destination_of("csv", tmp_path)
    run(destination, load_of("append", "a"), batch_of((1, "a")), FINAL)
    (tmp_path / files_readback.LEDGER / "orders.csv.json").write_bytes(damage)
    for look in (
        lambda: destination.describe(["orders"]),
        lambda: destination.take_over(key_of(), token="b", owner=""),
        lambda: read("csv", tmp_path),
    ):
        with pytest.raises(FatalConnectorError, match=r"orders\.csv\.json is damaged"):
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
    load = type(load)(key=load.key, stream=stream, write_disposition=load.write_disposition, token="t", run="r")
    batch = pa.RecordBatch.from_pylist(
        [{"a": "1:", "b": "x"}, {"a": "1", "b": ":x"}, {"a": "", "b": "1:x"}], schema=schema
    )
    run(destination_of("csv", tmp_path), load, batch, FINAL)
    assert len(read("csv", tmp_path)) == 3


def test_ignore_keeps_what_is_there_and_takes_the_last_of_what_is_new(tmp_path: Path) -> None:
    destination = destination_of("parquet", tmp_path)
    run(destination, load_of("merge", "a"), batch_of((1, "old")), FINAL)
    load = load_of("merge", "b", conflict_method=ConflictMethod.IGNORE)
    run(destination, load, batch_of((1, "new"), (2, "first"), (2, "last")), FINAL)
    assert looked_at("parquet", tmp_path) == [(1, "old"), (2, "last")]


# Columns


@every_format
def test_a_wider_type_widens_the_table_and_a_value_that_does_not_fit_is_refused(tmp_path: Path, name: str) -> None:
    destination = destination_of(name, tmp_path)

    def send(token: str, kind: pa.DataType, value: Any) -> Any:
        batch = pa.record_batch({"id": pa.array([1]), "v": pa.array([value], kind)})
        return run(destination, load_of("append", token, batch.schema), batch, FINAL)

    send("a", pa.int32(), 7)
    (commit,) = send("b", pa.int64(), 2**40)
    assert [dict(change) for change in commit.schema_changes] == [
        {"column": "v", "change": "changed", "before": "int32", "after": "int64"}
    ]
    send("c", pa.int16(), 3)
    with pytest.raises(FatalConnectorError, match="'v'"):
        send("d", pa.date32(), date(2024, 1, 1))
    send("e", pa.float64(), 0.5)
    assert [record["v"] for record in read(name, tmp_path)] == [7, 2**40, 3, 0.5]
    with pytest.raises(FatalConnectorError, match="'v'"):
        send("f", pa.int64(), 2**53 + 1)


@pytest.mark.parametrize("name", ["csv", "jsonl"])
@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.timestamp("s")])
def test_years_that_text_cannot_keep_are_refused(tmp_path: Path, name: str, kind: pa.DataType) -> None:
    far = (
        pa.array([10**17 * 10], pa.int64()).cast(kind)
        if kind.unit == "us"
        else pa.array([10**12], pa.int64()).cast(kind)
    )
    batch = pa.record_batch({"id": pa.array([1]), "v": far})
    with pytest.raises(FatalConnectorError, match="'v'"):
        run(destination_of(name, tmp_path), load_of("append", "a", batch.schema), batch, FINAL)
    assert files_readback.tables(tmp_path) == set()


# Round trips

MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).filter(lambda m: (m.month, m.day) != (2, 29))  # noqa: DTZ001 -- naive on purpose
TYPES: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.string(), st.text(st.characters(exclude_categories=["Cs"]), max_size=12)),
    (pa.large_string(), st.text('",\n\r\\ \t\0', max_size=5)),
    (pa.int8(), st.integers(-128, 127)),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.float64(), st.floats()),
    (pa.float32(), st.floats(width=32)),
    (pa.bool_(), st.booleans()),
    (pa.decimal128(38, 18), st.decimals(-(10**19), 10**19, places=18)),
    (pa.decimal256(60, 2), st.decimals(-(10**50), 10**50, places=2)),
    (pa.date32(), st.dates()),
    (pa.time64("us"), st.times()),
    (pa.timestamp("us"), MOMENTS),
    (pa.timestamp("us", "UTC"), MOMENTS.map(lambda moment: moment.replace(tzinfo=UTC))),
    (
        pa.timestamp("ms", "Europe/Berlin"),
        MOMENTS.map(lambda moment: moment.replace(year=2000 + moment.year % 50, microsecond=0, tzinfo=UTC)),
    ),
    (pa.duration("us"), st.timedeltas(timedelta(days=-(10**5)), timedelta(days=10**5))),
    (pa.binary(), st.binary(max_size=12)),
    (pa.binary(4), st.binary(min_size=4, max_size=4)),
    (
        pa.month_day_nano_interval(),
        st.tuples(st.integers(-99, 99), st.integers(-99, 99), st.integers(-(10**12), 10**12)),
    ),
    (pa.list_(pa.string()), st.lists(st.none() | st.text('",\n\\é', max_size=4), max_size=3)),
    (pa.list_(pa.float64()), st.lists(st.none() | st.floats(), max_size=3)),
    (
        pa.map_(pa.string(), pa.int64()),
        st.dictionaries(st.text("ab", max_size=2), st.integers(0, 9)).map(lambda d: list(d.items())),
    ),
    (
        pa.struct([("at", pa.timestamp("us", "UTC")), ("b", pa.binary()), ("n", pa.decimal128(10, 2))]),
        st.fixed_dictionaries(
            {
                "at": st.none() | MOMENTS.map(lambda moment: moment.replace(tzinfo=UTC)),
                "b": st.binary(max_size=4),
                "n": st.decimals(-1000, 1000, places=2),
            }
        ),
    ),
]
COLUMNS = st.sampled_from(TYPES).flatmap(
    lambda pair: st.tuples(st.just(pair[0]), st.lists(st.none() | pair[1], min_size=1, max_size=5))
)


@every_format
@example(columns=[(pa.float64(), [math.inf, -0.0])], number=0)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(columns=st.lists(COLUMNS, min_size=1, max_size=4), number=st.integers(0, 2**32))
def test_what_goes_in_comes_out_in_value_and_type(
    tmp_path: Path, name: str, columns: list[tuple[pa.DataType, list[Any]]], number: int
) -> None:
    count = min(len(values) for _, values in columns)
    batch = pa.record_batch(
        {f"c {place}": pa.array(values[:count], kind) for place, (kind, values) in enumerate(columns)}
    )
    folder = tmp_path / str(number)
    load = load_of("replace", "t", batch.schema)
    run(destination_of(name, folder), load, batch, FINAL)
    source = FORMATS[name][1]({"path": str(folder)}, folder)
    (stream,) = source.discover()
    assert stream.schema.equals(batch.schema)
    (found,) = [event for _, event in source.read([stream], {}) if isinstance(event, pa.RecordBatch)]
    assert repr(found.to_pylist()) == repr(batch.to_pylist())


def test_numbers_that_json_lacks_are_texts_and_come_back(tmp_path: Path) -> None:
    batch = pa.record_batch({"v": pa.array([math.nan, math.inf, -math.inf, 1.5])})
    run(destination_of("jsonl", tmp_path), load_of("replace", "t", batch.schema), batch, FINAL)
    lines = (tmp_path / "orders.jsonl").read_text().splitlines()
    assert [json.loads(line)["v"] for line in lines] == ["NaN", "Infinity", "-Infinity", 1.5]
    foreign = tmp_path / "foreign.jsonl"
    foreign.write_text("\n".join(lines))
    assert [repr(record["v"]) for record in read("jsonl", foreign, "foreign")] == ["nan", "inf", "-inf", "1.5"]


def test_json_columns_are_json_in_json_lines(tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.int64()), ("doc", pa.json_())])
    texts = ['{"a": [1,\n 2]}', "null", None, "12345678901234567890"]
    batch = pa.record_batch([pa.array([1, 2, 3, 4]), pa.array(texts, pa.json_())], schema=schema)
    run(destination_of("jsonl", tmp_path), load_of("replace", "t", schema), batch, FINAL)
    lines = (tmp_path / "orders.jsonl").read_text().splitlines()
    assert [json.loads(line)["doc"] for line in lines] == [{"a": [1, 2]}, None, None, 12345678901234567890]
    broken = pa.record_batch([pa.array([1]), pa.array(["{"], pa.json_())], schema=schema)
    with pytest.raises(FatalConnectorError, match="'doc'"):
        run(destination_of("jsonl", tmp_path), load_of("replace", "u", schema), broken, FINAL)


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


@settings(max_examples=500)
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
    assert len(quoted) == MAX_NAME_BYTES - 5 or "~" in quoted or unquote_name(quoted) == name


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
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConnectorConfigError, match="permission"):
        destination_of("csv", tmp_path / "new").check()
    assert not (tmp_path / "new").exists()


def test_no_other_wire_is_taken(tmp_path: Path) -> None:
    with pytest.raises(ConnectorConfigError, match="pgcopy"):
        list(destination_of("csv", tmp_path).load(load_of("append", "t"), iter([]), wire="pgcopy"))


def test_wide_columns_of_a_parquet_file_get_neither_dictionary_nor_statistics() -> None:
    sink = io.BytesIO()
    writer = ParquetFormat().writer(sink, pa.schema([("id", pa.int64()), ("doc", pa.string())]))
    batch = pa.record_batch({"id": pa.array([1, 2]), "doc": pa.array(["x" * (2 << 20)] * 2)})
    writer.write(batch)
    writer.close()
    narrow, wide = (pyarrow.parquet.read_metadata(sink).row_group(0).column(place) for place in range(2))
    assert (narrow.is_stats_set, wide.is_stats_set) == (True, False)
    assert "RLE_DICTIONARY" in narrow.encodings
    assert "RLE_DICTIONARY" not in wide.encodings
    assert pyarrow.parquet.read_table(sink).to_batches() == [batch]
