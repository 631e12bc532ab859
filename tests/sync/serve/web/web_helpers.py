"""A server's answers without its turns: a folder, its store, and the HTTP server over them in this process."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

from msgspec import Struct
from starlette.routing import BaseRoute

from syncblocks.sync.serve import PipelineFiles
from syncblocks.sync.serve.web.app import make_app
from syncblocks.sync.serve.web.listening import Listening, bound_socket
from syncblocks.sync.serve.web.patience import ARRIVES_S, MOST_CONNECTIONS
from syncblocks.sync.serve.web.served import Served, addresses
from syncblocks.sync.store import Store
from tests.sync.serve.serve_helpers import Place


class Answer(Struct):
    """What a server answers."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def location(self) -> str:
        return self.headers.get("location", "")


class Site:
    """The pages of a folder, at an address of this machine."""

    def __init__(self, place: Place, store: Store, files: PipelineFiles, port: int, routes: list[BaseRoute]) -> None:
        self.place = place
        self.store = store
        self.port = port
        self._files = files
        self.routes = routes
        #: Sent with each request.
        self.headers = {"Host": f"127.0.0.1:{port}"}

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def read_files(self) -> None:
        """Let the server read what has changed in the folder."""
        self._files.look()
        self.place.clock.move(2)
        self._files.look()

    def ask(self, method: str, path: str, form: Mapping[str, str] | None = None, **headers: str | None) -> Answer:
        """Send a request; a header that is None is left out."""
        body = None if form is None else urlencode(form)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in {**self.headers, **named}.items() if value is not None}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read().decode())
        finally:
            connection.close()

    def get(self, path: str, **headers: str | None) -> Answer:
        return self.ask("GET", path, **headers)

    def sign_in(self) -> None:
        """Sign in as a browser does; all further requests are those of the session."""
        answer = self.ask("POST", "/login", {"code": self.store.access.make_code()}, Origin=self.origin)
        assert (answer.status, answer.location) == (303, "/"), answer
        self.headers["Cookie"] = answer.headers["set-cookie"].partition(";")[0]

    def token(self, path: str = "/") -> str:
        """Return the form token of the session, as a page shows it."""
        found = re.search(r'name="form_token" value="([0-9a-f]{64})"', self.get(path).text)
        assert found is not None
        return found[1]

    def post(self, path: str, **form: str) -> Answer:
        """Send a form of a page of the session."""
        return self.ask("POST", path, {"form_token": self.token(), **form}, Origin=self.origin)


@contextmanager
def served(
    place: Place, *public_urls: str, arrives_s: float = ARRIVES_S, most: int = MOST_CONNECTIONS, **more: Any
) -> Iterator[Site]:
    """Serve a folder; `more`: of `Served`."""
    files = PipelineFiles(place.folder, place.url, place.clock)
    listener = bound_socket("127.0.0.1", 0)
    port = listener.getsockname()[1]
    with place.store() as store:
        urls = addresses("127.0.0.1", port, public_urls)
        about = Served(store=store, files=files, folder=place.folder, clock=place.clock, urls=urls, **more)
        app = make_app(about)
        with Listening(app, listener, arrives_s=arrives_s, most=most):
            site = Site(place, store, files, port, app.routes)
            site.read_files()
            yield site
