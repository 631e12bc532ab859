"""Wide records reach a table of DuckDB that is there: in several transactions, and yet once and whole."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.duckdb import DuckDBDestination
from syncblocks.connectors.duckdb.database import WIDE, DuckDBInstance
from syncblocks.connectors.duckdb.unfinished import MARK
from syncblocks.connectors.errors import FatalConnectorError, TakenOver
from syncblocks.connectors.stream import Checkpoint, Event, LedgerRow, Load
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import ConflictMethod
from tests.connectors.duckdb.wide_worker import (
    BUDGET_BYTES,
    KEY,
    RECORDS,
    SCHEMA,
    digests,
    documents,
    held,
    load_in_a_process,
    look,
    main,
    make,
    order,
)
from tests.zygote import Zygote

pytestmark = pytest.mark.skipif(
    not DuckDBInstance(Path()).cuts_pieces, reason="DuckDB before 1.5.3 does not cut row groups"
)

INDEXED = pytest.mark.skipif(
    not DuckDBInstance(Path()).cuts_indexed_pieces, reason="DuckDB before 2.0 has no room for it"
)

COLUMNS = "select column_name, data_type, is_nullable, column_default from duckdb_columns() where table_name = 'docs'"
COMMENT = "select comment from duckdb_tables() where table_name = 'docs'"
LEDGER = "select bookmark, completed_by, token from _syncblocks_ledger"
BOTH = pytest.mark.parametrize("disposition", ["append", "merge"])


def ends(points: Sequence[str]) -> list[str]:
    """Return the first time that each failpoint was reached, and the last one that a piece was committed."""
    first = {point.partition(":")[0]: point for point in reversed(points)}
    last = [point for point in points if point.startswith("duckdb.piece.after")][-1]
    return [point for point in points if point in {*first.values(), last}]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a table whose first record stays, and whose others a merge replaces."""
    path = tmp_path / "x.duckdb"
    look(path, "create table docs (id bigint not null, doc varchar default 'none')")
    look(path, "insert into docs select range - 1, 'narrow' from range(4)")
    return path


def load(path: Path, how: Load, events: Iterator[Event]) -> None:
    destination = make(path)
    try:
        destination.take_over(KEY, token=how.token, owner=how.token, source="test://")
        for _ in destination.load(how, events):
            pass
    finally:
        destination.close()


