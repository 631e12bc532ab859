"""The files of a Mage project, and access to their parts of any type."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...config.json_file import read_json
from ...config.yaml_document import read_document
from ...errors import ConfigError


def _is_project(folder: Path) -> bool:
    return (folder / "metadata.yaml").is_file() and (folder / "pipelines").is_dir()


class Project:
    """A Mage project on disk."""

    def __init__(self, folder: Path, data: Path | None) -> None:
        """Find its pipelines.

        Raises:
            ConfigError: the folder is no Mage project.
        """
        self.folder = folder
        self._root = Path(os.path.realpath(folder))
        self.name = folder.absolute().name
        if not _is_project(folder):
            message = "is no Mage project: it has no metadata.yaml or no folder pipelines"
            around = next((str(each) for each in folder.parents if _is_project(each)), None)
            raise ConfigError(message, path=str(folder), nearest=around)
        self.pipelines = sorted(path.parent.name for path in folder.glob("pipelines/*/metadata.yaml"))
        self._data = data

    def path(self, name: str) -> Path | None:
        """Return where a file of the project really is, links and `..` followed; None: it is not below the project."""
        real = Path(os.path.realpath(self._root / name))
        return real if real.is_relative_to(self._root) and os.path.isfile(real) else None  # noqa: PTH113 (never raises)

    def name_of(self, path: Path) -> str:
        """Return the name below the project of a path that `path` has returned: no part of it leads elsewhere."""
        return path.relative_to(self._root).as_posix()

    def yaml(self, name: str) -> dict[str, Any]:
        """Return a YAML file, {} if it is empty.

        Raises:
            ConfigError: it cannot be read, or is no mapping.
        """
        return read_document(self._demand(name), kind="a file of Mage's is a mapping", is_foreign=True).value

    def json(self, name: str) -> dict[str, Any]:
        """Return a JSON file; errors are those of `yaml`."""
        path = self._demand(name)
        found = read_json(path)
        if not isinstance(found, dict):
            raise ConfigError("is no mapping", path=str(path))
        return found

    def _demand(self, name: str) -> Path:
        path = self.path(name)
        if path is None:
            raise ConfigError("does not exist in the Mage project", path=str(self.folder / name))
        return path

    def state_folders(self, pipeline: str) -> list[Path]:
        """Return where Mage may keep what a pipeline remembers; only folders that exist."""
        said = self._data or os.environ.get("MAGE_DATA_DIR") or self.yaml("metadata.yaml").get("variables_dir")
        base = Path(str(said or "~/.mage_data")).expanduser()
        base = base if base.is_absolute() or self._data is not None else self.folder / base
        places = (base / self.name / "pipelines" / pipeline, base / "pipelines" / pipeline)
        return [place for place in places if place.is_dir()]


def parts_of(value: Any) -> Mapping[str, Any]:
    """Return a mapping; any other value is an empty one."""
    return value if isinstance(value, Mapping) else {}


def entries_of(value: Any) -> list[Mapping[str, Any]]:
    """Return the mappings of a list; any other value is an empty list."""
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def names_of(value: Any) -> list[str]:
    """Return the texts of a list or one text; any other value, and an empty text, is an empty list."""
    return (
        ([value] if value else [])
        if isinstance(value, str)
        else [str(item) for item in value]
        if isinstance(value, list)
        else []
    )


def sorted_blocks(pipeline: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the blocks of a pipeline, each after those upstream of it."""
    left, made = entries_of(pipeline.get("blocks")), []
    done: set[Any] = set()
    known = {block.get("uuid") for block in left}
    while left:
        ready = next((b for b in left if not set(names_of(b.get("upstream_blocks"))) & known - done), left[0])
        left.remove(ready)
        made.append(ready)
        done.add(ready.get("uuid"))
    return made
