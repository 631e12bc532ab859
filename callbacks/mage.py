"""The two modules of Mage that callback and transformer files can import where Mage is not installed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from .decorator import DECORATORS
from .triggers import trigger_pipeline

_CONTENTS: Mapping[str, Mapping[str, Any]] = {
    "mage_ai.data_preparation.decorators": DECORATORS,
    "mage_ai.orchestration.triggers.api": {"trigger_pipeline": trigger_pipeline},
}

_lock = threading.Lock()
#: Number of files and functions that run now, in any thread.
_users = 0


def install() -> None:
    """Allow imports in this process: a child, whose functions may import them in any call."""
    if not _is_installed():
        sys.modules.update(_modules())


@contextmanager
def mage_modules() -> Iterator[None]:
    """Allow the executed file or the called function to import them; afterwards remove them from `sys.modules`."""
    global _users
    with _lock:
        if _is_installed():  # use Mage's own modules
            modules: Mapping[str, ModuleType] = {}
        else:
            modules = _modules()
            _users += 1
        if _users == 1:
            sys.modules.update(modules)
    try:
        yield
    finally:
        with _lock:
            _users -= bool(modules)
            if _users == 0:
                for name in modules:
                    sys.modules.pop(name, None)


@cache
def _is_installed() -> bool:
    return find_spec("mage_ai") is not None


@cache
def _modules() -> Mapping[str, ModuleType]:
    """Return the modules and the packages that they are in, by name."""
    made: dict[str, ModuleType] = {}
    for name, contents in _CONTENTS.items():
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            package = ".".join(parts[:length])
            made.setdefault(package, ModuleType(package)).__path__ = []
        vars(made[name]).update(contents)
    return made
