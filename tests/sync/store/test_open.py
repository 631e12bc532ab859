"""Opening the run store: files, URLs, versions."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from syncblocks.connectors.struct_helpers import replace
from syncblocks.sync.clock import Clock
from syncblocks.sync.errors import ConfigError, StateError, StoreUnreachable
from syncblocks.sync.store import Store, migrations
from syncblocks.sync.store.drivers import Sqlite
from syncblocks.sync.store.location import file_system
from syncblocks.sync.store.model import RecordedCallback
from syncblocks.sync.store.owner import current_owner
from syncblocks.sync.store.pool import Pool
from syncblocks.sync.store.ticks import TickOptions
from tests.file_limit import file_limit
from tests.nobody import as_nobody, open_folder
from tests.sync.store.store_helpers import DATE, STORES, query, store_url_of


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return store_url_of(request, tmp_path)


def test_a_store_is_made_at_first_and_found_again(store_url: str) -> None:
    with Store.open(store_url) as store:
        run = store.begin_run("p", execution_date=DATE)
    with Store.open(store_url) as store:
        assert store.run(run.id) == run
    assert query(store_url, "SELECT version_num FROM _syncblocks_version") == [(migrations.REVISIONS[-1],)]


def test_a_new_store_needs_no_more_room_than_its_file_and_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    """On a disk that was nearly full, what stood in the file's WAL was lost, and the store was malformed for good."""
    Store.open(f"sqlite:///{tmp_path}/a.db").close()
    size_bytes = (tmp_path / "a.db").stat().st_size
    for place, limit in enumerate(range(8192, size_bytes, 20_000)):
        with file_limit(limit), pytest.raises(StateError, match=rf"run store {re.escape(str(tmp_path))}/{place}\.db: "):
            Store.open(f"sqlite:///{tmp_path}/{place}.db").close()
        assert [path.name for path in tmp_path.iterdir()] == ["a.db"]
    with file_limit(size_bytes):
        Store.open(f"sqlite:///{tmp_path}/b.db").close()
    assert query(f"sqlite:///{tmp_path}/b.db", "PRAGMA integrity_check") == [("ok",)]


def test_existence_is_told_without_making_anything(store_url: str) -> None:
    assert not Store.exists(store_url)
    assert not Store.exists(store_url)
    Store.open(store_url).close()
    assert Store.exists(store_url)


@pytest.mark.full
def test_a_store_of_every_older_version_is_brought_to_the_last(store_url: str) -> None:
    Store.open(store_url).close()
    new = described(store_url)
    for version in migrations.REVISIONS[:-1]:
        for statement in (*(f"DROP TABLE {table}" for table in new), *older(store_url, version)):
            query(store_url, statement)
        with Store.open(store_url) as store:
            assert [(run.id, run.pipeline) for run in store.runs()] == [(7, "old")]
            assert store.begin_run("p", execution_date=DATE).id > 7
        assert described(store_url) == new
    assert query(store_url, "SELECT version_num FROM _syncblocks_version") == [(migrations.REVISIONS[-1],)]


def test_what_an_older_version_kept_of_callbacks_is_forgotten(store_url: str) -> None:
    Store.open(store_url).close()
    drop = [f"DROP TABLE {table}" for table in described(store_url)]
    callback = {
        "block": "told",
        "file": "/a.py",
        "timeout_s": 60.0,
        "attempts": 5,
        "hook": {"kind": "shell", "shell": "x"},
    }
    subscription = {"callback_block": "told", "function": "f", "parent": "stream", "status": "success"}
    plan = {
        "subscriptions": [{**subscription, "streams": None, "needs_data": False}],
        "callbacks": [callback],
        "allow_blocks_to_fail": True,
        "extra": {"source": "s"},
    }
    for statement in (
        *drop,
        *older(store_url, "0003"),
        f"UPDATE _syncblocks_attempt SET plan = '{json.dumps(plan)}'",
    ):
        query(store_url, statement)
    with Store.open(store_url) as store:
        found = store.attempt_plan(7, 1)
    assert found is not None
    assert found.callbacks == (RecordedCallback(block="told"),)
    assert [one.function for one in found.subscriptions] == ["f"]
    ((text,),) = query(store_url, "SELECT plan FROM _syncblocks_attempt")
    assert json.loads(text) == {**plan, "callbacks": [{"block": "told"}]}


