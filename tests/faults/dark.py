"""A network that goes dark: a namespace of its own whose only wire to this machine can stop carrying packets.

Nothing is refused and nothing is reset then, as with a pulled plug or a firewall that forgets. Servers listen on
127.0.0.1 only: a relay on the wire's end leads to them. No packet leaves this machine.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from tests import services
from tests.zygote import SCRIPT

T = TypeVar("T")

_NOBODY = "02:00:00:00:00:99"
_CLONE_NEWNET = 0x40000000


class Relay:
    """Forwards to a server; what a client sends goes through `watch` first."""

    def __init__(self, address: str, server: tuple[str, int]) -> None:
        self._server = server
        self._listener = socket.create_server((address, 0))
        self.port = self._listener.getsockname()[1]
        #: Called with what a client sends, before it is forwarded; False: it is not.
        self.watch: Callable[[bytes], bool] = lambda data: True
        self._lock = threading.Lock()
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                with self._lock:
                    self._ends += [client, server]
                threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_client: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if not is_client or self.watch(data):
                    sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def drop(self) -> None:
        """End every connection at the server's side, as the server itself does sooner or later."""
        with self._lock:
            ends, self._ends = self._ends, []
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()


class Dark:
    """A namespace, and its wire."""

    def __init__(self) -> None:
        name = uuid.uuid4().hex[:8]
        self._namespace, self._near, self._far = f"dark-{name}", f"dn{name}", f"df{name}"
        number = int(name, 16)
        net = f"10.{200 + number % 50}.{number // 50 % 250}.{4 * (number // 12500 % 60)}".rpartition(".")
        base = int(net[2])
        self.near_ip, self.far_ip = f"{net[0]}.{base + 1}", f"{net[0]}.{base + 2}"
        #: Runs the command behind it in the namespace.
        self.enter = ("nsenter", f"--net=/run/netns/{self._namespace}")
        self._relays: list[Relay] = []
        self.is_cut = threading.Event()

    def open(self) -> None:
        _ip("netns", "add", self._namespace)
        _ip("link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self._namespace)
        _ip("addr", "add", f"{self.near_ip}/30", "dev", self._near)
        _ip("link", "set", self._near, "up")
        for arguments in (
            ("addr", "add", f"{self.far_ip}/30", "dev", self._far),
            ("link", "set", self._far, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", self._namespace, *arguments)

    def close(self) -> None:
        for relay in self._relays:
            relay.close()
        with suppress(subprocess.CalledProcessError):
            _ip("netns", "del", self._namespace)

    def relay(self, url: str) -> tuple[str, Relay]:
        """Return the URL of a server as it is reached from the namespace, and the relay on the way."""
        parts = urlsplit(url)
        port = parts.port or {"postgresql": 5432}.get(parts.scheme.partition("+")[0], 3306)
        relay = Relay(self.near_ip, (parts.hostname or "127.0.0.1", port))
        self._relays.append(relay)
        login = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{login}@{self.near_ip}:{relay.port}")), relay

    def cut(self) -> None:
        """Lose every packet from now on, both ways: they go to somebody who is not there."""
        _ip("neigh", "replace", self.far_ip, "lladdr", _NOBODY, "dev", self._near, "nud", "permanent")
        far = ("neigh", "replace", self.near_ip, "lladdr", _NOBODY, "dev", self._far, "nud", "permanent")
        _ip("-n", self._namespace, *far)
        self.is_cut.set()

    def cut_at(self, relay: Relay, *words: bytes) -> None:
        """Go dark as soon as a client sends all of these words (none: anything); the server never gets them."""

        def watch(data: bytes) -> bool:
            if self.is_cut.is_set() or not all(word in data.lower() for word in words):
                return not self.is_cut.is_set()
            self.cut()
            return False

        relay.watch = watch

    def mend(self) -> None:
        """Carry packets again; the servers have given up the connections of before."""
        for relay in self._relays:
            relay.watch = lambda data: True
            relay.drop()
        self.join()

    def join(self) -> None:
        """Carry packets again, those of connections that have outlived the cut as well."""
        with suppress(subprocess.CalledProcessError):
            _ip("neigh", "del", self.far_ip, "dev", self._near)
        with suppress(subprocess.CalledProcessError):
            _ip("-n", self._namespace, "neigh", "del", self.near_ip, "dev", self._far)
        self.is_cut.clear()

    def inside(self, call: Callable[[], T]) -> T:
        """Call in a thread whose connections are in the namespace; return or raise what it does."""
        ends: list[Any] = []

        def run() -> None:
            try:
                with Path(f"/run/netns/{self._namespace}").open() as file:
                    if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                ends.append((call(), None))
            except BaseException as error:
                ends.append((None, error))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join()
        found, error = ends[0]
        if error is not None:
            raise error
        returned: T = found
        return returned

    def start(self, *arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start `syncblocks` in the namespace; what it says goes to `said` in its folder."""
        with (cwd / "said").open("ab") as said:
            return subprocess.Popen(
                [*self.enter, str(SCRIPT), *arguments],
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )


@contextmanager
def dark() -> Iterator[Dark]:
    """Make a namespace; skips the test where nobody may (in CI it fails)."""
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("nsenter") is None:
        services.missing("network namespaces need root, and `ip` (Debian's iproute2)")
    made = Dark()
    try:
        try:
            made.open()
        except subprocess.CalledProcessError as error:
            services.missing(f"network namespaces are not allowed here: {error.stderr.decode().strip()}")
        yield made
    finally:
        made.close()


def _ip(*arguments: str) -> None:
    # From where the test itself is, whoever asks.
    outside = ["nsenter", f"--net=/proc/{os.getpid()}/ns/net"]
    subprocess.run([*outside, "ip", *arguments], check=True, capture_output=True)
