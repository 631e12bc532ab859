"""A token of a requirement reaches the server that it is for, and no process's arguments and no file."""

from __future__ import annotations

import base64
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from syncblocks.connectors.errors import ConnectorConfigError
from syncblocks.connectors.programs.environments import installed

TOKEN = "t0k3n-canary"


class Refusing(BaseHTTPRequestHandler):
    """Remembers the login of each request, and every process's arguments meanwhile; has nothing."""

    def __init__(self, seen: list[tuple[str, bytes]], *arguments: object) -> None:
        self.seen = seen
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        lines = b""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                lines += (process / "cmdline").read_bytes() + b"\n"
            except OSError:
                continue
        self.seen.append((self.headers.get("Authorization", ""), lines))
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.full
@pytest.mark.parametrize("what", ["tap-x @ git+{url}/tap-x.git", "--index-url {url}/simple tap-x"])
def test_a_token_of_a_requirement_is_in_no_arguments_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setenv("PIP_RETRIES", "0")
    seen: list[tuple[str, bytes]] = []
    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(Refusing, seen))
    thread = threading.Thread(target=web.serve_forever, args=(0.01,))
    thread.start()
    url = f"http://user:{TOKEN}@127.0.0.1:{web.server_port}"
    try:
        with pytest.raises(ConnectorConfigError) as refused:
            installed(what.format(url=url), program="tap-x", python=sys.executable, folder=tmp_path, timeout_s=100)
    finally:
        web.shutdown()
        thread.join()
        web.server_close()
    basic = base64.b64encode(f"user:{TOKEN}".encode()).decode()
    assert f"Basic {basic}" in [login for login, _ in seen]
    for secret in (TOKEN.encode(), basic.encode()):
        assert not [line for _, lines in seen for line in lines.splitlines() if secret in line]
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert TOKEN not in str(refused.value)
