"""The search for the pipeline file."""

from __future__ import annotations

import re
from pathlib import Path

SUFFIXES = (".yaml", ".yml")
_KEYS = (re.compile(rb"^source\s*:", re.MULTILINE), re.compile(rb"^destination\s*:", re.MULTILINE))


def find_file(file: Path | None) -> Path:
    """Return the given pipeline file, else the only one of the (current) folder.

    Raises:
        ConfigError: there is none, or more than one.
    """
    from ..errors import ConfigError, nearest_match

    if file is not None and not file.is_dir():
        if not file.exists() and (file.parent.is_dir()):
            there = [path.name for path in _yaml_files(file.parent)]
            near = nearest_match(file.name, there)
            nearest = None if near is None else str(file.parent / near)
            raise ConfigError("there is no such pipeline file", path=str(file), nearest=nearest)
        return file
    folder = Path() if file is None else file
    where = "the current folder" if file is None else str(file)
    files = _yaml_files(folder)
    pipelines = pipeline_files(folder)
    if len(pipelines) == 1:
        return pipelines[0]
    if len(pipelines) > 1:
        names = tuple(sorted(path.name for path in pipelines))
        raise ConfigError(f"{where} holds {len(pipelines)} pipeline files: name one", key="FILE", allowed=names)
    others = f" ({', '.join(path.name for path in files[:5])}: no `source` and `destination`)" if files else ""
    raise ConfigError(
        f"{where} holds no pipeline file{others}: name one, or make one with `syncblocks init`", key="FILE"
    )


def pipeline_files(folder: Path) -> list[Path]:
    """Return the YAML files of a folder that have a source and a destination."""
    return [path for path in _yaml_files(folder) if _is_pipeline(path)]


def _yaml_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def _is_pipeline(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(1_000_000)
    except OSError:
        return False
    return all(key.search(head) for key in _KEYS)