def test_ticks_that_wait_in_a_store_of_0_1_0_become_runs(store_url: str) -> None:
    """Also one whose process, on another machine, had claimed it for an hour."""
    Store.open(store_url).close()
    drop = [f"DROP TABLE {table}" for table in described(store_url)]
    owner = replace(current_owner(), host="other", boot_id="another boot").encode()
    columns = (
        "pipeline, kind, tick_key, due_at, trigger_id, event, variables, causes, state, claims, owner, lease_until"
    )
    row = """INSERT INTO _syncblocks_tick ({}) VALUES ('p{}', 'callback', 'k', '2026-01-02 03:04:05.000000', 't',
        '{{"a": 1}}', '{{"b": null}}', '["q"]', '{}', {}, {}, {})"""
    for statement in (
        *drop,
        *older(store_url, "0011"),
        row.format(columns, 1, "waiting", 0, "NULL", "NULL"),
        row.format(columns, 2, "claimed", 1, f"'{owner}'", "'2099-01-02 03:04:05.000000'"),
    ):
        query(store_url, statement)
    with Store.open(store_url) as store:
        for number in (1, 2):
            tick = store.claim_tick(number)
            assert tick is not None
            assert (tick.options, tick.not_before) == (TickOptions(event={"a": 1}, variables={"b": None}), None)
            run = store.begin_run(tick.pipeline, execution_date=tick.due_at, tick=number)
            assert store.tick(number).run_id == run.id


def older(store_url: str, version: str) -> list[str]:
    """Return what makes a store of an older version, with one run in it."""
    is_sqlite = store_url.startswith("sqlite")
    serial = "INTEGER PRIMARY KEY AUTOINCREMENT" if is_sqlite else "SERIAL PRIMARY KEY"
    yes, no = ("1", "0") if is_sqlite else ("TRUE", "FALSE")
    owner = current_owner().encode()
    steps = [
        one
        for name in migrations.REVISIONS
        if name <= version
        for one in migrations.STEPS[name]
        if isinstance(one, str)
    ]
    advance = [] if is_sqlite else ["SELECT setval('_syncblocks_pipeline_run_id_seq', 7)"]
    return [
        "CREATE TABLE _syncblocks_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)",
        f"INSERT INTO _syncblocks_version VALUES ('{version}')",
        *(
            one.replace("SERIAL_KEY", serial).replace("= TRUE", f"= {yes}").replace("= FALSE", f"= {no}")
            for one in steps
        ),
        "INSERT INTO _syncblocks_pipeline_run (id, run_key, pipeline, attempt, is_active, owner, lease_until, "
        "cancel_requested_at, execution_date, trigger_id, event, variables, last_seq) VALUES (7, 'k', 'old', 1, FALSE, "
        f"'{owner}', '2026-01-02 03:04:05.000000', NULL, "
        "'2026-01-02 03:04:05.000000', '0', '{}', '{}', 0)",
        "INSERT INTO _syncblocks_attempt VALUES (7, 1, 'success', NULL, NULL, 0, 0, 0, 0, TRUE, "
        "'2026-01-02 03:04:05.000000', '2026-01-02 03:04:06.000000', NULL)",
        *advance,
    ]


def described(store_url: str) -> dict[str, object]:
    """Say of each table all that the database itself says."""
    engine = sa.create_engine(store_url)
    with engine.connect() as connection:
        inspector = sa.inspect(connection)
        said: dict[str, object] = {}
        for table in inspector.get_table_names():
            columns = [
                {key: str(value) for key, value in column.items() if key != "comment"}
                for column in inspector.get_columns(table)
            ]
            indexes = sorted(
                f"{index['name']}: {index['column_names']} {index['unique']} "
                f"{ {key: str(value) for key, value in index.get('dialect_options', {}).items()} }"
                for index in inspector.get_indexes(table)
            )
            unique = sorted(str(key) for key in inspector.get_unique_constraints(table))
            said[table] = (columns, inspector.get_pk_constraint(table), indexes, unique)
    engine.dispose()
    return said


