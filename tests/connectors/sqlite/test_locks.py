"""A SQLite file that several connections, processes and libraries have open at once."""

from __future__ import annotations

import secrets
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from syncblocks.connectors.errors import (
    ConnectorConfigError,
    ConnectorError,
    Interrupted,
    RetriableError,
    TakenOver,
)
from syncblocks.connectors.files.csv_source import CSVSource
from syncblocks.connectors.registry import make_destination
from syncblocks.connectors.sqlalchemy.session import AlchemySession
from syncblocks.connectors.sqlite import SQLiteDestination
from syncblocks.connectors.sqlite.reader import SQLiteReader, open_reader
from syncblocks.connectors.sqlite.session import SQLiteSession, sort_error
from syncblocks.connectors.stream import Checkpoint, Event, LedgerKey, Load, Stream
from syncblocks.connectors.write_spec import WriteSpec
from syncblocks.sync.errors import StoreUnreachable
from syncblocks.sync.store import Store
from tests.connectors.sqlite.sqlite_files import APPEND, FINAL, PEOPLE, REPLACE, load, people, query, script, source_of
from tests.connectors.sqlite.sqlite_files import destination as destination
from tests.connectors.sqlite.sqlite_files import path as path
from tests.posix_locks import locks, on_linux


def test_another_process_that_writes_is_waited_for_and_then_worth_a_repetition(
    path: Path, destination: SQLiteDestination
) -> None:
    script(path, "create table t (i)")
    hold = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('begin immediate'); "
        "print('held', flush=True); sys.stdin.readline(); c.execute('commit')"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        assert destination.describe(["t"])["t"].schema is not None, "reading waits for nobody"
        with pytest.raises(RetriableError, match=r"is locked: .*`fuser .*lock_timeout_s"):
            load(destination, "people", APPEND, [people((1, "a")), FINAL], PEOPLE)
        holder.communicate("\n")
    load(destination, "people", APPEND, [people((1, "a")), FINAL], PEOPLE)
    assert query(path, "select * from people") == [(1, "a")]


def test_an_opening_waits_while_another_connection_has_the_whole_file(path: Path) -> None:
    """As for the moment in which the first writer turns the write-ahead log on, and waits for the disk."""
    script(path, "create table t (i)")
    opened: list[SQLiteSession | Exception] = []

    def open_it() -> None:
        try:
            opened.append(SQLiteSession(path, is_writer=True))
        except RetriableError as error:
            opened.append(error)

    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("begin exclusive")
        opening = threading.Thread(target=open_it)
        opening.start()
        opening.join(0.3)
        assert opened == []
        holder.execute("commit")
        opening.join()
    (session,) = opened
    assert isinstance(session, SQLiteSession)
    assert session.query("select count(*) from t") == [(0,)]
    session.close()


