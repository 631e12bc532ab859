"""The reasons for which a stream does not start, and what to do. Pure. An empty text is no reason."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from syncblocks.connectors.incremental.bookmarks import BOUNDARY
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.stream import FILE_MODIFIED, Bookmark, LedgerRow, TableState
from syncblocks.connectors.write_spec import WriteDisposition

from .columns import start_over
from .policy import Configured
from .source_marks import WORDS, altered, is_of, naming_of, nested_of, source_of


def _in_words(levels: int) -> str:
    return f"{{flatten: {levels}}}" if levels else "text"


def rolled_back(stream: Configured, table: TableState, row: LedgerRow) -> str:
    """Return why a stream must not continue in a table that is older than its ledger row, or "" if it may."""
    read, disposition = stream.stream.read, stream.write.disposition
    is_append, is_full = disposition is WriteDisposition.APPEND, read.method is ReplicationMethod.FULL_TABLE
    if disposition is WriteDisposition.REPLACE or (not is_append if is_full else row.bookmark is None):
        return ""  # it reads all records
    reset = f"`syncblocks state reset {stream.name}`"
    if is_full:
        ways = [f"To append to the table as it is, run {reset}"]
    elif read.method is ReplicationMethod.LOG_BASED:
        ways = [] if is_append else [f"To copy the table again, run {reset}"]
    elif stream.stream.keeps_own_bookmark:
        ways = [f"To continue after run N, run `syncblocks state rewind {stream.name} --run N`"]
    elif table.is_empty:
        ways = [f"To read all records again, run {reset}"]
    else:
        named = " ".join(f"--to {name}=VALUE" for name in read.bookmark_properties)
        ways = [f"To continue at the newest record of the table, run `syncblocks state rewind {stream.name} {named}`"]
        ways += [] if is_append else [f"To read all records again, run {reset}"]
    ways += [f"To write the table from scratch, run `syncblocks run {start_over(disposition)}`"]
    return (
        f"table {stream.destination_table!r} was rolled back by RESTORE after the last commit of this stream, but its "
        f"ledger was not, so records may be missing. {'. '.join(ways)}"
    )


def refused_row(stream: Configured, row: LedgerRow, sources: Collection[str]) -> str:
    """Say why a stream must not go on from its ledger row; empty: it may."""
    # Whose log it is says the server itself, under whatever address.
    is_logged = bool(row.log) and stream.stream.read.method is ReplicationMethod.LOG_BASED
    if not is_logged and not is_of(row.source, sources):
        return (
            f"table {stream.destination_table!r} was last written from another source ({row.source}, now "
            f"{next(iter(sources))}); give one of the two pipelines its own name, or start over with "
            f"{start_over(stream.write.disposition)}"
        )
    if refusal := other_naming(stream, naming_of(row.source)):
        return refusal
    if (levels := nested_of(row.source)) != stream.policy.nested:
        return (
            f"table {stream.destination_table!r} was written with `nested: {_in_words(levels)}`, now it is "
            f"`{_in_words(stream.policy.nested)}`: its objects would become other columns beside those they have. Say "
            f"`nested: {_in_words(levels)}`, {stream.policy.ways.another_table}, or start the table over with "
            f"{start_over(stream.write.disposition)}"
        )
    named = [source_of(source, stream) for source in sources]
    if row.source in named:
        return ""
    refused = [name for name in altered(row.source, named[0]) if not _comes_anew(stream, name)]
    return _refused_change(stream, refused) if refused else ""


def _refused_change(stream: Configured, changed: Sequence[str]) -> str:
    what, ways = " and ".join(WORDS[name] for name in changed), "or give the stream another name"
    has = "has" if len(changed) == 1 and changed != ["masks"] else "have"
    if stream.stream.read.bookmark_properties:
        named = " ".join(f"{name}=VALUE" for name in stream.stream.read.bookmark_properties)
        ways = f"accept it with `syncblocks state set {stream.name} {named}` (older records stay as they are), {ways}"
    why = "older records that it now finds would never come"
    if "masks" in changed:
        why = "records that are there would keep their values as they were written"
    return (
        f"{what} of stream {stream.name!r} {has} changed, or {'was' if has == 'has' else 'were'} none, since table "
        f"{stream.destination_table!r} was written: {why}. Run once with {start_over(stream.write.disposition)}, {ways}"
    )


def bookmark_of_other_properties(stream: Configured, bookmark: Bookmark | None) -> str:
    """Say that a bookmark is one of other `bookmark_properties`, or of another order of them; empty: it is not.

    It would be below records that were read, and past others that were not.
    """
    wanted = (FILE_MODIFIED,) if stream.stream.read.tracks_files else stream.stream.read.bookmark_properties
    had = tuple(name for name in bookmark or wanted if name != BOUNDARY)
    if had == wanted or _is_tap(stream):
        return ""
    return (
        f"the bookmark is one of `bookmark_properties: [{', '.join(had)}]`, now they are [{', '.join(wanted)}]: "
        f"records would be read twice, or never. {_ways_without_bookmark(stream)}"
    )


def append_without_bookmark(stream: Configured, row: LedgerRow) -> str:
    """Say that an append would begin from scratch although the table holds records of the stream; empty: it would not.

    A FULL_TABLE run has written them. INCREMENTAL leaves a bookmark with its first record, and `state reset` no number
    of records.
    """
    is_append = stream.write.disposition is WriteDisposition.APPEND
    if not is_append or not row.rows or _is_tap(stream):
        return ""
    return (
        f"table {stream.destination_table!r} holds records of this stream, which FULL_TABLE has written, and there is "
        f"no bookmark: appending from scratch would double them. {_ways_without_bookmark(stream)}"
    )


def _is_tap(stream: Configured) -> bool:
    """Tell whether the bookmark is the source's own, in a form that only it knows, and may be none at all."""
    return stream.stream.keeps_own_bookmark and not stream.stream.read.tracks_files


