"""The bookmarks that Mage has kept for the streams of a pipeline."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .connections import MageConnection
from .project import Project, parts_of
from .streams import STREAM_NAME, stream_id


def bookmark_of(
    project: Project,
    pipeline: str,
    destination: MageConnection,
    stream: Mapping[str, Any],
    entry: Mapping[str, Any],
    notes: list[str],
) -> list[str]:
    """Return COLUMN=VALUE for each bookmark column of a stream; empty, with a note, if Mage's state is not found."""
    wanted = entry.get("bookmark_properties")
    if not wanted:
        return []
    name = stream_id(stream)
    table = _clean(str(entry.get("destination_table", name)).replace(STREAM_NAME, name))
    for folder in project.state_folders(pipeline):
        paths = sorted(filter(Path.is_file, (folder / _clean(destination.kind) / _clean(name)).glob("*_state*")))
        own = [path for path in paths if path.stem == f"{table}_state"]
        # A table of another name: the stream had one before, unless there is only this one.
        for path in own or (paths if len(paths) == 1 else []):
            found = parts_of(parts_of(_state(path).get("bookmarks")).get(name))
            if all(found.get(column) is not None for column in wanted):
                return [f"{column}={found[column]}" for column in wanted]
    notes.append(
        f"stream {name}: Mage's bookmark is unknown (no state found, see --mage-data): `state adopt` takes the newest "
        "in the table"
    )
    return []


def _state(path: Path) -> Mapping[str, Any]:
    """Return the last state of a file: one JSON text, or one a line."""
    with suppress(OSError, ValueError, RecursionError):
        text = path.read_text(encoding="utf-8").strip()
        with suppress(ValueError):
            return parts_of(json.loads(text))
        return parts_of(json.loads(text.splitlines()[-1]))
    return {}


def _clean(name: str) -> str:
    return re.sub(r"\W", "_", name).lower()