def test_a_source_waits_while_another_process_has_the_whole_file(path: Path) -> None:
    script(path, "create table t (i)")
    hold = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('begin exclusive'); print('held', flush=True); time.sleep(0.5); c.execute('commit')"
    )
    with subprocess.Popen([sys.executable, "-c", hold, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with closing(SQLiteReader(path)) as reader:
            assert reader.query("select count(*) from t") == [(0,)]


def test_a_takeover_by_another_process_waits_for_the_commit_and_then_wins(path: Path) -> None:
    first = SQLiteDestination({"path": str(path)}, path.parent)
    key = LedgerKey(pipeline="p", stream="s", destination_table="people")
    first.take_over(key, token="mine", owner="first", source="s")
    take = (
        "import sys; from pathlib import Path; from syncblocks.connectors.sqlite import SQLiteDestination; "
        "from syncblocks.connectors.stream import LedgerKey; d = SQLiteDestination({'path': sys.argv[1]}, Path('/')); "
        "key = LedgerKey(pipeline='p', stream='s', destination_table='people'); "
        "row = d.take_over(key, token='theirs', owner='x'); "
        "print(row.bookmark, flush=True)"
    )

    def events() -> Iterator[Event]:
        yield people((1, "a"))
        other.append(subprocess.Popen([sys.executable, "-c", take, str(path)], stdout=subprocess.PIPE, text=True))
        yield Checkpoint(bookmark={"n": 1})
        assert other[0].communicate(timeout=60)[0] == "{'n': 1}\n"
        yield people((2, "b"))
        yield FINAL

    other: list[subprocess.Popen[str]] = []
    order = Load(
        key=key, stream=Stream(name="s", schema=PEOPLE), write=WriteSpec(disposition=APPEND), token="mine", run="mine:1"
    )
    with pytest.raises(TakenOver, match="by x"):
        list(first.load(order, events()))
    first.close()
    assert query(path, "select * from people") == [(1, "a")]


def test_a_long_statement_is_interrupted(path: Path, destination: SQLiteDestination) -> None:
    session = SQLiteSession(path, is_writer=True)
    session.begin()
    threading.Timer(0.2, session.cancel).start()
    with pytest.raises(Interrupted):
        session.query("with recursive r(n) as (select 1 union all select n + 1 from r) select count(*) from r")
    session.close()


def test_a_wait_for_the_lock_is_interrupted(path: Path, destination: SQLiteDestination) -> None:
    writer, waiting = SQLiteSession(path, is_writer=True), SQLiteSession(path, is_writer=True)
    writer.begin()
    writer.write()
    waiting.begin()
    threading.Timer(0.2, waiting.cancel).start()
    with pytest.raises(Interrupted):
        waiting.write()
    waiting.close()
    writer.rollback()
    writer.close()


def test_an_interrupted_load_leaves_the_former_state(path: Path, destination: SQLiteDestination) -> None:
    load(destination, "people", APPEND, [people((0, "before")), FINAL], PEOPLE)
    key = LedgerKey(pipeline="p", stream="s", destination_table="people")
    token = secrets.token_hex(8)
    destination.take_over(key, token=token, owner="me", source="s")

    def events() -> Iterator[Event]:
        yield people((1, "mine"))
        destination.interrupt("s")
        yield people((2, "mine"))
        yield FINAL

    order = Load(
        key=key, stream=Stream(name="s", schema=PEOPLE), write=WriteSpec(disposition=APPEND), token=token, run="r:1"
    )
    with pytest.raises(ConnectorError, match="interrupted"):
        list(destination.load(order, events()))
    assert query(path, "select * from people") == [(0, "before")]


def test_the_fast_reader_keeps_off_files_that_another_library_has_open(path: Path) -> None:
    script(path, "create table t (v integer); insert into t values (1)")
    with closing(sqlite3.connect(path)) as other:
        other.execute("begin immediate")
        reader = open_reader(path)
        assert isinstance(reader, SQLiteSession)
        assert reader.query("select v from t") == [(1,)]
        reader.close()
        # Had the other library's lock been dropped, a second writer could get in.
        take = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('begin immediate')"
        done = subprocess.run([sys.executable, "-c", take, str(path)], capture_output=True, check=False, timeout=60)
        assert b"locked" in done.stderr
    reader = open_reader(path)
    second = open_reader(path)
    assert isinstance(reader, SQLiteReader)
    assert isinstance(second, SQLiteReader), "two of the same library know of each other"
    reader.close()
    second.close()
    destination = SQLiteDestination({"path": str(path)}, path.parent)
    reader = open_reader(path)
    assert isinstance(reader, SQLiteSession), "a destination may open it at any moment"
    reader.close()
    del destination


@on_linux
def test_a_file_that_the_fast_reader_has_open_is_opened_by_no_other_library(path: Path) -> None:
    path = path.with_name("plain.db")
    script(path, "create table t (v integer); insert into t values (1)")
    first, second, third = open_reader(path), open_reader(path), open_reader(path)
    first.begin()
    assert first.query("select v from t") == [(1,)]
    second.close()  # its descriptor stays open as long as the first one has a lock
    fourth = open_reader(path)
    assert isinstance(fourth, SQLiteReader)
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    for opened in (
        lambda: SQLiteSession(path, is_writer=True),
        lambda: AlchemySession(engine, "x", is_writer=False),
        lambda: Store.open(f"sqlite:///{path}"),
    ):
        with pytest.raises((RetriableError, StoreUnreachable), match="is in use by another pipeline of this process"):
            opened()
    assert len(locks(path)) == 1
    for reader in (first, third, fourth):
        reader.close()
        reader.close()
    SQLiteSession(path, is_writer=True).close()


@on_linux
def test_a_file_that_is_open_is_not_opened_again_to_explain_an_error(path: Path) -> None:
    script(path, "pragma journal_mode = wal; create table t (v integer)")
    with closing(sqlite3.connect(path)) as other:
        other.execute("begin immediate")
        held = locks(path)
        assert held
        assert "Its journal mode is WAL" in str(sort_error(sqlite3.OperationalError("unable to open database"), path))
        assert locks(path) == held


@pytest.mark.parametrize("connector", ["sqlite", "duckdb"])
def test_a_source_of_files_leaves_a_database_alone_that_is_open(path: Path, connector: str) -> None:
    place = path.with_name("place.csv")
    destination = make_destination(connector, {"path": str(place)}, path.parent)
    destination.check()
    place.touch()
    source = CSVSource({"path": str(place)}, path.parent)
    with pytest.raises(ConnectorConfigError, match=r"place\.csv is a database that this process has open"):
        list(source.discover())
    destination.close()


def test_source_and_destination_share_one_file(path: Path, destination: SQLiteDestination) -> None:
    script(
        path,
        "create table t (i integer, v text); with recursive r(n) as (select 1 union all select n + 1 from r "
        "where n < 100000) insert into t select n, 'v' || n from r",
    )
    source = source_of(path)
    (stream,) = source.discover()

    def events() -> Iterator[Any]:
        for _, event in source.read([stream], {}):
            yield event
        yield FINAL

    load(destination, "copy", REPLACE, events(), stream.schema)
    source.close()
    assert query(path, "select count(*), sum(i), max(v) from copy") == query(
        path, "select count(*), sum(i), max(v) from t"
    )


def test_a_wal_whose_index_cannot_be_made_is_told_with_ways_out(path: Path) -> None:
    script(path, "pragma journal_mode = wal; create table t (i)")
    path.with_name(path.name + "-shm").symlink_to("none")  # SQLite follows none: as in a folder that cannot be written
    for open_file in (SQLiteReader, partial(SQLiteSession, is_writer=False)):
        with pytest.raises(
            ConnectorConfigError, match=r"create or open .*-shm\. Let this user write to the folder; or copy"
        ):
            open_file(path)


def test_a_file_that_cannot_be_created_names_its_folder(path: Path) -> None:
    (path.parent / "taken").touch()
    with pytest.raises(ConnectorConfigError, match=f"{path.parent}/taken/none' does not exist"):
        SQLiteSession(path.parent / "taken" / "none" / "d.db", is_writer=True)
    with pytest.raises(ConnectorConfigError, match=f"cannot be created: may this user write to {path.parent}/none"):
        SQLiteSession(path.parent / "none" / "d.db", is_writer=False)
