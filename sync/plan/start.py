"""Where a stream starts: at its bookmark, from scratch, or not at all. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from hashlib import blake2b
from typing import NamedTuple

from syncblocks.connectors.incremental.bookmarks import BOUNDARY
from syncblocks.connectors.read_spec import RANGE, ReplicationMethod
from syncblocks.connectors.stream import FILE_MODIFIED, Bookmark, LedgerKey, LedgerRow, Stream, TableState
from syncblocks.connectors.write_spec import ConflictMethod, WriteDisposition

from ..config.naming import KEEP
from .columns import start_over
from .policy import Configured


class Start(NamedTuple):
    """Where a stream starts: its bookmark (None: from scratch) and the reason."""

    bookmark: Bookmark | None
    reason: str
    #: The table is another program's; it is empty, and written if its columns hold the stream's as they are.
    is_unclaimed: bool = False
    #: The command line gave the bookmark; the ledger's may be past it, and stays.
    is_given: bool = False


#: Behind the source of a ledger row: how its columns are named, down to which level objects are flattened, and marks
#: of query, filter and masks of its stream.
_NAMING, _NESTED, _QUERY, _WHERE, _MASKS = "?naming=", "?nested=", "?query=", "?where=", "?masks="

_MARKS = re.compile(
    r"(\?naming=(?P<naming>\w+))?(\?nested=(?P<nested>[0-9]+))?(\?query=(?P<query>[0-9a-f]{16}))?"
    r"(\?where=(?P<where>[0-9a-f]{16}))?(\?masks=(?P<masks>[0-9a-f]{16}))?$"
)


def source_of(source: str, stream: Configured) -> str:
    """Return what the ledger keeps as the source of a stream: with its naming, `nested`, and marks of what is read."""
    offered = stream.stream
    naming = "" if stream.policy.naming == KEEP else f"{_NAMING}{stream.policy.naming}"
    nested = f"{_NESTED}{stream.policy.nested}" if stream.policy.nested else ""
    asked = json.dumps([offered.query, *stream.policy.query_said]) if stream.policy.query_said else offered.query
    query = f"{_QUERY}{_mark(asked)}" if asked else ""
    said = sorted(
        json.dumps([each.field.name, each.operator, each.of_interval or sorted(map(json.dumps, each.given))])
        for each in offered.read.where
        if each.of_interval != RANGE  # of each run another one: it says what is written, not what the table holds
    )
    where = f"{_WHERE}{_mark(json.dumps(said))}" if said else ""
    return f"{source}{naming}{nested}{query}{where}{masks_mark(offered)}"


def masks_mark(stream: Stream) -> str:
    """Return the mark of a stream's masks and their key; empty: no column is masked."""
    if stream.read.masks is None:
        return ""
    from syncblocks.connectors.arrow.masking import mark_of_masks  # its kernels take time to load

    said = mark_of_masks(stream.read.masks, stream.schema.names)
    return f"{_MASKS}{_mark(said)}" if said else ""


