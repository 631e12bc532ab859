"""A run store that lost part of what was written: `recover` ends what is left, and says what is not there."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.faults.conftest import Count
from tests.faults.test_failpoints import make
from tests.zygote import Process, Zygote

RUN, ATTEMPT, STREAM, BLOCK, EVENT = (
    f"_syncblocks_{name}" for name in ("pipeline_run", "attempt", "stream_run", "block_run", "event")
)
#: What is lost of a run whose process died while it read its second stream -> what `recover` says of that.
LOST = {
    f"update {RUN} set last_seq = 0": "more events than its counter",
    f"update {STREAM} set status = 'running' where stream = 'orders'": "half of a write is missing for stream 'orders'",
    f"update {BLOCK} set status = 'running' where stream = 'orders' and block = 'export'": "for stream 'orders'",
    f"delete from {BLOCK} where stream = 'empty' and block = 'export'": "half of a write is missing for stream 'empty'",
    f"update {STREAM} set status = 'unclaimed' where stream = 'empty'": "half of a write is missing for stream 'empty'",
    f"update {ATTEMPT} set open_streams = 0, unclaimed_streams = 7": "its counts differ from its streams",
    "delete from _syncblocks_type_counter": "its counts differ from its streams",
    f"delete from {ATTEMPT}": "the row of its attempt 1 is lost",
    f"update {ATTEMPT} set plan = null": "half of a write is missing for stream 'empty'",
    f"delete from {EVENT}": "due callbacks are dead",
    f"delete from {STREAM}": "half of a write is missing for stream",
    f"delete from {RUN}": "only parts of runs 1 to 1 are left",
    f"delete from {RUN}; delete from sqlite_sequence": "only parts of runs 1 to 1 are left",
}


@pytest.mark.full
@pytest.mark.parametrize("statement", LOST)
def test_what_is_left_of_a_torn_run_is_ended_and_told_of(
    zygote: Zygote, folder: Path, statement: str, injected: Count
) -> None:
    workshop = make(zygote, folder, "sqlite", "sqlite", "", "append")
    workshop.write()
    assert workshop.run(failpoint="stream.after_take_over:2:kill").code == -signal.SIGKILL
    injected()
    for one in statement.split("; "):
        workshop.change_store(one)
    found = command(zygote, folder, "recover", "pipeline.yaml")
    assert found.code in (0, 3), found.log()
    assert LOST[statement] in found.log()
    assert "--wait" not in found.log()
    for arguments in (("runs", "list"), ("recover",), ("run",)):
        later = command(zygote, folder, *arguments, "pipeline.yaml")
        assert later.code in (0, 3), (arguments, later.log())
    assert [row[0] for row in workshop.rows("orders") or ()] == list(range(9))
    assert workshop.store_rows(f"select count(*) as n from {RUN} where is_active")[0]["n"] == 0
    running = f"select stream from {STREAM} where status = 'running' and run_id in (select id from {RUN})"
    assert workshop.store_rows(running) == []
    assert workshop.store_rows("pragma integrity_check")[0]["integrity_check"] == "ok"


COMMANDS = (
    ("run", "pipeline.yaml"),
    ("recover", "pipeline.yaml"),
    ("runs", "list", "pipeline.yaml"),
    ("runs", "cancel", "pipeline.yaml"),
    ("callbacks", "retry", "pipeline.yaml"),
    ("state", "show", "pipeline.yaml"),
)


@pytest.mark.full
@pytest.mark.parametrize("first_byte", [0, 100, 4096])
def test_a_malformed_store_is_an_error_with_a_way_out(
    zygote: Zygote, folder: Path, first_byte: int, injected: Count
) -> None:
    workshop = make(zygote, folder, "sqlite", "sqlite", "", "append")
    workshop.write()
    assert workshop.run().code == 0
    store = folder / ".syncblocks" / "store.db"
    content = store.read_bytes()
    store.write_bytes(content[:first_byte] + b"\xa5" * (len(content) - first_byte))
    injected()
    for arguments in COMMANDS:
        found = command(zygote, folder, *arguments)
        assert found.code in (1, 2), (arguments, found.log())
        assert found.result()["error"]["code"] in ("state", "store"), (arguments, found.log())
        assert "it is damaged. Put a copy back, or move it and its `-wal` away" in found.log()
    for left in store.parent.glob("store.db*"):
        left.rename(left.with_name(f"torn-{left.name}"))
    workshop.grow("orders", 2)
    workshop.write()
    assert workshop.run().code == 0
    assert [row[0] for row in workshop.rows("orders") or ()] == list(range(11))


def command(zygote: Zygote, folder: Path, *arguments: str) -> Process:
    process = zygote.start(folder, arguments)
    process.wait()
    assert "bug of syncblocks" not in process.log(), (arguments, process.log())
    assert (process.result().get("error") or {}).get("code") != "internal", (arguments, process.log())
    return process
