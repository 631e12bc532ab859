"""Compares a stream's planned columns with the columns at the begin of its read.

A column's facts decide how values are read and written. Raw bytes mean something else in another type, and many casts
accept values of a wrong type. So both are compared in the transaction that reads, when the table can no longer be
altered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa

from ...errors import FatalConnectorError
from ...field_facts import facts_of
from ...stream import Stream

_REMEDY = "the table was altered after the run was planned, so the read stops: run again"


def refuse_altered(
    stream: Stream, now: Mapping[str, str], is_alike: Callable[[pa.Field, str], bool], system: str
) -> None:
    """Raise if a column is missing, or has a type that would be read differently.

    Args:
        stream: the planned stream; a column without a `native_type` of this system has no known type.
        now: the present columns and their types; empty: unknown, or the read itself reports a change.
        is_alike: whether the planned column and a column of this type give the reader the same values.
        system: the fields' `native_system`.

    Raises:
        FatalConnectorError: it names the columns.
    """
    found = []
    for field in stream.schema if now else ():
        facts = facts_of(field)
        if facts.native_system != system:
            continue
        planned, current = facts.native_type, now.get(field.name)
        if current is None:
            found.append(f"column {field.name!r} is gone")
        elif current != planned and not is_alike(field, current):
            found.append(f"column {field.name!r} was {planned} and is {current or 'of no type'}")
    if found:
        raise altered(stream, found)


def altered(stream: Stream, found: list[str]) -> FatalConnectorError:
    """Create the error about columns that have changed."""
    return FatalConnectorError(f"{', '.join(found)}: {_REMEDY}", stream=stream.name)


__all__ = ["altered", "refuse_altered"]
