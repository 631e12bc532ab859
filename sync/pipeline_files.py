"""Which files of a folder are pipeline files, by a look at their text."""

from __future__ import annotations

import re
from pathlib import Path

SUFFIXES = (".yaml", ".yml")
_NAMES = (b"source", b"destination")
_KEYS = tuple(re.compile(rb"""^["']?%b["']?\s*:""" % name, re.MULTILINE) for name in _NAMES)
#: Within a document that is one flow mapping, such as JSON.
_FLOW_KEYS = tuple(re.compile(rb"""[{,]\s*["']?%b["']?\s*:""" % name) for name in _NAMES)


def pipeline_files(folder: Path) -> list[Path]:
    """Return the YAML files of a folder that have a source and a destination."""
    return [path for path in yaml_files(folder) if is_pipeline_file(path)]


def yaml_files(folder: Path) -> list[Path]:
    """Return the YAML files of a folder, in order of their names."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def is_pipeline_file(path: Path) -> bool:
    """Whether a YAML file has a source and a destination; False: it does not, or cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(1_000_000)
    except OSError:
        return False
    keys = _FLOW_KEYS if head.lstrip().startswith(b"{") else _KEYS
    return all(key.search(head) for key in keys)
