"""How a stream is read: number of readers and loaders, and what an INCREMENTAL read resumes. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
from msgspec import Struct

from syncblocks.connectors.capabilities import Capabilities
from syncblocks.connectors.field_facts import facts_of
from syncblocks.connectors.incremental.bookmarks import can_look_back, is_number_in_text
from syncblocks.connectors.protocols import ComputesChecksums
from syncblocks.connectors.read_spec import NullBookmarks, ReplicationMethod
from syncblocks.connectors.stream import Stream
from syncblocks.connectors.write_spec import WriteDisposition

from ..config import Pipeline
from ..config.filters import UNIQUE
from ..config.globs import exact_name
from .policy import Configured
from .selected_stream import SelectedStream


class StreamReading(Struct, frozen=True, kw_only=True):
    """How a stream is read: as a whole, or by ranges."""

    #: Readers at once; 1: the stream is read as a whole.
    readers: int
    #: Loaders at once; 1: one loader for all readers.
    loaders: int
    #: Expected number of ranges; None if unknown before the read.
    ranges: int | None
    #: By which column it is split, or why it is not; why there is one loader.
    why: str
    #: Of ranges in a run with workers: who loads them.
    where: str = ""

    def __str__(self) -> str:
        if self.readers == 1:
            return f"one reader: {self.why}" if self.why else "one reader"
        number = "ranges" if self.ranges is None else f"{self.ranges} ranges"
        loaders = "one loader" if self.loaders == 1 else f"{self.loaders} loaders"
        return "; ".join(filter(None, [f"{number} by {self.readers} readers into {loaders}: {self.why}", self.where]))


class Resumption(NamedTuple):
    """How an INCREMENTAL read handles records without a bookmark and records that commit late."""

    bookmark_properties: tuple[str, ...]
    #: None if every record has a bookmark.
    null_bookmarks: NullBookmarks | None
    lookback: float | None
    #: What to do about `skips_late`.
    advice: str
    #: Why records that commit late may be skipped; empty if they are not; None if unknown.
    skips_late: str | None
    #: What `:bookmark` of a query stands for without a bookmark, as text; empty: the query does not say it.
    bookmark_start: str = ""

    def __str__(self) -> str:
        parts = [f"new records by {', '.join(self.bookmark_properties)}"]
        if self.bookmark_start:
            parts.append(f"its query from `:bookmark` on, without one from {self.bookmark_start} on")
        if self.null_bookmarks is not None:
            parts.append(f"records without it {_WITHOUT[self.null_bookmarks]}")
        if self.lookback is not None:
            parts.append(f"read again from {self.lookback:g} below the bookmark")
        elif self.skips_late is not None:
            parts.append(
                "records that commit late may be skipped"
                if self.skips_late
                else "records that commit late are read as well"
            )
        return "; ".join(parts)


_WITHOUT = {
    NullBookmarks.FAIL: "are an error",
    NullBookmarks.ONCE: "are read once",
    NullBookmarks.ALWAYS: "are read in every run",
    NullBookmarks.NEVER: "are left out",
}


def plan_resumption(stream: Stream, can: Capabilities) -> Resumption | None:
    """Say how records without a bookmark, or that commit late, are handled; None if the engine keeps no bookmark."""
    if stream.read.method is not ReplicationMethod.INCREMENTAL or stream.keeps_own_bookmark:
        return None
    fields = [stream.schema.field(name) for name in stream.read.bookmark_properties]
    may_lack = any(field.nullable or pa.types.is_floating(field.type) or is_number_in_text(field) for field in fields)
    return Resumption(
        bookmark_properties=stream.read.bookmark_properties,
        null_bookmarks=stream.read.null_bookmarks if may_lack else None,
        lookback=stream.read.lookback,
        advice="say how far by `lookback`, and each run reads again from so much below its bookmark"
        if can_look_back(fields[0].type)
        else "choose a time or a number as bookmark",
        skips_late=None if can.skips_late is None else can.skips_late.skips_late(stream),
        bookmark_start="" if stream.read.bookmark_start is None else str(stream.read.bookmark_start.values[0]),
    )


def late_warnings(resumptions: Mapping[str, Resumption | None]) -> list[str]:
    """Warn of streams that may skip records; one warning for each reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, resumption in resumptions.items():
        if resumption is not None and resumption.skips_late and resumption.lookback is None:
            found.setdefault((resumption.skips_late, resumption.advice), []).append(name)
    return [
        f"{', '.join(names)}: a record may be skipped whose transaction commits after records with a higher bookmark "
        f"were read ({why}): {advice}"
        for (why, advice), names in found.items()
    ]


_LIMITED = re.compile(r"\b(limit|top|fetch\s+(first|next))\b", re.IGNORECASE)


def unknown_type_warnings(selected: Sequence[SelectedStream]) -> list[str]:
    """Warn of columns whose type the source does not know, and that therefore become text."""
    found = []
    for stream in selected:
        fields = [field for field in stream.stream.schema if facts_of(field).unknown_type]
        columns = [f"{field.name} ({facts_of(field).native_type})" for field in fields]
        if columns:
            found.append(f"{stream.name}: read as text, since their types are unknown here: {', '.join(columns)}")
    return found


