"""File sources: what a path means, how files are read, and what comes of anything at all."""

from __future__ import annotations

import ctypes
import gzip
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncblocks.connectors.errors import ConnectorConfigError, ConnectorError, FatalConnectorError, Interrupted
from syncblocks.connectors.files.csv_source import CSVSource
from syncblocks.connectors.files.jsonl_source import JSONLSource
from syncblocks.connectors.files.local import LocalStorage
from syncblocks.connectors.files.parquet_source import ParquetSource
from syncblocks.connectors.files.source import FileSource
from syncblocks.connectors.incremental.bookmarks import values
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.stream import Checkpoint, Stream
from syncblocks.connectors.struct_helpers import replace
from tests.connectors.files.files_pair import only, records_of, source_of, types_of

# Paths


def test_each_file_and_each_subfolder_of_a_folder_is_a_stream(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv.gz", "notes.txt", ".hidden.csv", "_tmp.csv", "sub/2.csv", "sub/1.csv", "empty/x.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(b"n\n1\n") if name.endswith("gz") else f"n\n{len(name)}\n".encode())
    source = source_of(tmp_path)
    assert [stream.name for stream in source.discover()] == ["a", "b", "sub"]
    assert [stream.name for stream in source_of(tmp_path / "*.csv").discover()] == ["_tmp", "b"]
    assert [stream.name for stream in source_of(tmp_path / "notes.txt").discover()] == ["notes"]


def test_two_files_of_one_stem_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n\n1\n")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"n\n1\n"))
    with pytest.raises(ConnectorConfigError, match=r"a\.csv.*a\.csv.*'a'"):
        source_of(tmp_path).discover()


@pytest.mark.parametrize("name", ["missing.csv", "*.csv", "missing/x.csv"])
def test_a_path_where_nothing_is_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConnectorConfigError, match="path"):
        source_of(tmp_path / name).check()


@pytest.mark.parametrize(
    ("kind", "name", "content", "path", "way_out"),
    [
        (CSVSource, "a.csv", "a,b\n1,2,3\n", "a.csv", r"3 fields for 2 columns.*missing column in the header"),
        (
            CSVSource,
            "a.csv",
            "a,b\n1\n",
            "a.csv",
            r"1 fields for 2 columns: '1'; `config.short_rows: null` .*; `on_rejected: keep`",
        ),
        (CSVSource, "a.csv.zip", "PK\3\4", "a.csv.zip", r"a\.csv\.zip: is not a zip archive"),
        (JSONLSource, "a.jsonl", '[{"n": 1},\n', "a.jsonl", r"a\.jsonl:1: .*`connector: json` reads a document"),
        (JSONLSource, "a.json", '{"n": 1}\n', ".", r"no file that ends in \.jsonl.*/\*\.json` reads"),
    ],
)
def test_an_error_names_the_way_out(
    tmp_path: Path, kind: type[FileSource], name: str, content: str, path: str, way_out: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConnectorError, match=way_out):
        records_of(source_of(tmp_path / path, kind))


def test_files_of_one_stream_are_united_by_column_name(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "1.csv").write_text("a,b\n1,x\n")
    (tmp_path / "s" / "2.csv").write_text("c,a\n5,2.5\n")
    assert records_of(source_of(tmp_path)) == [{"a": 1.0, "b": "x", "c": None}, {"a": 2.5, "b": None, "c": 5}]


def test_partition_folders_add_columns(tmp_path: Path) -> None:
    for year, place in (("2023", "a%2Fb"), ("2024", "__HIVE_DEFAULT_PARTITION__")):
        folder = tmp_path / "s" / f"year={year}" / f"place={place}"
        folder.mkdir(parents=True)
        pyarrow.parquet.write_table(pa.table({"n": [int(year)]}), folder / "0.parquet")
    expected = [{"n": 2023, "year": 2023, "place": "a/b"}, {"n": 2024, "year": 2024, "place": None}]
    assert records_of(source_of(tmp_path, ParquetSource)) == expected
    assert only(source_of(tmp_path / "s", ParquetSource)).name == "s"
    assert records_of(source_of(tmp_path / "s", ParquetSource)) == expected


