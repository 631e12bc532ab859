"""Runs: one active a pipeline, owners and leases, attempts, and copies of the state."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncblocks.connectors.struct_helpers import asdict, replace
from syncblocks.sync.errors import AlreadyRunning, StateError
from syncblocks.sync.store import LostRun, Store
from syncblocks.sync.store.model import PIPELINE, StateCopy
from syncblocks.sync.store.owner import Owner, current_owner, is_process_alive, signal_process
from syncblocks.sync.store.state import VERSIONS_KEPT
from syncblocks.sync.store.transactions import LEASE_S
from tests.sync.store.store_helpers import (
    CALLBACKS,
    DATE,
    EXPORTER,
    STORES,
    FixedClock,
    attempt_plan,
    begin,
    deliver_all,
    lease,
    outcome,
    query,
    store_url_of,
    stream_plan,
)

A, B = stream_plan("a"), stream_plan("b")


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return store_url_of(request, tmp_path)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with Store.open(store_url) as opened:
        yield opened


@pytest.fixture
def dead(store_url: str) -> Iterator[Store]:
    """A store opened by a process of this machine that is not there any more."""
    with Store.open(store_url, owner=replace(current_owner(), started=1)) as opened:
        yield opened


def elsewhere() -> Owner:
    return replace(current_owner(), host="other", boot_id="another boot")


def test_a_run_comes_back_as_it_was_begun(store: Store) -> None:
    run = store.begin_run("p", execution_date=DATE, trigger="207", event={"a": 1}, variables={"v": {"$template": "x"}})
    assert store.run(run.id) == run == store.active_run("p") == store.latest_run("p")
    assert (run.attempt, run.status, run.stopping, run.is_active, run.cancel_requested) == (
        1,
        "running",
        False,
        True,
        False,
    )
    assert (run.execution_date, run.trigger, run.event, run.variables) == (
        DATE,
        "207",
        {"a": 1},
        {"v": {"$template": "x"}},
    )
    assert run.owner == current_owner() == store.owner
    assert (len(run.key), run.ended_at, run.error) == (32, None, None)
    assert store.owner_state(run) == "alive"
    assert store.is_owner(run.id)


def test_a_pipeline_has_one_active_run(store: Store) -> None:
    run = store.begin_run("p", execution_date=DATE)
    with pytest.raises(AlreadyRunning) as caught:
        store.begin_run("p", execution_date=DATE)
    assert (caught.value.pipeline, caught.value.run_id) == ("p", run.id)
    assert str(run.owner.pid) in caught.value.owner
    other = store.begin_run("q", execution_date=DATE)
    assert [found.id for found in store.runs()] == [other.id, run.id]
    assert [found.id for found in store.runs("p")] == [run.id]
    store.end_attempt(run.id)
    store.finish_run(run.id)
    store.finish_run(run.id)
    assert store.active_run("p") is None
    assert store.begin_run("p", execution_date=DATE).id == other.id + 1


def test_unknown_runs_are_an_error(store: Store) -> None:
    with pytest.raises(StateError, match="no run 77"):
        store.run(77)
    with pytest.raises(StateError, match="no run 77"):
        store.claim(77, ["a"])
    assert store.latest_run("p") is None


def test_the_run_of_a_dead_process_is_taken_over_at_once(store: Store, dead: Store) -> None:
    run = begin(dead, attempt_plan([A, B]))
    dead.claim(run.id, ["a"])
    assert store.owner_state(run) == "dead"
    with pytest.raises(LostRun, match="taken over by process"):
        store.close_stream(run.id, outcome(A))
    taken = store.reclaim_run(run.id)
    assert store.reclaim_run(run.id) == taken
    assert taken.owner == current_owner()
    assert store.attempt_plan(run.id, 1) == attempt_plan([A, B])
    for write in (
        lambda: dead.claim(run.id, ["b"]),
        lambda: dead.close_stream(run.id, outcome(A)),
        lambda: dead.request_stop(run.id),
        lambda: dead.end_attempt(run.id),
        lambda: dead.finish_run(run.id),
        lambda: dead.begin_attempt(run.id, attempt_plan([])),
        lambda: dead.save_state("p", StateCopy(stream="a", destination_table="t", source="s"), run_id=run.id),
    ):
        with pytest.raises(LostRun):
            write()
    assert not dead.renew([run.id])
    assert not dead.is_owner(run.id)
    store.request_stop(run.id, "failure")
    assert store.close_stream(run.id, outcome(A)).status == "failure"


def test_a_takeover_ends_the_leases_of_the_dead_owner(store: Store, store_url: str) -> None:
    # An owner that cannot be seen from here: found dead by its run's lease, long before that of its delivery.
    with Store.open(store_url, owner=elsewhere()) as gone:
        run = begin(gone, attempt_plan([A, B], [EXPORTER, PIPELINE]))
        gone.claim(run.id, ["a", "b"])
        gone.close_stream(run.id, outcome(A))
        cut_short = lease(gone)
    query(store_url, "UPDATE _syncblocks_pipeline_run SET lease_until = '2020-01-01 00:00:00'")
    store.reclaim_run(run.id)
    again = lease(store)
    assert (again.key, again.attempt) == (cut_short.key, 1)


def test_the_run_of_a_living_process_is_not_taken_over(store: Store, store_url: str) -> None:
    run = store.begin_run("p", execution_date=DATE)
    neighbour = Owner(**{**asdict(current_owner()), "pid": 1, "started": 0})
    with Store.open(store_url, owner=neighbour) as other:
        with pytest.raises(AlreadyRunning):
            other.reclaim_run(run.id)
        assert other.owner_state(run) == "alive"
    assert store.is_owner(run.id)


def test_an_owner_that_cannot_be_seen_lives_by_its_lease(tmp_path: Path) -> None:
    clock = FixedClock()
    url = f"sqlite:///{tmp_path}/store.db"
    with Store.open(url, clock=clock) as here, Store.open(url, clock=clock, owner=elsewhere()) as there:
        run = there.begin_run("p", execution_date=DATE)
        clock.move(LEASE_S - 1)
        assert there.renew([run.id]) == {run.id}
        clock.move(LEASE_S - 1)
        assert here.owner_state(run) == "alive"
        with pytest.raises(AlreadyRunning):
            here.reclaim_run(run.id)
        clock.move(1)
        assert here.owner_state(run) == "dead"
        assert here.reclaim_run(run.id).owner == current_owner()
        assert not there.renew([run.id])


@pytest.mark.parametrize("hold_s", [None, 3600])
def test_a_lease_of_a_clock_that_was_ahead_stops_nobody(tmp_path: Path, hold_s: int | None) -> None:
    """A run that had died so was taken for alive, and each start refused, until its time had come."""
    clock = FixedClock()
    url = f"sqlite:///{tmp_path}/store.db"
    with Store.open(url, clock=clock) as here, Store.open(url, clock=clock, owner=elsewhere()) as there:
        clock.move(86400)
        run = there.begin_run("p", execution_date=DATE)
        if hold_s is not None:
            there.hold_run(run.id, hold_s)
        clock.move(-10)  # as clocks are set right now and then
        assert here.owner_state(run) == "alive"
        clock.move(10 - 86400)
        assert here.owner_state(run) == "dead"
        assert here.reclaim_run(run.id).owner == current_owner()


def test_an_owner_that_lives_has_its_lease_by_the_clock_that_was_set_back(tmp_path: Path) -> None:
    clock = FixedClock()
    url = f"sqlite:///{tmp_path}/store.db"
    with Store.open(url, clock=clock) as here, Store.open(url, clock=clock, owner=elsewhere()) as there:
        run = there.begin_run("p", execution_date=DATE)
        clock.move(-86400)
        assert there.renew([run.id]) == {run.id}
        assert here.owner_state(run) == "alive"


def test_a_clock_that_jumps_takes_nothing_from_a_process_that_can_be_seen(tmp_path: Path) -> None:
    clock = FixedClock()
    url = f"sqlite:///{tmp_path}/store.db"
    with Store.open(url, clock=clock) as store:
        run = store.begin_run("p", execution_date=DATE)
        for seconds in (3600, -7200):
            clock.move(seconds)
            assert store.owner_state(run) == "alive"


def test_owners_are_told_apart_by_boot_namespace_pid_and_start(tmp_path: Path) -> None:
    me = current_owner()
    assert Owner.decode(me.encode()) == me
    assert is_process_alive(me, me) is True
    assert is_process_alive(replace(me, started=me.started - 1), me) is False
    assert is_process_alive(replace(me, pid=2**22 + 1), me) is False
    assert is_process_alive(replace(me, boot_id="x"), me) is None
    assert is_process_alive(replace(me, pid_namespace="x"), me) is None
    assert is_process_alive(replace(me, boot_id="", pid=1), replace(me, boot_id="")) is None


def test_a_signal_reaches_the_process_of_an_owner_and_no_other_one_with_its_pid() -> None:
    me = current_owner()
    with subprocess.Popen(["sleep", "60"]) as process:
        started = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
        owner = replace(me, pid=process.pid, started=started)
        for other in (replace(owner, started=started - 1), replace(owner, boot_id="x")):
            assert not signal_process(other, me, signal.SIGKILL)
        assert process.poll() is None
        assert signal_process(owner, me, signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM
    assert not signal_process(owner, me, signal.SIGTERM)


def test_a_finished_run_is_neither_taken_over_nor_cancelled(store: Store) -> None:
    run = store.begin_run("p", execution_date=DATE)
    store.end_attempt(run.id)
    store.finish_run(run.id)
    with pytest.raises(StateError, match="finished"):
        store.reclaim_run(run.id)
    with pytest.raises(StateError, match="finished"):
        store.request_cancel(run.id)
    with pytest.raises(LostRun, match="finished"):
        store.claim(run.id, ["a"])


def test_a_plan_given_at_the_beginning_outlives_a_death_before_the_first_stream(store: Store, dead: Store) -> None:
    run = dead.begin_run("p", execution_date=DATE, plan=attempt_plan([], [PIPELINE]))
    store.reclaim_run(run.id)
    assert store.end_attempt(run.id).status == "success"
    store.outbox("p", CALLBACKS).release_gate(run.id)
    assert len(deliver_all(store.outbox("p", CALLBACKS))) == 1


def test_a_retry_is_a_further_attempt_of_the_latest_run_only(store: Store) -> None:
    first = begin(store, attempt_plan([A, B, stream_plan("c")]))
    with pytest.raises(AlreadyRunning):
        store.begin_retry(first.id)
    store.claim(first.id, ["a"])
    store.claim(first.id, ["b"])
    store.close_stream(first.id, outcome(B))
    store.request_cancel(first.id)
    store.close_stream(first.id, outcome(A, failed_block=EXPORTER))
    store.finish_run(first.id)
    assert store.unfinished_streams(first.id) == ("a", "c")
    again = store.begin_retry(first.id)
    assert (again.id, again.key, again.attempt, again.status) == (first.id, first.key, 2, "running")
    assert (again.execution_date, again.cancel_requested, again.error) == (DATE, False, None)
    # It dies before it has a plan: what is left to do is still known.
    assert store.unfinished_streams(first.id) == ("a", "c")
    store.begin_attempt(first.id, attempt_plan([A]))
    assert store.claim(first.id, ["a"])
    assert store.close_stream(first.id, outcome(A)).status == "success"
    store.finish_run(first.id)
    assert [(block.attempt, block.uuid, block.index) for block in store.block_runs(first.id, 2)] == [
        (2, "load:a", 0),
        (2, "export:a", 0),
    ]
    assert len(store.block_runs(first.id)) == 6
    assert store.unfinished_streams(first.id) == ("c",)
    second = store.begin_run("p", execution_date=DATE)
    store.end_attempt(second.id)
    store.finish_run(second.id)
    with pytest.raises(StateError, match=f"not the latest .* run {second.id}"):
        store.begin_retry(first.id)


def test_states_are_copied_with_their_versions(store: Store) -> None:
    copy = StateCopy(stream="a", destination_table="t", source="postgres://x", bookmark={"id": 1}, rows=5)
    store.save_state("p", copy)
    store.save_state("p", replace(copy, bookmark={"id": 2}))
    store.save_state("q", copy)
    (current,) = store.states("p")
    assert (current.bookmark, current.version, current.run_id) == ({"id": 2}, 2, None)
    store.delete_state("p", "a", "t")
    store.delete_state("p", "a", "t")
    store.delete_state("p", "b", "t")
    assert store.states("p") == []
    assert store.state("p", "a", "t") is None
    versions = store.state_versions("p", "a", "t")
    assert [(version.version, version.bookmark, version.is_deleted) for version in versions] == [
        (3, None, True),
        (2, {"id": 2}, False),
        (1, {"id": 1}, False),
    ]
    store.save_state("p", copy)
    assert store.states("p")[0].version == 4


def test_old_versions_of_a_state_are_dropped(store: Store) -> None:
    copy = StateCopy(stream="a", destination_table="t", source="s")
    for number in range(VERSIONS_KEPT + 3):
        store.save_state("p", replace(copy, bookmark=number))
    found = [version.bookmark for version in store.state_versions("p", "a", "t")]
    assert found == list(range(VERSIONS_KEPT + 2, 2, -1))
