"""SFTP through fsspec, to a server that has proved its key before it is sent a password or anything else.

fsspec takes any key. The known ones are those of OpenSSH's files, but for certificates of hosts (`@cert-authority`).
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import paramiko
from fsspec.implementations.sftp import SFTPFileSystem

from .errors import ConnectorConfigError
from .settings import Config, resolve_path

_OPTIONS = "storage_options"
_USERS, _SYSTEMS = "~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts"


class _Known(NamedTuple):
    """A key, and where it is said to be known."""

    kind: str
    blob: bytes
    place: str

    def __str__(self) -> str:
        return f"{self.kind} {_fingerprint(self.blob)} ({self.place})"


def open_sftp(url: str, options: Mapping[str, Any], folder: Path) -> tuple[Any, str]:
    """Return the file system of an `sftp://` or `ssh://` URL, connected, and the path in it.

    Args:
        url: the URL.
        options: `host_key` or `known_hosts`, and what is passed to paramiko's `connect`.
        folder: where a relative path of `known_hosts` starts.

    Raises:
        ConnectorConfigError: the server's key is not a known one, or an option is wrong.
    """
    rest = Config(options)
    said, files = rest.pop("host_key", None), rest.pop("known_hosts", None)
    if said is not None and files is not None:
        raise ConnectorConfigError("host_key and known_hosts exclude each other: set one of them", key=_OPTIONS)
    if files is not None and not (isinstance(files, str) and files):
        raise ConnectorConfigError("known_hosts must be the path of a file", key=_OPTIONS)
    # The keyword arguments of a file system are what fsspec shares connections by.
    place = {"host_key": _line(said)} if said is not None else {}
    place |= {"known_hosts": str(resolve_path(files, folder))} if files is not None else {}
    fs = CheckedSFTP(**SFTPFileSystem._get_kwargs_from_urls(url), **rest, **place)
    return fs, SFTPFileSystem._strip_protocol(url)


class CheckedSFTP(SFTPFileSystem):  # type: ignore[misc]
    """Connects to a host that shows a known key."""

    def __init__(self, host: str, *, host_key: str = "", known_hosts: str = "", **connect: Any) -> None:
        port = int(connect.get("port", paramiko.config.SSH_PORT))
        name = host.lower() if port == paramiko.config.SSH_PORT else f"[{host.lower()}]:{port}"
        self._keys = _HostKeys(name, host_key, known_hosts)
        super().__init__(host, **connect)

    def _connect(self) -> None:
        self.client = paramiko.SSHClient()
        self.client.set_missing_host_key_policy(self._keys)
        try:
            self.client.connect(self.host, transport_factory=self._keys.transport, **self.ssh_kwargs)
            self.ftp = self.client.open_sftp()
        except BaseException:
            self.client.close()
            raise


class _HostKeys:
    """The keys of one host; paramiko, which has none of its own, asks here before it logs in."""

    def __init__(self, name: str, host_key: str, known_hosts: str) -> None:
        self._name = name
        self._files = [Path(known_hosts or _SYSTEMS)]
        if not known_hosts:
            with suppress(RuntimeError):  # a user without a home
                self._files.insert(0, Path(_USERS).expanduser())
        self._known: list[_Known] = []
        self._revoked: list[_Known] = []
        if host_key:
            kind, text = host_key.split()
            self._known.append(_Known(kind, b64decode(text), "host_key"))
            return
        for file in self._files:
            try:
                lines = file.read_bytes().splitlines()
            except OSError as error:
                if known_hosts:
                    raise ConnectorConfigError(f"known_hosts: {file}: {error.strerror}", key=_OPTIONS) from error
                continue
            for marker, known in _read(lines, file, name):
                if marker in ("", "@revoked"):
                    (self._revoked if marker else self._known).append(known)

    def transport(self, sock: Any, **options: Any) -> Any:
        """Return a transport that asks the server for a key of a known kind first: it may have several."""
        made = paramiko.Transport(sock, **options)
        kinds = {known.kind for known in self._known}
        security = made.get_security_options()
        security.key_types = sorted(security.key_types, key=lambda each: _kind(each) not in kinds)
        return made

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
        """Raise if the server's key is not one of the known ones."""
        blob = key.asbytes()
        revoked = [each for each in self._revoked if each.blob == blob]
        if not revoked and any(each.blob == blob for each in self._known):
            return
        line = f"`{self._name} {key.get_name()} {b64encode(blob).decode()}`"
        if revoked:
            why, way_out = f"is revoked ({revoked[0].place})", "Ask the server's administrator for another one"
        elif self._known:
            why = f"is not the known key, {' or '.join(map(str, self._known))}"
            way_out = (
                "Another machine may be impersonating the server, or the server has a new key: ask its "
                f"administrator. Only then replace the known key by the new one: {line}"
            )
        else:
            why = f"is not in {' or '.join(map(str, self._files))}"
            way_out = (
                f"Ask the server's administrator whether this is its key. Then add the line {line} to "
                f"{self._files[0]}, or set its last two words as `host_key` in `storage_options`"
            )
        raise ConnectorConfigError(
            f"the key of {self._name} {why}, so no login was sent. The server shows {key.get_name()} "
            f"{_fingerprint(blob)}. {way_out}",
            key=_OPTIONS,
        )


def _read(lines: Sequence[bytes], file: Path, name: str) -> Iterator[tuple[str, _Known]]:
    """Yield marker and key of each line of a host; skip what is no such line, as OpenSSH does."""
    for number, line in enumerate(lines, 1):
        words = line.decode(errors="replace").split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        try:
            if len(words) >= 3 and not words[0].startswith("#") and _means(words[0], name):
                yield marker, _Known(words[1], b64decode(words[2]), f"{file}:{number}")
        except ValueError:  # no base64
            continue


def _means(patterns: str, name: str) -> bool:
    """Tell whether the first word of a line means a host: names and patterns, or the hash of a name."""
    if patterns.startswith("|1|"):
        salt, _, digest = patterns.removeprefix("|1|").partition("|")
        return hmac.compare_digest(hmac.digest(b64decode(salt), name.encode(), "sha1"), b64decode(digest))
    # A bracket is one: `[host]:2222`.
    found = [
        each for each in patterns.lower().split(",") if fnmatchcase(name, each.removeprefix("!").replace("[", "[[]"))
    ]
    return bool(found) and not any(each.startswith("!") for each in found)


def _line(said: Any) -> str:
    """Return kind and key of the setting `host_key`."""
    words = said.split()[:2] if isinstance(said, str) else []
    try:
        kind, text = words
        if b64decode(text, validate=True).startswith(len(kind).to_bytes(4) + kind.encode()):
            return f"{kind} {text}"
    except ValueError:
        pass
    raise ConnectorConfigError(
        "host_key must be the server's public key, `ssh-ed25519 AAAA...`: the text after the host's name in the "
        "output of `ssh-keyscan HOST`. A fingerprint does not show which of its keys to request",
        key=_OPTIONS,
    )


def _kind(algorithm: str) -> str:
    """Return the kind of the keys of an algorithm: RSA has one for each hash."""
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm


def _fingerprint(blob: bytes) -> str:
    """Return it as OpenSSH shows it."""
    return f"SHA256:{b64encode(sha256(blob).digest()).decode().rstrip('=')}"
