"""Tokens, codes and sessions: found by their secret, of which the store keeps a digest, until they end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from syncblocks.sync.errors import StateError
from syncblocks.sync.store import Store
from tests.sync.store.store_helpers import STORES, query, store_url_of


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return store_url_of(request, tmp_path)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store.open(url) as found:
        yield found


def expire(url: str, table: str) -> None:
    query(url, f"UPDATE _syncblocks_{table} SET expires_at = '2020-01-01 00:00:00.000000'")


def test_a_token_opens_what_its_scopes_say_until_it_is_revoked(store: Store, url: str) -> None:
    secret = store.access.make_token("ci", ["run:crm_*", "run:[[]x[]]", "read", "read"])
    token = store.access.token(secret)
    assert token is not None
    assert (token.name, token.scopes, token.expires_at) == ("ci", ("run:crm_*", "run:[[]x[]]", "read"), None)
    assert token.may_read
    assert [token.may_run(name) for name in ("crm_a", "crm", "[x]")] == [True, False, True]
    assert [each.used_at is None for each in store.access.tokens()] == [False]
    for wrong in ("", "ci", secret[:-1], f"{secret} ", "\udcff\0"):
        assert store.access.token(wrong) is None
    with pytest.raises(StateError, match="there is a token 'ci' already"):
        store.access.make_token("ci", ["read"])
    store.access.revoke_token("ci")
    assert (store.access.token(secret), store.access.tokens()) == (None, [])
    with pytest.raises(StateError, match="there is no token 'ci'"):
        store.access.revoke_token("ci")


def test_a_token_that_has_expired_opens_nothing_and_its_name_is_free(store: Store, url: str) -> None:
    secret = store.access.make_token("ci", ["operate"], lasts=timedelta(days=90))
    assert store.access.token(secret) is not None
    expire(url, "token")
    assert store.access.token(secret) is None
    store.access.make_token("ci", ["read"])
    assert [each.scopes for each in store.access.tokens()] == [("read",)]


@pytest.mark.parametrize("scope", ["", "write", "run", "run:", "Read", "run:[a"])
def test_a_wrong_scope_or_name_is_refused(store: Store, scope: str) -> None:
    with pytest.raises(StateError, match="scope"):
        store.access.make_token("ci", [scope])
    with pytest.raises(StateError, match="token name"):
        store.access.make_token("a b", ["read"])
    assert store.access.tokens() == []


def test_a_code_makes_one_session_which_ends_by_time_or_by_word(store: Store, url: str) -> None:
    code = store.access.make_code()
    assert not store.access.is_signed_in(code)
    session = store.access.sign_in(code)
    assert session is not None
    assert store.access.is_signed_in(session)
    assert [store.access.sign_in(each) for each in (code, session, "")] == [None, None, None]
    store.access.sign_out(session)
    assert not store.access.is_signed_in(session)
    late = store.access.make_code()
    expire(url, "session")
    assert store.access.sign_in(late) is None
    second = store.access.sign_in(store.access.make_code()) or ""
    expire(url, "session")
    assert not store.access.is_signed_in(second)
    store.access.make_code()
    assert query(url, "SELECT count(*) FROM _syncblocks_session") == [(1,)]


def test_a_code_used_many_times_at_once_makes_one_session(store: Store) -> None:
    code, found = store.access.make_code(), []
    threads = [threading.Thread(target=lambda: found.append(store.access.sign_in(code))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len([each for each in found if each is not None]) == 1


def test_the_store_has_no_secret(store: Store, url: str) -> None:
    secrets = [store.access.make_token("ci", ["read"]), store.access.make_code()]
    secrets.append(store.access.sign_in(store.access.make_code()) or "")
    kept = str([query(url, f"SELECT * FROM _syncblocks_{table}") for table in ("token", "session")])
    assert not [each for each in secrets if each in kept]
