"""Manifests from URLs: fetched once over TLS, and only the one whose hash the pipeline file names."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from syncblocks.connectors.airbyte.manifest import load_manifest
from syncblocks.connectors.airbyte.settings import AirbyteSettings
from syncblocks.connectors.errors import ConnectorConfigError, ConnectorError, RetriableError

from .airbyte_helpers import MANIFEST

#: It makes a certificate.
pytestmark = pytest.mark.full

TEXT = yaml.safe_dump(MANIFEST).encode()
SHA256 = hashlib.sha256(TEXT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        is_moved = self.path == "/moved.yaml"
        self.send_response(302 if is_moved else 200 if self.path.startswith("/a.yaml") else 404)
        if is_moved:
            self.send_header("Location", "/a.yaml")
        self.end_headers()
        if self.path.startswith("/a.yaml"):
            self.wfile.write(TEXT)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """A server whose clients may refuse its certificate."""

    def handle_error(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """Return the address of a server and the paths that it was asked for."""
    path = tmp_path / "server.pem"
    made = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", str(path), "-out", f"{path}.crt"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(["openssl", "req", "-x509", *made, *names], check=True, capture_output=True)
    with path.open("a") as file:
        file.write(Path(f"{path}.crt").read_text())
    monkeypatch.setenv("SSL_CERT_FILE", f"{path}.crt")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    Handler.asked = []
    server = Server(("127.0.0.1", 0), Handler)
    # The handshake is made by the thread of a request, which closes its socket if the client refuses.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"https://localhost:{server.server_port}", Handler.asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_manifest_is_fetched_once_and_only_by_its_hash(tmp_path: Path, served: tuple[str, list[str]]) -> None:
    address, asked = served
    kept = tmp_path / "kept"

    def load(name: str, digest: str = SHA256) -> bytes:
        return load_manifest(AirbyteSettings(manifest=f"{address}/{name}", sha256=digest), tmp_path, kept).text

    assert load("a.yaml?token=canary") == TEXT
    assert load("a.yaml?token=canary") == TEXT
    assert asked == ["/a.yaml?token=canary"]
    copy = next(kept.iterdir())
    assert copy.stat().st_mode & 0o777 == 0o600
    copy.write_bytes(b"somebody else's")
    assert load("moved.yaml") == TEXT
    errors: list[ConnectorError] = []
    for name, digest, kind in (
        ("a.yaml?token=canary", "0" * 64, ConnectorConfigError),
        ("none.yaml?token=canary", "1" * 64, ConnectorConfigError),
    ):
        with pytest.raises(kind) as caught:
            load(name, digest)
        errors.append(caught.value)
    assert f"has the hash {SHA256}" in str(errors[0])
    assert "HTTP status 404" in str(errors[1])
    assert not any("canary" in str(error) for error in errors)
    assert [path.name for path in kept.iterdir()] == [copy.name]


def test_a_server_that_does_not_answer_or_nobody_vouches_for_is_tried_again(
    tmp_path: Path, served: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, asked = served
    monkeypatch.delenv("SSL_CERT_FILE")
    for place in (address, "https://127.0.0.1:1"):
        settings = AirbyteSettings(manifest=f"{place}/a.yaml?token=canary", sha256=SHA256)
        with pytest.raises(RetriableError) as caught:
            load_manifest(settings, tmp_path, tmp_path / "kept")
        assert "canary" not in str(caught.value)
    assert not asked
