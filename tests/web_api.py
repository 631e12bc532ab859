"""A double of an API of the web: pages, a cursor in time, children, a rotating refresh token, and answers that fail."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

Record = dict[str, Any]

#: Kind of a strange answer -> its HTTP status and body.
STRANGE: Mapping[str, tuple[int, bytes]] = {
    "html": (200, b"<!doctype html><html><body>We will be back soon</body></html>"),
    "204": (204, b""),
    "null": (200, b"null"),
    "document": (200, b'{"error": {"code": 17, "message": "the data cannot be parsed"}}'),
    "401": (401, b'{"error": "expired"}'),
    "403": (403, b'{"error": "forbidden"}'),
}


@dataclass
class Api:
    """The tables of an API, and how it behaves; a test may change both while the API runs.

    `GET /orders` takes one of `page`, `offset` and `cursor`, and `limit`; `since` and `until`, bounds of `updated_at`.
    It answers `{"data": [...], "next": "cursor"}`, with the next page's URL in the header Link.
    A table whose name begins with `bare` is answered as an array.
    `/users/7/orders` are the orders whose `user_id` is 7.
    `POST /oauth/token` gives an access token and the next refresh token.
    """

    tables: dict[str, list[Record]]
    #: Records a page without `limit`.
    page: int = 100
    #: What fails -> every which request: `429`, `500`, `broken` (JSON cut off), `slow`.
    fails: Mapping[str, int] = field(default_factory=dict)
    #: Seconds in Retry-After, and of a slow answer.
    wait_s: float = 0.05
    #: The refresh token that counts; empty: whoever asks gets an answer.
    refresh_token: str = ""
    #: Seconds until an access token expires, as the API says; it takes those that it has given for ever.
    token_s: int = 3600
    port: int = 0
    #: Path -> number of the request that gets a strange answer, from 1, and the kind of the answer.
    strange: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    #: Requests, by path.
    asked: Counter[str] = field(default_factory=Counter)
    #: Failures answered, by kind.
    failed: Counter[str] = field(default_factory=Counter)
    #: Queries of tables, in order.
    queries: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    _access_tokens: set[str] = field(default_factory=set)
    _tokens: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def failure(self, path: str) -> str:
        """Count a request, and say how its answer fails; "" if it does not."""
        with self._lock:
            self.asked[path] += 1
            number = self.asked.total()
            kind = next((kind for kind, every in self.fails.items() if number % every == 0), "")
            self.failed.update([kind] if kind else [])
            return kind

    def strange_answer(self, path: str) -> tuple[int, bytes] | None:
        """Return the strange answer to the request that was counted last; None: it gets the usual one."""
        number, kind = self.strange.get(path, (0, ""))
        return STRANGE[kind] if number and self.asked[path] == number else None

    def is_allowed(self, header: str) -> bool:
        """Tell whether an Authorization header holds a token that was given."""
        with self._lock:
            return not self.refresh_token or header.removeprefix("Bearer ") in self._access_tokens

    def tokens(self, refresh_token: str) -> Record | None:
        """Return new tokens for the refresh token that counts, which counts no more."""
        with self._lock:
            if not self.refresh_token or refresh_token != self.refresh_token:
                return None
            self._tokens += 1
            self.refresh_token, access_token = f"refresh-{self._tokens}", f"access-{self._tokens}"
            self._access_tokens.add(access_token)
            return {"access_token": access_token, "refresh_token": self.refresh_token, "expires_in": self.token_s}

    def select(self, path: str, asked: Mapping[str, str]) -> tuple[list[Record], dict[str, str]] | None:
        """Return a page of records, and the parameters of the next one; None: there is no such table."""
        *parent, name = path.strip("/").split("/")
        if name not in self.tables:
            return None
        self.queries.append((name, dict(asked)))
        found = self.tables[name]
        if len(parent) == 2:
            found = [record for record in found if str(record[f"{parent[0][:-1]}_id"]) == parent[1]]
        since, until = asked.get("since", ""), asked.get("until", "~")
        if since or until != "~":
            found = [record for record in found if since <= record["updated_at"] <= until]
        limit = int(asked.get("limit", self.page))
        if "page" in asked:
            first = (int(asked["page"]) - 1) * limit
        else:
            first = int(asked.get("offset") or asked.get("cursor") or 0)
        last = first + limit
        return found[first:last], {**asked, "cursor": str(last)} if last < len(found) else {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: Api

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        failure = self.api.failure(url.path)
        if failure == "slow":
            time.sleep(self.api.wait_s)
        if failure == "429":
            self._answer(429, {"error": "too many"}, {"Retry-After": str(self.api.wait_s)})
        elif failure == "500":
            self._answer(500, {"error": "broken"})
        elif (strange := self.api.strange_answer(url.path)) is not None:
            self._send(*strange, {})
        elif not self.api.is_allowed(self.headers.get("Authorization", "")):
            self._answer(401, {"error": "expired"})
        else:
            self._page(url.path, url.query, is_cut=failure == "broken")

    def _page(self, path: str, query: str, *, is_cut: bool) -> None:
        found = self.api.select(path, {name: values[-1] for name, values in parse_qs(query).items()})
        if found is None:
            self._answer(404, {"error": "no such table"})
            return
        records, following = found
        link = {"Link": f'<{self.api.url}{path}?{urlencode(following)}>; rel="next"'} if following else {}
        is_bare = path.startswith("/bare")
        body = records if is_bare else {"data": records, "next": following.get("cursor")}
        self._answer(200, body, link, is_cut=is_cut)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        sent = json.loads(body) if body.startswith("{") else {name: v[-1] for name, v in parse_qs(body).items()}
        found = self.api.tokens(sent.get("refresh_token", "")) if self.path == "/oauth/token" else None
        self._answer(200 if found else 400, found or {"error": "invalid_grant"})

    def _answer(self, status: int, body: Any, headers: Mapping[str, str] | None = None, is_cut: bool = False) -> None:
        text = json.dumps(body).encode()
        self._send(status, text[: len(text) // 2] if is_cut else text, headers or {})

    def _send(self, status: int, text: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Say nothing of a client that was killed."""


@contextmanager
def serving(api: Api) -> Iterator[Api]:
    """Answer as this API on a free port of loopback."""
    with _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": api})) as server:
        api.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()
