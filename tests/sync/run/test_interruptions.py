"""A run in which something is raised that no stream has caused is ended, and the next start is not refused."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from syncblocks import Progress
from syncblocks.connectors.registry import make_destination
from syncblocks.sync.errors import StateError
from syncblocks.sync.run.recovery.unfinished_runs import recover
from syncblocks.sync.store import Store
from syncblocks.sync.store.owner import Owner
from tests.conftest import RunCLI
from tests.sync.pipelines import Bench, statuses
from tests.sync.pipelines import bench as bench
from tests.sync.store.store_helpers import DATE
from tests.zygote import Zygote


class Exit(BaseException):
    pass


def raising(method: str, error: BaseException) -> Progress:
    def raises(*_: object, **__: object) -> None:
        raise error

    return type("Raising", (Progress,), {method: raises})()


def ended_run(bench: Bench) -> str:
    """Return the status of the latest run, which has to be finished with every callback delivered."""
    with Store.open(f"sqlite:///{bench.folder}/.syncblocks/store.db") as store:
        run = store.runs("bench")[0]
        assert not run.is_active
        counts = store.outbox("bench").deliveries.counts([run.id])
        assert (counts["due"], counts["dead"]) == (0, 0)
        return run.status


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, Exit])
@pytest.mark.parametrize(
    ("method", "status"),
    [
        ("run_started", "cancelled"),
        ("stream_started", "cancelled"),
        ("advanced", "cancelled"),
        ("committed", "cancelled"),
        ("stream_ended", "cancelled"),
        ("stream_result", "cancelled"),
        ("run_ended", "success"),
        ("delivered", "success"),
    ],
)
@pytest.mark.thinned(1)
def test_an_exit_of_the_progress_ends_the_run_and_is_raised(
    bench: Bench, method: str, status: str, kind: type[BaseException]
) -> None:
    for name in ("a", "b", "c", "d", "e"):
        bench.seed(name, 5)
    bench.record(on=["pipeline"] if method == "delivered" else ["stream", "pipeline"])
    with pytest.raises(kind):
        bench.run(raising(method, kind()), inline_callbacks=True)
    assert ended_run(bench) == status
    assert bench.calls()[-1]["status"] == status
    assert bench.run().status == "success"


def test_an_exit_in_one_stream_of_a_group_makes_no_stream_succeed(bench: Bench) -> None:
    """It ended the thread of the stream, of which nobody knew an error then."""
    for name in ("a", "b", "c"):
        bench.seed(name, 5)
    bench.document["source"]["config"]["groups"] = [["a", "b", "c"]]
    (bench.folder / "exits.py").write_text("@transformer\ndef exits(df):\n    raise KeyboardInterrupt\n")
    bench.document["transformers"] = [{"file": "exits.py", "streams": ["b"]}]
    bench.document["allow_blocks_to_fail"] = True
    assert statuses(bench.run()) == {"a": "success", "b": "failure", "c": "success"}


@pytest.fixture
def alarm() -> Iterator[Callable[[], None]]:
    """What lets a signal handler raise `Exit` in the main thread, and returns when it has."""
    raised = threading.Event()

    def handler(number: int, frame: FrameType | None) -> None:
        raised.set()
        raise Exit

    def ring() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        assert raised.wait(10)

    former = signal.signal(signal.SIGUSR1, handler)
    yield ring
    signal.signal(signal.SIGUSR1, former)


def test_what_a_signal_handler_of_the_caller_raises_ends_the_run(bench: Bench, alarm: Callable[[], None]) -> None:
    """Such as the time limit of a task queue, which raises in the main thread wherever it is."""

    class Ringing(Progress):
        def advanced(self, stream: str, *, records: int, size_bytes: int) -> None:
            alarm()

    for name in ("a", "b"):
        bench.seed(name, 5)
    bench.record(on=["stream", "pipeline"])
    with pytest.raises(Exit):
        bench.run(Ringing())
    assert ended_run(bench) == "cancelled"
    assert [call["status"] for call in bench.calls() if call["never_started"] == ["b"]] == ["cancelled"]
    assert bench.run().status == "success"


def test_a_run_that_a_living_process_has_left_open_is_recovered_by_the_next_start(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    with Store.open(url) as store:
        run = store.begin_run("p", execution_date=DATE)
        assert store.owner_state(run) == "alive"
        store.leave_run(run)
        assert store.owner_state(run) == "dead"
        assert store.reclaim_run(run.id).owner == run.owner
        assert store.owner_state(run) == "alive"


def test_a_run_that_its_last_commit_ends_while_it_is_recovered_stops_no_start(tmp_path: Path) -> None:
    """PostgreSQL goes on with a COMMIT of a client that was killed."""
    url = f"sqlite:///{tmp_path}/store.db"
    with Store.open(url) as late:
        run = late.begin_run("p", execution_date=DATE)
        asked = list[bool]()

        def dies_and_commits(*_: Owner) -> bool:
            asked.append(late.run(run.id).is_active)
            if len(asked) == 2:  # the first one asks whether the run is torn, the second one whether it is recovered
                late.end_attempt(run.id)
                late.finish_run(run.id)
            return False

        with Store.open(url, owner=Owner.of_held_run(), liveness=dies_and_commits) as store:
            destination = make_destination("memory", {"database": "late"}, tmp_path)
            assert recover(store, "p", destination, Progress()) is None
            assert asked == [True, True]
            assert store.begin_run("p", execution_date=DATE).id == run.id + 1


def test_a_run_that_a_living_process_has_left_open_is_not_called_one_of_a_dead_process(
    bench: Bench, run_cli: RunCLI
) -> None:
    """Such as the run of a notebook that could not be ended, as its store did not answer."""
    bench.seed("a", 1)
    file = bench.write()
    with Store.open(f"sqlite:///{bench.folder}/.syncblocks/store.db") as store:
        run = store.begin_run("bench", execution_date=DATE)
        store.leave_run(run)
    mine = f"process {os.getpid()} on {socket.gethostname()}"
    assert "left by its process" in run_cli(["runs", "list", str(file)], bench.folder).stdout
    assert "left by its process" in run_cli(["runs", "show", str(file)], bench.folder).stdout
    assert f"run 1 was left by {mine}:" in run_cli(["runs", "cancel", str(file)], bench.folder).stdout
    told = list[str]()

    class Told(Progress):
        def message(self, text: str, *, level: str = "info") -> None:
            told.append(text)

    assert bench.run(Told()).status == "success"
    assert f"run 1 was left by {mine}; recovering it" in told
    error = run_cli(["runs", "show", str(file), "1"], bench.folder).stdout
    assert "died" not in error
    assert "the process of this run left it before it ended" in error


def test_a_run_is_left_also_if_its_store_cannot_be_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    with Store.open(url) as store:
        run = store.begin_run("p", execution_date=DATE)
        with Store.open(f"sqlite:///{tmp_path}/other.db") as other, pytest.raises(StateError):
            other.leave_run(run)  # as from a store that does not answer
        assert store.owner_state(run) == "dead"
        assert store.reclaim_run(run.id).owner == run.owner
        assert store.owner_state(run) == "alive"


@pytest.mark.parametrize("point", ["stream.after_commit", "store.end_attempt.before"])
def test_a_recovery_removes_the_records_that_a_killed_run_kept_for_callbacks(
    zygote: Zygote, tmp_path: Path, point: str
) -> None:
    (tmp_path / "people.csv").write_text("id\n1\n2\n")
    (tmp_path / "frames.py").write_text("@callback\ndef keep(df, **kwargs):\n    print(df)\n")
    (tmp_path / "pipeline.yaml").write_text(
        "pipeline: people\n"
        "source: {connector: csv, config: {path: .}}\n"
        "destination: {connector: duckdb, config: {path: out.duckdb}}\n"
        "streams: [{stream: people}]\n"
        "callbacks: [{file: frames.py, on: [source, stream]}]\n"
    )
    spool = tmp_path / ".syncblocks" / "spool"
    assert zygote.start(tmp_path, failpoint=f"{point}:1:kill").wait() == -signal.SIGKILL
    assert list(spool.iterdir())
    recovery = zygote.start(tmp_path, ("recover", "pipeline.yaml"))
    assert recovery.wait() == 0, recovery.log()
    assert list(spool.iterdir()) == []
