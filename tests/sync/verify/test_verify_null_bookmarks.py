"""What `verify` and its repair make of records without a bookmark: they read what the stream reads."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pyarrow as pa
import pytest

from syncblocks import run_pipeline
from syncblocks.connectors.registry import make_destination, make_source
from syncblocks.connectors.stream import Checkpoint, LedgerKey, Load, Stream
from syncblocks.connectors.write_spec import WriteDisposition, WriteSpec
from tests.sync.verify.verify_pairs import Pair, Places, make_pair
from tests.sync.verify.verify_pairs import places as places
from tests.sync.verify.verify_pairs import servers as servers

SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.string()), ("at", pa.int64())])
FIRST = [(1, "a", 10), (2, "b", 20), (3, "without", None)]

PAIRS = [
    ("postgres", "postgres"),
    ("mysql", "mysql"),
    ("duckdb", "duckdb"),
    ("sqlite", "duckdb"),
    ("parquet", "sqlite"),
    ("jsonl", "postgres"),
    ("postgres", "csv"),
    ("duckdb", "parquet"),
]


def batch(records: list[tuple[int, str, int | None]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([dict(zip(SCHEMA.names, each, strict=True)) for each in records], schema=SCHEMA)


def put(place: tuple[str, dict[str, object]], table: str, records: list[tuple[int, str, int | None]]) -> None:
    """Merge records into a table of some place, behind the pipeline's back."""
    name, config = place
    destination = make_destination(name, config, Path.cwd())
    key = LedgerKey(pipeline="other", stream=table, destination_table=table)
    with contextlib.closing(destination):
        destination.take_over(key, token="t", owner="test", source="test://")
        shape = Stream(name=table, schema=SCHEMA, key_properties=("id",))
        load = Load(key=key, stream=shape, write=WriteSpec(disposition=WriteDisposition.MERGE), token="t", run="1:1")
        list(destination.load(load, iter([batch(records), Checkpoint(is_final=True)])))
        destination.set_bookmark(key, None, forget=True)


def held(place: tuple[str, dict[str, object]], table: str) -> list[tuple[int, str, int | None]]:
    source = make_source(*place, Path.cwd())
    with contextlib.closing(source):
        (stream,) = [each for each in source.discover() if each.name.rpartition(".")[2] == table]
        events = [event for _, event in source.read([stream], {stream.name: None})]
    found = [record for event in events if isinstance(event, pa.RecordBatch) for record in event.to_pylist()]
    return sorted(tuple(record[name] for name in SCHEMA.names) for record in found)


class Case:
    """A pair that was run once, with `null_bookmarks` as it is tested."""

    def __init__(self, folder: Path, places: Places, names: tuple[str, str], policy: str, **stream: object) -> None:
        source, destination = names
        self.pair: Pair = make_pair(
            folder,
            places,
            source,
            destination,
            batch(FIRST),
            replication_method="INCREMENTAL",
            bookmark_properties=["at"],
            null_bookmarks=policy,
            **stream,
        )
        self.table = self.pair.table
        self.source = source, places.source[source]
        self.destination = destination, places.destination[destination]
        self.pair.run()

    def found(self) -> set[tuple[str | None, str]]:
        found = self.pair.verify()
        assert found.comparison is not None, found.notes
        return {(each.key[0], each.kind) for each in found.comparison.records}


@pytest.mark.full
@pytest.mark.parametrize("names", PAIRS, ids="-".join)
def test_never_is_never_compared_nor_repaired(names: tuple[str, str], tmp_path: Path, places: Places) -> None:
    case = Case(tmp_path, places, names, "never")
    assert held(case.destination, case.table) == FIRST[:2]
    assert case.pair.verify().verdict == "equal"
    put(case.source, case.table, [(2, "b", None), (4, "late, without", None)])  # 2 was read when it had one
    assert case.pair.verify().verdict == "equal"
    put(case.destination, case.table, [(1, "damaged", 10), (5, "stray", 5), (3, "without", None)])
    assert case.found() == {("1", "different"), ("5", "extra"), ("3", "extra")}
    case.pair.repair()
    assert held(case.destination, case.table) == FIRST[:2]
    assert case.pair.verify().verdict == "equal"


@pytest.mark.full
@pytest.mark.parametrize("names", PAIRS, ids="-".join)
def test_once_is_not_missing_when_it_came_later(names: tuple[str, str], tmp_path: Path, places: Places) -> None:
    case = Case(tmp_path, places, names, "once")
    assert held(case.destination, case.table) == FIRST
    put(case.source, case.table, [(4, "late, without", None), (3, "changed", None), (2, "b", None)])
    case.pair.run()
    assert case.pair.verify().verdict == "equal"
    put(case.destination, case.table, [(1, "damaged", 10), (5, "stray", 5)])
    assert case.found() == {("1", "different"), ("5", "extra")}
    case.pair.repair()
    assert held(case.destination, case.table) == FIRST
    assert case.pair.verify().verdict == "equal"


def test_once_compares_all_before_the_first_bookmark_and_nothing_without_one_after(
    tmp_path: Path, places: Places
) -> None:
    case = Case(tmp_path, places, ("sqlite", "duckdb"), "once")
    put(case.source, case.table, [(1, "a", None), (2, "b", None)])
    assert case.pair.verify().verdict == "equal"


@pytest.mark.full
def test_always_is_compared_and_repaired(tmp_path: Path, places: Places) -> None:
    case = Case(tmp_path, places, ("postgres", "duckdb"), "always", write_disposition="merge")
    put(case.source, case.table, [(4, "late, without", None)])
    put(case.destination, case.table, [(3, "damaged", None)])
    assert case.found() == {("3", "different"), ("4", "missing")}
    case.pair.repair()
    assert held(case.destination, case.table) == [*FIRST, (4, "late, without", None)]


def test_a_repair_fails_at_a_record_at_which_a_run_would_fail(tmp_path: Path, places: Places) -> None:
    case = Case(tmp_path, places, ("sqlite", "duckdb"), "once")
    case.pair.write(null_bookmarks="fail")
    put(case.source, case.table, [(4, "late, without", None)])
    found = case.pair.verify(with_repairs=True)
    assert (found.verdict, found.repair is not None) == ("differs", True)
    assert found.repair is not None
    result = run_pipeline(case.pair.folder / "p.yaml", repairs={found.stream: found.repair})
    assert (result.status, "records without a bookmark" in str(result.streams[0].error)) == ("failure", True)
    assert held(case.destination, case.table) == FIRST


@pytest.mark.full
@pytest.mark.parametrize("names", [("postgres", "postgres"), ("sqlite", "duckdb")], ids="-".join)
def test_what_is_missing_is_repaired_though_conflicts_are_ignored(
    names: tuple[str, str], tmp_path: Path, places: Places
) -> None:
    case = Case(tmp_path, places, names, "never", unique_conflict_method="IGNORE")
    put(case.source, case.table, [(6, "new", 6)])
    put(case.destination, case.table, [(1, "older", 10), (5, "stray", 5)])
    found = case.pair.verify(with_repairs=True)
    assert found.repair is not None
    assert any("only what is missing is repaired" in note for note in found.notes)
    case.pair.repair()
    assert held(case.destination, case.table) == [(1, "older", 10), (2, "b", 20), (5, "stray", 5), (6, "new", 6)]
    found = case.pair.verify(with_repairs=True)
    assert (found.verdict, found.repair) == ("differs", None)
    assert any("not repaired: unique_conflict_method IGNORE" in note for note in found.notes)