def test_partition_folders_are_read_as_they_were_written_and_typed_as_columns_are(tmp_path: Path) -> None:
    key, uuid = "6e6f7400-0000-4000-8000-000000000001", UUID("6e6f7400-0000-4000-8000-000000000001")
    for name in (f"my%20id={key}/n=/at=10:30", f"my%20id={key}/n=5/at="):
        (tmp_path / "s" / name).mkdir(parents=True)
        (tmp_path / "s" / name / "0.csv").write_text("v\nx\n")
    records = records_of(source_of(tmp_path, types={"my id": "uuid", "at": "time"}))
    assert records == [
        {"v": "x", "my id": uuid, "n": None, "at": time(10, 30)},
        {"v": "x", "my id": uuid, "n": 5, "at": None},
    ]
    with pytest.raises(FatalConnectorError, match=r"at=10:30/0\.csv: column 'at': '10:30' is no int64; `types: "):
        records_of(source_of(tmp_path, types={"at": "int64"}))
    (tmp_path / "s" / "n=%E9").mkdir()
    (tmp_path / "s" / "n=%E9" / "0.csv").write_text("v\nx\n")
    with pytest.raises(FatalConnectorError, match=r"n=%E9/0\.csv: .* not UTF-8"):
        only(source_of(tmp_path))


