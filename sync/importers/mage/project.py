"""The files of a Mage project, and access to their parts of any type."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

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
        self.name = folder.absolute().name
        if not _is_project(folder):
            message = "is no Mage project: it has no metadata.yaml or no folder pipelines"
            around = next((str(each) for each in folder.parents if _is_project(each)), None)
            raise ConfigError(message, path=str(folder), nearest=around)
        self.pipelines = sorted(path.parent.name for path in folder.glob("pipelines/*/metadata.yaml"))
        self._data = data

    def path(self, name: str) -> Path | None:
        """Return a file of the project; None if it is not there, or not below the project's folder."""
        path = self.folder / name
        is_inside = path.resolve().is_relative_to(self.folder.resolve())
        return path if is_inside and path.is_file() else None

    def yaml(self, name: str) -> dict[str, Any]:
        """Return a YAML file, {} if it is empty.

        Raises:
            ConfigError: it cannot be read, or is no mapping.
        """
        return self._mapping(name, yaml.safe_load)

    def json(self, name: str) -> dict[str, Any]:
        """Return a JSON file; errors are those of `yaml`."""
        return self._mapping(name, json.loads)

    def _mapping(self, name: str, parse: Any) -> dict[str, Any]:
        shown, path = str(self.folder / name), self.path(name)
        if path is None:
            raise ConfigError("does not exist in the Mage project", path=shown)
        try:
            found = parse(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot be read: {error.strerror}", path=shown) from error
        except (yaml.YAMLError, ValueError) as error:
            # Without the parser's excerpt: the file may hold passwords.
            raise ConfigError(f"cannot be parsed ({type(error).__name__})", path=shown) from None
        if found is not None and not isinstance(found, dict):
            raise ConfigError("is no mapping", path=shown)
        return found or {}

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
