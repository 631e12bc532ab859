"""The files of the project that a user's file imports, also within its functions. Executes nothing."""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

#: Files of a project that are searched.
MOST_FILES = 500


def imported_files(path: Path, source: bytes) -> Iterator[bytes]:
    """Yield the source of each file of the project that a file imports, directly or by another one.

    The standard library, installed packages and syncblocks itself do not belong to the project. The caller has added
    the file's folder to `sys.path`.

    Raises:
        RecursionError: the project has more files than are searched.
    """
    seen, waiting = {path}, [(path, source)]
    while waiting:
        if len(seen) > MOST_FILES:
            raise RecursionError(f"the file imports more than {MOST_FILES} files")
        importer, text = waiting.pop()
        for file in _files(importer, text):
            if file in seen or _is_installed(file):
                continue
            seen.add(file)
            with suppress(OSError):
                found = file.read_bytes()
                yield found
                waiting.append((file, found))


def _files(path: Path, source: bytes) -> Iterator[Path]:
    """Yield the files that the import statements of a file may name."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return  # the import itself shows the mistake
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _modules(alias.name.split("."), None)
        elif isinstance(node, ast.ImportFrom):
            start = path.parents[node.level - 1] if 0 < node.level <= len(path.parents) else None
            for alias in node.names:
                yield from _modules([*(node.module or "").split("."), alias.name], start)


def _modules(names: list[str], start: Path | None) -> Iterator[Path]:
    """Yield the file of a module and those of the packages around it.

    Args:
        names: the dotted name; the last part may be a function of the module.
        start: folder of a relative import; `None` if the name begins at the top.
    """
    parts = [name for name in names if name]
    folders = [start] if start is not None else []
    if start is None:
        if parts[0] == "syncblocks":
            return
        spec = None
        with suppress(ImportError, ValueError):
            spec = find_spec(parts.pop(0))
        if spec is None:
            return
        if spec.has_location and spec.origin is not None:
            yield Path(spec.origin)
        folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    for part in parts:
        files = [file for folder in folders for file in (folder / f"{part}.py", folder / part / "__init__.py")]
        yield from (file for file in files if file.is_file())
        folders = [folder / part for folder in folders if (folder / part).is_dir()]


def _is_installed(file: Path) -> bool:
    """Return true if a file belongs to the interpreter or to an installed package."""
    if file.suffix != ".py":
        return True
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders |= {entry for entry in sys.path if entry.endswith("-packages")}
    return any(file.is_relative_to(folder) for folder in folders)


__all__ = ["imported_files"]
