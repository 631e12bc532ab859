"""Each route for each host, origin, method and visitor: the code that a plain rule says."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.routing import BaseRoute, Mount, Route

from tests.sync.serve.serve_helpers import Place, begin
from tests.sync.serve.web.web_helpers import Site, served
from tests.sync.store.store_helpers import attempt_plan, outcome, stream_plan

PUBLIC = "https://sync.example"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
VISITORS = ("nobody", "token", "session")
#: What stands for each part of a path.
SAMPLES = {
    "{pipeline:name}": "crm",
    "{stream:name}": "a",
    "{run_id:number}": "1",
    "{number}": "1",
    "{key}": "0" * 32,
    "{key:name}": "0" * 32,
}
OPEN = ("/healthz", "/readyz")
STATIC = "/static/pages.css"


def routes_of(routes: list[BaseRoute], above: str = "") -> Iterator[tuple[str, frozenset[str]]]:
    """Return all paths with their methods."""
    for route in routes:
        if isinstance(route, Mount) and route.path == "/static":
            yield STATIC, frozenset({"GET", "HEAD"})
        elif isinstance(route, Mount):
            yield from routes_of(route.routes, above + route.path)
        else:
            assert isinstance(route, Route)
            path = above + route.path
            for part, sample in SAMPLES.items():
                path = path.replace(part, sample)
            assert "{" not in path, path
            yield path, frozenset(route.methods or ())


def expected(
    path: str, methods: frozenset[str], method: str, visitor: str, *, is_host: bool, is_origin: bool
) -> int | None:
    """Return the code; None: the order is taken, and depends on what there is."""
    if path not in OPEN and not is_host:
        return 421
    if method not in methods:
        return 405
    is_reading = method in ("GET", "HEAD")
    if path.startswith("/api/") or path == "/metrics":
        return 401 if visitor != "token" else 200 if is_reading else 403
    if path in (*OPEN, STATIC):
        return 200
    if path == "/login":
        return 403 if not is_reading else 303 if visitor == "session" else 200
    if visitor != "session":
        return 303 if is_reading else 401
    return 200 if is_reading else None if is_origin else 403


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """With a run of one stream."""
    place = Place(tmp_path)
    place.write()
    with served(place, PUBLIC) as found:
        tick = found.store.order_tick("crm", "k", trigger="", causes=(), kind="api")
        run = begin(found.store, tick.id)
        plan = stream_plan("a")
        found.store.begin_attempt(run, attempt_plan([plan]))
        found.store.claim(run, ["a"])
        found.store.close_stream(run, outcome(plan))
        found.store.finish_run(run)
        found.store.save_log(run, 1, "a line\n")
        yield found


class Visitor:
    """Sends requests over one connection as long as it may."""

    def __init__(self, site: Site, kind: str) -> None:
        self.site = site
        self.kind = kind
        self._connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
        self._headers: dict[str, str] = {}
        self._token = ""
        self.come_in()

    def come_in(self) -> None:
        if self.kind == "token":
            self._headers = {"Authorization": f"Bearer {self.site.store.access.make_token('ci', ['read'])}"}
        elif self.kind == "session":
            self.site.headers.pop("Cookie", None)
            self.site.sign_in()
            self._headers = {"Cookie": self.site.headers["Cookie"]}
            self._token = self.site.token()

    def ask(self, method: str, path: str, host: str, origin: str | None) -> int:
        body = f"form_token={self._token}" if method == "POST" else ""
        headers = {**self._headers, "Host": host, "Content-Length": str(len(body))}
        headers |= {} if origin is None else {"Origin": origin}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        if answer.getheader("content-type", "").startswith("text/event-stream"):
            self._connection.close()
        else:
            answer.read()
        return answer.status

    def close(self) -> None:
        self._connection.close()


@pytest.mark.full
@pytest.mark.parametrize("kind", VISITORS)
def test_each_request_gets_the_code_of_the_rule(site: Site, kind: str) -> None:
    own = f"127.0.0.1:{site.port}"
    hosts = (own, f"localhost:{site.port}", "sync.example", f"127.0.0.1:{site.port + 1}")
    hosts += ("127.0.0.1", "evil.example", "sync.example.evil", "")
    origins = (None, f"http://{own}", PUBLIC, "null", "http://evil.example", f"http://127.0.0.1:{site.port + 1}")
    visitor = Visitor(site, kind)
    wrong = []
    for path, methods in sorted(routes_of(site.routes)):
        for host in hosts:
            for origin in origins:
                for method in METHODS:
                    is_host = host in hosts[:3]
                    rule = expected(path, methods, method, kind, is_host=is_host, is_origin=origin in origins[1:3])
                    # The cookie of another address has another name.
                    if kind == "session" and host == "sync.example":
                        rule = expected(path, methods, method, "nobody", is_host=True, is_origin=False)
                    status = visitor.ask(method, path, host, origin)
                    is_taken = status not in (401, 403, 405, 421) and status < 500
                    if status != rule and not (rule is None and is_taken):
                        wrong.append((path, host, origin, method, status, rule))
                    if rule is None and path == "/logout":
                        visitor.come_in()
    visitor.close()
    assert wrong == []