def test_a_link_out_of_the_folder_is_refused_and_one_named_as_path_is_not(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("n\n1\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(ConnectorConfigError, match="outside"):
        records_of(source_of(tmp_path / "data"))
    assert records_of(source_of(tmp_path / "data" / "link.csv")) == [{"n": 1}]


@pytest.mark.parametrize("url", ["evil://x/y.csv", "simplecache::memory://x.csv", "zip://a.csv::x.zip"])
def test_urls_of_other_schemes_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConnectorConfigError, match="scheme"):
        CSVSource({"path": url}, tmp_path).check()


def test_urls_are_read_through_fsspec(tmp_path: Path) -> None:
    root = f"memory://source{tmp_path.name}"
    with fsspec.open(f"{root}/in/a.csv", "wt") as file:
        file.write("n\n1\n")
    with fsspec.open(f"{root}/in/s/1.csv.gz", "wb") as file:
        file.write(gzip.compress(b"n\n2\n"))
    source = CSVSource({"path": f"{root}/in"}, tmp_path)
    assert {stream.name: records_of(source, stream) for stream in source.discover()} == {
        "a": [{"n": 1}],
        "s": [{"n": 2}],
    }
    assert records_of(CSVSource({"path": f"{root}/in/*.csv"}, tmp_path)) == [{"n": 1}]
    assert records_of(CSVSource({"path": f"{root}/in/a.csv"}, tmp_path)) == [{"n": 1}]
    (tmp_path / "b.csv").write_text("n\n3\n")
    assert records_of(CSVSource({"path": f"file://{tmp_path}/b.csv"}, tmp_path)) == [{"n": 3}]


def test_identity_holds_no_credentials(tmp_path: Path) -> None:
    source = CSVSource(
        {"path": "s3://user:canary@bucket/in?token=canary", "storage_options": {"key": "canary"}}, tmp_path
    )
    assert source.identity() == "csv:s3://bucket/in"


# Reading


def test_a_stream_that_gains_a_file_with_more_columns_says_so(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "1.csv").write_text("a\n1\n")
    source = source_of(tmp_path)
    stream = only(source)
    (tmp_path / "s" / "2.csv").write_text("a,b\n2,x\n")
    kinds = [type(event) for _, event in source.read([stream], {})]
    assert kinds == [pa.RecordBatch, Stream, pa.RecordBatch]


def test_incremental_reads_commit_once_at_their_end(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,at\n3,9\n1,5\n2,7\n")
    source = source_of(tmp_path / "t.csv", batch_size=1)
    stream = replace(
        offered := only(source),
        read=replace(offered.read, method=ReplicationMethod.INCREMENTAL, bookmark_properties=("at",)),
    )
    events = [event for _, event in source.read([stream], {"t": None})]
    assert [type(event) for event in events] == [pa.RecordBatch] * 3 + [Checkpoint]
    assert isinstance(events[-1], Checkpoint)
    assert values(events[-1].bookmark) == {"at": 9}


def test_a_file_without_the_bookmark_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "1.csv").write_text("a,at\n1,1\n")
    (tmp_path / "s" / "2.csv").write_text("a\n2\n")
    source = source_of(tmp_path)
    stream = replace(
        offered := only(source),
        read=replace(offered.read, method=ReplicationMethod.INCREMENTAL, bookmark_properties=("at",)),
    )
    with pytest.raises(FatalConnectorError, match=r"2\.csv.*'at'"):
        list(source.read([stream], {}))


def test_batches_hold_no_more_records_than_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("n\n" + "1\n" * 25)
    source = source_of(tmp_path / "t.csv", batch_size=10)
    sizes = [event.num_rows for _, event in source.read([only(source)], {}) if isinstance(event, pa.RecordBatch)]
    assert sizes == [10, 10, 5]


def test_an_interrupt_from_another_thread_ends_the_read_at_the_next_batch(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("n\n" + "1\n" * 25)
    source = source_of(tmp_path / "t.csv", batch_size=10)
    events = source.read([only(source)], {})
    next(events)
    thread = threading.Thread(target=source.interrupt, args=("t",))
    thread.start()
    thread.join()
    with pytest.raises(Interrupted):
        next(events)


def test_a_file_that_is_no_parquet_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(FatalConnectorError, match=r"t\.parquet"):
        source_of(tmp_path / "t.parquet", ParquetSource).discover()


def test_a_parquet_file_whose_column_is_called_by_no_text_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pa.table({"xyzzy": [1]}), file, store_schema=False)
    file.write_bytes(file.read_bytes().replace(b"xyzzy", b"xy\xffzy"))
    with pytest.raises(FatalConnectorError, match=r"t\.parquet: no Parquet file"):
        source_of(file, ParquetSource).discover()


def test_a_parquet_footer_that_contradicts_itself_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pa.table({"b": [b"x", None]}), file, store_schema=False)
    whole, (text, truth) = file.read_bytes(), (b"\x15\x0c\x25\x02\x18\x01b", b"\x15\x00\x25\x02\x18\x01b")
    assert whole.count(text) == 1
    file.write_bytes(whole.replace(text, truth))  # the schema says Boolean, the sizes are those of bytes
    source = source_of(file, ParquetSource)
    with pytest.raises(FatalConnectorError, match=r"t\.parquet: cannot be read: .*Unencoded"):
        list(source.read(source.discover(), {"t": None}))


