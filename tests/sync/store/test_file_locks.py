"""SQLite's locks on the run store, on the source and on the destination stay, whatever else the process does."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

import syncblocks
from syncblocks import load_pipeline, open_run, recover, run_pipeline, sync_stream
from syncblocks.sync.api import cancel, count, discover, list_streams, preview, state, verify
from syncblocks.sync.errors import SyncError
from syncblocks.sync.run.redelivery import redeliver
from syncblocks.sync.session.inspection import existing_store
from tests.posix_locks import locks, on_linux
from tests.sync.pipelines import Bench
from tests.zygote import Zygote

pytestmark = on_linux

#: Waits in stream `a` for the file `go`; tells by the file `runs` that it is there.
_WAIT = """
    here = Path(__file__).parent
    if stream == "a" and not (here / "go").exists():
        (here / "runs").touch()
        while not (here / "go").exists():
            time.sleep(0.02)
"""
SLOW = f"import time\nfrom pathlib import Path\n\n@transformer\ndef slow(df, stream, **kwargs):{_WAIT}    return df\n"
TOLD = f"import time\nfrom pathlib import Path\n\n@callback('success')\ndef told(stream, **kwargs):{_WAIT}"


class Shop(Bench):
    """Two tables of a SQLite file, copied into another one; `a` is slow where the test says."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.store, self.source_file, self.out = folder / ".syncblocks/store.db", folder / "in.db", folder / "out.db"
        with closing(sqlite3.connect(self.source_file)) as connection:
            for name in "ab":
                connection.execute(f"create table {name} (id integer primary key, v text)")
                connection.execute(f"insert into {name} values (1, 'x'), (2, 'y')")
            connection.commit()
        self.document |= {
            "source": {"block": "load", "connector": "sqlite", "config": {"path": str(self.source_file)}},
            "destination": {"block": "export", "connector": "sqlite", "config": {"path": str(self.out)}},
            "streams": [{"stream": "*", "write_disposition": "merge"}],
            "verify": True,
        }
        self.record(on=["stream", "pipeline"])
        self.document["callbacks"].append({"block": "count", "sql": "select count(*) from a", "on": ["stream"]})

    def slow_down(self, what: str) -> None:
        (self.folder / "slow.py").write_text(SLOW if what == "transformer" else TOLD)
        if what == "transformer":
            self.document["transformers"] = [{"file": "slow.py"}]
            self.document.pop("verify")
        else:
            self.document["callbacks"].insert(0, {"file": "slow.py", "on": ["stream"]})

    def locks(self, what: str = "") -> list[list[str]]:
        """Return those of this process; while a callback runs, the source and the destination may be closed."""
        files = (self.store,) if what == "callback" else (self.store, self.source_file, self.out)
        return [locks(file) if file.exists() else [] for file in files]


def _held(file: Path) -> Any:
    run = open_run(file)
    return sync_stream(file, run.id, "a")


def _retry(file: Path) -> None:
    pipeline = load_pipeline(file)
    with existing_store(pipeline) as store:
        assert store is not None
        redeliver(pipeline, store)


KINDS: Mapping[str, tuple[str, Callable[[Path], Any]]] = {
    "run": ("transformer", run_pipeline),
    "held": ("transformer", _held),
    "inline": ("callback", lambda file: run_pipeline(file, inline_callbacks=True)),
    "callbacks": ("callback", run_pipeline),
}
CALLS: Mapping[str, Callable[[Path], Any]] = {
    "state": state,
    "discover": discover,
    "list": list_streams,
    "preview": lambda file: preview(file, "b"),
    "count": count,
    "verify": verify,
    "recover": recover,
    "run": run_pipeline,
    "open": open_run,
    "retry": _retry,
}


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_no_call_drops_a_lock_and_no_reader_beside_tears_the_store(tmp_path: Path, zygote: Zygote, kind: str) -> None:
    shop = Shop(tmp_path)
    what, run = KINDS[kind]
    shop.slow_down(what)
    file = shop.write()
    ended: list[Any] = []
    thread = threading.Thread(target=lambda: ended.append(run(file)))
    thread.start()
    try:
        while not (tmp_path / "runs").exists():
            thread.join(0.02)
            assert thread.is_alive(), ended
        held = shop.locks(what)
        assert held[0], "the run has the store open"
        for name, call in CALLS.items():
            with suppress(SyncError):  # already running
                call(file)
            for before, after in zip(held, shop.locks(what), strict=True):
                assert set(after) >= set(before), name
            assert all(Path(f"{shop.store}-{suffix}").exists() for suffix in ("wal", "shm")), name
        for arguments in (("runs", "list"), ("runs", "show"), ("state", "show"), ("callbacks", "list")):
            done = zygote.command((*arguments, str(file)), tmp_path, os.environ)
            assert done.returncode == 0, done.stderr
            assert shop.locks()[0] == held[0], arguments
        if kind == "run":
            assert cancel(file) == 1
            assert shop.locks()[0] == held[0]
    finally:
        (tmp_path / "go").touch()
        thread.join()
    assert ended[0].status == ("cancelled" if kind == "run" else "success")
    if kind == "held":
        assert syncblocks.finish_run(file, 1).status == "cancelled"  # stream `b` was never asked for
    with closing(sqlite3.connect(shop.store)) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        runs = connection.execute("select id, is_active from _syncblocks_pipeline_run").fetchall()
        assert runs == [(1, 0)]
        running = "select count(*) from _syncblocks_block_run where status = 'running'"
        assert connection.execute(running).fetchall() == [(0,)]
    assert shop.locks() == [[], [], []]


def test_the_run_store_itself_is_a_source_like_any_other(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    assert shop.run().status == "success"
    shop.document["source"]["config"]["path"] = str(shop.store)
    shop.document |= {
        "pipeline": "history",
        "streams": [{"query": "select id, pipeline from _syncblocks_pipeline_run"}],
    }
    shop.document["streams"][0]["stream"] = "runs"
    shop.document["callbacks"] = []
    seen: list[list[str]] = []

    class Looking(syncblocks.Progress):
        def stream_ended(self, *args: Any, **kwargs: Any) -> None:
            seen.append(locks(shop.store))

    assert shop.run(Looking()).status == "success"
    with closing(sqlite3.connect(shop.out)) as connection:
        assert connection.execute("select id, pipeline from runs order by id").fetchall() == [
            (1, "bench"),
            (2, "history"),
        ]
    assert len(seen) == 1
    assert seen[0]
