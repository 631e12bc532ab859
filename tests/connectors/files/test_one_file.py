"""A destination whose `path` is named like a file is that file, of one stream that replaces it."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from syncblocks import run_pipeline
from syncblocks.sync.config import load_pipeline
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.session.inspection import count_streams, opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "orders.csv").write_text("id,name\n1,a\n2,b\n")
    (tmp_path / "in" / "shops.csv").write_text("id\n1\n")
    return tmp_path


def pipeline(folder: Path, connector: str, path: str, stream: str = "orders", **more: Any) -> Any:
    entry = {"stream": stream, **more.pop("entry", {})}
    document = {
        "pipeline": "p",
        "source": {"connector": "csv", "config": {"path": more.pop("source", "in")}},
        "destination": {"connector": connector, "config": {"path": path, **more}},
        "streams": [entry],
    }
    return load_pipeline(document, folder=folder)


def content(path: Path) -> Any:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    return (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()


@pytest.mark.parametrize(
    ("connector", "path", "expected"),
    [
        ("csv", "new/out.csv", 'id,name\n1,"a"\n2,"b"\n'),
        ("csv", "out.v2.csv.gz", 'id,name\n1,"a"\n2,"b"\n'),
        ("jsonl", "{folder}/out.jsonl", '{"id":1,"name":"a"}\n{"id":2,"name":"b"}\n'),
        ("parquet", "out.parquet", [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]),
    ],
)
def test_the_file_is_written_replaced_and_counted(folder: Path, connector: str, path: str, expected: Any) -> None:
    made = pipeline(folder, connector, path.format(folder=folder))
    for _ in range(2):
        (stream,) = run_pipeline(made).raise_for_status().streams
        assert stream.destination_table == Path(path).name.removesuffix(".gz").rpartition(".")[0]
        assert content(folder / path.format(folder=folder)) == expected
    with opened(made) as session:
        (counted,) = count_streams(session).streams
    assert (counted.source, counted.destination) == (2, 2)


@pytest.mark.parametrize(
    ("path", "more", "hint"),
    [
        ("out.csv", {"stream": "*"}, "for one stream, but 2 are selected: 'orders', 'shops'"),
        ("out.csv", {"entry": {"key_properties": ["id"], "write_disposition": "merge"}}, "disposition: merge`, or let"),
        ("out.csv", {"entry": {"write_disposition": "append"}}, "`write_disposition: append`"),
        (
            "out.csv",
            {"entry": {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}},
            "leave out `replication_method: INCREMENTAL`",
        ),
        ("out.csv", {"entry": {"destination_table": "other"}}, "leave out `destination_table`"),
        ("out.csv", {"partition_by": ["name"]}, "leave `partition_by` out"),
        ("out.csv", {"file_records": 1}, "leave `file_records` out"),
        ("out.csv", {"compression": "gzip"}, "name it out.csv.gz"),
        ("out.csv.zst", {"compression": "none"}, "name it out.csv"),
        ("out.tsv", {}, "is called x.csv,"),
        ("out.jsonl", {}, "is called x.csv,"),
        ("out.csv.bz2", {}, "is called x.csv,"),
        (
            "in/orders.csv",
            {"entry": {"write_disposition": "replace"}, "source": "in/orders.csv"},
            "its own destination",
        ),
        ("in/orders.csv", {"entry": {"write_disposition": "replace"}, "source": "in/ord*.csv"}, "its own destination"),
    ],
)
def test_what_does_not_go_into_one_file_is_refused(folder: Path, path: str, more: dict[str, Any], hint: str) -> None:
    before = {each: each.read_bytes() for each in folder.rglob("*.*") if each.is_file()}
    with pytest.raises(ConfigError) as caught:
        run_pipeline(pipeline(folder, "csv", path, **more))
    assert hint in str(caught.value)
    assert {each: each.read_bytes() for each in before} == before
    assert not list(folder.rglob("_syncblocks_ledger"))


def test_a_folder_of_that_name_stays_one(folder: Path) -> None:
    (folder / "out.csv").mkdir()
    run_pipeline(pipeline(folder, "csv", "out.csv", "*")).raise_for_status()
    assert {path.name for path in (folder / "out.csv").glob("*.csv")} == {"orders.csv", "shops.csv"}
