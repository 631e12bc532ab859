"""Open the storage of a path or URL."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConnectorConfigError
from ..settings import SFTP_SCHEMES, Config, is_installed, is_url, resolve_path, url_scheme
from .local import LocalStorage
from .storage import Storage, translated, without_credentials

_S3, _GCS = ("s3fs", "'syncblocks[s3]'"), ("gcsfs", "'syncblocks[gcs]'")
_AZURE, _SFTP = ("adlfs", "'syncblocks[azure]'"), ("paramiko", "'syncblocks[sftp]'")
_HTTP = ("aiohttp", "aiohttp requests")

#: Scheme -> the module that opens it, and what installs it: no package has the name of its scheme.
DRIVERS = {
    "s3": _S3,
    "s3a": _S3,
    "gs": _GCS,
    "gcs": _GCS,
    "az": _AZURE,
    "abfs": _AZURE,
    "abfss": _AZURE,
    "adl": _AZURE,
    "sftp": _SFTP,
    "ssh": _SFTP,
    "http": _HTTP,
    "https": _HTTP,
    "oci": ("ocifs", "ocifs"),
    "oss": ("ossfs", "ossfs"),
    "webhdfs": ("requests", "requests"),
}


def open_storage(
    path: str, folder: Path, options: Mapping[str, Any], queried: tuple[str, str] | None = None
) -> Storage:
    """Return the storage whose root is a folder, given as path or URL; the folder may be missing.

    Args:
        path: the path or URL.
        folder: where a relative path starts.
        options: passed to fsspec; of sftp as `open_sftp` takes them.
        queried: the name in it, and the query, of the only file that is to be read.
    """
    if not is_url(path):
        return LocalStorage(resolve_path(path, folder))
    scheme = url_scheme(path)
    if scheme in ("file", "local"):
        return LocalStorage(local_path(path, folder))
    import fsspec.core

    from .objects import ObjectStorage, QueriedFile

    if DRIVERS.get(scheme) is _HTTP:
        from .web_client import web_client

        options = Config({**options, "get_client": web_client})
    try:
        with translated(without_credentials(path)):
            if scheme in SFTP_SCHEMES:
                from ..sftp import open_sftp

                fs, root = open_sftp(path, options, folder)
            else:
                fs, root = fsspec.core.url_to_fs(path, **options)
    except (ImportError, ValueError, TypeError) as error:
        module, command = DRIVERS.get(scheme, ("", ""))
        if module and not is_installed(module):
            raise ConnectorConfigError(f"{scheme}:// needs {module}: pip install {command}", key="path") from error
        if isinstance(error, ImportError):
            raise ConnectorConfigError(f"{scheme}:// cannot be opened: {error}", key="path") from error
        where = without_credentials(path)
        raise ConnectorConfigError(f"{where} cannot be opened: {type(error).__name__}", key="path") from error
    return ObjectStorage(fs, root, path) if queried is None else QueriedFile(fs, root, path, *queried)


def local_path(path: str, folder: Path) -> Path:
    """Return the absolute path of a `file://` URL; a relative one counts from the pipeline file's folder."""
    return resolve_path(path.partition("://")[2], folder)
