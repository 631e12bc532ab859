"""Verification of a stream that `replace_range` writes: of its interval only, on both sides."""

from __future__ import annotations

from syncblocks.connectors.stream import Stream

from ..plan.plan import PlannedStream
from ..session.destination_reader import within


def within_range(planned: PlannedStream, copy: Stream) -> tuple[Stream, str]:
    """Return the destination's side of what is compared, and a note that says what that is.

    Args:
        planned: a stream that `replace_range` writes; its own side is filtered already.
        copy: the whole table.
    """
    written = planned.write.written_range
    assert written is not None, "the caller checks this"
    if written.interval is None:
        return copy, "replace_range without an interval: the whole source is compared with the whole table"
    kept = {column.name: column.kept for column in planned.mapping.columns}.get(written.column)
    name = written.column if kept is None else kept.column
    found = within(copy, planned.table, name, written.interval)
    if found is None:
        return copy, f"the interval of the source is compared with the whole table, whose column {name!r} has no times"
    first, last = (moment.isoformat() for moment in written.interval)
    return found, f"compared: {first} <= {name} < {last}"


__all__ = ["within_range"]
