"""The columns that a stream was planned with, and those that are there when its read begins.

What is known of a column decides how its values are read and written: raw bytes mean something else in another type,
and many a cast takes another type's values for its own. So both are compared in the transaction that reads, once
nobody can alter the table any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa

from ...errors import FatalConnectorError
from ...field_facts import facts_of
from ...stream import Stream

_REMEDY = "the table was altered after the run was planned, and nothing more is read of it: run again"


def refuse_altered(
    stream: Stream, now: Mapping[str, str], is_alike: Callable[[pa.Field, str], bool], system: str
) -> None:
    """Raise if a column is gone, or of a type that would not be read in the same way.

    Args:
        stream: as it was planned; of columns without a `native_type` of this system nothing is known.
        now: the columns that are there and their types; empty: nobody can tell, or the read will say it.
        is_alike: whether a column that was planned and one of this type give the same values to whoever reads them.
        system: the fields' `native_system`.

    Raises:
        FatalConnectorError: with the columns.
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
    """Make the error of columns that are not what they were."""
    return FatalConnectorError(f"{', '.join(found)}: {_REMEDY}", stream=stream.name)


__all__ = ["altered", "refuse_altered"]
