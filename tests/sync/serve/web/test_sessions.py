"""Who may open a page: sign-in by a code, the cookie, and what a form must bring."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from syncblocks.sync.errors import StoreUnreachable
from syncblocks.sync.serve.web.served import addresses
from tests.sync.serve.serve_helpers import Place
from tests.sync.serve.web.web_helpers import Site, served


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    place = Place(tmp_path)
    place.write()
    with served(place, "https://sync.example.com") as found:
        yield found


def test_a_code_signs_in_once_and_its_link_uses_nothing_up(site: Site) -> None:
    code = site.store.access.make_code()
    for _ in range(2):
        shown = site.get(f"/login?code={code}")
        assert (shown.status, f'value="{code}"' in shown.text, "set-cookie" in shown.headers) == (200, True, False)
    answer = site.ask("POST", "/login", {"code": code}, Origin=site.origin)
    assert (answer.status, answer.location) == (303, "/")
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert cookie.startswith(f"syncblocks_{site.port}=")
    assert sorted(attributes) == ["HttpOnly", "Max-Age=43200", "Path=/", "SameSite=lax"]
    assert site.get("/", Cookie=cookie).status == 200
    assert site.get("/login", Cookie=cookie).location == "/"
    again = site.ask("POST", "/login", {"code": code}, Origin=site.origin)
    assert (again.status, "set-cookie" in again.headers, "syncblocks token link" in again.text) == (403, False, True)


def test_a_code_that_is_too_old_does_not_sign_in(site: Site) -> None:
    code = site.store.access.make_code()
    site.place.clock.move(601)
    assert site.ask("POST", "/login", {"code": code}, Origin=site.origin).status == 403


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example", "http://127.0.0.1", "http://127.0.0.1:1"])
def test_no_other_site_signs_in(site: Site, origin: str | None) -> None:
    code = site.store.access.make_code()
    answer = site.ask("POST", "/login", {"code": code}, Origin=origin)
    assert (answer.status, "set-cookie" in answer.headers) == (403, False)
    assert site.ask("POST", "/login", {"code": code}, Origin=site.origin).status == 303


def test_under_https_the_cookie_is_secure_and_has_the_port_of_the_address(site: Site) -> None:
    form = {"code": site.store.access.make_code()}
    host = "sync.example.com"
    answer = site.ask("POST", "/login", form, Origin=f"https://{host}", Host=host)
    name, *attributes = answer.headers["set-cookie"].split("; ")
    assert (answer.status, name.startswith("__Host-syncblocks_443="), "Secure" in attributes) == (303, True, True)


def test_without_a_session_there_is_no_page(site: Site) -> None:
    for path in ("/", "/schedules", "/deliveries", "/pipelines/crm", "/pipelines/crm/streams/a"):
        assert (site.get(path).status, site.get(path).location) == (303, "/login"), path
        for header in ({"Cookie": f"syncblocks_{site.port}=wrong"}, {"Authorization": "Bearer sbt_x"}):
            assert site.get(path, **header).status == 303
    for path in ("/logout", "/pipelines/crm/run", "/pipelines/crm/pause", "/deliveries/again"):
        assert site.ask("POST", path, {}, Origin=site.origin).status == 401, path
    assert "syncblocks token link" in site.get("/login").text


def test_a_bearer_token_opens_no_page(site: Site) -> None:
    secret = site.store.access.make_token("ci", ["read", "operate"])
    assert site.get("/", Authorization=f"Bearer {secret}").status == 303
    assert site.get("/", Cookie=f"syncblocks_{site.port}={secret}").status == 303


def test_a_form_needs_an_own_origin_and_the_token_of_its_session(site: Site) -> None:
    site.sign_in()
    token = site.token()
    wrong = [
        ({"form_token": token}, None),
        ({"form_token": token}, "null"),
        ({"form_token": token}, "http://evil.example"),
        ({"form_token": "0" * 64}, site.origin),
        ({"form_token": "\N{SNOWMAN}"}, site.origin),
        ({}, site.origin),
    ]
    for form, origin in wrong:
        for path in ("/logout", "/pipelines/crm/run", "/pipelines/crm/streams/a/anew"):
            assert site.ask("POST", path, form, Origin=origin).status == 403, (path, form, origin)
    assert site.store.actions.of_pipeline("crm") == []
    other = site.headers["Cookie"]
    site.sign_in()
    assert site.token() != token
    assert site.ask("POST", "/logout", {"form_token": site.token()}, Origin=site.origin, Cookie=other).status == 403


def test_who_signs_out_is_out(site: Site) -> None:
    site.sign_in()
    cookie = site.headers["Cookie"]
    answer = site.post("/logout")
    assert (answer.status, answer.location, "Max-Age=0" in answer.headers["set-cookie"]) == (303, "/login", True)
    assert site.get("/", Cookie=cookie).status == 303


def test_a_session_ends_after_12_hours(site: Site) -> None:
    site.sign_in()
    site.place.clock.move(12 * 3600 - 1)
    assert site.get("/").status == 200
    site.place.clock.move(2)
    assert site.get("/").status == 303


def test_a_large_form_is_refused(site: Site) -> None:
    assert site.ask("POST", "/login", {"code": "x" * 70_000}, Origin=site.origin).status == 413


def test_addresses_are_as_browsers_write_them(tmp_path: Path) -> None:
    named = ("https://Sync.Example:443", "http://[FD00::1]:80", "https://sync.example:8443")
    assert addresses("10.0.0.1", 8400, named) == (
        "https://sync.example",
        "http://[fd00::1]",
        "https://sync.example:8443",
    )
    assert addresses("127.0.0.9", 8400, ())[0] == "http://127.0.0.9:8400"
    assert addresses("::1", 80, ()) == ("http://[::1]", "http://127.0.0.1", "http://localhost")
    place = Place(tmp_path)
    with served(place, "https://Sync.Example:443") as site:
        for host, origin in (("sync.example", "https://sync.example"), ("SYNC.example:443", "https://sync.example")):
            form = {"code": site.store.access.make_code()}
            assert site.ask("POST", "/login", form, Host=host, Origin=origin).status == 303
        assert site.get("/login", Host="sync.example:80").status == 421


def test_a_fault_has_the_headers_and_its_log_no_secret(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    def failing(_secret: str) -> bool:
        raise KeyError("postgresql://u:canary@db/x")

    site.store.access.is_signed_in = failing  # type: ignore[method-assign]
    answer = site.get("/", Cookie=f"syncblocks_{site.port}=x")
    assert (answer.status, "KeyError" in answer.text, "content-security-policy" in answer.headers) == (500, True, True)
    assert ("canary" in answer.text + caplog.text, "KeyError" in caplog.text) == (False, True)


def test_a_store_that_is_away_is_told_to_nobody_by_name(site: Site) -> None:
    def away(_secret: str) -> bool:
        raise StoreUnreachable("connection to db.internal failed for user sync")

    site.store.access.is_signed_in = away  # type: ignore[method-assign]
    answer = site.get("/", Cookie=f"syncblocks_{site.port}=x")
    assert (answer.status, "db.internal" in answer.text, "does not answer" in answer.text) == (503, False, True)


def test_of_many_who_use_a_code_at_once_one_is_signed_in(site: Site) -> None:
    code = site.store.access.make_code()

    def sign_in(_number: int) -> int:
        return site.ask("POST", "/login", {"code": code}, Origin=site.origin).status

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(sign_in, range(8))) == [303, *[403] * 7]


def test_no_address_and_no_form_holds_a_nul(site: Site) -> None:
    site.sign_in()
    for path in ("/deliveries?pipeline=%00", "/?q=%00", f"/runs/{'9' * 5000}", "/runs/99999999999"):
        assert site.get(path).status == 404, path
    assert site.post("/pipelines/crm/pause", reason="\0").status == 413
