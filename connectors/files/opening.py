"""Open the storage of a path or URL."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConnectorConfigError
from ..settings import is_url, resolve_path, url_scheme
from .local import LocalStorage
from .storage import Storage, translated, without_credentials


def open_storage(path: str, folder: Path, options: Mapping[str, Any]) -> Storage:
    """Return the storage whose root is a folder, given as path or URL; the folder may be missing."""
    if not is_url(path):
        return LocalStorage(resolve_path(path, folder))
    scheme = url_scheme(path)
    if scheme in ("file", "local"):
        return LocalStorage(local_path(path, folder))
    import fsspec.core

    from .objects import ObjectStorage

    try:
        with translated(without_credentials(path)):
            fs, root = fsspec.core.url_to_fs(path, **options)
    except ImportError as error:
        raise ConnectorConfigError(f"{scheme}:// needs {error.name or scheme}: pip install it", key="path") from error
    except (ValueError, TypeError) as error:
        where = without_credentials(path)
        raise ConnectorConfigError(f"{where} cannot be opened: {type(error).__name__}", key="path") from error
    return ObjectStorage(fs, root, path)


def local_path(path: str, folder: Path) -> Path:
    """Return the absolute path of a `file://` URL; a relative one counts from the pipeline file's folder."""
    return resolve_path(path.partition("://")[2], folder)