def test_parquet_columns_keep_their_types_and_odd_names(tmp_path: Path) -> None:
    table = pa.table(
        {
            "dot.name": pa.array([1], pa.int8()),
            "coded": pa.array(["x"]).dictionary_encode(),
            "list": pa.array([[1, None]], pa.list_(pa.int32())),
            "struct": pa.array([{"dot": {"name": 5}}]),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    source = source_of(tmp_path / "t.parquet", ParquetSource)
    assert types_of(source)["coded"] == pa.string()
    assert records_of(source) == [{"dot.name": 1, "coded": "x", "list": [1, None], "struct": {"dot": {"name": 5}}}]
    assert only(source).estimated_records == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
def test_a_storage_that_gives_a_byte_at_a_time_gives_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(1)

    content = 'a,b\n1,\U0001f4e6\n2,"\ufeffx"\n'.encode(encoding)
    (tmp_path / "t.csv").write_bytes(content)
    opened = LocalStorage.open_input
    monkeypatch.setattr(
        LocalStorage, "open_input", lambda self, name: Slow(content) if name == "t.csv" else opened(self, name)
    )
    records = records_of(source_of(tmp_path / "t.csv", encoding=encoding))
    assert records == [{"a": 1, "b": "\U0001f4e6"}, {"a": 2, "b": "\ufeffx"}]


# Anything at all


def _outcome(source: FileSource) -> str:
    """Return the connector's error; any other one passes."""
    try:
        records_of(source)
    except ConnectorError as error:
        return str(error)
    return "no error in t.csv or t.jsonl"


def test_a_record_with_too_many_fields_that_is_no_utf_8_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,b\n1,2\n1,\xff,3\n4,5\n")
    assert "t.csv:3" in _outcome(source_of(tmp_path / "t.csv"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=200), st.text('ab,"\n\r 10.-', max_size=60).map(str.encode)))
def test_whatever_is_in_a_csv_file_gives_records_or_one_error_naming_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    assert "t.csv" in _outcome(source_of(tmp_path / "t.csv"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.binary(max_size=100), st.lists(st.text('{}[]":,a1 e.-\n', max_size=20)).map("\n".join).map(str.encode)
    )
)
def test_whatever_is_in_a_json_file_gives_records_or_one_error_naming_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.jsonl").write_bytes(content)
    assert "t.jsonl" in _outcome(source_of(tmp_path / "t.jsonl", JSONLSource))


# Files that change while they are read


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("change", ["written over", "longer", "cut off", "appended", "replaced", "removed"])
def test_a_file_that_is_written_anew_while_it_is_read_is_no_moment_of_it(
    tmp_path: Path, suffix: str, change: str
) -> None:
    path, records = tmp_path / f"t.{suffix}", 300_000
    lines = [b"id\n"] + [b"%07d\n" % n for n in range(records)]
    path.write_bytes(b"".join(lines) if suffix == "csv" else b"".join(b'{"id": "%07d"}\n' % n for n in range(records)))
    before = path.read_bytes()
    made = CSVSource if suffix == "csv" else JSONLSource
    source = made({"path": path.name}, tmp_path)
    (stream,) = source.discover()
    events = source.read([stream], {})
    read = [next(events)[1]]
    other = before.replace(b"0000001", b"7000001")
    if change == "written over":
        path.write_bytes(other)
    elif change == "longer":
        path.write_bytes(other.replace(b"0299999", b"0299999 and more"))
    elif change == "cut off":
        path.write_bytes(b"".join(other.splitlines(keepends=True)[: records // 2]))
    elif change == "appended":
        path.write_bytes(before + before.splitlines(keepends=True)[-1])
    elif change == "replaced":
        (tmp_path / "new").write_bytes(other)
        (tmp_path / "new").replace(path)
    else:
        path.unlink()
    if change in ("written over", "longer", "cut off"):
        with pytest.raises(ConnectorError, match=r"was rewritten while it was read|not a JSON object"):
            list(events)
        return
    read += [event for _, event in events]
    assert sum(event.num_rows for event in read) in (records, records + (change == "appended"))  # type: ignore[union-attr]


TEN = Decimal("0.12345678901234567890")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array([TEN], pa.decimal128(38, 20)), pa.array([1.5])),
        (pa.array([[TEN]], pa.list_(pa.decimal128(38, 20))), pa.array([[1.5]])),
        (pa.array(["x"]), pa.array([1])),
    ],
)
def test_files_whose_types_no_other_holds_are_refused_unless_one_is_said(
    tmp_path: Path, first: pa.Array, second: pa.Array
) -> None:
    (tmp_path / "t").mkdir()
    for name, column in (("a", first), ("b", second)):
        pyarrow.parquet.write_table(pa.table({"v": column}), tmp_path / f"t/{name}.parquet")
    with pytest.raises(
        FatalConnectorError, match=r"b\.parquet differs from the other files .*'v' is .*config\.types: \{v: str"
    ):
        only(source_of(tmp_path, ParquetSource))
    texts = [record["v"] for record in records_of(source_of(tmp_path, ParquetSource, types={"v": "string"}))]
    assert texts[0] in ("0.12345678901234567890", "[0.12345678901234567890]", "x")
    assert texts[1] in ("1.5", "[1.5]", "1")


@pytest.mark.parametrize(
    ("first", "second", "values"),
    [
        (pa.array(["abcd", None]), pa.array([b"\x00\xff"]), [b"abcd", None, b"\x00\xff"]),
        (pa.array([b"\x00\xff"]), pa.array(["abcd"]), [b"\x00\xff", b"abcd"]),
        (pa.array([2**64 - 1], pa.uint64()), pa.array([-1]), [Decimal(2**64 - 1), Decimal(-1)]),
        (pa.array([None], pa.null()), pa.array([1.5]), [None, 1.5]),
    ],
)
def test_files_of_two_types_keep_each_value(
    tmp_path: Path, first: pa.Array, second: pa.Array, values: list[Any]
) -> None:
    (tmp_path / "t").mkdir()
    for name, column in (("a", first), ("b", second)):
        pyarrow.parquet.write_table(pa.table({"v": column}), tmp_path / f"t/{name}.parquet")
    assert [record["v"] for record in records_of(source_of(tmp_path, ParquetSource))] == values


def test_to_read_a_stream_is_to_look_at_its_own_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def count(storage: LocalStorage, folder: str = "") -> Any:
            listed.append(folder)
            return method(storage, folder)

        return count

    for name in ("names", "entries"):
        monkeypatch.setattr(LocalStorage, name, counted(getattr(LocalStorage, name)))
    for number in range(3):
        (tmp_path / f"t{number}.csv").write_text("a\n1\n")
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "1.csv").write_text("a\n1\n")
    source = CSVSource({"path": str(tmp_path)}, tmp_path)
    streams = {stream.name: stream for stream in source.discover()}
    (tmp_path / "many" / "2.csv").write_text("a\n2\n")
    listed.clear()
    for name, count in {"t0": 1, "t1": 1, "t2": 1, "many": 2}.items():
        events = [event for _, event in source.read([streams[name]], {})]
        assert sum(event.num_rows for event in events if isinstance(event, pa.RecordBatch)) == count
    assert listed == ["many"]