def test_a_store_newer_than_the_program_is_refused_and_left_alone(store_url: str) -> None:
    Store.open(store_url).close()
    query(store_url, "UPDATE _syncblocks_version SET version_num = '9999'")
    with pytest.raises(StateError, match=r"has version 9999, this program knows up to .* upgrade syncblocks"):
        Store.open(store_url)
    assert query(store_url, "SELECT version_num FROM _syncblocks_version") == [("9999",)]


def test_many_threads_open_a_new_store_at_once(store_url: str) -> None:
    errors: list[BaseException] = []
    start = threading.Barrier(6)

    def body() -> None:
        try:
            start.wait()
            with Store.open(store_url) as store:
                store.runs()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(query(store_url, "SELECT version_num FROM _syncblocks_version")) == 1


def test_the_file_and_its_folder_are_private(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        with Store.open("sqlite:///.syncblocks/store.db", folder=tmp_path) as store:
            store.begin_run("p", execution_date=DATE)
            modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / ".syncblocks").iterdir()}
    finally:
        os.umask(umask)
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}
    assert (tmp_path / ".syncblocks").stat().st_mode & 0o777 == 0o700


def test_a_file_that_others_may_read_is_made_private(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    Store.open(url).close()
    (tmp_path / "store.db").chmod(0o644)
    Store.open(url).close()
    assert (tmp_path / "store.db").stat().st_mode & 0o777 == 0o600


def test_sqlite_is_opened_durable(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/store.db") as store, store._transactions.read() as connection:
        assert connection.value("PRAGMA journal_mode") == "wal"
        assert connection.value("PRAGMA synchronous") == 2


@pytest.mark.parametrize("content", [b"", b"x", b"id,name\n1,a\n", b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_damaged_file_is_an_error_and_never_an_empty_history(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(content)
    with pytest.raises(StateError, match=r"store\.db.* it is damaged\. Put a copy back, or move it") as caught:
        Store.open(f"sqlite:///{path}")
    assert caught.value.code == "state"
    assert path.read_bytes() == content


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "store.db")
    with pytest.raises(StateError, match=r"store\.db is no file"):
        Store.open(f"sqlite:///{tmp_path}/store.db")


def test_a_damaged_page_is_told_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with Store.open(f"sqlite:///{path}") as store:
        store.begin_run("p", execution_date=DATE)
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(StoreUnreachable, match=r"malformed: it is damaged\. Put a copy back, or move it"):
        Store.open(f"sqlite:///{path}").close()


@pytest.mark.parametrize(
    "url",
    [
        "mysql://root@localhost/x",
        "store.db",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=ro",
        "sqlite:///store.db?timeout=5",
        "sqlite://host/store.db",
        "a:secret@b",
    ],
)
def test_what_is_no_store_is_refused_without_showing_the_url(url: str) -> None:
    with pytest.raises(ConfigError, match="allowed: sqlite:///PATH") as caught:
        Store.open(url)
    assert "secret" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"file/store\.db"):
        Store.open(f"sqlite:///{tmp_path}/file/store.db")


def test_a_server_that_does_not_answer_is_named_without_its_password() -> None:
    with pytest.raises(StateError, match="run store postgresql") as caught:
        Store.open("postgresql://me:hunter2@127.0.0.1:1/db")
    assert "hunter2" not in str(caught.value)
    assert "\t" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_url_is_shown_without_its_password(postgres_url: str) -> None:
    with Store.open(postgres_url.replace("postgres@", "postgres:hunter2@")) as store:
        assert "hunter2" not in store.url
        assert "***" not in store.url


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/home/me/x", "ext4"), ("/mnt/share/a b/x", "nfs4"), ("/mnt/share", "ext4"), ("/mnt/sharex", "ext4")],
)
def test_the_file_system_is_that_of_the_innermost_mount(folder: str, kind: str) -> None:
    mounts = (
        "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 21 0:40 / /mnt/share/a\\040b rw,relatime shared:1 - nfs4 server:/export rw\n"
    )
    assert file_system(Path(folder), mounts) == kind


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syncblocks.sync.store.location.file_system", lambda folder: "nfs4")
    with pytest.raises(StateError, match="network file system"):
        Store.open(f"sqlite:///{tmp_path}/store.db")
    assert list(tmp_path.iterdir()) == []


def test_opening_a_store_imports_nothing_heavy(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    Store.open(url).close()
    code = (
        "import sys; from syncblocks.sync.store import Store; "
        "store = Store.open(sys.argv[1]); store.outbox('p').lease('x');"
        "store.close(); heavy = {'sqlalchemy', 'pyarrow', 'pandas', 'numpy', 'psycopg', 'yaml', 'singer_sdk'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_store_is_not_used_after_a_fork(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/store.db") as store:
        store._transactions.database._pid -= 1
        with pytest.raises(RuntimeError, match="after a fork"):
            store.runs()
        store._transactions.database._pid += 1


def test_the_queue_and_the_runs_are_read_by_their_indexes(tmp_path: Path) -> None:
    from syncblocks.sync.store.queue_sql import DUE

    values = {"pipeline": "p", "callback_block": "x", "now": DATE, "most_lost": 1}
    with Store.open(f"sqlite:///{tmp_path}/store.db") as store, store._transactions.read() as connection:
        steps = [row.detail for row in connection.rows(f"EXPLAIN QUERY PLAN {DUE}", values)]
    # The two subqueries of one row each are read as a whole; tables are not.
    assert {step for step in steps if step.startswith("SCAN")} == {"SCAN ready", "SCAN ripe"}
    assert not [step for step in steps if "TEMP B-TREE" in step]
    assert [name for name in ("_syncblocks_ready", "_syncblocks_retries") if any(name in step for step in steps)] == [
        "_syncblocks_ready",
        "_syncblocks_retries",
    ]


def test_a_thread_that_was_given_up_leaves_no_connection_open(tmp_path: Path) -> None:
    """Its function ends after the store was closed, and it has still something to write."""
    pool = Pool(Sqlite(tmp_path / "store.db", Clock()), "store")
    pool.close()
    raw, _ = pool.take()
    pool.give(raw)
    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        raw.execute("select 1")


def test_a_folder_that_may_not_be_written_is_named_with_the_ways_out() -> None:
    with open_folder() as folder:
        folder.chmod(0o555)
        url = f"sqlite:///{folder}/.syncblocks/store.db"
        way_out = f"this user may not write {folder}: give the permission, or set `store` to another place"
        with as_nobody(), pytest.raises(StoreUnreachable, match=way_out):
            Store.open(url)
        with as_nobody(), pytest.raises(StoreUnreachable, match=way_out):
            Store.demand_writable(url)


def test_a_store_that_may_not_be_written_is_named_with_the_ways_out() -> None:
    with open_folder() as folder:
        file = folder / "store.db"
        with Store.open(f"sqlite:///{file}"):
            pass
        file.chmod(0o400 if os.geteuid() else 0o444)  # an owner's own file is taken back from all others
        with (
            as_nobody(),
            pytest.raises(StoreUnreachable, match=f"this user may not write {file}: give the permission, or set"),
            Store.open(f"sqlite:///{file}") as store,
        ):
            store.begin_run("p", execution_date=DATE)


def test_a_store_in_a_folder_of_another_user_is_named_with_the_ways_out() -> None:
    with open_folder() as folder:
        private = folder / ".syncblocks"
        url = f"sqlite:///{private}/store.db"
        with Store.open(url):
            pass
        private.chmod(0o000)
        for look in (Store.exists, Store.open, Store.demand_writable):
            with (
                as_nobody(),
                pytest.raises(StoreUnreachable, match=f"this user may not write {private}: give the perm"),
            ):
                look(url)
        private.chmod(0o700)