def hidden_warnings(selected: Sequence[Configured]) -> list[str]:
    """Warn of streams of which the source may not show all records; one warning for each reason."""
    found: dict[str, list[str]] = {}
    for stream in selected:
        if stream.stream.hidden_by:
            found.setdefault(stream.stream.hidden_by, []).append(stream.name)
    return [f"{', '.join(names)}: {why}" for why, names in found.items()]


#: Settings that say where an INCREMENTAL stream goes on.
_OF_BOOKMARKS = ("bookmark_property_operators", "lookback", "null_bookmarks")


def unused_warnings(pipeline: Pipeline, selected: Sequence[SelectedStream]) -> list[str]:
    """Warn of settings of INCREMENTAL in entries that name one stream, which is FULL_TABLE. A glob may mean others."""
    whole = {each.name for each in selected if each.stream.read.method is ReplicationMethod.FULL_TABLE}
    found = []
    for place, entry in enumerate(pipeline.streams):
        said = [name for name in _OF_BOOKMARKS if getattr(entry, name) is not None]
        if said and exact_name(entry.stream) in whole:
            words = ", ".join(f"`{name}`" for name in said)
            found.append(
                f"streams[{place}]: {words} of {exact_name(entry.stream)} says nothing: it is FULL_TABLE, all of it is "
                "read; say `replication_method: INCREMENTAL`, or leave it out"
            )
    return found


def limit_warnings(streams: Sequence[SelectedStream]) -> list[str]:
    """Warn of queries that end after some records, where the rest would never come."""
    return [
        f"{stream.name}: its query seems to limit the number of records (LIMIT, TOP or FETCH); INCREMENTAL goes on "
        "behind the last one that it read, and may never read the others"
        for stream in streams
        if stream.stream.read.method is ReplicationMethod.INCREMENTAL and _LIMITED.search(stream.stream.query)
    ]


def query_warnings(streams: Sequence[SelectedStream], can: Capabilities) -> list[str]:
    """Warn of queries that are read where something could be changed."""
    why = "" if can.reads_queries is None else can.reads_queries.may_write()
    names = [stream.name for stream in streams if stream.stream.query]
    return [f"{', '.join(names)}: {why}"] if names and why else []


def computing(can: Capabilities, stream: Stream) -> ComputesChecksums | None:
    """Return what computes the checksums of a stream in its database; None: its records are read."""
    return None if stream.read.masks is not None else can.computes_checksums


def plan_reading(
    selected: SelectedStream,
    disposition: WriteDisposition,
    source: Capabilities,
    destination: Capabilities,
    *,
    source_name: str,
    is_plain: bool,
    has_workers: bool = False,
) -> StreamReading:
    """Decide how a stream is read.

    Args:
        selected: the stream.
        disposition: as it is written in this run.
        source: capabilities of the source.
        destination: capabilities of the destination.
        source_name: the source's connector, for messages.
        is_plain: whether no transformer and no callback sees its records.
        has_workers: whether the streams run on workers.
    """
    stream, asked = selected.stream, selected.policy.parallel_reads
    why = _why_whole(selected, disposition, source, source_name)
    number: int | None = 1
    if asked > 1 and not why:
        assert source.reads_ranges is not None, "`_why_whole` checks this"
        number, why = source.reads_ranges.plan_ranges(stream, asked)
    if asked == 1 or number == 1:
        return StreamReading(readers=1, loaders=1, ranges=1, why=why if asked > 1 else "")
    readers = asked if number is None else min(asked, number)
    slow = _why_one_loader(disposition, destination, is_plain=is_plain)
    return StreamReading(
        readers=readers,
        loaders=1 if slow else readers,
        ranges=number,
        why=f"{why}; {slow}" if slow else why,
        where="on one worker" if has_workers else "",
    )


def _why_whole(selected: SelectedStream, disposition: WriteDisposition, source: Capabilities, source_name: str) -> str:
    """Say why a stream of any size cannot be split; empty if it can."""
    if source.reads_ranges is None:
        return f"{source_name} reads a stream as a whole"
    if selected.stream.read.method is not ReplicationMethod.FULL_TABLE:
        return f"{selected.stream.read.method} is read in the order of its bookmark"
    if selected.stream.read.limit is not None:
        return "only its first records are read"
    if selected.stream.read.names_files:
        return "it tells which files it has read"
    if any(check.operator == UNIQUE for check in selected.policy.checks):
        return "`unique` compares all records of a commit"
    if selected.write.max_rejected is not None:
        return "rejected records are kept one by one"
    is_by_key = disposition in (WriteDisposition.MERGE, WriteDisposition.HISTORY)
    if is_by_key and not selected.has_own_key:
        return "of records with the same key the last one counts, so they are read in order"
    return ""


def _why_one_loader(disposition: WriteDisposition, destination: Capabilities, *, is_plain: bool) -> str:
    if destination.loads_ranges is None:
        return "one loader, since the destination has one writer"
    if disposition is WriteDisposition.APPEND:
        return "one loader, since append writes the table itself"
    if disposition is WriteDisposition.REPLACE_RANGE:
        return "one loader, since replace_range looks at each record's range"
    if not is_plain:
        return "one loader, since transformers and callbacks take one batch after the other"
    return ""
