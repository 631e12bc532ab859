"""A server that asks for the password in clear text gets it only if TLS has verified the server, by every driver."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from syncblocks import load_pipeline
from syncblocks.connectors.capabilities import capabilities_of
from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.mysql.session import MySQLSession
from syncblocks.connectors.mysql.settings import MySQLSettings
from syncblocks.connectors.postgres.adbc_driver import ADBCDatabase
from syncblocks.connectors.postgres.asyncpg_session import AsyncpgSession
from syncblocks.connectors.postgres.settings import PostgresSettings
from syncblocks.connectors.registry import make_destination, make_source
from syncblocks.sync.errors import SyncError
from syncblocks.sync.plan.refusals import server_warnings
from syncblocks.sync.store import Store

PASSWORD = "hunter2-canary"
Answer = Callable[[socket.socket, "Asking"], None]


class Asking:
    """A server in a thread; `received` is all that clients have sent after the request to log in."""

    def __init__(self, answer: Answer, certificate: Path | None = None) -> None:
        self.received, self._answer, self.context = b"", answer, None
        self.has_answered = threading.Event()
        if certificate is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with ExitStack() as stack, suppress(OSError, ValueError):
                stack.enter_context(client)
                client.settimeout(5)
                self._answer(client, self)
            self.has_answered.set()

    def encrypted(self, client: socket.socket) -> socket.socket:
        assert self.context is not None
        return self.context.wrap_socket(client, server_side=True)

    def close(self) -> None:
        # To close it alone would not wake the thread that waits.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def postgres(client: socket.socket, server: Asking) -> None:
    """Ask in several packets."""
    while struct.unpack("!i", (head := client.recv(8))[4:])[0] in (80877103, 80877104):
        can_encrypt = head[7] == 47 and server.context is not None
        client.sendall(b"S" if can_encrypt else b"N")
        if can_encrypt:
            client = server.encrypted(client)
    with client:
        client.recv(4096)
        for part in (b"R\0\0", b"\0\x08\0\0\0", b"\3"):
            client.sendall(part)
        server.received = client.recv(4096)


def mysql(client: socket.socket, server: Asking, *, greets: str = "mysql_native_password", asks: bytes = b"") -> None:
    """Greet with one way of logging in, then ask for the password in clear text, or send `asks`."""
    capabilities = 0x00FFF7FF & ~0x800 | (0x800 if server.context else 0)
    greeting = b"\n8.0.30\0" + struct.pack("<I", 7) + b"12345678\0" + struct.pack("<H", capabilities & 0xFFFF)
    greeting += b"\x2d\2\0" + struct.pack("<H", capabilities >> 16 | 8) + b"\x15" + b"\0" * 10 + b"123456789012\0"
    greeting += greets.encode() + b"\0"
    client.sendall(len(greeting).to_bytes(3, "little") + b"\0" + greeting)
    number = 2
    login = client.recv(36)  # a request for TLS, or the beginning of a login
    if server.context is not None:
        client = server.encrypted(client)
        number = 3
    login += client.recv(4096)
    with client:
        asks = asks or b"\xfemysql_clear_password\0"
        client.sendall(len(asks).to_bytes(3, "little") + bytes([number]) + asks)
        received = client.recv(4096)
        if asks.startswith(b"\xfecaching_sha2_password") and len(received) > 32:  # a hash
            client.sendall(b"\2\0\0" + bytes([number + 2]) + _FULL)
            received = client.recv(4096)
        server.received = login + received


#: What a server says that does not know the hash of the password.
_FULL = b"\1\4"
_NONCE = b"12345678123456789012\0"


@contextmanager
def asking(answer: Answer, certificate: Path | None = None) -> Iterator[Asking]:
    with closing(Asking(answer, certificate)) as server:
        yield server


def by_adbc(url: str) -> None:
    ADBCDatabase(PostgresSettings(url=url).address).connect("begin", 1 << 20)


def by_asyncpg(url: str) -> None:
    AsyncpgSession(PostgresSettings(url=url).address, "begin")


def by_store(url: str) -> None:
    with Store.open(url):
        pass


def by_pymysql(url: str) -> None:
    MySQLSession(MySQLSettings(url=url.replace("postgresql:", "mysql:")).address, "begin", "read committed", 5)


def by_alchemy(driver: str) -> Callable[[str], None]:
    def connect(url: str) -> None:
        make_source("sqlalchemy", {"url": url.replace("postgresql:", f"{driver}:")}, Path.cwd()).check()

    return connect


@pytest.mark.parametrize(
    ("answer", "connect"),
    [
        pytest.param(postgres, by_adbc, id="adbc"),
        pytest.param(postgres, by_asyncpg, id="asyncpg"),
        pytest.param(postgres, by_store, id="store"),
        pytest.param(postgres, by_alchemy("postgresql+psycopg"), id="sqlalchemy psycopg"),
        pytest.param(mysql, by_pymysql, id="pymysql"),
        pytest.param(mysql, by_alchemy("mysql+pymysql"), id="sqlalchemy pymysql"),
    ],
)
def test_a_server_that_is_not_verified_gets_no_password(answer: Answer, connect: Callable[[str], None]) -> None:
    with asking(answer) as server:
        with pytest.raises(Exception, match=r"clear ?text") as refused:
            connect(f"postgresql://ann:{PASSWORD}@127.0.0.1:{server.port}/crm")
        assert isinstance(refused.value, SyncError if connect is by_store else ConnectorError)
        assert PASSWORD not in str(refused.value)
        assert server.has_answered.wait(10)
        assert PASSWORD.encode() not in server.received


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of localhost that is its own authority."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout {path} -out {path}.crt -subj /CN=localhost "
        f"-addext subjectAltName=DNS:localhost && cat {path}.crt >> {path}",
        shell=True,
        check=True,
        capture_output=True,
    )
    return path


@pytest.mark.parametrize(
    ("answer", "connect", "parameters"),
    [
        pytest.param(postgres, by_adbc, "sslmode=verify-full&sslrootcert={}", id="adbc"),
        pytest.param(postgres, by_asyncpg, "sslmode=verify-full&sslrootcert={}", id="asyncpg"),
        pytest.param(mysql, by_pymysql, "ssl_ca={}", id="pymysql"),
    ],
)
def test_a_verified_server_may_ask(
    authority: Path, answer: Answer, connect: Callable[[str], None], parameters: str
) -> None:
    with asking(answer, authority) as server:
        with suppress(ConnectorError):  # it lets nobody in
            connect(f"postgresql://ann:{PASSWORD}@localhost:{server.port}/crm?{parameters.format(f'{authority}.crt')}")
        assert server.has_answered.wait(10)
        assert PASSWORD.encode() in server.received


_FULL_LOGINS = [
    ("caching_sha2_password", _FULL),
    ("mysql_native_password", b"\xfecaching_sha2_password\0" + _NONCE),
    ("mysql_native_password", b"\xfesha256_password\0" + _NONCE),
    ("sha256_password", b"\xfesha256_password\0" + _NONCE),
]


@pytest.mark.parametrize("connect", [by_pymysql, by_alchemy("mysql+pymysql")], ids=["mysql", "sqlalchemy"])
@pytest.mark.parametrize("is_encrypted", [False, True])
@pytest.mark.parametrize(("greets", "asks"), _FULL_LOGINS)
def test_a_remote_server_that_is_not_verified_gets_no_full_login(
    authority: Path, connect: Callable[[str], None], greets: str, asks: bytes, is_encrypted: bool
) -> None:
    with asking(partial(mysql, greets=greets, asks=asks), authority if is_encrypted else None) as server:
        with pytest.raises(ConnectorError, match=r"full login of .* set ssl_ca") as refused:
            connect(f"postgresql://ann:{PASSWORD}@{_NOT_LOCAL}:{server.port}/crm")
        assert PASSWORD not in str(refused.value)
        assert server.has_answered.wait(10)
        assert b"ann" in server.received
        assert PASSWORD.encode() not in server.received
        assert not server.received.endswith((b"\1\0\0\3\2", b"\1\0\0\4\2", b"\1\0\0\3\1", b"\1\0\0\4\1"))


#: This machine, by a name that is not taken for it.
_NOT_LOCAL = "127.1"


@pytest.mark.parametrize(("greets", "asks"), _FULL_LOGINS)
def test_a_verified_server_and_one_on_this_machine_get_a_full_login(authority: Path, greets: str, asks: bytes) -> None:
    for parameters in (f"?ssl_ca={authority}.crt", ""):
        with asking(partial(mysql, greets=greets, asks=asks), authority) as server:
            with suppress(ConnectorError):  # it lets nobody in
                by_pymysql(f"mysql://ann:{PASSWORD}@localhost:{server.port}/crm{parameters}")
            assert server.has_answered.wait(10)
            assert PASSWORD.encode() in server.received


@pytest.mark.parametrize(
    ("host", "parameters"),
    [("127.0.0.1", "ssl_ca={}"), ("localhost", "ssl_verify_identity=true"), ("localhost", "ssl_verify_cert=true")],
)
def test_mysql_verifies_certificate_and_name_where_it_is_told_to(authority: Path, host: str, parameters: str) -> None:
    """`ssl_ca` alone verified nothing: the driver needs two more settings for that."""
    with asking(mysql, authority) as server:
        with pytest.raises(ConnectorError, match="certificate"):
            by_pymysql(f"mysql://ann:{PASSWORD}@{host}:{server.port}/crm?{parameters.format(f'{authority}.crt')}")
        assert not server.received


@pytest.mark.parametrize(
    ("connector", "url", "is_warned"),
    [
        ("postgres", "postgresql://db.example/crm?sslmode=require", True),
        ("postgres", "postgresql://db.example/crm?sslmode=verify-full", False),
        ("postgres", "postgresql://127.0.0.1/crm", False),
        ("mysql", "mysql://db.example/crm?ssl_cert=c.pem", True),
        ("mysql", "mysql://db.example/crm?ssl_ca=ca.pem", False),
        ("mysql", "mysql://db.example/crm?ssl_ca=ca.pem&ssl_verify_cert=false", True),
        ("mysql", "mysql://db.example/crm?unix_socket=/run/mysqld.sock", False),
    ],
)
def test_the_plan_warns_of_a_remote_server_that_is_not_verified(
    tmp_path: Path, connector: str, url: str, is_warned: bool
) -> None:
    end = {"connector": connector, "config": {"url": url}}
    document = {"pipeline": "p", "source": end, "destination": end, "streams": [{"stream": "*"}]}
    (tmp_path / "p.yaml").write_text(json.dumps(document))
    pipeline = load_pipeline(tmp_path / "p.yaml")
    sides = (make_source(connector, end["config"], tmp_path), make_destination(connector, end["config"], tmp_path))
    warnings = server_warnings(pipeline, *map(capabilities_of, sides))
    assert len(warnings) == (2 if is_warned else 0)
    assert all("db.example is not verified" in warning for warning in warnings)