def expected(disposition: str, owner: str, before: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    kept = before if disposition == "append" else [record for record in before if record[0] < 0]
    return sorted([*kept, *digests(owner)])


@pytest.mark.full
@BOTH
def test_a_table_takes_more_than_the_budget_in_one_commit(disposition: str, path: Path) -> None:
    look(path, "comment on table docs is 'of the legal department'")
    before, shape = held(path), look(path, COLUMNS)
    for owner in ("first", "second"):
        main(str(path), disposition, owner)
        after = expected(disposition, owner, before)
        assert held(path) == after
        before = after
    assert look(path, COLUMNS) == shape
    assert look(path, LEDGER) == [('{"id": "second"}', "second", "second")]
    assert look(path, COMMENT) == [(f"of the legal department; {WIDE}",)]
    assert look(path, "select count(*) from duckdb_tables()") == [(2,)]
    assert not path.with_suffix(".duckdb.wal").exists()


@pytest.mark.full
@BOTH
def test_pieces_are_row_groups_of_their_own(disposition: str, path: Path) -> None:
    """Or the last one that is there would be written anew, with all its records in memory at once."""
    main(str(path), disposition, "first")
    groups = (
        "select row_group_id, max(start + count) from pragma_storage_info('docs') where column_name = 'id' group by 1"
    )
    first, *others = sorted(look(path, groups))
    assert first == (0, 4)
    assert len(others) > 3


def twice(owner: str) -> Iterator[Event]:
    """Send every key twice, in pieces far from each other."""
    for event in (*documents("early"), *documents(owner)):
        if isinstance(event, pa.RecordBatch):
            yield event
    yield Checkpoint(is_final=True)


@pytest.mark.full
def test_the_last_record_of_a_key_counts_whatever_piece_it_is_in(path: Path) -> None:
    load(path, order("merge", "late"), twice("late"))
    assert [record for record in held(path) if record[0] >= 0] == digests("late")


@pytest.mark.full
def test_a_merge_that_ignores_what_is_there_takes_the_first_of_what_is_new(path: Path) -> None:
    before = held(path)
    late = order("merge", "late")
    late = replace(late, write=replace(late.write, conflict_method=ConflictMethod.IGNORE))
    load(path, late, twice("late"))
    assert held(path) == sorted([*before, *(record for record in digests("early") if record[0] > 2)])


@pytest.mark.full
@pytest.mark.timeout(300)
@BOTH
def test_a_load_that_is_killed_at_any_of_its_commits_is_made_good_by_the_next(
    zygote: Zygote, disposition: str, path: Path, tmp_path: Path
) -> None:
    before, shape = held(path), look(path, COLUMNS)
    trace, traced = tmp_path / "trace", shutil.copy(path, tmp_path / "traced.duckdb")
    assert load_in_a_process(zygote, traced, disposition, "first", trace=trace) == 0
    reached = trace.read_text().split()
    assert sum(name.startswith("duckdb.piece.after") for name in reached) > 3, reached
    is_full = os.environ.get("SYNCBLOCKS_FAULTS") == "full"
    few = ends(reached)[disposition == "merge" :: 2]  # each point in one of the two
    for number, name in enumerate(reached if is_full else few):
        killed = shutil.copy(path, tmp_path / f"{number}.duckdb")
        assert load_in_a_process(zygote, killed, disposition, "first", failpoint=f"{name}:kill") != 0, name
        destination = make(killed)
        row = destination.take_over(KEY, token="next", owner="next")
        destination.drop_staging(["first"])
        destination.close()
        assert look(killed, COLUMNS) == shape, name
        is_done = row.completed_by == "first"
        assert (row.bookmark is not None) == is_done, name
        after = expected(disposition, "first", before)
        if is_done:
            assert held(killed) == after, name
            continue
        if disposition == "append":
            assert held(killed) == before, name
        else:  # some are merged; they will be again
            assert [key for key, _ in held(killed) if key < 3] == [key for key, _ in before], name
            assert set(held(killed)) <= {*before, *digests("first")}, name
        load(killed, order(disposition, "second"), documents("second"))
        assert held(killed) == expected(disposition, "second", before), name
        assert look(killed, LEDGER) == [('{"id": "second"}', "second", "second")], name


@BOTH
def test_a_load_that_was_taken_over_changes_nothing(disposition: str, path: Path) -> None:
    destination, before = make(path), held(path)

    def overtaken() -> Iterator[Event]:
        for event in documents("late"):
            if isinstance(event, Checkpoint):
                destination.take_over(KEY, token="new", owner="the new one")
            yield event

    destination.take_over(KEY, token="late", owner="late", source="test://")
    with pytest.raises(TakenOver, match="the new one"):
        list(destination.load(order(disposition, "late"), overtaken()))
    destination.close()
    assert held(path) == before
    assert look(path, LEDGER) == [(None, None, "new")]


@pytest.mark.full
def test_an_append_that_fails_on_its_way_is_taken_back(path: Path) -> None:
    look(path, "alter table docs alter column doc set not null")
    before, shape = held(path), look(path, COLUMNS)

    def broken() -> Iterator[Event]:
        *whole, final = documents("broken")
        yield from whole
        yield pa.RecordBatch.from_arrays([pa.array([RECORDS]), pa.array([None], pa.string())], schema=SCHEMA)
        yield final

    destination = make(path)
    for owner in ("one", "another"):
        destination.take_over(KEY, token=owner, owner=owner, source="test://")
        with pytest.raises(FatalConnectorError, match="NOT NULL"):
            list(destination.load(order("append", owner), broken()))
    destination.close()
    assert (held(path), look(path, COLUMNS)) == (before, shape)
    assert look(path, "select count(*) from duckdb_tables()") == [(2,)]


@pytest.mark.full
def test_what_is_bad_is_set_aside_and_the_others_arrive(path: Path) -> None:
    look(path, "alter table docs alter column doc set not null")
    before = held(path)

    def partly_bad() -> Iterator[Event]:
        *whole, final = documents("good")
        yield pa.RecordBatch.from_arrays([pa.array([RECORDS]), pa.array([None], pa.string())], schema=SCHEMA)
        yield from whole
        yield final

    how = order("merge", "good")
    load(path, replace(how, write=replace(how.write, max_rejected=1)), partly_bad())
    assert held(path) == expected("merge", "good", before)
    assert look(path, "select count(*) from _syncblocks_rejected") == [(1,)]


@pytest.mark.full
def test_a_new_column_is_announced_before_a_piece_is_committed_and_who_takes_over_waits(path: Path) -> None:
    told: list[tuple[Checkpoint | None, Sequence[Mapping[str, Any]]]] = []
    read: list[LedgerRow] = []
    destination = make(path)

    def take_over() -> None:
        read.append(destination.take_over(KEY, token="new", owner="the new one"))

    thread = Thread(target=take_over)

    def announce(checkpoint: Checkpoint | None, changes: Sequence[Mapping[str, Any]]) -> None:
        told.append((checkpoint, changes))
        thread.start()

    wider = SCHEMA.append(pa.field("size", pa.int64()))

    def with_size() -> Iterator[Event]:
        for event in documents("wider"):
            if isinstance(event, pa.RecordBatch):
                yield pa.RecordBatch.from_arrays([*event.columns, pa.array([1])], schema=wider)
            else:
                yield event

    how = order("append", "wider")
    how = replace(how, stream=replace(how.stream, schema=wider), announce=announce)
    destination.take_over(KEY, token="wider", owner="wider", source="test://")
    list(destination.load(how, with_size()))
    thread.join()
    destination.close()
    assert [row.completed_by for row in read] == ["wider"]
    ((checkpoint, changes),) = told
    assert checkpoint is None
    assert [change["column"] for change in changes] == ["size"]
    assert look(path, "select count(size), count(*) from docs") == [(RECORDS, RECORDS + 4)]


@pytest.mark.full
def test_what_a_dead_load_has_left_goes_when_the_file_is_opened_for_writing(path: Path) -> None:
    main(str(path), "append", "first")
    before = held(path)
    look(path, f"alter table docs add column {MARK} boolean")
    look(path, "insert into docs values (99, 'of a dead load', true), (100, 'of somebody else', null)")
    destination = make(path)
    state = destination.describe(["docs"])["docs"]
    destination.close()
    assert state.schema is not None
    assert state.schema.names == ["id", "doc"]
    assert [key for key, _ in held(path)] == [*(key for key, _ in before), 100]


@pytest.mark.full
@BOTH
def test_a_limit_of_the_users_is_kept_to(disposition: str, path: Path) -> None:
    before = held(path)
    destination = DuckDBDestination({"path": path.name, "threads": 2, "memory_limit": "32MB"}, path.parent)
    destination.take_over(KEY, token="limited", owner="limited", source="test://")
    list(destination.load(order(disposition, "limited"), documents("limited")))
    destination.close()
    assert held(path) == expected(disposition, "limited", before)


@pytest.mark.full
@INDEXED
@pytest.mark.parametrize("change", ["alter table docs add primary key (id)", "create index by_id on docs (id)"])
def test_a_merge_passes_a_primary_key_and_an_index(change: str, path: Path) -> None:
    look(path, change)
    before = held(path)
    for owner in ("first", "second"):
        main(str(path), "merge", owner)
        assert held(path) == expected("merge", owner, before)


@pytest.mark.one_of
@INDEXED
@pytest.mark.parametrize(
    ("disposition", "change"),
    [
        ("append", "create index by_id on docs (id)"),
        ("merge", "create unique index by_more on docs ((id + 1))"),
    ],
)
def test_what_an_index_might_not_take_is_no_piece(disposition: str, change: str, path: Path) -> None:
    look(path, change)
    before = held(path)
    with pytest.raises(FatalConnectorError, match="raise `memory`"):
        load(path, order(disposition, "wide"), documents("wide"))
    assert held(path) == before


@pytest.mark.full
def test_another_load_that_writes_is_no_obstacle(path: Path) -> None:
    """Though what was moved stays in memory: nothing is written into the file while another transaction writes."""
    before, destination = held(path), make(path)
    destination.limit_memory(100_000_000, is_strict=True)
    with destination._sessions.lease() as lease:
        lease.session.begin()
        lease.session.execute("create table other as select 1 as id")
        for disposition in ("append", "merge"):
            destination.take_over(KEY, token=disposition, owner="one of two", source="test://")
            list(destination.load(order(disposition, disposition), documents(disposition)))
        lease.session.commit()
    destination.close()
    assert look(path, "select id from other") == [(1,)]
    assert held(path) == expected("merge", "merge", before)
    assert look(path, COMMENT) == [(WIDE,)], "it was in pieces"


@pytest.mark.full
def test_two_loads_of_one_file_take_turns(path: Path) -> None:
    """Who waits has no transaction open, or the other one's pieces would stay in memory, which has no room for them."""
    first = path.with_name("first.duckdb")  # whose load imports what the two need: theirs would do so in a transaction
    look(first, "create table docs (id bigint not null, doc varchar)")
    load(first, order("merge", "first"), documents("first"))
    look(path, "create table others as from docs")
    before, destination = held(path), make(path)
    destination.limit_memory(3 * BUDGET_BYTES, is_strict=True)

    def load_one(table: str) -> None:
        how = order("merge", table)
        how = replace(how, key=replace(KEY, stream=table, destination_table=table))
        destination.take_over(how.key, token=table, owner=table, source="test://")
        list(destination.load(how, documents(table, 60)))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(load_one, ("docs", "others")))
    destination.close()
    for table in ("docs", "others"):
        found = look(path, f"select id, md5(doc) from {table} order by id")
        assert found == [*before[:1], *digests(table, 60)]


@pytest.mark.full
def test_a_load_that_reads_its_first_piece_slowly_does_not_keep_another_ones_in_memory(path: Path) -> None:
    look(path, "create table others as from docs")
    before, destination = held(path), make(path)
    has_begun, is_done = threading.Event(), threading.Event()

    def slowly(owner: str) -> Iterator[Event]:
        for place, event in enumerate(documents(owner)):
            if place == 2:
                has_begun.set()
                assert is_done.wait(60), "the other load did not end"
            yield event

    def load_one(table: str) -> None:
        how = order("append", table)
        how = replace(how, key=replace(KEY, stream=table, destination_table=table))
        destination.take_over(how.key, token=table, owner=table, source="test://")
        list(destination.load(how, slowly(table) if table == "others" else documents(table)))

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(load_one, "others")
        try:
            assert has_begun.wait(60)
            load_one("docs")
        finally:
            is_done.set()
        slow.result()
    destination.close()
    for table in ("docs", "others"):
        found = look(path, f"select id, md5(doc) from {table} order by all")
        assert found == sorted([*before, *digests(table)])


def test_what_fits_is_one_transaction(path: Path) -> None:
    load(path, order("append", "few"), documents("few", 4))
    assert look(path, COMMENT) == [(None,)]
