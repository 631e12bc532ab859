"""Ticks: claimed by one process at a time, for as long as it renews the claim; each becomes one run or is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from syncblocks.connectors.errors import RetriableError
from syncblocks.connectors.struct_helpers import replace
from syncblocks.sync.errors import AlreadyRunning, ConfigError, Mistake, StoreUnreachable
from syncblocks.sync.run.errors import LedgerUnreadable
from syncblocks.sync.run.ticks import TickClaim
from syncblocks.sync.store import Store
from syncblocks.sync.store.owner import Owner, current_owner
from syncblocks.sync.store.ticks import LostTick, Tick, TickOptions
from tests.sync.store.store_helpers import DATE, STORES, FixedClock, query, store_url_of

OPTIONS = TickOptions(
    event={"from": "\0 first"},
    variables={"day": [1, None]},
    streams=("a*", "b"),
    full_refresh=True,
    execution_date=DATE,
    interval=(DATE - timedelta(days=1), DATE),
)


def elsewhere(**more: int) -> Owner:
    """A process that is not visible from here: its lease decides whether it lives."""
    return replace(current_owner(), host="other", boot_id="another boot", **more)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def here(url: str, clock: FixedClock) -> Iterator[Store]:
    with Store.open(url, clock=clock) as store:
        yield store


@pytest.fixture
def there(url: str, clock: FixedClock) -> Iterator[Store]:
    with Store.open(url, clock=clock, owner=elsewhere()) as store:
        yield store


def ordered(store: Store, key: str = "key") -> Tick:
    return store.order_tick("p", key, trigger="0", causes=())


@pytest.mark.parametrize("kind", STORES)
def test_a_tick_comes_back_as_it_was_ordered_and_its_key_counts_for_a_pipeline_and_a_kind(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    request.param = kind
    with Store.open(store_url_of(request, tmp_path)) as store:
        tick = store.order_tick("p", "key", trigger="t", causes=["a", "b"], kind="api", due_at=DATE, options=OPTIONS)
        assert tick == store.tick(tick.id)
        assert (tick.options, tick.kind, tick.causes, tick.due_at) == (OPTIONS, "api", ("a", "b"), DATE)
        assert store.order_tick("p", "key", trigger="", causes=(), kind="api") == tick
        others = [
            store.order_tick(pipeline, "key", trigger="", causes=(), kind=of_kind)
            for pipeline, of_kind in (("p", "callback"), ("p", "schedule"), ("p", "backfill"), ("q", "api"))
        ]
        assert len({one.id for one in (tick, *others)}) == 5
        assert others[0].options == TickOptions()
        assert store.startable_ticks("p", "api") == (tick,)


def test_a_claim_lasts_as_long_as_its_process_renews_it(here: Store, there: Store, clock: FixedClock) -> None:
    """It lasted an hour, whether its process lived or not."""
    tick = ordered(here)
    assert there.claim_tick(tick.id) == tick
    for _ in range(12):
        clock.move(10)
        assert there.renew_tick(tick.id)
        assert (here.claim_tick(tick.id), here.startable_ticks("p", "callback")) == (None, ())
    clock.move(31)
    assert [one.id for one in here.startable_ticks("p", "callback")] == [tick.id]
    assert here.claim_tick(tick.id) is not None
    assert not there.renew_tick(tick.id)


def test_a_claim_of_a_clock_that_was_ahead_holds_no_tick(here: Store, there: Store, clock: FixedClock) -> None:
    tick = ordered(here)
    clock.move(86400)
    assert there.claim_tick(tick.id) is not None
    assert here.claim_tick(tick.id) is None
    clock.move(-86400)
    assert here.claim_tick(tick.id) is not None
    here.give_back_tick(tick.id, "a fault")
    assert here.claim_tick(tick.id) is None
    clock.move(-86400)
    assert here.claim_tick(tick.id) is not None


def test_two_processes_of_one_tick_begin_one_run(here: Store, there: Store, clock: FixedClock) -> None:
    tick = ordered(here)
    assert there.claim_tick(tick.id) is not None
    clock.move(31)
    assert here.claim_tick(tick.id) is not None
    with pytest.raises(LostTick):
        there.begin_run("p", execution_date=DATE, tick=tick.id)
    there.give_back_tick(tick.id, "a fault")
    there.refuse_tick(tick.id, "a mistake")
    assert here.runs() == []
    run = here.begin_run("p", execution_date=DATE, tick=tick.id)
    here.give_back_tick(tick.id)
    now = here.tick(tick.id)
    assert (now.state, now.run_id, now.why) == ("run", run.id, None)
    assert here.claim_tick(tick.id) is None


def test_a_tick_that_is_given_back_with_a_reason_waits_ever_longer(here: Store, clock: FixedClock) -> None:
    tick = ordered(here)
    waited = []
    for _ in range(8):
        assert here.claim_tick(tick.id) is not None
        here.give_back_tick(tick.id, "the destination is down")
        now = here.tick(tick.id)
        assert (now.state, now.why) == ("waiting", "the destination is down")
        assert now.not_before is not None
        waited.append((now.not_before - clock.now()).total_seconds())
        clock.move(waited[-1] - 1)
        assert (here.claim_tick(tick.id), here.startable_ticks("p", "callback")) == (None, ())
        clock.move(1)
    assert waited == [10, 20, 40, 80, 160, 300, 300, 300]
    for _ in range(8):
        assert here.claim_tick(tick.id) is not None
        here.give_back_tick(tick.id)


def test_a_tick_whose_process_has_died_is_taken_again_three_times(url: str, here: Store) -> None:
    tick = ordered(here)
    for number in range(1, 5):
        dead = replace(current_owner(), started=number)
        with Store.open(url, owner=dead) as store:
            if number == 2:  # what is given back does not count
                assert here.claim_tick(tick.id) is not None
                here.give_back_tick(tick.id)
            assert store.claim_tick(tick.id) is not None
    assert here.claim_tick(tick.id) is None
    now = here.tick(tick.id)
    assert (now.state, now.why) == ("refused", "its process died 4 times before the run began")


def test_the_claim_of_a_process_that_plans_or_waits_is_renewed(here: Store, there: Store, clock: FixedClock) -> None:
    tick, taken, waits = ordered(here), [], []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        clock.move(seconds)
        taken.append(here.claim_tick(tick.id))
        return len(waits) == 30

    with TickClaim(there, tick.id, str, wait=wait) as claim:
        assert claim.take() is not None
        claim._thread.join()
        assert waits == [10.0] * 30
        assert taken == [None] * 30
        there.begin_run("p", execution_date=DATE, tick=tick.id)
    assert here.tick(tick.id).state == "run"


def _unreadable() -> LedgerUnreadable:
    error = LedgerUnreadable("the ledger cannot be read")
    error.__cause__ = RetriableError("no answer")
    return error


@pytest.mark.parametrize(
    ("error", "state", "waits_s", "why"),
    [
        (StoreUnreachable("gone: pass-4711"), "waiting", 10, "gone: ***"),
        (RetriableError("no answer"), "waiting", 10, "no answer"),
        (_unreadable(), "waiting", 10, "the ledger cannot be read"),
        (ZeroDivisionError(), "refused", None, "ZeroDivisionError"),
        (ConfigError("no such column"), "refused", None, "no such column"),
        (Mistake("no such stream: pass-4711"), "refused", None, "no such stream: ***"),
        (AlreadyRunning("p", 1, "process 1"), "waiting", None, None),
        (SystemExit(143), "waiting", None, None),
        (KeyboardInterrupt(), "waiting", None, None),
        (None, "waiting", None, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_ends_a_process_before_its_run_decides_what_becomes_of_the_tick(
    here: Store, clock: FixedClock, error: BaseException | None, state: str, waits_s: int | None, why: str | None
) -> None:
    tick = ordered(here)
    for number in range(6):
        clock.move(300)
        now = here.tick(tick.id)
        if now.state == "refused":
            break
        raised = () if error is None else type(error)
        claim = TickClaim(here, tick.id, lambda text: text.replace("pass-4711", "***"))
        with suppress(raised), claim:
            taken = claim.take()
            if error is not None:
                raise error
        assert taken is not None, f"claim {number} was counted"
        now = here.tick(tick.id)
        assert (now.state, now.why) == (state, why)
        if number == 0:
            waits = None if now.not_before is None else (now.not_before - clock.now()).total_seconds()
            assert waits == waits_s
    assert query(here.url, "SELECT claims FROM _syncblocks_tick") == [(1 if state == "refused" else 0,)]


def test_a_start_that_failed_before_the_claim_delays_the_tick_and_says_why(
    here: Store, there: Store, clock: FixedClock
) -> None:
    tick = ordered(here).id
    assert not here.fail_start(tick, "no offer")
    assert here.offer_tick(tick, 30)
    assert not there.fail_start(tick, "another server's process")
    assert (here.fail_start(tick, "exit code 1"), here.fail_start(tick, "told twice")) == (True, False)
    found = here.tick(tick)
    assert (found.why, found.not_before) == ("exit code 1", clock.now() + timedelta(seconds=10))
    assert here.claim_tick(tick) is None
    clock.move(11)
    assert there.offer_tick(tick, 30)  # by another server, as soon as it waits no more
    assert not here.fail_start(tick, "late news")
    assert there.claim_tick(tick) is not None
    assert not there.fail_start(tick, "claimed")
