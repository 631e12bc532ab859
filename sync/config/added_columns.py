"""`add_columns` of a stream, as the pipeline file writes it: columns with values, or with value, type and on_update."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

from pydantic import PlainValidator, WithJsonSchema

from ..errors import nearest_match
from .base import wrong
from .value_types import Moment

#: Words for types; also `decimal(p,s)`.
TYPES = ("string", "bigint", "double", "boolean", "date", "timestamp", "timestamptz")

_DECIMAL = re.compile(r"decimal\(\s*([1-9][0-9]?)\s*,\s*([0-9]{1,2})\s*\)")
_KEYS = ("value", "type", "on_update")


class Added(NamedTuple):
    """One column that is added; its value is a JSON value that the type decides how to read."""

    column: str
    value: Any
    #: One of `TYPES`, or `decimal(p,s)`.
    type: str
    is_kept: bool


#: The columns of `mage_columns: true`.
MAGE_COLUMNS = ("_mage_created_at", "_mage_updated_at")


def mage_columns(execution_date: datetime, types: Mapping[str, str]) -> tuple[Added, ...]:
    """Return what `mage_columns: true` stands for; `types` may name other types of them: Mage has texts in MySQL."""
    return tuple(_mage_column(name, execution_date, types.get(name, "timestamptz")) for name in MAGE_COLUMNS)


def _mage_column(name: str, execution_date: datetime, kind: str) -> Added:
    moment = execution_date.astimezone(UTC)
    text = moment.isoformat() if kind == "timestamptz" else moment.strftime("%Y-%m-%d %H:%M:%S.%f")
    return Added(name, text, kind, is_kept=name == MAGE_COLUMNS[0])


def _columns(given: Any) -> tuple[Added, ...]:
    if not isinstance(given, Mapping):
        raise wrong("must be a mapping of new columns to values, such as {_source: crm}")
    for column in given:
        if not isinstance(column, str) or not column.strip():
            raise wrong("a column has no name")
    return tuple(_added(str(column), said) for column, said in given.items())


def _added(column: str, said: Any) -> Added:
    if not isinstance(said, Mapping):
        return _of(column, said, None, "set")
    for key in said:
        if key not in _KEYS:
            nearest = nearest_match(str(key), _KEYS)
            meant = f", did you mean {nearest!r}?" if nearest else ""
            raise wrong(f"column {column!r}: there is no key {str(key)!r}{meant} (value, type, on_update)")
    on_update = said.get("on_update", "set")
    if on_update not in ("set", "keep"):
        raise wrong(f"column {column!r}: on_update is set (default) or keep")
    if "value" not in said:
        raise wrong(f"column {column!r} needs a value: a text, a number, true or false, or null with a type")
    return _of(column, said["value"], said.get("type"), on_update)


def _of(column: str, value: Any, kind: Any, on_update: str) -> Added:
    if value is None and kind is None:
        raise wrong(f"column {column!r}: NULL needs a type, {{value: null, type: string}}")
    if not isinstance(value, str | bool | int | float | None):
        raise wrong(f"column {column!r} needs a value: a text, a number, true or false, or null with a type")
    if kind is None:
        kind = "boolean" if isinstance(value, bool) else "bigint" if isinstance(value, int) else "double"
        if isinstance(value, str):
            kind = "timestamptz" if isinstance(value, Moment) else "string"
    elif kind not in TYPES and not (isinstance(kind, str) and _DECIMAL.fullmatch(kind)):
        nearest = nearest_match(str(kind), TYPES)
        meant = f", did you mean {nearest!r}?" if nearest else ""
        raise wrong(f"column {column!r}: there is no such type{meant} (one of {', '.join(TYPES)}, decimal(p,s))")
    if isinstance(value, Moment) and kind in ("timestamp", "date"):  # in UTC, as `ds`
        value = value.removesuffix("+00:00") if kind == "timestamp" else value[:10]
    return Added(column, str(value) if isinstance(value, str) else value, str(kind), on_update == "keep")


_SCALAR = {"type": ["string", "number", "boolean"]}

AddColumns = Annotated[
    tuple[Added, ...],
    PlainValidator(_columns),
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {
                "anyOf": [
                    _SCALAR,
                    {
                        "type": "object",
                        "properties": {
                            "value": {"type": [*_SCALAR["type"], "null"]},
                            "type": {"anyOf": [{"enum": list(TYPES)}, {"type": "string", "pattern": "^decimal"}]},
                            "on_update": {"enum": ["set", "keep"]},
                        },
                        "required": ["value"],
                        "additionalProperties": False,
                    },
                ]
            },
        }
    ),
]
