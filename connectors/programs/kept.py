"""Small JSON files in which a program's answers are kept from one run to the next."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..local_files import make_private_folder, write_beside


def kept_file(folder: Path, what: str, of: Any) -> Path:
    """Return the place of an answer: `what` it is, and all that it depends on."""
    digest = hashlib.sha256(json.dumps(of, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return folder / "kept" / f"{what}-{digest}.json"


def kept_value(path: Path) -> Any:
    """Return what a file keeps; None: nothing that can be read."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def keep(path: Path, value: Any) -> None:
    """Write a file atomically that only this user can read."""
    make_private_folder(path.parent)
    write_beside(path, json.dumps(value).encode(), 0o600).replace(path)
