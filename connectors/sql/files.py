"""Databases that are one file: the path of the file."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConnectorConfigError
from ..settings import resolve_path


def database_path(path: str | None, url: str | None, folder: Path, connector: str) -> Path:
    """Return the absolute path from `path` or `url` (`duckdb:///x.duckdb`, `duckdb:////absolute`)."""
    if (path is None) == (url is None):
        raise ConnectorConfigError(
            f"config of connector {connector!r} needs either path or url", connector=connector, key="path"
        )
    key = "path" if url is None else "url"
    if url is not None:
        prefix = f"{connector}:///"
        if not url.startswith(prefix):
            raise ConnectorConfigError(
                f"config of connector {connector!r}: url must look like {prefix}file", connector=connector, key=key
            )
        path = url.removeprefix(prefix)
    if not path or path.startswith(":memory:"):
        raise ConnectorConfigError(
            f"config of connector {connector!r}: {key} must name a file: an in-memory database is lost when the "
            "process ends",
            connector=connector,
            key=key,
        )
    return resolve_path(path, folder)
