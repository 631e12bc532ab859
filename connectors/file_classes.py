"""Connectors of a project's own: a class in a Python file, named `FILE.py:Class` in the pipeline file."""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
import traceback
from collections.abc import Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from syncblocks.user_files import executing, helpers_beside

from .errors import ConnectorConfigError
from .settings import choice, resolve_path

_FORM = re.compile(r"(?P<file>.+\.py):(?P<name>[^:/\\]*)")

#: What `from module import name` raises for a name of ours.
_NO_NAME = re.compile(r"cannot import name '(?P<name>\w+)' from '(?P<module>syncblocks\.[\w.]+)'")

#: What a class of each role has at least; the protocols say what its methods promise.
_METHODS = {"source": ("discover", "read", "close"), "destination": ("describe", "load", "close")}

#: Path, time and size of a file -> its module: a file that was changed is executed anew.
_modules: dict[tuple[Path, int, int], ModuleType] = {}


def is_of_file(connector: str) -> bool:
    """Tell whether a connector's name is a file and a class."""
    return _FORM.fullmatch(connector) is not None


def file_of(connector: str, folder: Path) -> Path:
    """Return the path of the file; a relative one counts from `folder`."""
    match = _FORM.fullmatch(connector)
    assert match is not None
    return resolve_path(match["file"], folder)


def absolute(connector: str, folder: Path) -> str:
    """Return the name with the absolute path of its file; another name stays as it is."""
    return f"{file_of(connector, folder)}:{connector.rpartition(':')[2]}" if is_of_file(connector) else connector


def short_name(connector: str) -> str:
    """Return the name of a connector in the default name of its block: of a file its stem."""
    match = _FORM.fullmatch(connector)
    return connector if match is None else Path(match["file"]).stem


def class_of_file(connector: str, folder: Path) -> type[Any]:
    """Execute the file and return the class.

    Raises:
        ConnectorConfigError: the file is missing or raises, or has no such class; says what it has.
    """
    path = file_of(connector, folder)
    name = connector.rpartition(":")[2]
    module = _module(path, connector)
    found = getattr(module, name, None) if name else None
    if not inspect.isclass(found):
        own = [
            key for key, each in vars(module).items() if inspect.isclass(each) and each.__module__ == module.__name__
        ]
        text = f"{path} has no class {name!r}{choice(name, own)}" if own else f"{path} has no class {name!r}"
        raise ConnectorConfigError(text, connector=connector)
    return found


def lacks(found: type[Any], role: str) -> Sequence[str]:
    """Return the methods that a class of a role needs and this one has not."""
    return [name for name in _METHODS[role] if not callable(getattr(found, name, None))]


def _module(path: Path, connector: str) -> ModuleType:
    try:
        status = path.stat()
        key = (path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise ConnectorConfigError(f"{path} cannot be read: {error.strerror}", connector=connector) from error
    with executing:
        if key not in _modules:
            _modules[key] = _executed(path, connector)
        return _modules[key]


def _executed(path: Path, connector: str) -> ModuleType:
    # A name of its own: neither the file's nor its folder's can take another module's place.
    name = f"_syncblocks_connector_{hashlib.blake2b(str(path).encode(), digest_size=8).hexdigest()}"
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pydantic look their module up there
    try:
        with helpers_beside(path):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        where = f"{path}:{line}" if line else str(path)
        text = f"{where} does not load: {type(error).__name__}: {error}{_moved(error)}"
        raise ConnectorConfigError(text, connector=connector) from error
    return module


def _moved(error: BaseException) -> str:
    """Return what has taken the place of a name that one of our modules had: Python's error does not say it."""
    asked = _NO_NAME.match(str(error)) if isinstance(error, ImportError) else None
    if asked is None or asked["module"] not in sys.modules:
        return ""
    moved = vars(sys.modules[asked["module"]]).get("MOVED", {}).get(asked["name"])
    return f"; use {moved}" if moved else ""


__all__ = ["absolute", "class_of_file", "file_of", "is_of_file", "lacks", "short_name"]
