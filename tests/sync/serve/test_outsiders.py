"""Who is told outside of a server: alerts once, whoever looks; heartbeats while turns come to their end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from syncblocks.sync.serve import Server
from syncblocks.sync.serve.background import Every
from syncblocks.sync.serve.outsiders import Alerts, Heartbeat
from syncblocks.sync.store import Store
from tests.callbacks.listener import Listener, http_listener
from tests.sync.serve.serve_helpers import PIPELINE, Noted, Place, begin
from tests.sync.store.store_helpers import attempt_plan, outcome, query, stream_plan

SERVER, CHILD = 1, 9
A = stream_plan("a")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    with place.store(SERVER) as found:
        yield found


@pytest.fixture
def child(place: Place) -> Iterator[Store]:
    with place.store(CHILD) as found:
        yield found


@pytest.fixture
def listener() -> Iterator[Listener]:
    with http_listener() as found:
        yield found


def write(place: Place, name: str = "crm", **more: Any) -> None:
    document = {"pipeline": name, "store": place.url, **PIPELINE, **more}
    (place.folder / f"{name}.yaml").write_text(yaml.safe_dump(document))


def alerts_of(place: Place, store: Store, server: Server, listener: Listener) -> Alerts:
    def say(text: str, level: str) -> None:
        place.said.append(text)

    url = f"json://user:pa55word@127.0.0.1:{listener.port}/t0ken"
    return Alerts(store, place.folder, server._files, server, [url], place.clock, say)


def told(listener: Listener) -> list[str]:
    """Return the lines of all messages."""
    return [line for each in listener.requests for line in each.event["message"].splitlines()]


def succeed(store: Store, tick: int) -> None:
    run = begin(store, tick)
    store.begin_attempt(run, attempt_plan([A], parents=()))
    store.claim(run, ["a"])
    store.close_stream(run, outcome(A))
    store.finish_run(run)


def minutes(place: Place, number: float, server: Server, *alerts: Alerts) -> None:
    """Let half minutes pass; the server takes turns, and each of the alerts looks."""
    for _ in range(int(2 * number)):
        for _ in range(3):
            place.clock.move(10)
            server.turn()
        for each in alerts:
            each.look()


@pytest.mark.full
def test_what_catches_up_after_a_gap_is_late_only_if_this_takes_too_long(
    place: Place, store: Store, child: Store, listener: Listener
) -> None:
    for name in ("quick", "stuck"):
        write(place, name, schedule={"cron": "0 * * * *"}, expect={"within": "30m", "every": "2h"})
    write(place, "plain", expect={"every": "3h"})  # nothing of it catches up
    noted = Noted()
    server = place.server(store, noted)
    alerts = alerts_of(place, store, server, listener)
    minutes(place, 57, server, alerts)
    for tick in set(noted.started):
        succeed(child, tick)
    assert told(listener) == []
    place.clock.move(5 * 3600)  # nobody looks
    noted.started.clear()
    minutes(place, 5, server, alerts)
    succeed(child, next(tick for tick in noted.started if store.tick(tick).pipeline == "quick"))
    minutes(place, 4, server, alerts)
    assert [line.partition(";")[0] for line in told(listener)] == ["plain: no success for 3h"]
    minutes(place, 2, server, alerts)
    assert [line.partition(" of")[0] for line in told(listener)[1:]] == ["stuck: no success within 30m"]


def test_of_two_servers_one_tells_and_each_tells_on(
    place: Place, store: Store, child: Store, listener: Listener
) -> None:
    write(place)
    (place.folder / "bad.yaml").write_text("source: [\ndestination: x\n")
    noted = Noted()
    server = place.server(store, noted)
    with place.store(2) as second:
        other = place.server(second, noted)
        both = [alerts_of(place, *each, listener) for each in ((store, server), (second, other))]
        tick = child.order_tick("crm", "key", trigger="api", causes=(), kind="api").id
        child.claim_tick(tick)
        child.refuse_tick(tick, "no key")
        minutes(place, 2, server, *both)
        assert sorted(line.partition(":")[0] for line in told(listener)) == ["bad.yaml", "crm"]
        assert len(listener.requests) == 1
        assert "crm: its start was refused: no key" in told(listener)
        (place.folder / "crm.yaml").unlink()
        write(place, "crm2", schedule={"every": "1d"})
        place.settle(server, other)
        (place.folder / "crm2.yaml").unlink()
        place.settle(server, other)
        minutes(place, 2, other, *both[::-1])
        assert len(listener.requests) == 2
        assert told(listener)[2:] == [
            "crm2: its file crm2.yaml is gone; `syncblocks schedule forget crm2` if this is meant"
        ]
        other.leave()
        server.leave()
        store.schedules.forget("crm2")
        minutes(place, 12, server, *both)
        assert sorted(line.partition(":")[0] for line in told(listener)[3:]) == ["crm", "crm2"]
        assert all(" over since " in line for line in told(listener)[3:])


def test_starts_that_fail_for_ten_minutes_are_told_once(place: Place, store: Store, listener: Listener) -> None:
    write(place)
    noted = Noted(place.folder)
    server = place.server(store, noted)
    alerts = alerts_of(place, store, server, listener)
    tick = store.order_tick("crm", "key", trigger="api", causes=(), kind="api").id
    starts = 0
    for half in range(60):
        if len(noted.started) > starts:
            starts = len(noted.started)
            noted.ended = {tick: (server._in_force["crm"], 1)}
        minutes(place, 0.5, server, alerts)
        assert half > 20 or not told(listener)
    assert told(listener) == ["crm: its run has not begun for over 10 minutes: exit code 1"]


def test_a_url_that_fails_is_said_once_and_without_itself(place: Place, store: Store) -> None:
    (place.folder / "bad.yaml").write_text("source: [\ndestination: x\n")
    with http_listener([500, 500, 200]) as listener:
        server = place.server(store, Noted())
        alerts = alerts_of(place, store, server, listener)
        minutes(place, 2, server, alerts)
        assert len(listener.requests) == 3
    warnings = [text for text in place.said if "alert" in text]
    assert len(warnings) == 1
    assert not [word for word in ("pa55word", "t0ken") if word in warnings[0]]


def test_no_turn_waits_for_a_url_and_no_fault_ends_the_thread() -> None:
    said: list[str] = []
    calls = threading.Semaphore(0)

    def work() -> None:
        calls.release()
        raise ValueError("a fault")

    with Every(0.001, work, name="alert", say=lambda text, level: said.append(text)):
        for _ in range(3):
            assert calls.acquire(timeout=30)
    assert said[0] == "alert: ValueError: a fault"


def test_heartbeats_stop_while_no_turn_ends_and_a_failure_is_said_once(place: Place, store: Store) -> None:
    write(place)
    server = place.server(store, Noted())
    said: list[str] = []
    with http_listener([200, 503, 503, 200]) as listener:
        url = listener.url("/t0ken")
        heart = Heartbeat(server, url, place.clock, lambda text, level: said.append(text))
        for _ in range(4):
            minutes(place, 1, server)
            heart.beat()
        assert (len(listener.requests), said) == (
            4,
            ["heartbeat: the receiver answered 503; redirects are not followed"],
        )
        query(place.url, "ALTER TABLE _syncblocks_tick RENAME TO away")
        place.clock.move(31)
        server.turn()
        heart.beat()
        assert len(listener.requests) == 4
