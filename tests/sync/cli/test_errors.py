"""What an error is called on the command line."""

from __future__ import annotations

import sys
import threading

import pyarrow as pa
import pytest

from syncblocks.sync.cli.errors import describe


def test_a_machine_without_room_is_no_bug_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")  # what CPython says where the system refuses one

    name = "_start_joinable_thread" if sys.version_info >= (3, 13) else "_start_new_thread"
    monkeypatch.setattr(threading, name, refused)
    with pytest.raises(RuntimeError) as refusal:
        threading.Thread(target=int).start()
    assert describe(refusal.value).code == "threads"
    with pytest.raises(MemoryError) as lack:
        pa.allocate_buffer(2**62)
    problem = describe(lack.value)
    assert (problem.code, problem.exit_code) == ("memory", 1)
    assert "concurrency" in problem.hint


def test_what_nobody_expects_is_called_a_bug() -> None:
    problem = describe(RuntimeError("a thread is gone"))
    assert problem.code == "internal"
    assert "--debug" in problem.hint