def _mark(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()


def unmarked(source: str) -> str:
    """Return the source of a ledger row without its marks."""
    return _MARKS.sub("", source, count=1)


def place_mark(identity: str) -> str:
    """Return what stands behind a place whose secrets are masked, and tells it from others."""
    return f"#{blake2b(identity.encode('utf-8', 'surrogatepass'), digest_size=4).hexdigest()}"


def _is_of(source: str, sources: Collection[str]) -> bool:
    """Tell whether a ledger row names one of these sources, with its secrets or with what was masked then."""
    place = unmarked(source)
    return place in sources or any(place.endswith(f" {place_mark(each)}") for each in sources)


def _marks(source: str) -> dict[str, str | None]:
    found = _MARKS.search(source)
    assert found is not None, "it matches nothing at all, too"
    return found.groupdict()


def _naming_of(source: str) -> str:
    return _marks(source)["naming"] or KEEP


def _nested_of(source: str) -> int:
    return int(_marks(source)["nested"] or 0)


_WORDS = {"query": "the query", "where": "the filter (`where`)", "masks": "the masks (`columns: {mask}`, `mask_key`)"}


def _altered(before: str, now: str) -> list[str]:
    """Return what of a stream is not what it was, by its source in the ledger: keys of `_WORDS`."""
    then, since = _marks(before), _marks(now)
    return [name for name in _WORDS if then[name] != since[name]]


def ledger_row(table: TableState, key: LedgerKey) -> LedgerRow | None:
    """Return the row of a key in a table's ledger."""
    return next((row for row in table.ledger if row.key == key), None)


def _in_words(levels: int) -> str:
    return f"{{flatten: {levels}}}" if levels else "text"


def starting_point(
    stream: Configured,
    table: TableState,
    row: LedgerRow | None,
    *,
    is_known: bool,
    sources: Collection[str],
    full_refresh: bool,
) -> Start | str:
    """Decide where a stream starts; a string says why it must not run.

    Args:
        stream: the selected stream.
        table: its destination table.
        row: its ledger row.
        is_known: whether the run store has a bookmark.
        sources: names of the source in ledgers: without secrets, and with them as earlier versions wrote it.
        full_refresh: start from scratch.
    """
    # A bookmark from `state set` counts like one from a commit.
    is_known_row = row is not None and (row.committed_at is not None or row.bookmark is not None)
    committed = row if is_known_row else None
    refusal = table.refuses.get(WriteDisposition.REPLACE if full_refresh else stream.write.disposition)
    if refusal and table.is_table:
        return f"table {stream.destination_table!r} {refusal}"
    if table.schema is None and table.is_described:
        return _without_table(stream, None if full_refresh else committed)
    if not table.is_table:
        return (
            f"{stream.destination_table!r} is no table of the destination, but a view or the like; give the stream "
            "another `destination_table`"
        )
    is_foreign = table.is_described and committed is None and not table.ledger and not is_known
    if is_foreign and not stream.policy.replaces_explicitly:
        is_replaced = full_refresh or stream.write.disposition is WriteDisposition.REPLACE
        if table.is_empty and not is_replaced:
            return Start(bookmark=None, reason="empty table of another program, used as it is", is_unclaimed=True)
        return not_ours(stream, is_adoptable=table.is_adoptable)
    if full_refresh:
        return Start(bookmark=None, reason="full refresh")
    if row is not None and row.key in table.rolled_back and (refusal := _rolled_back(stream, table, row)):
        return refusal
    written = _rows_of_stream(stream, table, sources)
    if written and (refusal := _other_naming(stream, _naming_of(written[-1].source))):
        return refusal
    if committed is not None:
        return _refused_row(stream, committed, sources) or _from_row(stream, committed)
    return _without_row(stream, written, is_known=is_known)


def _rolled_back(stream: Configured, table: TableState, row: LedgerRow) -> str:
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


def restored_notices(stream: Configured, table: TableState, row: LedgerRow | None, start: Start) -> list[str]:
    """Warn of a merge into a restored table, which continues because it reads all records."""
    is_merge = stream.write.disposition is WriteDisposition.MERGE
    if not is_merge or start.bookmark is not None or row is None or row.key not in table.rolled_back:
        return []
    return [
        f"table {stream.destination_table!r} was rolled back by RESTORE after the last commit of this stream. The run "
        "reads all records and merges them into the table"
    ]


def _without_table(stream: Configured, row: LedgerRow | None) -> Start | str:
    """Start without a table: at a bookmark that was set before the first run, else from scratch."""
    # No commit has written the row: the bookmark was set before the first run. After one, the table was dropped.
    if row is None or row.committed_at is not None:
        return Start(bookmark=None, reason="no destination table")
    start = Start(bookmark=row.bookmark, reason="bookmark set before the first run")
    return _of_other_properties(stream, row.bookmark) or start


def _refused_row(stream: Configured, row: LedgerRow, sources: Collection[str]) -> str:
    """Say why a stream must not go on from its ledger row; empty: it may."""
    # Whose log it is says the server itself, under whatever address.
    is_logged = bool(row.log) and stream.stream.read.method is ReplicationMethod.LOG_BASED
    if not is_logged and not _is_of(row.source, sources):
        return (
            f"table {stream.destination_table!r} was last written from another source ({row.source}, now "
            f"{next(iter(sources))}); give one of the two pipelines its own name, or start over with "
            f"{start_over(stream.write.disposition)}"
        )
    if refusal := _other_naming(stream, _naming_of(row.source)):
        return refusal
    if (levels := _nested_of(row.source)) != stream.policy.nested:
        return (
            f"table {stream.destination_table!r} was written with `nested: {_in_words(levels)}`, now it is "
            f"`{_in_words(stream.policy.nested)}`: its objects would become other columns beside those they have. Say "
            f"`nested: {_in_words(levels)}`, {stream.policy.ways.another_table}, or start the table over with "
            f"{start_over(stream.write.disposition)}"
        )
    named = [source_of(source, stream) for source in sources]
    if row.source in named:
        return ""
    refused = [name for name in _altered(row.source, named[0]) if not _comes_anew(stream, name)]
    return _refused_change(stream, refused) if refused else ""


def _from_row(stream: Configured, row: LedgerRow) -> Start | str:
    """Start where the ledger row of the stream says."""
    if stream.stream.read.method is ReplicationMethod.FULL_TABLE:
        return Start(bookmark=None, reason="FULL_TABLE")
    if row.bookmark is None:
        return _appended_without_bookmark(stream, row) or Start(bookmark=None, reason="no bookmark yet")
    return _of_other_properties(stream, row.bookmark) or Start(bookmark=row.bookmark, reason="bookmark")


def _without_row(stream: Configured, written: Sequence[LedgerRow], *, is_known: bool) -> Start | str:
    """Start from scratch in a table that is ours, but for an append of records that the table may hold already."""
    method = stream.stream.read.method
    if stream.write.disposition is WriteDisposition.APPEND and method is ReplicationMethod.INCREMENTAL:
        if is_known:
            return (
                f"the ledger of table {stream.destination_table!r} has no row of this stream, but the run store knows "
                "a bookmark: appending from scratch would double records. `syncblocks state set` puts the bookmark "
                "back, `run --full-refresh` starts the table over"
            )
        if written:
            return _written_under_another_name(stream, written[0])
    return Start(bookmark=None, reason="table without ledger row" if is_known else "new stream of this table")


def emptied_warnings(stream: Configured, table: TableState, row: LedgerRow | None, start: Start) -> list[str]:
    """Warn of a table that lost all its records, as one that was dropped and made anew, while its bookmark goes on.

    Where the stream itself may delete them, or inserts none, nobody can tell.
    """
    may_be_empty = (
        (stream.policy.deletes is not None and stream.policy.deletes.mode == "hard")
        or stream.write.deleted_when is not None
        or stream.write.conflict_method is ConflictMethod.UPDATE_ONLY
    )
    is_committed = row is not None and row.committed_at is not None
    if not table.is_empty or start.bookmark is None or start.is_given or not is_committed or may_be_empty:
        return []
    return [
        f"{stream.name}: table {stream.destination_table!r} is empty, and the stream goes on at its bookmark: records "
        f"below it are not read. If they are missing, `syncblocks state reset {stream.name}` makes the next run read "
        "all of them again"
    ]


def renamed_warnings(
    stream: Configured, table: TableState, key: LedgerKey, start: Start, *, source: str, names: Collection[str]
) -> list[str]:
    """Warn of an append from scratch to what a stream has appended that is gone: it may be the same under another name.

    Args:
        stream: the stream, and its destination table, ledger key and start.
        table: see `stream`.
        key: see `stream`.
        start: see `stream`.
        source: the source as ledgers name it.
        names: all streams of the source and of the pipeline, those that are not in this run among them.
    """
    is_append = stream.write.disposition is WriteDisposition.APPEND
    is_append = is_append and stream.stream.read.method is ReplicationMethod.INCREMENTAL
    if not is_append or table.is_empty or start.bookmark is not None or ledger_row(table, key) is not None:
        return []
    gone = [
        row.key.stream
        for row in table.ledger
        if row.key.pipeline == key.pipeline and row.committed_at and row.bookmark and _is_of(row.source, {source})
    ]
    named = " ".join(f"{name}=VALUE" for name in stream.stream.read.bookmark_properties)
    return [
        f"{stream.name}: table {stream.destination_table!r} holds records that stream {name!r} has appended, which is "
        f"not in this pipeline any more. If it was {stream.name} under another name, they are appended once more: "
        f"`syncblocks state set {stream.name} {named}` makes the next run go on there, and `state show` has the value"
        for name in gone
        if name not in names
    ]


def _refused_change(stream: Configured, altered: Sequence[str]) -> str:
    what, ways = " and ".join(_WORDS[name] for name in altered), "or give the stream another name"
    has = "has" if len(altered) == 1 and altered != ["masks"] else "have"
    if stream.stream.read.bookmark_properties:
        named = " ".join(f"{name}=VALUE" for name in stream.stream.read.bookmark_properties)
        ways = f"accept it with `syncblocks state set {stream.name} {named}` (older records stay as they are), {ways}"
    why = "older records that it now finds would never come"
    if "masks" in altered:
        why = "records that are there would keep their values as they were written"
    return (
        f"{what} of stream {stream.name!r} {has} changed, or {'was' if has == 'has' else 'were'} none, since table "
        f"{stream.destination_table!r} was written: {why}. Run once with {start_over(stream.write.disposition)}, {ways}"
    )


def _of_other_properties(stream: Configured, bookmark: Bookmark | None) -> str:
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


def _appended_without_bookmark(stream: Configured, row: LedgerRow) -> str:
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


def _other_naming(stream: Configured, former: str) -> str:
    """Say that a table has its columns by another naming; empty: it has not."""
    if former == stream.policy.naming:
        return ""
    return (
        f"table {stream.destination_table!r} was written with `naming: {former}`, now it is "
        f"`{stream.policy.naming}`: its columns would get other names beside those they have. Say `naming: {former}`, "
        f"{stream.policy.ways.another_table}, or start the table over with {start_over(stream.write.disposition)}"
    )


def _rows_of_stream(stream: Configured, table: TableState, sources: Collection[str]) -> list[LedgerRow]:
    """Return the ledger's rows of a stream in a table, the newest commit last.

    There are several where other pipelines write it, or where its name was written in other letters, which many
    databases take for the same.
    """
    rows = [row for row in table.ledger if row.key.stream == stream.name and _is_of(row.source, sources)]
    dated = [(row.committed_at, place, row) for place, row in enumerate(rows) if row.committed_at is not None]
    return [row for _, _, row in sorted(dated)]


def _written_under_another_name(stream: Configured, row: LedgerRow) -> str:
    return (
        f"table {stream.destination_table!r} holds this stream of the same source already, written by pipeline "
        f"{row.key.pipeline!r} as {row.key.destination_table!r}: appending it from scratch would double its "
        f"records. If that was this pipeline under another name, say `pipeline: {row.key.pipeline}` and "
        f"`destination_table: {row.key.destination_table}`; else {stream.policy.ways.another_table}, or "
        "`write_disposition: merge`"
    )