def _ways_without_bookmark(stream: Configured) -> str:
    named = " ".join(f"{name}=VALUE" for name in stream.stream.read.bookmark_properties)
    goes_on = (
        "" if stream.stream.read.tracks_files else f"`syncblocks state set {stream.name} {named}` says where to go on, "
    )
    twice = ", which it appends once more" if stream.write.disposition is WriteDisposition.APPEND else ""
    return (
        f"{goes_on}`run {start_over(stream.write.disposition)}` starts the table over, and after `syncblocks state "
        f"reset {stream.name}` the next run reads all records{twice}"
    )


def _comes_anew(stream: Configured, altered: str) -> bool:
    """Tell whether a run writes all that a change is about: of masks, also the records that the source has no more."""
    is_whole = stream.stream.read.method is ReplicationMethod.FULL_TABLE
    if altered == "masks":
        return is_whole and stream.write.disposition is WriteDisposition.REPLACE
    return is_whole and stream.write.disposition is not WriteDisposition.APPEND


def not_ours(stream: Configured, changes: Sequence[str] = (), *, is_adoptable: bool = True) -> str:
    """Say why another program's table is not written, and what to do.

    Args:
        stream: the selected stream.
        changes: what the stream would change in an empty table.
        is_adoptable: whether `state adopt` can take it over.
    """
    ways, is_adoptable = stream.policy.ways, is_adoptable and stream.policy.ways.can_adopt
    adopted = f"`syncblocks state adopt {stream.name}` takes it over with its records, " if is_adoptable else ""
    why = f", is empty but would be changed ({'; '.join(changes)})" if changes else ""
    return (
        f"table {stream.destination_table!r} exists{why}, and no pipeline of syncblocks has written it; "
        f"{adopted}{ways.replace} replaces it, or {ways.another_table}"
    )


def other_naming(stream: Configured, former: str) -> str:
    """Say that a table has its columns by another naming; empty: it has not."""
    if former == stream.policy.naming:
        return ""
    return (
        f"table {stream.destination_table!r} was written with `naming: {former}`, now it is "
        f"`{stream.policy.naming}`: its columns would get other names beside those they have. Say `naming: {former}`, "
        f"{stream.policy.ways.another_table}, or start the table over with {start_over(stream.write.disposition)}"
    )


def written_under_another_name(stream: Configured, row: LedgerRow) -> str:
    return (
        f"table {stream.destination_table!r} holds this stream of the same source already, written by pipeline "
        f"{row.key.pipeline!r} as {row.key.destination_table!r}: appending it from scratch would double its "
        f"records. If that was this pipeline under another name, say `pipeline: {row.key.pipeline}` and "
        f"`destination_table: {row.key.destination_table}`; else {stream.policy.ways.another_table}, or "
        "`write_disposition: merge`"
    )


__all__ = [
    "append_without_bookmark",
    "bookmark_of_other_properties",
    "not_ours",
    "other_naming",
    "refused_row",
    "rolled_back",
    "written_under_another_name",
]
