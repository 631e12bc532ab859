"""`deletes` of a stream, as the pipeline file writes it: a word, or {mode, every, limit}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Struct
from pydantic import PlainValidator, WithJsonSchema

from ..errors import nearest_match
from .base import wrong
from .value_types import percent_of, span_s

MODES = ("ignore", "hard", "soft")

_KEYS = ("mode", "every", "limit")


class Deletes(Struct, frozen=True, kw_only=True):
    """What becomes of records that the source no longer has."""

    #: One of `MODES`.
    mode: str
    #: Keys are compared once in so many seconds; None: in each run.
    every_s: float | None = None
    #: Most records to delete at once, in percent of the table's.
    limit_percent: float = 10.0

    @property
    def is_soft(self) -> bool:
        """Whether records are marked, and stay."""
        return self.mode == "soft"


def _deletes(given: Any) -> Deletes:
    if isinstance(given, str):
        return Deletes(mode=_mode(given))
    if not isinstance(given, Mapping):
        raise wrong("must be ignore, hard or soft, or a mapping such as {mode: hard, every: 1d, limit: 10%}")
    for key in given:
        if key not in _KEYS:
            nearest = nearest_match(str(key), _KEYS)
            meant = f", did you mean {nearest!r}?" if nearest else ""
            raise wrong(f"there is no key {str(key)!r}{meant} (mode, every, limit)")
    if "mode" not in given:
        raise wrong("needs mode: ignore, hard or soft")
    found = Deletes(mode=_mode(given["mode"]))
    every, limit = given.get("every"), given.get("limit")
    return Deletes(
        mode=found.mode,
        every_s=found.every_s if every is None else _span(every),
        limit_percent=found.limit_percent if limit is None else _percent(limit),
    )


def _mode(given: Any) -> str:
    if given in MODES:
        return str(given)
    nearest = nearest_match(str(given), MODES)
    meant = f", did you mean {nearest!r}?" if nearest else ""
    raise wrong(f"there is no mode {given!r}{meant} (ignore, hard, soft)")


def _span(given: Any) -> float:
    seconds = span_s(given) if isinstance(given, str) else None
    if not seconds:
        raise wrong("every is a span of time such as 1d, 12h or 30m")
    return seconds


def _percent(given: Any) -> float:
    found = percent_of(given)
    if found is None:
        raise wrong("limit is a share of the table's records, such as 10%, at most 100%")
    return found


DeletesSetting = Annotated[
    Deletes,
    PlainValidator(_deletes),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(MODES)},
                {
                    "type": "object",
                    "properties": {
                        "mode": {"enum": list(MODES)},
                        "every": {"type": "string"},
                        "limit": {"type": "string", "pattern": "%"},
                    },
                    "required": ["mode"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
