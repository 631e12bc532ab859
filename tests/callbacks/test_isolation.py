"""What a user's function may do to its process without harm to the next call, and to us."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from syncblocks.callbacks.child_process import Child
from syncblocks.callbacks.dispatcher import OUTPUT_LIMIT, Dispatcher
from syncblocks.callbacks.testing import make_event
from tests.callbacks.outbox import MemoryOutbox, delivery

FUNCTIONS = """
import ctypes, os, signal, subprocess, sys, threading, time

@callback
def good(**kwargs):
    print("good", os.getpid())

@callback
def raises(**kwargs):
    print("before")
    raise ValueError("no such channel")

@callback
def hangs(**kwargs):
    print("before", flush=True)
    time.sleep(600)

@callback
def spins(**kwargs):
    while True:
        pass

@callback
def ignores_sigterm(**kwargs):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ignoring")
    time.sleep(600)

@callback
def exits_hard(**kwargs):
    print("before")
    os._exit(0)

@callback
def exits(**kwargs):
    sys.exit(0)

@callback
def segfaults(**kwargs):
    ctypes.string_at(0)

@callback
def out_of_memory(**kwargs):
    bytearray(1 << 62)

@callback
def raises_base(**kwargs):
    class Odd(BaseException):
        def __str__(self): raise RuntimeError("no text")
    raise Odd

@callback
def interrupts(**kwargs):
    raise KeyboardInterrupt

@callback
def closes_all(**kwargs):
    os.closerange(3, 200)

@callback
def replaces_all(**kwargs):
    os.closerange(0, 200)
    for _ in range(20):
        os.open(os.devnull, os.O_RDWR)

@callback
def closes_standard(**kwargs):
    os.closerange(0, 3)

@callback
def closes_stdout(**kwargs):
    sys.stdout.close()

@callback
def leaves_thread(**kwargs):
    threading.Thread(target=time.sleep, args=(600,)).start()

@callback
def forks_and_returns(**kwargs):
    os.fork()

@callback
def forks_and_dies(**kwargs):
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)

@callback
def prints_much(**kwargs):
    line = "x" * (1 << 20)
    for _ in range(100):
        print(line)
    print("the end")

@callback
def returns_lambda(**kwargs):
    return lambda: threading.Lock()

@callback
def reads_stdin(**kwargs):
    assert sys.stdin.read() == ""

@callback
def changes_folder(**kwargs):
    os.chdir("/")

@callback
def patches_json(**kwargs):
    import json, json.encoder
    json.dumps = json.loads = json.JSONEncoder.iterencode = json.JSONDecoder.decode = None

@callback
def patches_os(**kwargs):
    os.write = os.fstat = os.listdir = os.getcwd = threading.active_count = None

@callback
def empties_builtins(**kwargs):
    import builtins
    vars(builtins).clear()

@callback
def deletes_stdout(**kwargs):
    del sys.stdout

@callback
def traces(**kwargs):
    sys.settrace(lambda *args: 1 / 0)

@callback
def profiles(**kwargs):
    def profile(frame, *args):
        if frame.f_code.co_name != "profiles": raise ValueError
    sys.setprofile(profile)

@callback
async def traces_later(**kwargs):
    sys.settrace(lambda *args: None)

@callback
def writes_into_fds(**kwargs):
    for fd in range(3, 1000):
        try: os.write(fd, b"rubbish\\n")
        except OSError: pass
