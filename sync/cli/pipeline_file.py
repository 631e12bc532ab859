"""The search for the pipeline file."""

from __future__ import annotations

from pathlib import Path

from ..pipeline_files import SUFFIXES, pipeline_files, yaml_files

__all__ = ["SUFFIXES", "find_file", "pipeline_files"]


def find_file(file: Path | None) -> Path:
    """Return the given pipeline file, else the only one of the (current) folder.

    Raises:
        ConfigError: there is none, or more than one.
    """
    from ..errors import ConfigError, nearest_match

    if file is not None and not file.is_dir():
        if not file.exists() and (file.parent.is_dir()):
            there = [path.name for path in yaml_files(file.parent)]
            near = nearest_match(file.name, there)
            nearest = None if near is None else str(file.parent / near)
            raise ConfigError("there is no such pipeline file", path=str(file), nearest=nearest)
        return file
    folder = Path() if file is None else file
    where = "the current folder" if file is None else str(file)
    files = yaml_files(folder)
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
