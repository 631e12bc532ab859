"""Credentials that a connector changes while it runs (a refresh token): kept in a file of their own.

The file holds the connector's config as the connector gave it last, and for each key a hash of the value that the
pipeline file had then. A key that has changed in the pipeline file since is taken from there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import ConnectorConfigError, RetriableError
from ..local_files import make_private_folder, write_beside

log = logging.getLogger("syncblocks")

_WAIT_S = 30.0
_POLL_S = 0.1


class ConfigFile:
    """The file of one connector.

    Args:
        path: of the file; beside it stands a `.lock`.
        given: the connector's config in the pipeline file.
    """

    def __init__(self, path: Path, given: Mapping[str, Any]) -> None:
        self._path = path
        self._given = given

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from starting the connector with these credentials: a refresh token is valid once.

        Raises:
            RetriableError: another process keeps it locked.
        """
        make_private_folder(self._path.parent)
        lock = os.open(self._path.with_name(f"{self._path.name}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            end, has_told = time.monotonic() + _WAIT_S, False
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() > end:
                        raise RetriableError(
                            f"config_file {self._path} is used by another run of this connector",
                            connector="airbyte",
                            key="config_file",
                        ) from None
                if not has_told:
                    log.info("waiting for another run that uses %s", self._path)
                has_told = True
                time.sleep(_POLL_S)
            yield
        finally:
            os.close(lock)

    def read(self) -> dict[str, Any]:
        """Return the config to start with.

        Raises:
            ConnectorConfigError: the file cannot be read, or others can read it.
        """
        try:
            mode = self._path.stat().st_mode & 0o777
            found = json.loads(self._path.read_text("utf-8"))
            config, hashes = dict(found["config"]), dict(found["given"])
        except FileNotFoundError:
            return dict(self._given)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise _wrong(f"{self._path} cannot be read: remove it to begin with the pipeline file's config") from error
        if mode & 0o077:
            raise _wrong(f"{self._path} has mode {mode:04o}, others can read it: chmod 600 {self._path}")
        now = _hashes(self._given)
        for key in {*now, *hashes}:
            if now.get(key) != hashes.get(key):
                config.pop(key, None)
                if key in self._given:
                    config[key] = self._given[key]
        return config

    def write(self, config: Mapping[str, Any]) -> None:
        """Keep a config, atomically and for this user only."""
        make_private_folder(self._path.parent)
        text = json.dumps({"config": config, "given": _hashes(self._given)})
        try:
            write_beside(self._path, text.encode(), 0o600).replace(self._path)
        except OSError as error:
            raise _wrong(f"{self._path} cannot be written: {error.strerror}") from error


def _hashes(config: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
        for key, value in config.items()
    }


def _wrong(reason: str) -> ConnectorConfigError:
    return ConnectorConfigError(
        f"config of connector 'airbyte': config_file: {reason}", connector="airbyte", key="config_file"
    )
