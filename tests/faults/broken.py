"""Deliberately broken engines, switched on in a forked process: the tests must catch every one of them."""

from __future__ import annotations

from collections.abc import Callable

#: Name -> what breaks the engine.
ENGINES: dict[str, Callable[[], None]] = {}
