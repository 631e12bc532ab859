"""Imports of large libraries, without what no run of ours needs of them: a fifth of a small run's time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

_PLUGINS = "PYDANTIC_DISABLE_PLUGINS"
#: Looks for plugins where that is not disabled, with `importlib.metadata` and so the whole of `email` and `zipfile`.
_LOADER = "pydantic.plugin._loader"


@contextmanager
def without_numpy() -> Iterator[None]:
    """Let what is imported meanwhile find no NumPy, where nothing exchanges NumPy's arrays with it."""
    if "numpy" in sys.modules:
        yield
        return
    sys.modules["numpy"] = None  # type: ignore[assignment]  # to the import system: not installed
    try:
        yield
    finally:
        del sys.modules["numpy"]


@contextmanager
def without_model_plugins() -> Iterator[None]:
    """Let pydantic make models without looking through all installed packages for plugins.

    Only meanwhile: what is started later, such as a user's code, finds its plugins.
    """
    if _PLUGINS in os.environ:
        yield
        return
    os.environ[_PLUGINS] = "__all__"
    none = ModuleType(_LOADER)
    none.get_plugins = tuple  # type: ignore[attr-defined]  # what it returns where they are disabled
    sys.modules.setdefault(_LOADER, none)
    try:
        yield
    finally:
        if sys.modules.get(_LOADER) is none:
            del sys.modules[_LOADER]
        os.environ.pop(_PLUGINS, None)


__all__ = ["without_model_plugins", "without_numpy"]
