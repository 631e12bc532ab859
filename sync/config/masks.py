"""`columns: {mask: ...}` of a stream, and `mask_key` of the pipeline, as the pipeline file writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, PlainValidator, WithJsonSchema

from ..errors import nearest_match
from .base import wrong
from .globs import glob_error
from .value_types import as_number

#: Least bytes of `mask_key`: as many as the hash itself has.
KEY_BYTES = 32

HASH, KEEP_LAST, NULL = "hash", "keep_last", "null"

_HOW = "hash, {keep_last: n} or null"


class ColumnMask(NamedTuple):
    """How the columns are masked that a name or a glob matches."""

    column: str
    #: `HASH`, `KEEP_LAST` or `NULL`.
    how: str
    #: Of `KEEP_LAST`: so many characters stay.
    kept: int = 0


def _mask(given: Any) -> tuple[ColumnMask, ...]:
    if not isinstance(given, Mapping):
        raise wrong(f"must be a mapping of columns to {_HOW}, such as {{email: hash, phone: {{keep_last: 3}}}}")
    if not given:
        raise wrong("is empty: name a column, or leave the key out")
    return tuple(_rule(column, said) for column, said in given.items())


def _rule(column: Any, said: Any) -> ColumnMask:
    if not isinstance(column, str) or not column.strip():
        raise wrong("a column has no name")
    if error := glob_error(column):
        raise wrong(f"column {column!r} is not a valid pattern: {error}")
    column = str(column)
    if said is None:
        return ColumnMask(column=column, how=NULL)
    if isinstance(said, Mapping):
        if set(said) != {KEEP_LAST}:
            raise wrong(f"column {column!r}: a mask is {_HOW}")
        kept = as_number(said[KEEP_LAST])
        if not isinstance(kept, int) or isinstance(kept, bool) or not 1 <= kept <= 1000:
            raise wrong(f"column {column!r}: keep_last is a whole number from 1 to 1000")
        return ColumnMask(column=column, how=KEEP_LAST, kept=kept)
    if said == HASH:
        return ColumnMask(column=column, how=HASH)
    nearest = nearest_match(str(said), [HASH, KEEP_LAST])
    meant = f", did you mean {nearest}?" if nearest else ""
    raise wrong(f"column {column!r}: there is no such mask{meant} ({_HOW})")


def _key(value: str) -> str:
    size_bytes = len(value.encode("utf-8", "surrogatepass"))
    if size_bytes < KEY_BYTES:
        raise wrong(
            f"has {size_bytes} bytes, and needs {KEY_BYTES} at least: a shorter key can be guessed. "
            '`python -c "import secrets; print(secrets.token_hex(32))"` makes one'
        )
    return str(value)


Mask = Annotated[
    tuple[ColumnMask, ...],
    PlainValidator(_mask),
    WithJsonSchema(
        {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "anyOf": [
                    {"enum": [HASH, None]},
                    {
                        "type": "object",
                        "properties": {KEEP_LAST: {"type": ["integer", "string"]}},
                        "required": [KEEP_LAST],
                        "additionalProperties": False,
                    },
                ]
            },
        }
    ),
]
MaskKey = Annotated[str, AfterValidator(_key)]
