"""Claims that another process takes: once, under a lease, and no longer than the run's owner lets it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from syncblocks.connectors.struct_helpers import replace
from syncblocks.sync.store import Store
from syncblocks.sync.store.model import LostRun
from syncblocks.sync.store.owner import Owner, current_owner
from syncblocks.sync.store.statements import one_of
from tests.sync.store.store_helpers import STORES, attempt_plan, begin, outcome, query, store_url_of, stream_plan

A, B = stream_plan("a"), stream_plan("b")


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with Store.open(store_url_of(request, tmp_path)) as opened:
        begin(opened, attempt_plan((A, B)))
        assert opened.claim(1, ["a", "b"], nonce="n")
        yield opened


def elsewhere(**more: str) -> Owner:
    return replace(current_owner(), host="other", boot_id="another boot", **more)


def test_a_claim_is_taken_once_and_as_a_whole(store: Store) -> None:
    assert not store.take_claim(1, 1, ["a"], "another", elsewhere())
    assert store.take_claim(1, 1, ["a"], "n", elsewhere())
    assert not store.take_claim(1, 1, ["a", "b"], "n", elsewhere(pid_namespace="second"))
    states = store.claim_states(1, 1, ["a", "b"])
    assert [(state.is_taken, state.is_alive, state.is_open, state.is_mine) for state in states.values()] == [
        (True, True, True, True),
        (False, True, True, True),
    ]
    assert store.holds_claim(1, "a", "n")
    assert not store.holds_claim(1, "a", "another")


def test_a_worker_closes_under_its_nonce_and_not_once_the_claim_is_taken_back(store: Store) -> None:
    assert store.take_claim(1, 1, ["a"], "n", elsewhere())
    assert store.take_back(1, 1, ["a"], "m", "n")
    with pytest.raises(LostRun, match="was taken from this worker"):
        store.close_stream(1, outcome(A), nonce="n")
    assert not store.holds_claim(1, "a", "n")
    assert not store.take_back(1, 1, ["a"], "o", "n")
    store.close_stream(1, outcome(A), nonce="m")
    store.close_stream(1, outcome(B), nonce="n")
    assert store.run(1).status == "success"


def test_what_waits_for_a_worker_is_taken_back_and_what_has_one_is_not(store: Store) -> None:
    assert store.take_claim(1, 1, ["a"], "n", elsewhere())
    assert not store.take_back(1, 1, ["a"], "m", "n", is_waiting=True)
    assert store.take_back(1, 1, ["b"], "m", "n", is_waiting=True)
    assert not store.take_claim(1, 1, ["b"], "n", elsewhere())


def test_a_lease_that_is_over_or_a_process_that_is_gone_ends_a_worker(store: Store) -> None:
    assert store.take_claim(1, 1, ["a"], "n", current_owner())
    assert store.take_claim(1, 1, ["b"], "n", replace(current_owner(), started=1))
    states = store.claim_states(1, 1, ["a", "b"])
    assert (states["a"].is_alive, states["b"].is_alive) == (True, False)
    past = "2001-01-01 00:00:00" + ("+00" if store.url.startswith("postgres") else ".000000")
    url = store.url
    query(url, f"update _syncblocks_stream_run set lease_until = '{past}'")
    # A frozen process is there, and does not renew its lease.
    assert not store.claim_states(1, 1, ["a"])["a"].is_alive
    store.renew_claims(1, 1, ["a", "b"], current_owner())
    states = store.claim_states(1, 1, ["a", "b"])
    assert (states["a"].is_alive, states["b"].is_alive) == (True, False)


def test_a_request_to_stop_keeps_the_first_reason(store: Store) -> None:
    store.ask_to_stop(1, 1, ["a"], "late")
    store.ask_to_stop(1, 1, ["a", "b"], "another stream failed: a")
    states = store.claim_states(1, 1, ["a", "b"])
    assert [state.stop_reason for state in states.values()] == ["late", "another stream failed: a"]


def test_any_number_of_streams_is_looked_at_at_once(store: Store) -> None:
    # Beyond the variables that SQLite (32,766) and PostgreSQL (65,535) take in one statement.
    names = ["a", *(f"s{number}" for number in range(70_000)), "b"]
    assert set(store.claim_states(1, 1, names)) == {"a", "b"}
    assert {run.stream for run in store.block_runs_of(1, 1, names)} == {"a", "b"}


def test_the_number_of_streams_does_not_change_the_statement() -> None:
    # Its text is parsed and kept: variables by the thousand take SQLite the square of their number to read.
    assert one_of("stream", ["a", "b"])[0] == one_of("stream", [f"s{number}" for number in range(1_000)])[0]


def test_one_stream_is_found_by_the_index_before_postgresql_has_statistics(postgres_url: str) -> None:
    import psycopg

    with Store.open(postgres_url) as opened:
        begin(opened, attempt_plan(stream_plan(f"s{number}") for number in range(600)))
    is_one, values = one_of("stream", ["s5"])
    ((name, value),) = values.items()
    kind, literal = ("text", f"'{value}'") if isinstance(value, str) else ("text[]", "'{s5}'")
    with psycopg.connect(postgres_url) as connection:
        connection.execute("set plan_cache_mode = force_generic_plan")  # as at the sixth use of a statement
        connection.execute(
            f"prepare look({kind}) as select claim from _syncblocks_stream_run "
            f"where run_id = 1 and attempt = 1 and status = 'unclaimed' and {is_one.replace(f':{name}', '$1')}"
        )
        plan = "".join(row[0] for row in connection.execute(f"explain analyze execute look({literal})"))
    assert "rows=1 " in plan
    assert "Removed by Filter" not in plan, plan


def test_of_several_streams_those_that_wait_are_taken_back(store: Store) -> None:
    assert store.take_claim(1, 1, ["a"], "n", elsewhere())
    assert store.take_back(1, 1, ["a", "b"], "m", "n", is_waiting=True) == ["b"]
    assert store.take_claim(1, 1, ["b"], "m", elsewhere())


def test_a_close_takes_the_workers_next_stream_and_its_block_runs_start_then(store: Store) -> None:
    me = elsewhere()
    assert store.take_claim(1, 1, ["a"], "n", me)
    claimed = {run.stream: run.started_at for run in store.block_runs_of(1, 1, ["b"])}
    assert store.close_stream(1, outcome(A), nonce="n", take="b", worker=me).has_taken
    assert not store.take_claim(1, 1, ["b"], "n", elsewhere(pid_namespace="second"))
    started = [run.started_at for run in store.block_runs_of(1, 1, ["b"])]
    assert all(at is not None and at > claimed["b"] for at in started)


def test_a_close_takes_nothing_that_was_taken_back(store: Store) -> None:
    me = elsewhere()
    assert store.take_claim(1, 1, ["a"], "n", me)
    store.take_back(1, 1, ["b"], "m", "n", is_waiting=True)
    assert not store.close_stream(1, outcome(A), nonce="n", take="b", worker=me).has_taken
    assert store.holds_claim(1, "b", "m")


def test_a_close_takes_nothing_once_the_run_stops(store: Store) -> None:
    me = elsewhere()
    assert store.take_claim(1, 1, ["a"], "n", me)
    store.request_stop(1)
    closed = store.close_stream(1, outcome(A), nonce="n", take="b", worker=me)
    assert (closed.has_taken, closed.is_stopping) == (False, True)
    assert not store.claim_states(1, 1, ["b"])["b"].is_taken