"""


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("abuses") / "abuses.py"
    path.write_text(FUNCTIONS)
    return path


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child("alerts", kill_grace_s=0.3)
    yield child
    child.kill()


def request(file: Path, function: str, data: Path | None = None, **event: Any) -> dict[str, Any]:
    return {
        "file": str(file),
        "function": function,
        "kwargs": make_event(**event),
        "data": None if data is None else str(data),
    }


@pytest.mark.parametrize(
    ("function", "kind", "error", "output"),
    [
        ("raises", "raised", "ValueError: no such channel", "before\n"),
        ("hangs", "timeout", "still running after 0.4 s (timeout_s): ended by SIGTERM", "in hangs"),
        ("spins", "timeout", "ended by SIGTERM", "in spins"),
        ("ignores_sigterm", "timeout", "ended by SIGKILL", "ignoring\n"),
        ("exits_hard", "exited", "ended with exit code 0, without an answer", "before\n"),
        ("exits", "raised", "SystemExit: 0", ""),
        ("segfaults", "exited", "killed by SIGSEGV", "in segfaults"),
        ("out_of_memory", "raised", "MemoryError", ""),
        ("raises_base", "raised", "Odd: <its message raised RuntimeError>", ""),
        ("interrupts", "raised", "KeyboardInterrupt", ""),
        ("closes_all", "exited", "closed", ""),
        ("replaces_all", "exited", "closed", ""),
        ("closes_standard", "returned", "", ""),
        ("closes_stdout", "returned", "", ""),
        ("leaves_thread", "returned", "", ""),
        ("forks_and_returns", "returned", "", ""),
        ("forks_and_dies", "exited", "exit code 0, without an answer", ""),
        ("prints_much", "returned", "", "the end\n"),
        ("returns_lambda", "returned", "", ""),
        ("reads_stdin", "returned", "", ""),
        ("changes_folder", "returned", "", ""),
        ("patches_json", "returned", "", ""),
        ("patches_os", "returned", "", ""),
        ("empties_builtins", "returned", "", ""),
        ("deletes_stdout", "returned", "", ""),
        ("traces", "returned", "", ""),
        ("profiles", "returned", "", ""),
        ("traces_later", "returned", "", ""),
        ("writes_into_fds", "exited", "wrote into", ""),
    ],
)
def test_an_abuse_is_reported_and_the_next_call_works(
    file: Path, function: str, kind: str, error: str, output: str
) -> None:
    box = MemoryOutbox()
    # A first call pays for the start of the process, so that the deadline is the function's alone.
    box.add(delivery(file, "good"))
    timeout_s = 0.4 if kind == "timeout" else 20.0
    box.add(delivery(file, function, timeout_s=timeout_s), delivery(file, "good"), delivery(file, "good"))
    dispatcher = Dispatcher(box, ["alerts"], kill_grace_s=0.3)
    try:
        assert dispatcher.drain(30)
    finally:
        dispatcher.close()
    assert box.kinds == [("good", "returned"), (function, kind), ("good", "returned"), ("good", "returned")]
    outcome = box.outcomes[1][1]
    assert error in (outcome.error or "")
    assert output in outcome.output
    assert len(outcome.output) <= OUTPUT_LIMIT
    assert outcome.ok is (kind == "returned")
    assert all("good" in outcome.output for _, outcome, _ in box.outcomes[2:])


@pytest.mark.parametrize("function", ["raises", "exits", "out_of_memory", "returns_lambda", "forks_and_returns"])
def test_the_child_stays_after_what_it_can_report(file: Path, child: Child, function: str) -> None:
    child.call(request(file, "good"), timeout_s=20)
    end = child.call(request(file, function), timeout_s=20)
    assert (child.is_alive, end.worn) == (True, None)
    assert f"good {child.pid}\n".encode() in child.call(request(file, "good"), timeout_s=20).output


def test_an_exception_tells_type_message_and_the_users_frames_only(file: Path, child: Child) -> None:
    error = child.call(request(file, "raises"), timeout_s=20).error
    assert error is not None
    assert error.startswith(f"ValueError: no such channel, at {file}:")
    assert f'File "{file}"' in error
    assert "invoke.py" not in error


@pytest.mark.parametrize("function", ["closes_standard", "closes_stdout", "changes_folder", "empties_builtins"])
def test_a_child_whose_process_was_changed_is_worn(file: Path, child: Child, function: str) -> None:
    assert child.call(request(file, function), timeout_s=20).worn is not None


def test_what_a_later_call_leaves_open_wears_the_child(tmp_path: Path, child: Child) -> None:
    file = tmp_path / "alerts.py"
    file.write_text("import os, threading\nkept = []\n@callback\ndef leaks(**kwargs): kept.append(os.dup(1))\n")
    worn = [child.call(request(file, "leaks"), timeout_s=20).worn for _ in range(2)]
    assert worn[0] is None, "a session that the first call opens may stay"
    assert worn[1] is not None
    assert "open files grew" in worn[1]


def test_300_calls_leave_no_descriptor_open_here_and_recycle_the_child(file: Path) -> None:
    box = MemoryOutbox()
    box.add(*(delivery(file, "good") for _ in range(300)))
    dispatcher = Dispatcher(box, ["alerts"], recycle_after=100)
    before = psutil.Process().num_fds()
    try:
        assert dispatcher.drain(60)
        pids = [outcome.output.split()[1] for _, outcome, _ in box.outcomes]
        assert len(pids) == 300
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [100, 100, 100]
    finally:
        dispatcher.close()
    assert psutil.Process().num_fds() == before
    assert not any(psutil.pid_exists(int(pid)) for pid in set(pids))


def test_ends_by_force_leave_no_descriptor_and_no_process_here(file: Path) -> None:
    box = MemoryOutbox()
    for function in ("exits_hard", "closes_all", "segfaults", "exits_hard", "writes_into_fds", "changes_folder"):
        box.add(delivery(file, function))
    me = psutil.Process()
    before = me.num_fds(), len(me.children(recursive=True))
    dispatcher = Dispatcher(box, ["alerts"], kill_grace_s=0.3)
    try:
        assert dispatcher.drain(30)
    finally:
        dispatcher.close()
    assert (me.num_fds(), len(me.children(recursive=True))) == before


def test_a_warm_call_takes_less_than_a_millisecond_or_so(file: Path, child: Child) -> None:
    times = []
    for _ in range(101):
        began = time.perf_counter()
        assert child.call(request(file, "good"), timeout_s=20).kind == "returned"
        times.append(time.perf_counter() - began)
    # 0.25 ms when measured; the bound leaves room for a busy machine.
    assert sorted(times)[50] < 0.005


def test_a_call_without_data_imports_neither_pandas_nor_pyarrow(tmp_path: Path, child: Child) -> None:
    file = tmp_path / "alerts.py"
    file.write_text(
        "import sys\n@callback\ndef tell(df, **kwargs):\n"
        "    print(df, {'pandas', 'pyarrow', 'logging'} & set(sys.modules))\n"
    )
    assert child.call(request(file, "tell"), timeout_s=20).output == b"None set()\n"


@pytest.mark.parametrize("is_on_path", [False, True])
def test_users_modules_shadow_neither_ours_nor_the_standard_librarys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_on_path: bool
) -> None:
    folder = tmp_path / "callbacks"
    folder.mkdir()
    shadows = [folder / "__init__.py"]
    for name in ("json", "queue", "faulthandler", "inspect", "callbacks"):
        shadows.append(folder / f"{name}.py")
        if not is_on_path:
            shadows.append(tmp_path / f"{name}.py")
    for shadow in shadows:
        shadow.write_text("raise RuntimeError('shadowed')")
    (folder / "helper.py").write_text("NAME = 'beside'")
    file = folder / "alerts.py"
    file.write_text(
        "from syncblocks import callback\nimport json, helper\n"
        "@callback\ndef tell(**kwargs):\n    import queue, helper\n    print(helper.NAME)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path) if is_on_path else "")
    child = Child("alerts")
    try:
        end = child.call(request(file, "tell"), timeout_s=20)
    finally:
        child.kill()
    assert (end.kind, end.error, end.output) == ("returned", None, b"beside\n")


def test_kwargs_cross_neither_by_argument_nor_by_environment(tmp_path: Path, child: Child) -> None:
    file = tmp_path / "alerts.py"
    file.write_text(
        "import os\n@callback\ndef tell(*, password, **kwargs):\n"
        "    own = open('/proc/self/cmdline', 'rb').read() + open('/proc/self/environ', 'rb').read()\n"
        "    print(password, password.encode() in own)\n"
    )
    assert child.call(request(file, "tell", password="canary-7f3a"), timeout_s=20).output == b"canary-7f3a False\n"


def test_a_request_larger_than_a_pipe_arrives_whole(tmp_path: Path, child: Child) -> None:
    file = tmp_path / "alerts.py"
    file.write_text("@callback\ndef tell(*, blob, **kwargs): print(len(blob))\n")
    assert child.call(request(file, "tell", blob="x" * 5_000_000), timeout_s=20).output == b"5000000\n"


def test_the_pipes_are_not_inherited_by_what_a_function_starts(tmp_path: Path, child: Child) -> None:
    file = tmp_path / "alerts.py"
    file.write_text("import os\n@callback\ndef tell(**kwargs): os.system('ls /proc/self/fd | wc -l')\n")
    # 0, 1, 2, and the one that `ls` itself reads the folder with.
    assert int(child.call(request(file, "tell"), timeout_s=20).output) == 4


@pytest.mark.parametrize(("function", "kind"), [("hangs", "timeout"), ("exits", "exited")])
def test_a_call_that_is_ended_leaves_no_process_in_a_session_of_its_own(
    tmp_path: Path, child: Child, function: str, kind: str
) -> None:
    """A process of a call that returned may stay, as the docs say."""
    file = tmp_path / "alerts.py"
    file.write_text(
        "import os, subprocess, time\n"
        "@callback\ndef starts(**kwargs):\n"
        "    print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)\n"
        "def forks():\n"
        "    if os.fork(): return\n    os.setsid()\n    if os.fork(): os._exit(0)\n"
        "    print(os.getpid(), flush=True)\n    time.sleep(600)\n"
        "@callback\ndef hangs(**kwargs):\n    forks()\n    time.sleep(600)\n"
        "@callback\ndef exits(**kwargs):\n    forks()\n    os.wait()\n    time.sleep(0.3)\n    os._exit(0)\n"
    )
    kept = psutil.Process(int(child.call(request(file, "starts"), timeout_s=20).output))
    end = child.call(request(file, function), timeout_s=1.0)
    left = int(end.output.split()[0])
    assert end.kind == kind
    assert has_gone(left)
    assert kept.status() != psutil.STATUS_ZOMBIE
    kept.kill()


def has_gone(pid: int) -> bool:
    """Whether a process that was sent SIGKILL is gone; on a busy machine that takes a moment."""
    deadline = time.monotonic() + 10
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
    return True


PARENT = """
import json, sys, time
from syncblocks.callbacks.child_process import Child
child = Child("alerts")
request = json.loads(sys.argv[1])
print(child.call({**request, "function": "starts_sleep"}, timeout_s=20).output.decode(), flush=True)
child.call({**request, "function": sys.argv[2]}, timeout_s=600)
"""


@pytest.mark.parametrize("doing", ["sleeps", "spins", "holds_the_interpreter"])
def test_the_death_of_the_parent_ends_the_child_and_its_group(tmp_path: Path, doing: str) -> None:
    file, started = tmp_path / "alerts.py", tmp_path / "started"
    os.mkfifo(started)
    file.write_text(
        f"import ctypes, os, subprocess, time\nfrom pathlib import Path\n"
        f"def tell(): Path({str(started)!r}).write_text('x')\n"
        "@callback\ndef starts_sleep(**kwargs):\n"
        "    print(os.getpid(), subprocess.Popen(['sleep', '600']).pid)\n"
        "@callback\ndef sleeps(**kwargs):\n    tell(); time.sleep(600)\n"
        "@callback\ndef spins(**kwargs):\n    tell()\n    while True: pass\n"
        "@callback\ndef holds_the_interpreter(**kwargs):\n    tell(); ctypes.PyDLL(None).sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, json.dumps(request(file, "")), doing], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent:
        processes = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        started.read_text()  # returns once the function runs
        assert len(processes) == 2
        parent.send_signal(signal.SIGKILL)
    gone, alive = psutil.wait_procs(processes, timeout=5)
    for process in alive:
        # Without an init that reaps, a dead orphan stays as a zombie.
        assert process.status() == psutil.STATUS_ZOMBIE
    assert gone or alive


class TestData:
    @pytest.fixture
    def spool(self, tmp_path: Path) -> Path:
        import pyarrow as pa

        path = tmp_path / "users.arrow"
        table = pa.table({"id": [1, 2, None], "name": ["a", "b", "ü"], "n": pa.array([2**62, 1, 0], pa.uint64())})
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=1)
        return path

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        file = tmp_path / "alerts.py"
        file.write_text(
            "def show(df): print(None if df is None else (df.to_dict('list'), sorted({str(t) for t in df.dtypes})))\n"
            "@callback\ndef by_position(df, **kwargs): show(df)\n"
            "@callback\ndef by_input(**kwargs): show(kwargs['__input']['export_memory'])\n"
            "@callback\ndef by_name(*, __input): show(__input['export_memory'])\n"
            "@callback('success', fetch_inputs=False)\ndef without(df, **kwargs): show(df)\n"
        )
        return file

    def test_is_a_dataframe_with_arrow_types(self, file: Path, spool: Path, child: Child) -> None:
        outputs = [
            child.call(request(file, function, spool), timeout_s=30).output.decode()
            for function in ("by_position", "by_input", "by_name")
        ]
        assert len(set(outputs)) == 1
        assert "'name': ['a', 'b', 'ü']" in outputs[0]
        assert "'n': [4611686018427387904, 1, 0]" in outputs[0]
        assert "['int64[pyarrow]', 'string[pyarrow]', 'uint64[pyarrow]']" in outputs[0]

    def test_is_not_read_with_fetch_inputs_false(self, file: Path, tmp_path: Path, child: Child) -> None:
        end = child.call(request(file, "without", tmp_path / "gone.arrow"), timeout_s=20)
        assert (end.output, end.notes) == (b"None\n", ())

    @pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "rubbish"])
    def test_is_none_and_said_so_if_the_file_is_not_whole(
        self, file: Path, spool: Path, child: Child, damage: str
    ) -> None:
        whole = spool.read_bytes()
        if damage == "missing":
            spool.unlink()
        else:
            spool.write_bytes({"truncated": whole[:-200], "empty": b"", "rubbish": b"x" * 5000}[damage])
        end = child.call(request(file, "by_position", spool), timeout_s=30)
        assert (end.kind, end.output) == ("returned", b"None\n")
        said = "is None: it was deleted after the last delivery"
        assert (said if damage == "missing" else "could not be read") in end.notes[0]

    def test_a_time_that_python_cannot_hold_is_none_and_said_so(self, tmp_path: Path, child: Child) -> None:
        import pyarrow as pa

        def made(kind: pa.DataType, width: pa.DataType, *numbers: int) -> pa.Array:
            return pa.Array.from_buffers(kind, len(numbers), [None, pa.array(numbers, width).buffers()[1]])

        days = made(pa.date32(), pa.int32(), 0, 2**31 - 1, 2_932_896)
        moments = made(pa.timestamp("us"), pa.int64(), 0, 2**63 - 1, -(2**63) + 1)
        table = pa.table(
            {
                "day": days,
                "at": moments,
                "zoned": made(pa.timestamp("us", "Asia/Tokyo"), pa.int64(), 0, 253_402_300_799_000_000, 1),
                "days": pa.ListArray.from_arrays([0, 1, 2, 3], days),
                "whole": pa.array([1, 2, 3]),
            }
        )
        path, file = tmp_path / "odd.arrow", tmp_path / "alerts.py"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        file.write_text("@callback\ndef tell(df, **kwargs):\n    print(df)\n    print(df.isna().sum().to_dict())\n")
        end = child.call(request(file, "tell", data=path), timeout_s=20)
        assert (end.kind, end.error) == ("returned", None)
        assert end.output.decode().splitlines()[-1] == "{'day': 1, 'at': 2, 'zoned': 1, 'days': 1, 'whole': 0}"
        assert end.notes == tuple(
            f"column {name!r}: {number} dates or times that Python cannot hold are None"
            for name, number in (("day", 1), ("at", 2), ("zoned", 1), ("days", 1))
        )

    def test_leaves_no_file_open(self, file: Path, spool: Path, child: Child) -> None:
        ends = [child.call(request(file, "by_position", spool), timeout_s=30) for _ in range(4)]
        assert [end.worn for end in ends] == [None] * 4
