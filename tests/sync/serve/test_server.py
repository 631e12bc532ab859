"""The turns of a server: each time of a schedule is a tick once or is skipped, and each tick gets a process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from syncblocks.sync.errors import StateError
from syncblocks.sync.schedules import MOST_MISSED, NEWER
from syncblocks.sync.schedules.looks import NO_SERVER, NO_STORE, STILL_GOES
from syncblocks.sync.serve import Server
from syncblocks.sync.store import Store
from syncblocks.sync.store.schedules import CHANGED, FORGOTTEN, RESET, Pause
from tests.sync.serve.serve_helpers import Noted, Place, begin, end
from tests.sync.store.store_helpers import STORES, attempt_plan, lease, query, store_url_of

#: Numbers of processes.
SERVER, CHILD = 1, 9


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """At 03:04:05, as `FixedClock`."""
    found = Place(tmp_path)
    found.write()
    return found


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    with place.store(SERVER) as found:
        yield found


@pytest.fixture
def child(place: Place) -> Iterator[Store]:
    """The store in the name of the process of a tick."""
    with place.store(CHILD) as found:
        yield found


def test_of_three_servers_one_starts_each_tick(place: Place, store: Store, child: Store) -> None:
    noted = Noted()
    with place.store(2) as second, place.store(3) as third:
        servers = [place.server(each, noted) for each in (store, second, third)]
        for minute in range(1, 4):
            place.minutes(1, *servers)
            assert noted.started == list(range(1, minute + 1))
            end(child, begin(child, minute))
    assert place.ticks() == [(each, "run", None, None) for each in ("05", "06", "07")]
    with store._transactions.read() as connection:
        intervals = connection.rows("SELECT interval_start, interval_end, due_at FROM _syncblocks_tick ORDER BY id")
    assert [each.interval_end for each in intervals] == [each.due_at for each in intervals]
    assert [each.interval_start for each in intervals[1:]] == [each.due_at for each in intervals[:-1]]


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return store_url_of(request, tmp_path)


def test_servers_that_look_at_the_same_moment_make_and_start_one_tick(store_url: str, tmp_path: Path) -> None:
    place = Place(tmp_path, store_url)
    place.write(cron="0 0 1 1 *", missed="latest")
    stores = [place.store(number) for number in (1, 2, 3)]
    noted = [Noted() for _ in stores]
    place.server(stores[0], noted[0])
    past = "'2024-05-01 00:00:00'"
    if not store_url.startswith("sqlite"):
        past = "now() - interval '2 years'"
    query(store_url, f"UPDATE _syncblocks_schedule SET looked_at = {past}")
    servers = [place.server(*each, is_settled=False) for each in zip(stores, noted, strict=True)]
    for server in servers:
        server.turn()
    place.clock.move(2)
    start = threading.Barrier(len(servers))

    def body(server: Server) -> None:
        start.wait()
        server.turn()

    threads = [threading.Thread(target=body, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    states = query(store_url, "SELECT state, count(*) FROM _syncblocks_tick GROUP BY state ORDER BY state DESC")
    assert [state for state, _ in states] == ["waiting", "skipped"]
    assert states[0][1] == 1
    place.clock.move(10)
    for server in servers:
        server.turn()
    assert len([tick for each in noted for tick in each.started]) == 1
    for each in stores:
        each.close()


def test_a_time_while_the_former_run_goes_is_skipped_and_a_run_that_only_delivers_skips_none(
    place: Place, store: Store, child: Store
) -> None:
    noted = Noted()
    server = place.server(store, noted)
    place.minutes(1, server)
    run = begin(child, 1)
    place.minutes(2, server)
    assert place.ticks()[1:] == [("06", "skipped", STILL_GOES, 2)]
    child.end_attempt(run)
    place.minutes(1, server)
    assert place.ticks()[2:] == [("08", "waiting", None, None)]
    assert noted.started == [1]
    child.finish_run(run)
    server.turn()
    assert len(noted.started) == 2


def test_of_the_times_that_wait_a_newer_one_takes_the_place(place: Place, store: Store, child: Store) -> None:
    place.write(overlap="wait")
    noted = Noted()
    server = place.server(store, noted)
    place.minutes(1, server)
    run = begin(child, 1)
    place.minutes(2, server)
    assert place.ticks() == [
        ("05", "run", None, None),
        ("06", "skipped", NEWER, None),
        ("07", "waiting", None, None),
    ]
    end(child, run)
    server.turn()
    assert noted.started == [1, 3]


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        ("latest", [("05", "skipped", NO_SERVER, 1), ("10", "waiting", None, None)]),
        ("all", [("05", "waiting", None, None), ("10", "waiting", None, None)]),
        ("skip", [("05", "skipped", NO_SERVER, 2)]),
    ],
)
def test_missed_times_are_decided_when_a_server_comes_back(
    place: Place, store: Store, missed: str, expected: list[object]
) -> None:
    place.write(missed=missed, cron="*/5 * * * *")
    place.server(store, Noted())
    place.clock.move(500)
    place.server(store, Noted())
    assert place.ticks() == expected


def test_all_missed_times_queue_and_are_not_skipped_for_each_other(place: Place, store: Store, child: Store) -> None:
    place.write(missed="all")
    place.server(store, Noted())
    place.clock.move(180)
    noted = Noted()
    server = place.server(store, noted)
    kept = [minute for minute, state, *_ in place.ticks() if state == "waiting"]
    assert kept[:2] == ["05", "06"]
    run = begin(child, noted.started[0])
    # The server dies for some minutes, while the ticks that it has made wait.
    place.clock.move(300)
    server = place.server(store, noted)
    waiting = [minute for minute, state, *_ in place.ticks() if state == "waiting"]
    assert waiting == ["06", "07", "08", "09", "10", "11", "12"]
    end(child, run)
    for number in range(1, len(waiting) + 1):
        server.turn()
        assert len(noted.started) == number + 1
        end(child, begin(child, noted.started[-1]))
    assert {(state, why) for _, state, why, _ in place.ticks()} == {("run", None)}


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        ("latest", [("06", "skipped", NO_STORE, 1), ("07", "skipped", STILL_GOES, 1)]),
        ("all", [("06", "waiting", None, None), ("07", "waiting", None, None)]),
        ("skip", [("06", "skipped", NO_STORE, 2)]),
    ],
)
@pytest.mark.parametrize("fails", [True, False])
def test_times_are_missed_while_the_store_does_not_answer_whatever_run_is_open(
    place: Place, store: Store, child: Store, missed: str, expected: list[object], fails: bool
) -> None:
    place.write(missed=missed)
    server = place.server(store, Noted())
    place.minutes(1, server)
    begin(child, 1)
    if fails:
        query(place.url, "ALTER TABLE _syncblocks_tick RENAME TO away")
        place.minutes(2, server)
        query(place.url, "ALTER TABLE away RENAME TO _syncblocks_tick")
    else:
        place.clock.moves_at_next_now = 120.0
    server.turn()
    assert place.ticks()[1:] == expected


def test_a_full_disk_is_not_forgotten_between_two_heartbeats(place: Place, store: Store) -> None:
    """A server that only reads at most of its turns must not report a store that refuses to write as usable again."""
    server = place.server(store, Noted())
    place.clock.move(10)
    assert server.why_not_ready() is None
    fault = "SELECT RAISE(ABORT, 'database or disk is full')"
    query(place.url, f"CREATE TRIGGER full BEFORE UPDATE ON _syncblocks_server BEGIN {fault}; END")
    for _ in range(9):
        server.turn()
        assert server.why_not_ready() == "the run store is full"
        place.clock.move(1)
    assert len([text for text in place.said if "nothing starts until it answers" in text]) == 1
    query(place.url, "DROP TRIGGER full")
    server.turn()
    assert ("store" not in server._told, server.why_not_ready()) == (True, None)


def test_a_server_is_ready_when_a_turn_has_ended_and_as_long_as_turns_end(place: Place, store: Store) -> None:
    server = place.server(store, Noted(), is_settled=False)
    assert server.why_not_ready() == "the first turn has not ended"
    server.turn()
    assert server.why_not_ready() is None
    place.clock.move(31)
    assert server.why_not_ready() == "no turn has ended for 31 s"
    query(place.url, "ALTER TABLE _syncblocks_tick RENAME TO away")
    server.turn()
    assert server.why_not_ready() == "the run store does not answer"


def test_a_changed_schedule_replaces_the_former_one_and_other_edits_change_nothing(place: Place, store: Store) -> None:
    noted = Noted()
    server = place.server(store, noted)
    place.clock.move(200)
    place.write(cron="0 0 1 1 *")
    server = place.server(store, noted)
    assert place.ticks() == [("05", "skipped", CHANGED, 3)]
    place.write(cron="0 0 1 1 *", file="crm.yaml")
    with (place.folder / "crm.yaml").open("a") as file:
        file.write("tags: [x]\n")
    place.settle(server)
    place.minutes(2, server)
    assert (noted.started, len(place.ticks())) == ([], 1)


def test_while_another_server_reports_the_former_schedule_it_counts(place: Place, store: Store, tmp_path: Path) -> None:
    noted = Noted()
    server = place.server(store, noted)
    other = Place(tmp_path / "other", place.url)
    other.folder.mkdir()
    other.clock, other.dead = place.clock, place.dead
    other.write(cron="0 0 1 1 *")
    with other.store(2) as second:
        other_server = other.server(second, noted)
        assert "crm: another server reports another schedule of it" in other.said[-1]
        place.minutes(1, server, other_server)
        assert [each[0] for each in place.ticks()] == ["05"]
        place.dead.add(SERVER)
        place.clock.move(2)
        other_server.turn()
        assert "0 0 1 1 *" in str(store.schedules.known()[0].schedule)


def test_broken_files_and_two_of_one_name_stop_only_themselves(place: Place, store: Store) -> None:
    place.write("two", file="a.yaml")
    place.write("two", file="b.yml")
    place.write("bad", cron="* * * *")
    (place.folder / "else.yaml").write_text(f"source: {{}}\ndestination: {{}}\nstore: sqlite:///{place.folder}/x.db\n")
    (place.folder / "values.yaml").write_text("a: 1\n")
    noted = Noted()
    server = place.server(store, noted)
    place.minutes(1, server)
    assert [store.tick(tick).pipeline for tick in noted.started] == ["crm"]
    said = "\n".join(place.said)
    assert "2 files are pipeline 'two': a.yaml, b.yml; nothing of it starts" in said
    assert "schedule.cron" in said
    assert "is another run store than the server's" in said
    assert "values.yaml" not in said
    (place.folder / "b.yml").unlink()
    place.settle(server)
    place.minutes(1, server)
    assert "two" in {store.tick(tick).pipeline for tick in noted.started}


def test_a_file_that_is_gone_is_told_once_until_it_is_forgotten(place: Place, store: Store) -> None:
    server = place.server(store, Noted())
    with pytest.raises(StateError, match="takes pipeline 'crm': delete its file first"):
        store.schedules.forget("crm")
    place.minutes(1, server)
    (place.folder / "crm.yaml").unlink()
    for _ in range(2):
        place.settle(server)
        place.minutes(2, server)
    told = [text for text in place.said if "is gone; `syncblocks schedule forget crm`" in text]
    assert len(told) == 1
    assert store.schedules.forget("crm") == 1
    assert (store.schedules.known(), place.ticks()) == ([], [("05", "skipped", FORGOTTEN, None)])


def test_a_clock_behind_the_newest_tick_starts_nothing_until_it_is_reset(place: Place, store: Store) -> None:
    noted = Noted()
    server = place.server(store, noted)
    place.minutes(3, server)
    assert set(noted.started) == {1}
    place.clock.move(-150)
    noted.started.clear()
    place.minutes(1, server)
    assert noted.started == []
    assert len([text for text in place.said if "is behind the newest tick of crm" in text]) == 1
    assert store.schedules.reset("crm") == 1
    place.minutes(1, server)
    assert [(state, why) for _, state, why, _ in place.ticks()] == [
        ("skipped", RESET),
        ("waiting", None),
        ("skipped", STILL_GOES),
    ]
    assert len(set(noted.started)) == 1


def test_the_times_of_a_pause_are_skipped_and_queued_ticks_wait(place: Place, store: Store, child: Store) -> None:
    noted = Noted()
    server = place.server(store, noted)
    known = store.schedules.known()[0]
    schedule = server._in_force["crm"].schedule
    assert schedule is not None
    until = place.clock.now().replace(minute=8, second=30)
    store.schedules.pause("crm", known.file, schedule, until=until, reason="db moves")
    place.minutes(3, server)
    assert (noted.started, place.ticks()) == ([], [])
    assert store.fact_reads().facts("crm").pause == Pause(until, "db moves")
    place.clock.move((until - place.clock.now()).total_seconds() + 1)
    assert store.fact_reads().facts("crm").resumed_at == until - timedelta(microseconds=1)
    place.minutes(1, server)
    assert place.ticks() == [("05", "skipped", "paused: db moves", 4), ("09", "waiting", None, None)]
    facts = store.fact_reads().facts("crm")
    assert (facts.pause, facts.resumed_at) == (None, until - timedelta(microseconds=1))
    store.schedules.pause("crm", known.file, schedule)
    end(child, begin(child, noted.started[0]))
    place.minutes(2, server)
    assert (store.schedules.resume("crm"), store.schedules.resume("crm")) == (True, False)
    assert place.ticks()[2:] == [("10", "skipped", "paused", 2)]


def test_a_time_at_the_end_of_a_pause_is_not_skipped(place: Place, store: Store) -> None:
    noted = Noted()
    server = place.server(store, noted)
    known, schedule = store.schedules.known()[0], server._in_force["crm"].schedule
    assert schedule is not None
    store.schedules.pause("crm", known.file, schedule, until=place.clock.now().replace(minute=6, second=0))
    place.clock.move((known.looked_at.replace(minute=6, second=5) - place.clock.now()).total_seconds())
    server.turn()
    assert place.ticks() == [("05", "skipped", "paused", 1), ("06", "waiting", None, None)]


def test_what_is_dead_or_due_is_recovered_with_a_growing_pause(place: Place, store: Store, child: Store) -> None:
    place.write(cron=None)
    noted = Noted()
    server = place.server(store, noted)
    child.begin_run("crm", execution_date=place.clock.now())
    place.minutes(1, server)
    assert noted.recovered == []
    place.dead.add(CHILD)
    place.minutes(12, server)
    assert 5 <= len(noted.recovered) <= 8
    store.reclaim_run(1)
    noted.recovered.clear()
    place.minutes(2, server)
    assert noted.recovered == []
    assert store.is_served("crm")
    server.leave()
    assert not store.is_served("crm")


def test_due_deliveries_are_recovered_while_no_run_goes_that_delivers_them(
    place: Place, store: Store, child: Store
) -> None:
    place.write(cron=None)
    noted = Noted()
    server = place.server(store, noted)
    run = child.begin_run("crm", execution_date=place.clock.now())
    child.begin_attempt(run.id, attempt_plan([], ["pipeline"]))
    child.end_attempt(run.id)
    place.minutes(1, server)
    assert noted.recovered == []
    child.finish_run(run.id)
    place.minutes(1, server)
    assert set(noted.recovered) == {"crm"}
    noted.recovered.clear()
    lease(child, pipeline="crm")
    for _ in range(4):  # the lease lasts longer
        place.clock.move(6)
        server.turn()
    assert noted.recovered == []
    place.dead.add(CHILD)
    place.minutes(5, server)
    assert set(noted.recovered) == {"crm"}


def test_a_tick_whose_process_ends_at_once_is_started_again_after_a_growing_pause(
    place: Place, store: Store, tmp_path: Path
) -> None:
    place.write(cron=None)
    noted = Noted(tmp_path)
    server = place.server(store, noted)
    tick = store.order_tick("crm", "key", trigger="api", causes=(), kind="api").id
    server.turn()
    assert noted.started == [tick]
    noted.log_of(tick).write_text(f"progress\nerror[config]: no key{'x' * 1000}\n")
    starts = []
    for _ in range(60):
        if len(noted.started) > len(starts):
            starts.append(place.clock.monotonic())
            noted.ended = {tick: (server._in_force["crm"], 2)}
        place.clock.move(10)
        server.turn()
    assert set(noted.started) == {tick}
    gaps = [after - before for before, after in pairwise(starts)]
    assert gaps == sorted(gaps)
    assert gaps[-1] >= 120
    assert (
        f"crm: tick {tick} waits: exit code 2: {'error[config]: no key'.ljust(500, 'x')}...; its output: "
        f"{tmp_path}/{tick}.log"
    ) in place.said


def test_a_start_by_a_callback_is_left_to_the_process_that_the_caller_starts(
    place: Place, store: Store, child: Store
) -> None:
    place.write(cron=None)
    noted = Noted()
    server = place.server(store, noted)
    tick = store.order_tick("crm", "asked", trigger="callback", causes=()).id
    assert child.offer_tick(tick, 30)
    server.turn()
    assert noted.started == []
    place.minutes(1, server)
    assert set(noted.started) == {tick}


def test_a_start_by_a_callback_that_is_left_to_the_server_starts_at_once(place: Place, store: Store) -> None:
    place.write(cron=None)
    noted = Noted()
    server = place.server(store, noted)
    tick = store.order_tick("crm", "asked", trigger="callback", causes=()).id
    server.turn()
    assert noted.started == [tick]


def test_two_servers_start_one_tick_of_a_pipeline_at_a_time(place: Place, store: Store, child: Store) -> None:
    place.write(cron=None)
    noted = Noted()
    with place.store(2) as second:
        servers = [place.server(each, noted) for each in (store, second)]
        first, other = (store.order_tick("crm", key, trigger="api", causes=(), kind="api").id for key in "ab")
        for server in servers:
            server.turn()
        assert noted.started == [first]
        end(child, begin(child, first))
        place.dead.add(SERVER)
        servers[1].turn()
        assert noted.started == [first, other]


def test_no_more_pipelines_run_at_once_than_allowed(place: Place, store: Store, child: Store) -> None:
    for name in ("a", "b"):
        place.write(name)
    noted = Noted()
    server = place.server(store, noted, max_runs=2)
    place.minutes(1, server)
    runs = [begin(child, tick) for tick in noted.started]
    assert len(runs) == 2
    server.turn()
    assert len(noted.started) == 2
    end(child, runs[0])
    server.turn()
    assert len(noted.started) == 3


def test_a_store_that_does_not_answer_is_told_once(place: Place, store: Store) -> None:
    noted = Noted()
    server = place.server(store, noted)
    query(place.url, "ALTER TABLE _syncblocks_tick RENAME TO away")
    server.turn()
    server.turn()
    assert len([text for text in place.said if "nothing starts until it answers" in text]) == 1
    query(place.url, "ALTER TABLE away RENAME TO _syncblocks_tick")
    place.minutes(1, server)
    assert noted.started == [1]
    query(place.url, "ALTER TABLE _syncblocks_server RENAME TO away")
    server.leave()  # what is left to do at the end of the server is done


def test_a_tick_that_was_pruned_before_its_process_was_seen_to_end_is_no_failure(place: Place, store: Store) -> None:
    noted = Noted()
    server = place.server(store, noted)
    noted.ended = {99: (server._in_force["crm"], 2)}
    place.minutes(1, server)
    assert noted.started == [1]


def test_no_more_than_a_hundred_missed_times_are_kept(place: Place, store: Store) -> None:
    place.write(missed="all")
    place.server(store, Noted())
    place.clock.move(60 * 150)
    place.server(store, Noted())
    assert len([1 for each in place.ticks() if each[1] == "waiting"]) == MOST_MISSED


def test_a_run_that_outlives_its_run_timeout_gets_sigterm_and_then_sigkill(
    place: Place, store: Store, child: Store
) -> None:
    place.write(cron=None)
    noted = Noted()
    server = place.server(store, noted)
    run = child.begin_run("crm", execution_date=place.clock.now(), limit_s=30)
    place.minutes(1, server)
    assert noted.signals == []  # the run cancels itself
    place.minutes(1, server)
    assert noted.signals == [(CHILD, "SIGTERM")]
    place.minutes(1, server)
    assert noted.signals == [(CHILD, "SIGTERM"), (CHILD, "SIGKILL")]
    place.minutes(1, server)
    end(child, run.id)
    run = child.begin_retry(run.id, limit_s=30)
    child.end_attempt(run.id)
    place.minutes(3, server)  # it delivers, which counts for no limit
    assert len(noted.signals) == 2


def test_old_runs_are_removed_hourly_by_a_process_where_there_are_any(place: Place, store: Store, child: Store) -> None:
    place.write(cron=None, history={"keep_runs": 1})
    place.write("kept", cron=None)
    noted = Noted()
    server = place.server(store, noted)
    for name in ("crm", "crm", "crm", "kept", "kept"):
        end(child, child.begin_run(name, execution_date=place.clock.now()).id)
    place.minutes(59, server)
    assert noted.pruning == []
    place.minutes(2, server)
    assert noted.pruning == ["crm"]
    noted.prune_ends = [("crm", 1)]
    place.minutes(60, server)
    assert noted.pruning == ["crm", "crm"]
    assert "crm: old runs stay: `runs prune` ended with exit code 1" in place.said


def test_a_server_that_comes_late_asks_first_and_who_recovers_has_no_limit(
    place: Place, store: Store, child: Store
) -> None:
    place.write(cron=None)
    run = child.begin_run("crm", execution_date=place.clock.now(), limit_s=30)
    place.clock.move(3600)
    noted = Noted()
    server = place.server(store, noted)
    assert noted.signals == [(CHILD, "SIGTERM")]
    place.dead.add(CHILD)
    with place.store(8) as other:
        other.reclaim_run(run.id)
        place.minutes(2, server)
    assert len(noted.signals) == 1
