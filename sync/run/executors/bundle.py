"""The bundle for the workers of a run: the pipeline and its transformers, as one archive named by its hash.

It contains no secret: templates stay unfilled, and each worker looks up secrets itself. Callbacks stay where the run
was started: no worker needs their files, modules or secrets.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from ...config import Pipeline, load_pipeline
from ...errors import ConfigError, SyncError

#: Maximum size of an archive in bytes: user code, not data.
MAX_BYTES = 20_000_000

#: Seconds that an archive stays on a worker.
KEPT_S = 7 * 86_400

_MANIFEST, _CODE = "manifest.json", "code"
#: A fixed time: equal content gives equal bytes.
_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Bundle:
    """An archive and its name."""

    #: SHA-256 of the archive.
    name: str
    archive: bytes = field(repr=False)


def has_code(folder: Path) -> bool:
    """Whether an unpacked archive has user functions: they stay loaded in the process that runs them."""
    return (folder / _CODE).is_dir()


@cache
def own_version() -> str:
    """Return the version of this program."""
    return version("syncblocks")


def pack(pipeline: Pipeline) -> Bundle:
    """Pack a pipeline and its code.

    Raises:
        ConfigError: the code beside the pipeline's files is too large.
    """
    document = {key: value for key, value in pipeline.raw(()).items() if key != "callbacks"}
    manifest: dict[str, Any] = {
        "version": own_version(),
        # Paths are relative to the pipeline file's folder at the run; code comes from the archive.
        "folder": str(pipeline.folder),
        "document": {**document, "pipeline": pipeline.pipeline},
    }
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, _MANIFEST, json.dumps(manifest, sort_keys=True).encode())
        size = 0
        for name, path in sorted(_code(pipeline)):
            content = path.read_bytes()
            size += len(content)
            if size > MAX_BYTES:
                raise ConfigError(
                    f"the Python files beside transformers are larger than {MAX_BYTES // 1_000_000} MB, "
                    f"too large to send to workers ({path}): put the code into a folder of its own",
                    path=None if pipeline.path is None else str(pipeline.path),
                    key="executor",
                )
            _add(archive, f"{_CODE}/{name}", content)
    content = found.getvalue()
    return Bundle(hashlib.sha256(content).hexdigest(), content)


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name, _TIME)
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, content)


def _code(pipeline: Pipeline) -> Iterator[tuple[str, Path]]:
    """Yield the user's files: transformers with neighbouring modules, and the catalog."""
    folders = {pipeline.code_path(block.file).parent for block in pipeline.transformers if block.file is not None}
    top = [folder for folder in folders if not any(other in folder.parents for other in folders)]
    seen: set[Path] = set()
    for folder in top:
        for path in _modules(folder):
            if path not in seen:
                seen.add(path)
                yield path.relative_to(pipeline.folder).as_posix(), path
    if pipeline.catalog is not None:
        path = pipeline.code_path(pipeline.catalog)
        yield path.relative_to(pipeline.folder).as_posix(), path


def _modules(folder: Path) -> Iterator[Path]:
    """Yield the Python files of a folder and its subfolders, except hidden ones and environments."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "__pycache__")):
            continue
        if path.is_dir() and not path.is_symlink() and not (path / "pyvenv.cfg").exists():
            yield from _modules(path)
        elif path.suffix == ".py" and path.is_file():
            yield path


# -- on a worker -----------------------------------------------------------------------------------------------------


def unpacked(name: str) -> Path | None:
    """Return the folder of an archive that is already on this machine."""
    folder = _base() / name
    return folder if folder.is_dir() else None


def unpack(bundle: Bundle) -> Path:
    """Write an archive's files into a folder for this user only, named by the archive's hash; return the folder.

    Raises:
        SyncError: the archive has another hash, or names files outside its folder.
    """
    if hashlib.sha256(bundle.archive).hexdigest() != bundle.name:
        raise SyncError("the archive with the pipeline's code is damaged")
    if (there := unpacked(bundle.name)) is not None:
        return there
    draft = Path(tempfile.mkdtemp(dir=_base()))  # mode 0700
    try:
        with zipfile.ZipFile(io.BytesIO(bundle.archive)) as archive:
            for info in archive.infolist():
                path = PurePosixPath(info.filename)
                if path.is_absolute() or ".." in path.parts:
                    raise SyncError("the archive with the pipeline's code names a file outside of it")
                target = draft / path
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                target.write_bytes(archive.read(info))
        _prune()
        folder = _base() / bundle.name
        try:
            draft.rename(folder)
        except OSError:  # another process on this machine was faster
            if not folder.is_dir():
                raise
        return folder
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _prune() -> None:
    """Remove archives of old runs; one that is needed again is sent again."""
    for folder in _base().iterdir():
        with suppress(OSError):  # another process on this machine was faster
            if time.time() - folder.stat().st_mtime > KEPT_S:
                shutil.rmtree(folder)


def open_bundle(
    folder: Path,
    *,
    execution_date: datetime | None = None,
    interval: tuple[datetime, datetime] | None = None,
    trigger: str | None = None,
    recorded: Mapping[str, Any] | None = None,
) -> Pipeline:
    """Load the pipeline of an unpacked archive; this process's environment fills in the templates."""
    manifest = json.loads((folder / _MANIFEST).read_bytes())
    if manifest["version"] != own_version():
        raise SyncError(f"the worker has syncblocks {own_version()}, the run {manifest['version']}: install the same")
    return load_pipeline(
        manifest["document"],
        folder=manifest["folder"],
        code_folder=folder / _CODE,
        execution_date=execution_date,
        interval=interval,
        trigger=trigger,
        recorded=recorded,
    )


def _base() -> Path:
    """Return this user's folder for archives; refuse a folder that another user has created."""
    base = Path(tempfile.gettempdir()) / f"syncblocks-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    status = base.lstat()
    if base.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise SyncError(f"{base} is not this user's alone: remove it, or set TMPDIR")
    return base
