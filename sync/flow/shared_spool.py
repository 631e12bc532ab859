"""Spool files on an object store: a worker writes them, callbacks read them by URL."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from syncblocks.connectors.settings import SFTP_SCHEMES

from ..failpoints import failpoint


class SharedSpool:
    """A prefix on an object store, by a URL of fsspec; its driver takes credentials from the environment."""

    def __init__(self, url: str) -> None:
        """Use a prefix; connects to nothing.

        Raises:
            ValueError: such URLs cannot be opened; the text has the reason, without the URL.
        """
        import fsspec.core

        self._url = url.rstrip("/")
        scheme = url.partition("://")[0]
        if scheme.lower().rpartition("::")[2] in SFTP_SCHEMES:
            raise ValueError(f"{scheme}:// is no place for it: name an object store, or a folder that is mounted")
        try:
            found = fsspec.core.url_to_fs(self._url)
        except ImportError as error:
            raise ValueError(f"{scheme}:// cannot be opened: {error}") from error
        except (ValueError, TypeError) as error:
            raise ValueError(f"{scheme}:// cannot be opened: {type(error).__name__}") from error
        self._fs: Any = found[0]
        self._root = str(found[1])

    def put(self, path: Path) -> str:
        """Move a file to the object store; return its URL.

        Raises:
            OSError: it cannot be written.
        """
        self._fs.makedirs(self._root, exist_ok=True)
        self._fs.put_file(str(path), f"{self._root}/{path.name}")
        failpoint("spool.put")
        path.unlink()
        return f"{self._url}/{path.name}"

    def has(self, url: str) -> bool:
        """Whether `put` may have written the file of a URL; reads nothing."""
        folder, _, name = url.rpartition("/")
        return folder == self._url and name not in ("", ".", "..")

    def remove(self, url: str) -> None:
        """Remove a file of this prefix, if it exists.

        Raises:
            OSError: it cannot be removed.
        """
        if self.has(url):
            self._remove(url.rpartition("/")[2])

    def discard(self, prefixes: tuple[str, ...], *, keep: Collection[str]) -> None:
        """Remove the files whose names begin with one of these, except the URLs in `keep`.

        Raises:
            OSError: they cannot be listed or removed.
        """
        try:
            found = self._fs.ls(self._root, detail=False, refresh=True)
        except FileNotFoundError:
            return
        for path in found:
            name = str(path).rpartition("/")[2]
            if name.startswith(prefixes) and f"{self._url}/{name}" not in keep:
                self._remove(name)

    def _remove(self, name: str) -> None:
        try:
            self._fs.rm_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return
