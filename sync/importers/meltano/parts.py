"""Access to parts of a parsed `meltano.yml` of any type."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def is_below(file: Path, folder: Path) -> bool:
    """Tell whether a file really lies below a folder, links and `..` followed."""
    return Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder))


def identifier(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_") or "pipeline"


def names_of(project: Mapping[str, Any], kind: str) -> list[str]:
    return [str(entry.get("name")) for entry in entries_of(at(project, "plugins", kind))]


def entries_of(value: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def texts_of(value: Any) -> dict[str, str]:
    return {str(key): str(part) for key, part in value.items()} if isinstance(value, Mapping) else {}


def at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
