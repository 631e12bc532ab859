"""`types: {code: string(10)}`: texts of a length, which a new column has where the destination knows lengths. Pure."""

from __future__ import annotations

import re

import pyarrow as pa

from syncblocks.connectors.field_facts import with_facts

_TEXT = re.compile(r"(?:string|text|varchar)\(\s*([1-9][0-9]{0,7})\s*\)", re.IGNORECASE)

#: Connector -> the kin whose types it knows, and its type for texts of a length; others have texts of any length.
_NATIVE = {
    "postgres": ("postgres", "character varying({})"),
    "mysql": ("mysql", "varchar({})"),
    "mariadb": ("mysql", "varchar({})"),
    "sqlite": ("sqlite", "VARCHAR({})"),
    "sqlalchemy": ("sqlalchemy", "varchar({})"),
}

#: Longest text of a length; longer ones are texts of any length there.
_LONGEST = {"mysql": 16_383, "postgres": 10_485_760}


def length_of(said: str) -> int | None:
    """Return the length of a type such as `string(10)`; None: it is another type."""
    found = _TEXT.fullmatch(said.strip())
    return None if found is None else int(found[1])


def of_length(field: pa.Field, length: int, connector: str) -> pa.Field:
    """Return a column of texts for which the destination makes one of a length, if it has such a type."""
    system, native = _NATIVE.get(connector, ("", ""))
    if not system or not pa.types.is_string(field.type) or length > _LONGEST.get(system, length):
        return field
    return with_facts(field, native_type=native.format(length), native_system=system)


__all__ = ["length_of", "of_length"]
