"""How many readers and loaders a stream gets: part of the plan. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from connectors.protocols import Destination, Source
from connectors.stream import ReplicationMethod, WriteDisposition

from .catalog import SelectedStream


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a stream is read: as a whole, or by ranges."""

    #: At once; 1: as a whole.
    readers: int
    #: Connections that load at once; 1: all readers feed one.
    loaders: int
    #: Ranges to expect; None: known when it is read.
    ranges: int | None
    #: By what it is split, or why not; why by one loader.
    why: str

    def __str__(self) -> str:
        if self.readers == 1:
            return f"one reader: {self.why}" if self.why else "one reader"
        number = "ranges" if self.ranges is None else f"{self.ranges} ranges"
        loaders = "one loader" if self.loaders == 1 else f"{self.loaders} loaders"
        return f"{number} by {self.readers} readers into {loaders}: {self.why}"


def plan_reading(
    selected: SelectedStream,
    disposition: WriteDisposition,
    source: Source,
    destination: Destination,
    *,
    source_name: str,
    is_plain: bool,
) -> Reading:
    """Decide how a stream is read; `is_plain`: no transformer and no callback sees its records."""
    stream, asked = selected.stream, selected.parallel_reads
    why = _why_whole(selected, disposition, source, source_name)
    number: int | None = 1
    if asked > 1 and not why:
        number, why = source.plan_ranges(stream, asked)  # type: ignore[attr-defined]  # `_why_whole` looked
    if asked == 1 or number == 1:
        return Reading(readers=1, loaders=1, ranges=1, why=why if asked > 1 else "")
    readers = asked if number is None else min(asked, number)
    slow = _why_one_loader(disposition, destination, is_plain=is_plain)
    return Reading(
        readers=readers, loaders=1 if slow else readers, ranges=number, why=f"{why}; {slow}" if slow else why
    )


def _why_whole(selected: SelectedStream, disposition: WriteDisposition, source: Source, source_name: str) -> str:
    """Say why a stream cannot be split, whatever its size; empty if it can."""
    if not hasattr(source, "plan_ranges"):
        return f"{source_name} reads a stream as a whole"
    if selected.stream.replication_method is not ReplicationMethod.FULL_TABLE:
        return f"{selected.stream.replication_method} is read in the order of its bookmark"
    if selected.stream.max_rejected is not None:
        return "records that do not fit are set aside one by one"
    if disposition is WriteDisposition.MERGE and not selected.has_own_key:
        return "of records with the same key the last one counts, so they are read in order"
    return ""


def _why_one_loader(disposition: WriteDisposition, destination: Destination, *, is_plain: bool) -> str:
    if not hasattr(destination, "load_ranges"):
        return "one loader, since the destination has one writer"
    if disposition is not WriteDisposition.REPLACE:
        return f"one loader, since {disposition} writes the table itself"
    if not is_plain:
        return "one loader, since transformers and callbacks take one batch after the other"
    return ""


__all__ = ["Reading", "plan_reading"]