def test_a_file_that_became_a_folder_since_is_found(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a\n1\n")
    source = CSVSource({"path": str(tmp_path)}, tmp_path)
    (stream,) = source.discover()
    (tmp_path / "t.csv").unlink()
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "1.csv").write_text("a\n1\n2\n")
    assert source.count(stream) == 2


def test_a_file_that_may_not_be_read_fails_its_own_stream(tmp_path: Path) -> None:
    for name in ("open.csv", "closed.csv"):
        (tmp_path / name).write_text("id\n1\n")
    (tmp_path / "closed.csv").chmod(0)
    source = source_of(tmp_path, CSVSource)
    with without_privileges():
        found = {stream.name: stream.unreadable for stream in source.open_streams(source.list_streams())}
    assert not found["open"]
    assert "closed.csv: this user has no permission to read it" in found["closed"]


@contextmanager
def without_privileges() -> Iterator[None]:
    """Take from this thread what lets root read any file (capset(2): version 3, two words of each set)."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, held = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, held) == 0
    lesser = (ctypes.c_uint32 * 6)(0, *held[1:3], 0, *held[4:])
    assert libc.capset(header, lesser) == 0
    try:
        yield
    finally:
        assert libc.capset(header, held) == 0


def test_a_link_to_nothing_fails_its_own_stream_and_a_circle_of_links_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "data" / "sub").mkdir(parents=True)
    for name in ("a.csv", "sub/b.csv"):
        (tmp_path / "data" / name).write_text("id\n1\n")
    (tmp_path / "data" / "gone.csv").symlink_to("nowhere.csv")
    (tmp_path / "data" / "sub" / "up").symlink_to("..")
    (tmp_path / "data" / "sub" / "here").symlink_to(".")
    source = source_of(tmp_path / "data", CSVSource)
    found = {stream.name: stream.unreadable for stream in source.open_streams(source.list_streams())}
    assert {name for name, reason in found.items() if not reason} == {"a", "sub"}
    assert "gone.csv: no such file" in found["gone"]
