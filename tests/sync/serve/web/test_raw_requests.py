"""Requests that no browser sends: each gets its code or its connection ends, and the server goes on."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from syncblocks.sync.serve.web.listening import MOST_HEADER_BYTES, bound_socket
from syncblocks.sync.serve.web.order_body import MOST_BYTES
from syncblocks.sync.serve.web.patience import MOST_CONNECTIONS
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


@pytest.mark.full
def test_connections_are_bounded(site: Site) -> None:
    held = [connect(site) for _ in range(MOST_CONNECTIONS + 20)]
    try:
        assert answer_of(held[-1]) == 0
    finally:
        for each in held:
            each.close()
    deadline = time.monotonic() + 30
    while status_of(site, b"GET /healthz HTTP/1.0\r\n\r\n") != 200:
        assert time.monotonic() < deadline
