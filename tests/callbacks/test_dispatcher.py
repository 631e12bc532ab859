from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import psutil
import pytest

from syncblocks.callbacks.dispatcher import Dispatcher
from syncblocks.callbacks.protocols import Delivery, LeaseResult, Outcome
from tests.callbacks.outbox import MemoryOutbox, delivery

Make = Callable[..., Dispatcher]


@pytest.fixture
def box() -> MemoryOutbox:
    return MemoryOutbox()


@pytest.fixture
def make(box: MemoryOutbox) -> Iterator[Make]:
    made: list[Dispatcher] = []

    def make(*blocks: str, **options: Any) -> Dispatcher:
        dispatcher = Dispatcher(options.pop("outbox", box), blocks or ["alerts"], kill_grace_s=0.3, **options)
        made.append(dispatcher)
        return dispatcher

    yield make
    for dispatcher in made:
        dispatcher.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(
        tmp_path,
        """
        import time
        @callback
        def tell(*, stream): print(stream)
        @callback
        def fails(*, stream): raise ValueError(stream)
        @callback
        def hangs(): time.sleep(600)
        @callback
        def naps(): time.sleep(0.3)
        """,
    )


def write(folder: Path, text: str, name: str = "alerts.py") -> Path:
    path = folder / name
    path.write_text(dedent(text))
    return path


