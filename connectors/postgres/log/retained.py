"""A slot that keeps more log than the pipeline allows: what a run gives up, so that the source may discard it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ...log_based import GivenUp, position_of
from ...stream import LedgerRow, Stream
from . import slot as slots
from .messages import parse_lsn

if TYPE_CHECKING:
    from ..settings import LogSettings


def overdue(
    admin: slots.Admin,
    names: slots.Names,
    limit: LogSettings,
    streams: Sequence[Stream],
    rows: Sequence[LedgerRow],
    is_stuck: Callable[[str], bool],
) -> GivenUp:
    """Decide what is given up; see `ReadsLog.overdue_log`."""
    most = limit.max_retained_bytes
    slot = slots.slot_of(admin, names)
    if most is None or slot is None or not names.are_noted:
        return GivenUp()
    *_, confirmed, retained, is_active = slot
    if retained is None or retained <= most:
        return GivenUp()
    end, _ = slots.log_end(admin, names)
    text = f"slot {names.slot!r} keeps {_size(retained)} of log at the source, more than `max_retained`"
    behind = [(end - parse_lsn(position_of(row)), row) for row in rows if position_of(row)]
    behind.sort(key=lambda each: -each[0])
    # All rows are empty behind a run that was killed before it dropped the slot.
    held = behind[0][0] if behind else end - parse_lsn(confirmed or "0/0")
    if held <= most:
        # A new slot would wait for that transaction, and keep as much.
        why = "no stream is that far behind: a transaction may be open at the source since then, or the end of the last"
        return GivenUp(warnings=(f"{text}, but {why} run is not noted yet",))
    if limit.on_retained == "drop":
        if is_active:
            return GivenUp(warnings=(f"{text}: it is not dropped, since somebody reads it",))
        told = f"{text}: the run drops it and copies its tables; tables that it leaves out are copied when they are run"
        return GivenUp(rows=tuple(row for _, row in behind), is_dropped=True, warnings=(told,))
    by_name = {stream.name: stream for stream in streams}
    published = slots.entries(admin, names)
    tables = slots.tables_of(admin, streams)
    given_up, warnings = [], []
    for size, row in behind:
        if size <= most:
            break
        name, stream = row.key.stream, by_name.get(row.key.stream)
        if stream is None:
            why = "the run leaves it out, so the next run with it copies its table anew"
        elif is_stuck(name):
            why = "the last two runs have failed there, so its table is copied anew"
        elif slots.changed(admin, stream, row.log, tables.get(slots.oid_of(stream)), published):
            why = "its table has changed since then, so it is copied anew"
        else:
            continue
        given_up.append(row)
        warnings.append(f"stream {name!r} holds {_size(size)} of log at the source, more than `max_retained`: {why}")
    return GivenUp(rows=tuple(given_up), warnings=tuple(warnings or [f"{text}: the run reads it"]))


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"


__all__ = ["overdue"]
