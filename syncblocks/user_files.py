"""Execute a Python file of the user's: one at a time, with the modules beside it.

Callback files and connector files both need it, and `callbacks` and `connectors` do not know each other.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: One file is executed at a time: `sys.path` and `sys.modules` belong to the process.
executing = threading.RLock()


@contextmanager
def helpers_beside(path: Path) -> Iterator[None]:
    """Allow the file to import modules beside it; remove these modules afterwards. The caller holds `executing`.

    All other modules come first. The helpers are removed so that the engine does not mix up those of different
    folders. A child process serves one file and keeps the folder in its path; then nothing is removed.
    """
    folder = str(path.parent)
    if folder in sys.path:
        yield
        return
    before = set(sys.modules)
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        for name in set(sys.modules) - before:
            if _lies_in(path.parent, name.partition(".")[0]):
                del sys.modules[name]


def _lies_in(folder: Path, top_level: str) -> bool:
    """Tell whether a module is directly in this folder, not in a virtual environment below it."""
    module = sys.modules.get(top_level)
    file = None if module is None else vars(module).get("__file__")
    return file is not None and folder in (Path(file).parent, Path(file).parent.parent)


__all__ = ["executing", "helpers_beside"]
