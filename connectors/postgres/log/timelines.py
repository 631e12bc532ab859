"""Timelines of a server's log. A promoted or restored server continues the log on a new timeline."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...errors import FatalConnectorError
from ...log_based import position_of
from ...stream import LedgerRow
from .connection import LogConnection
from .messages import lsn_text, parse_lsn

#: A line of a timeline's history: of which timeline it is, and where that one was left.
_LEFT = re.compile(r"^[ \t]*(\d+)[ \t]+([0-9A-F]+/[0-9A-F]+)", re.MULTILINE)


def refuse_left_timeline(connection: LogConnection, timeline: int, rows: Iterable[LedgerRow]) -> None:
    """Refuse a server whose timeline left the one of a stream before the position of that stream.

    Args:
        connection: connection to the server.
        timeline: the timeline of the server.
        rows: ledger rows of the streams.
    """
    rows = [row for row in rows if position_of(row)]
    own = {int(row.log["timeline"]) for row in rows} - {timeline}
    # A timeline is told of by those that branched off it, which have higher numbers.
    ends = _ends_of_timelines(connection, timeline) if own and min(own) < timeline else {}
    for row in rows:
        position, former = parse_lsn(position_of(row)), int(row.log["timeline"])
        if former != timeline and position > ends.get(former, -1):
            left = f"timeline {former} at {lsn_text(ends[former])}" if former in ends else "another one"
            raise FatalConnectorError(
                f"the server is on timeline {timeline}, which left {left}, and stream {row.key.stream!r} was read "
                f"up to {position_of(row)} of timeline {former}: the server was promoted or restored without all "
                "that was read. `syncblocks log drop`, then `run --full-refresh`",
                connector="postgres",
                has_no_values=True,
            )


def _ends_of_timelines(connection: LogConnection, timeline: int) -> dict[int, int]:
    """Return where in the log each timeline was left on the way to this one."""
    (found,) = connection.command(f"TIMELINE_HISTORY {timeline}")
    return {int(former): parse_lsn(left) for former, left in _LEFT.findall(str(found["content"]))}


__all__ = ["refuse_left_timeline"]
