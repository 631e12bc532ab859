"""A folder as paramiko's sftp server shows it, to whoever knows the password."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import paramiko


class Login(paramiko.ServerInterface):
    """Lets one user in."""

    def __init__(self, user: str, password: str) -> None:
        self._known = (user, password)

    def check_auth_password(self, username: str, password: str) -> int:
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
