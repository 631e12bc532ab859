"""Requests that no browser sends: each gets its code or its connection ends, and the server goes on."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from syncblocks.sync.serve.web.listening import MOST_HEADER_BYTES, bound_socket
from syncblocks.sync.serve.web.order_body import MOST_BYTES
from syncblocks.sync.serve.web.patience import MOST_CONNECTIONS, MOST_PER_ADDRESS, RESERVED
from tests.sync.serve.serve_helpers import Place
from tests.sync.serve.web.web_helpers import Site, served


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    place = Place(tmp_path)
    place.write()
    with served(place, arrives_s=0.5) as found:
        yield found


def connect(site: Site) -> socket.socket:
    return socket.create_connection(("127.0.0.1", site.port), timeout=30)


def status_of(site: Site, request: bytes) -> int:
    """Send bytes; return the status of the first answer; 0: the connection ended without one."""
    with closing(connect(site)) as connection:
        connection.sendall(request)
        return answer_of(connection)


def answer_of(connection: socket.socket) -> int:
    text = b""
    try:
        while b"\r\n" not in text and (part := connection.recv(65_536)):
            text += part
    except ConnectionResetError:
        return 0
    return int(text.split()[1]) if text else 0


@pytest.fixture
def secret(site: Site) -> bytes:
    return site.store.access.make_token("ci", ["read", "run:*", "operate"]).encode()


def head(site: Site, line: str, secret: bytes = b"", *lines: str) -> bytes:
    own = [line, f"Host: 127.0.0.1:{site.port}", *lines]
    return "\r\n".join(own).encode("latin-1") + b"\r\nAuthorization: Bearer " + secret + b"\r\n"


def test_lines_that_are_none(site: Site, secret: bytes) -> None:
    host = f"Host: 127.0.0.1:{site.port}"
    cases = {
        "HTTP/1.0 without a host": (b"GET /login HTTP/1.0\r\n\r\n", 421),
        "HTTP/1.0, open to all hosts": (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
        "HTTP/1.1 without a host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        "two hosts": (f"GET / HTTP/1.1\r\n{host}\r\nHost: evil\r\n\r\n".encode(), 400),
        "one host twice": (f"GET / HTTP/1.1\r\n{host}\r\n{host}\r\n\r\n".encode(), 400),
        "a host behind another": (f"GET /api/pipelines HTTP/1.1\r\n{host}@evil\r\n\r\n".encode(), 421),
        "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        "a whole URL": (f"GET http://evil/api/pipelines HTTP/1.1\r\n{host}\r\n\r\n".encode(), 404),
        "no path": (f"OPTIONS * HTTP/1.1\r\n{host}\r\n\r\n".encode(), 404),
        "a path that is no ASCII": (f"GET /\u00fc HTTP/1.1\r\n{host}\r\n\r\n".encode(), 400),
        "a NUL in a header": (f"GET /healthz HTTP/1.1\r\n{host}\r\nX: \0\r\n\r\n".encode(), 400),
        "a method of 40 letters": (f"{'X' * 40} /healthz HTTP/1.1\r\n{host}\r\n\r\n".encode(), 405),
        "a head without end": (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * (MOST_HEADER_BYTES + 1), 400),
        "a NUL in a name": (head(site, "GET /api/pipelines/%00 HTTP/1.1", secret) + b"\r\n", 404),
        "a NUL in a page": (head(site, "GET /pipelines/%00 HTTP/1.1") + b"\r\n", 404),
        "a slash in a name": (head(site, "GET /api/pipelines/crm%2Fruns HTTP/1.1", secret) + b"\r\n", 404),
        "a name that goes up": (head(site, "GET /static/..%2F..%2Fapp.py HTTP/1.1", secret) + b"\r\n", 404),
        "a name that goes up, plainly": (head(site, "GET /static/../app.py HTTP/1.1", secret) + b"\r\n", 404),
        "an upgrade": (
            head(site, "GET /api/pipelines HTTP/1.1", secret, "Connection: Upgrade", "Upgrade: websocket") + b"\r\n",
            200,
        ),
        "two tokens": (
            head(site, "GET /api/pipelines HTTP/1.1", secret) + b"Authorization: Bearer x\r\n\r\n",
            401,
        ),
    }
    assert {what: status_of(site, request) for what, (request, _) in cases.items()} == {
        what: status for what, (_, status) in cases.items()
    }


def test_bodies_that_are_none(site: Site, secret: bytes) -> None:
    post, json = "POST /api/pipelines/crm/runs HTTP/1.1", "Content-Type: application/json"
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    chunked = head(site, post, secret, json, "Transfer-Encoding: chunked") + b"\r\n"
    cases = {
        "chunks": (chunked + b"2\r\n{}\r\n0\r\n\r\n", 202),
        "chunks beyond the limit": (chunked + (MOST_BYTES // 65_536 + 1) * chunk, 413),
        "a chunk that is none": (chunked + b"zz\r\n{}\r\n", 400),
        "a length beyond the limit, and no body": (
            head(site, post, secret, json, f"Content-Length: {MOST_BYTES + 1}") + b"\r\n",
            413,
        ),
        "an endless length": (head(site, post, secret, json, f"Content-Length: {'9' * 30}") + b"\r\n", 400),
        "a length that is none": (head(site, post, secret, json, "Content-Length: -1") + b"\r\n", 400),
        "two lengths": (
            head(site, post, secret, json, "Content-Length: 2", "Content-Length: 3") + b"\r\n{}",
            400,
        ),
        "a length beside chunks": (
            head(site, post, secret, json, "Content-Length: 2", "Transfer-Encoding: chunked")
            + b"\r\n2\r\n{}\r\n0\r\n\r\n",
            202,
        ),
        "a large body without a token": (head(site, post, b"x", json, "Content-Length: 99999999") + b"\r\n", 401),
    }
    assert {what: status_of(site, request) for what, (request, _) in cases.items()} == {
        what: status for what, (_, status) in cases.items()
    }


def test_who_sends_slowly_is_cut_off_and_holds_nobody_up(site: Site, secret: bytes) -> None:
    body = head(site, "POST /api/pipelines/crm/runs HTTP/1.1", secret, "Content-Length: 100") + b"\r\n{"
    busy = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    busy.connect()
    own = busy.sock
    with ExitStack() as stack:
        stack.enter_context(closing(busy))
        silent, slow, stuck = (stack.enter_context(closing(connect(site))) for _ in range(3))
        stuck.sendall(body)
        deadline = time.monotonic() + 30
        while True:
            assert time.monotonic() < deadline
            try:
                slow.sendall(b"G")
            except OSError:
                break
            busy.request("GET", "/healthz")
            assert busy.getresponse().read() == b"alive\n"
        assert busy.sock is own
        assert [answer_of(each) for each in (silent, slow, stuck)] == [0, 0, 0]
    assert site.get("/healthz").status == 200


def test_an_answer_does_not_wait_for_the_one_before() -> None:
    """By Nagle's algorithm each second answer of a connection waited 40 ms: asyncio turns it off for TCP alone."""
    with bound_socket("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def half_sent(site: Site, number: int, stack: ExitStack) -> list[socket.socket]:
    """Connect so often, and send half of a request each time."""
    held = [stack.enter_context(closing(connect(site))) for _ in range(number)]
    for each in held:
        with suppress(OSError):  # it was ended for another one
            each.sendall(b"GET /healthz HTTP/1.1\r\nHo")
    return held


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.full
@pytest.mark.parametrize("is_signed_in", [False, True])
def test_half_sent_requests_hold_nobody_up(tmp_path: Path, is_signed_in: bool) -> None:
    """They took all connections for 20 s. The limit of an address would also hit those who share it by a proxy."""
    place = Place(tmp_path)
    place.write()
    with served(place, arrives_s=60) as site, ExitStack() as stack:
        token = site.store.access.make_token("ci", ["read"])
        if is_signed_in:
            site.sign_in()
            assert site.get("/").status == 200
        held = half_sent(site, MOST_CONNECTIONS + 20, stack)
        most = MOST_CONNECTIONS if is_signed_in else MOST_PER_ADDRESS
        until(lambda: sum(map(is_open, held)) == most)
        assert is_open(held[-1])
        paths = ("/healthz", "/readyz", "/login")
        assert [site.get(path).status for path in paths] == [200, 200, 303 if is_signed_in else 200]
        assert site.get("/api/pipelines", Authorization=f"Bearer {token}").status == 200


def test_half_sent_requests_end_by_themselves(site: Site) -> None:
    with ExitStack() as stack:
        held = half_sent(site, 5, stack)
        until(lambda: not any(map(is_open, held)))


def test_health_checks_have_a_reserve_while_all_connections_are_answered(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.write()
    with served(place, most=2) as site, ExitStack() as stack:
        site.sign_in()
        run = site.store.begin_run("crm", execution_date=place.clock.now()).id
        about = f"Host: 127.0.0.1:{site.port}\r\nCookie: {site.headers['Cookie']}"
        live = f"GET /runs/{run}/events HTTP/1.1\r\n{about}\r\n\r\n"
        for _ in range(2):
            answered = stack.enter_context(closing(connect(site)))
            answered.sendall(live.encode())
            assert answer_of(answered) == 200
        assert [site.get(path).status for path in ("/healthz", "/readyz", "/login")] == [200, 200, 503]
        held = half_sent(site, RESERVED + 5, stack)
        until(lambda: sum(map(is_open, held)) <= RESERVED)
        assert site.get("/healthz").status == 200
