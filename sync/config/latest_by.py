"""Which record of a key is the latest one, as the pipeline file says it: a column, or {column, order}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Struct
from pydantic import PlainValidator, WithJsonSchema

from ..errors import nearest_match
from .base import wrong

_ORDERS = ("descending", "ascending")
_KEYS = ("column", "order")


class LatestBy(Struct, frozen=True):
    """Which of the records of a key counts: the one with the highest value of a column, or with the lowest."""

    column: str
    is_lowest: bool = False


def _latest_by(given: Any) -> LatestBy:
    said = given if isinstance(given, Mapping) else {"column": given}
    for key in said:
        if key not in _KEYS:
            nearest = nearest_match(str(key), _KEYS)
            meant = f", did you mean {nearest!r}?" if nearest else ""
            raise wrong(f"there is no key {str(key)!r}{meant} (column, order)")
    column, order = said.get("column"), said.get("order", _ORDERS[0])
    if not isinstance(column, str) or not column.strip():
        raise wrong("must be a column, or {column: updated_at, order: ascending}")
    if order not in _ORDERS:
        raise wrong("order is descending (default: the highest value counts) or ascending (the lowest)")
    return LatestBy(str(column), order == "ascending")


LatestBySetting = Annotated[
    LatestBy,
    PlainValidator(_latest_by),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {
                    "type": "object",
                    "properties": {"column": {"type": "string", "minLength": 1}, "order": {"enum": list(_ORDERS)}},
                    "required": ["column"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
