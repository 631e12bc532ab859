"""A folder as paramiko's sftp server shows it, to whoever knows the password."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import paramiko

USER, PASSWORD = "someone", "s3cret-canary"


class Login(paramiko.ServerInterface):
    """Lets one user in, and notes what it is asked."""

    def __init__(self, user: str, password: str, asked: list[str]) -> None:
        self._known = (user, password)
        self._asked = asked

    def check_auth_none(self, username: str) -> int:
        self._asked.append("none")
        return paramiko.AUTH_FAILED

    def check_auth_publickey(self, username: str, key: Any) -> int:
        self._asked.append("publickey")
        return paramiko.AUTH_FAILED

    def check_auth_password(self, username: str, password: str) -> int:
        self._asked.append("password")
        return paramiko.AUTH_SUCCESSFUL if (username, password) == self._known else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def get_allowed_auths(self, username: str) -> str:
        return "password"


class Files(paramiko.SFTPServerInterface):
    """The files below one folder."""

    def __init__(self, server: Any, root: Path) -> None:
        super().__init__(server)
        self._root = root

    def _path(self, path: str) -> Path:
        return self._root / self.canonicalize(path).lstrip("/")

    def list_folder(self, path: str) -> Any:
        try:
            return [paramiko.SFTPAttributes.from_stat(found.stat(), found.name) for found in self._path(path).iterdir()]
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)

    def stat(self, path: str) -> Any:
        try:
            return paramiko.SFTPAttributes.from_stat(self._path(path).stat())
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)

    lstat = stat

    def open(self, path: str, flags: int, attr: Any) -> Any:
        try:
            descriptor = os.open(self._path(path), flags, 0o666)
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)
        handle = paramiko.SFTPHandle(flags)
        file = os.fdopen(descriptor, "wb" if flags & os.O_WRONLY else "r+b" if flags & os.O_RDWR else "rb")
        handle.readfile = handle.writefile = file
        return handle

    def _done(self, made: Any, *arguments: Any) -> int:
        try:
            made(*arguments)
        except OSError as error:
            return int(paramiko.SFTPServer.convert_errno(error.errno))
        return paramiko.SFTP_OK

    def remove(self, path: str) -> int:
        return self._done(self._path(path).unlink)

    def posix_rename(self, oldpath: str, newpath: str) -> int:
        return self._done(self._path(oldpath).replace, self._path(newpath))

    def mkdir(self, path: str, attr: Any) -> int:
        return self._done(self._path(path).mkdir)

    def rmdir(self, path: str) -> int:
        return self._done(self._path(path).rmdir)


class Served(NamedTuple):
    """A folder that is served."""

    #: With user and password.
    url: str
    #: Each `kind base64`.
    host_keys: list[str]
    #: The logins that were tried.
    asked: list[str]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def name(self) -> str:
        """Return what lines of `known_hosts` call the server."""
        return f"[127.0.0.1]:{self.port}"

    def make_known(self, file: Path) -> None:
        """Add the keys to a file as OpenSSH has it."""
        file.parent.mkdir(exist_ok=True)
        with file.open("a") as lines:
            lines.writelines(f"{self.name} {key}\n" for key in self.host_keys)


@contextmanager
def sftp_server(root: Path, *kinds: type) -> Iterator[Served]:
    """Serve a folder by paramiko's sftp server, which is told where the files are; it has a key of each kind."""
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # clients that refuse a key hang up
    keys = [paramiko.RSAKey.generate(1024) if kind is paramiko.RSAKey else kind.generate() for kind in kinds]
    keys = keys or [paramiko.ECDSAKey.generate()]
    listener = socket.create_server(("127.0.0.1", 0))
    transports: list[Any] = []
    asked: list[str] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            for key in keys:
                transport.add_server_key(key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, Files, root)
            transport.start_server(server=Login(USER, PASSWORD, asked), event=threading.Event())
            transports.append(transport)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        url = f"sftp://{USER}:{PASSWORD}@127.0.0.1:{listener.getsockname()[1]}"
        yield Served(url, [f"{key.get_name()} {key.get_base64()}" for key in keys], asked)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for transport in transports:
            transport.close()
