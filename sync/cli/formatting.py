"""Numbers, sizes, times and texts for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

#: Most characters of a cell.
MAX_CELL = 60


def count(value: int | None) -> str:
    """Return `1,234`; an empty text for an unknown number."""
    return "" if value is None else f"{value:,}"


def size(size_bytes: float | None) -> str:
    """Return `1.5 MB`."""
    if size_bytes is None:
        return ""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(size_bytes) < 1000 or unit == "TB":
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return ""


def duration(seconds: float | None) -> str:
    """Return `0.42 s`, `12.3 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def moment(value: datetime | None) -> str:
    """Return a UTC time to the second."""
    return "" if value is None else value.strftime("%Y-%m-%d %H:%M:%SZ")


def bookmark(values: Mapping[str, Any] | None) -> str:
    """Return `updated_at=2024-01-01T00:00:00`."""
    shown = {key: value for key, value in (values or {}).items() if key != "_boundary"}
    return " ".join(f"{key}={value}" for key, value in shown.items())


def cut(text: str | None, length: int = MAX_CELL) -> str:
    """Return one line of at most `length` characters."""
    line = " ".join((text or "").split())
    return line if len(line) <= length else line[: length - 1] + "…"


def cell(value: Any) -> str:
    """Return a JSON value of a record as one short line."""
    if value is None:
        return "-"
    return cut(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def plural(number: int, noun: str) -> str:
    """Return `1 stream`, `2 streams`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