def wait_for(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_queue_is_served_in_order_and_output_is_attributed(box: MemoryOutbox, make: Make, file: Path) -> None:
    streams = [f"stream_{number}" for number in range(20)]
    box.add(*(delivery(file, "tell", stream=stream) for stream in streams))
    assert make().drain(30)
    assert [outcome.output for _, outcome, _ in box.outcomes] == [f"{stream}\n" for stream in streams]


def test_a_hanging_block_holds_no_other_back(box: MemoryOutbox, make: Make, file: Path) -> None:
    box.add(delivery(file, "hangs", block="slow", timeout_s=600), delivery(file, "tell", block="quick"))
    dispatcher = make("slow", "quick")
    dispatcher.start()
    wait_for(lambda: bool(box.outcomes))
    assert box.kinds == [("tell", "returned")]
    assert not dispatcher.drain(0.1)


def test_what_fails_is_tried_again_and_then_dead_and_told(box: MemoryOutbox, make: Make, file: Path) -> None:
    told: list[tuple[int, str]] = []

    def on_outcome(delivered: Delivery, outcome: Outcome, verdict: str) -> None:
        told.append((delivered.attempt, verdict))
        raise RuntimeError("a logger that is broken")

    box.add(delivery(file, "fails", attempts=3), delivery(file, "tell"))
    assert make(on_outcome=on_outcome).drain(30)
    assert told == [(1, "retry"), (2, "retry"), (3, "dead"), (1, "done")]


def test_notify_wakes_a_queue_that_would_look_again_in_ten_minutes(box: MemoryOutbox, make: Make, file: Path) -> None:
    dispatcher = make(poll_s=(600.0, 600.0))
    assert dispatcher.drain(10)
    for number in range(20):
        box.add(delivery(file, "tell"))
        dispatcher.notify()
        wait_for(lambda number=number: len(box.outcomes) == number + 1)


@pytest.mark.full
def test_a_warmed_block_imports_what_reads_data_before_its_first_call(
    box: MemoryOutbox, make: Make, tmp_path: Path
) -> None:
    file = write(tmp_path, "import sys\n@callback\ndef look(): print('pandas' in sys.modules)\n")
    dispatcher = make("warm", "cold")
    dispatcher.warm({"warm"})
    box.add(delivery(file, "look", block="warm"), delivery(file, "look", block="cold"))
    assert dispatcher.drain(30)
    assert {call.callback_block: outcome.output for call, outcome, _ in box.outcomes} == {
        "warm": "True\n",
        "cold": "False\n",
    }


def test_a_warmed_child_ends_with_its_dispatcher_though_nothing_was_called(make: Make) -> None:
    before = set(psutil.Process().children())
    dispatcher = make()
    dispatcher.warm({"alerts"})
    assert dispatcher.drain(30)
    assert len(set(psutil.Process().children()) - before) == 1
    dispatcher.close()
    assert set(psutil.Process().children()) <= before


def test_work_of_another_process_is_found_without_notify(box: MemoryOutbox, make: Make, file: Path) -> None:
    dispatcher = make(poll_s=(0.01, 0.02))
    assert dispatcher.drain(10)
    box.add(delivery(file, "tell"))
    wait_for(lambda: box.kinds == [("tell", "returned")])


class TestDrain:
    def test_with_no_callback_blocks_is_done_at_once(self, box: MemoryOutbox) -> None:
        dispatcher = Dispatcher(box, [])
        assert dispatcher.drain(0)
        dispatcher.close()

    def test_waits_for_what_is_due_later(self, box: MemoryOutbox, make: Make, file: Path) -> None:
        box.add(delivery(file, "tell"), due_in_s=0.3)
        assert make().drain(30)
        assert box.kinds == [("tell", "returned")]

    def test_gives_up_when_time_is_up_or_when_told(self, box: MemoryOutbox, make: Make, file: Path) -> None:
        box.add(delivery(file, "tell"), due_in_s=600)
        dispatcher = make()
        assert not dispatcher.drain(0.1)
        stopped = threading.Event()
        threading.Timer(0.05, stopped.set).start()
        began = time.monotonic()
        assert not dispatcher.drain(None, stopped.is_set)
        assert time.monotonic() - began < 60

    def test_sees_what_was_added_after_an_earlier_drain(self, box: MemoryOutbox, make: Make, file: Path) -> None:
        dispatcher = make(poll_s=(600.0, 600.0))
        for number in range(1, 4):
            box.add(delivery(file, "tell"))
            assert dispatcher.drain(30)
            assert len(box.outcomes) == number

    def test_with_one_try_does_not_wait_for_a_second(self, make: Make, file: Path) -> None:
        box = MemoryOutbox(backoff_s=600)
        box.add(delivery(file, "fails", attempts=5), delivery(file, "tell"), delivery(file, "tell", block="other"))
        box.add(delivery(file, "tell"), due_in_s=600)
        assert make("alerts", "other", outbox=box).drain(30, one_try=True)
        assert sorted(box.kinds) == [("fails", "raised"), ("tell", "returned"), ("tell", "returned")]


class TestClose:
    def test_cuts_a_call_short_and_says_so(self, box: MemoryOutbox, make: Make, file: Path) -> None:
        box.add(delivery(file, "hangs", timeout_s=600))
        dispatcher = make()
        assert not dispatcher.drain(0.3)
        began = time.monotonic()
        dispatcher.close()
        assert time.monotonic() - began < 60
        assert box.kinds == [("hangs", "interrupted")]

    def test_lets_a_call_end_within_its_grace(self, box: MemoryOutbox, make: Make, file: Path) -> None:
        box.add(delivery(file, "naps"), delivery(file, "tell"))
        dispatcher = make()
        dispatcher.start()
        wait_for(lambda: dispatcher._queues[0].is_busy)
        dispatcher.close(grace_s=10)
        assert box.kinds == [("naps", "returned")]

    def test_lets_exit_handlers_run_in_an_idle_child(self, box: MemoryOutbox, make: Make, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        file = write(
            tmp_path,
            f"""
            import atexit
            @callback
            def tell(): atexit.register(lambda: open({str(mark)!r}, 'w').close())
            """,
        )
        box.add(delivery(file, "tell"))
        dispatcher = make()
        assert dispatcher.drain(30)
        dispatcher.close()
        assert mark.exists()

    def test_may_be_called_before_start_and_twice(self, box: MemoryOutbox, make: Make) -> None:
        dispatcher = make()
        dispatcher.close()
        dispatcher.close()


class TestVariables:
    def test_references_are_resolved_for_variables_only(self, box: MemoryOutbox, make: Make, tmp_path: Path) -> None:
        file = write(
            tmp_path,
            """
            @callback
            def tell(*, token, event, pipeline_run): print(token, event, pipeline_run.variables)
            """,
        )
        reference = {"$template": "{{ secret('token') }}"}

        def resolve(values: dict[str, Any]) -> dict[str, Any]:
            return {name: "resolved" if value == reference else value for name, value in values.items()}

        box.add(delivery(file, "tell", token=reference, event=reference))
        assert make(resolve=resolve).drain(30)
        (outcome,) = [outcome for _, outcome, _ in box.outcomes]
        assert outcome.output == f"resolved {reference} {{'token': 'resolved'}}\n"

    def test_one_that_cannot_be_resolved_fails_the_delivery(self, box: MemoryOutbox, make: Make, file: Path) -> None:
        def resolve(values: dict[str, Any]) -> dict[str, Any]:
            raise LookupError("no secret 'token'")

        box.add(delivery(file, "tell"))
        assert make(resolve=resolve).drain(30)
        assert box.kinds == [("tell", "load")]
        assert "no secret 'token'" in (box.outcome("tell").error or "")

    def test_secrets_are_masked_in_errors_and_output(self, box: MemoryOutbox, make: Make, tmp_path: Path) -> None:
        file = write(
            tmp_path,
            """
            @callback
            def tell(*, token):
                print('x' * 20000 + token)
                raise ValueError(f'refused {token}\\0\\udc80')
            """,
        )
        box.add(delivery(file, "tell", token="canary"))
        assert make(redact=lambda text: text.replace("canary", "***")).drain(30)
        outcome = box.outcome("tell")
        assert outcome.output.endswith("x***\n")
        assert (outcome.error or "").startswith(f"ValueError: refused ***\\0\\udc80, at {file}:5\n")
        assert "canary" not in (outcome.error or "")

    def test_secrets_are_masked_in_what_a_child_writes_as_bytes(
        self, box: MemoryOutbox, make: Make, tmp_path: Path
    ) -> None:
        file = write(
            tmp_path,
            """
            import os, subprocess, sys
            @callback
            def tell(*, token):
                sys.stdout.buffer.write(token.encode() + b'\\xff\\n')
                sys.stdout.buffer.flush()
                os.write(1, token.encode()[:3])
                os.write(2, token.encode()[3:])
                subprocess.run(['printf', token], check=True)
            """,
        )
        box.add(delivery(file, "tell", token="canary"))
        assert make(redact=lambda text: text.replace("canary", "***")).drain(30)
        assert box.outcome("tell").output == "***\ufffd\n******"


class TestFiles:
    def test_one_that_is_gone_or_lost_its_function_is_missing(
        self, box: MemoryOutbox, make: Make, file: Path, tmp_path: Path
    ) -> None:
        box.add(delivery(tmp_path / "gone.py", "tell"), delivery(file, "renamed"), delivery(file, "tell"))
        assert make().drain(30)
        assert box.kinds == [("tell", "missing"), ("renamed", "missing"), ("tell", "returned")]

    def test_one_that_does_not_load_can_be_mended(self, box: MemoryOutbox, make: Make, tmp_path: Path) -> None:
        file = write(tmp_path, "import sys\nsys.exit(1)\n")
        dispatcher = make()
        box.add(delivery(file, "tell"))
        assert dispatcher.drain(30)
        assert box.outcome("tell").kind == "load"
        assert f"{file}:2: " in (box.outcome("tell").error or "")
        write(tmp_path, "@callback\ndef tell(**kwargs): ...\n")
        box.add(delivery(file, "tell"))
        assert dispatcher.drain(30)
        assert box.outcome("tell").kind == "returned"


class Flaky(MemoryOutbox):
    """An outbox whose next calls fail."""

    failures = 2

    def lease(self, callback_block: str) -> LeaseResult:
        self.fail()
        return super().lease(callback_block)

    def mark(self, delivery: Delivery, outcome: Outcome) -> str:
        self.fail()
        return super().mark(delivery, outcome)

    def fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("database is locked")


def test_a_store_that_fails_for_a_while_loses_nothing(make: Make, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    box = Flaky()
    box.add(delivery(file, "tell"))
    dispatcher = make(outbox=box)
    with caplog.at_level(logging.CRITICAL):
        assert dispatcher.drain(30)
        box.failures = 1
        box.add(delivery(file, "tell"))
        assert dispatcher.drain(30)
    assert box.kinds == [("tell", "returned")] * 2


def test_a_store_that_fails_is_called_again_after_pauses_that_grow(
    make: Make, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: dict[str, list[float]] = {"lease": [], "mark": []}

    class Failing(MemoryOutbox):
        failed = ""

        def lease(self, callback_block: str) -> LeaseResult:
            self.fail("lease")
            return super().lease(callback_block)

        def mark(self, delivery: Delivery, outcome: Outcome) -> str:
            self.fail("mark")
            return super().mark(delivery, outcome)

        def fail(self, call: str) -> None:
            self.failed = call if len(pauses[call]) < 8 else ""
            if self.failed:
                raise OSError("database is locked")

    box = Failing()

    class Noted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if box.failed and timeout is not None:
                pauses[box.failed].append(timeout)
                box.failed = ""
            return super().wait(timeout and min(timeout, 0.001))

    monkeypatch.setattr(threading, "Event", Noted)
    box.add(delivery(file, "tell"))
    assert make(outbox=box).drain(30)
    assert box.kinds == [("tell", "returned")]
    for waits in pauses.values():
        assert waits == sorted(waits)
        assert 0.1 <= waits[0] < waits[-1] <= 10


class TestInline:
    def test_functions_run_here_on_one_thread_in_turn(self, box: MemoryOutbox, make: Make, tmp_path: Path) -> None:
        seen = tmp_path / "seen"
        file = write(
            tmp_path,
            f"""
            import os, sys, threading
            @callback
            def tell(*, block_uuid):
                with open({str(seen)!r}, 'a') as out:
                    out.write(f'{{os.getpid()}} {{threading.get_ident()}}\\n')
            @callback
            def exits(): sys.exit('enough')
            """,
        )
        box.add(delivery(file, "tell"), delivery(file, "exits"), delivery(file, "tell", block="other"))
        dispatcher = make("alerts", "other", inline=True)
        assert dispatcher.drain(30)
        assert sorted(box.kinds) == [("exits", "raised"), ("tell", "returned"), ("tell", "returned")]
        (line,) = set(seen.read_text().splitlines())
        assert int(line.split()[0]) == __import__("os").getpid()


def test_what_functions_print_inline_is_masked_too(
    box: MemoryOutbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "loud.py"
    file.write_text(
        "import sys\n\n@callback\ndef loud(**kwargs):\n"
        "    print('all: hunter2')\n    sys.stdout.write('halves: hun')\n    sys.stdout.write('ter2\\n')\n"
        "    sys.stderr.writelines(['error: ', 'hunter2'])\n    print('(Pdb) ', end='', flush=True)\n"
        "    sys.stdout.buffer.write(b'bytes: hun')\n    sys.stdout.buffer.writelines([b'ter2\\n', b'hunter2'])\n"
    )
    box.add(delivery(file, "loud", block=file.stem))
    out, err = sys.stdout, sys.stderr
    dispatcher = Dispatcher(box, [file.stem], inline=True, redact=lambda text: text.replace("hunter2", "***"))
    try:
        assert dispatcher.drain(30)
    finally:
        dispatcher.close()
    shown = capsys.readouterr()
    assert shown.out == "all: ***\nhalves: ***\n(Pdb) bytes: ***\n***"
    assert shown.err == "error: ***"
    assert (sys.stdout, sys.stderr) == (out, err)
