"""Where a stream starts: at its bookmark, from scratch, or not at all. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.stream import Bookmark, LedgerKey, LedgerRow, TableState
from syncblocks.connectors.write_spec import ConflictMethod, WriteDisposition

from .policy import Configured
from .source_marks import is_of, naming_of
from .start_refusals import (
    append_without_bookmark,
    bookmark_of_other_properties,
    not_ours,
    other_naming,
    refused_row,
    rolled_back,
    written_under_another_name,
)


class Start(NamedTuple):
    """Where a stream starts: its bookmark (None: from scratch) and the reason."""

    bookmark: Bookmark | None
    reason: str
    #: The table is another program's; it is empty, and written if its columns hold the stream's as they are.
    is_unclaimed: bool = False
    #: The command line gave the bookmark; the ledger's may be past it, and stays.
    is_given: bool = False


def ledger_row(table: TableState, key: LedgerKey) -> LedgerRow | None:
    """Return the row of a key in a table's ledger."""
    return next((row for row in table.ledger if row.key == key), None)


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
    if row is not None and row.key in table.rolled_back and (refusal := rolled_back(stream, table, row)):
        return refusal
    written = _rows_of_stream(stream, table, sources)
    if written and (refusal := other_naming(stream, naming_of(written[-1].source))):
        return refusal
    if committed is not None:
        return refused_row(stream, committed, sources) or _from_row(stream, committed)
    return _without_row(stream, written, is_known=is_known)


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
    return bookmark_of_other_properties(stream, row.bookmark) or start


def _from_row(stream: Configured, row: LedgerRow) -> Start | str:
    """Start where the ledger row of the stream says."""
    if stream.stream.read.method is ReplicationMethod.FULL_TABLE:
        return Start(bookmark=None, reason="FULL_TABLE")
    if row.bookmark is None:
        return append_without_bookmark(stream, row) or Start(bookmark=None, reason="no bookmark yet")
    return bookmark_of_other_properties(stream, row.bookmark) or Start(bookmark=row.bookmark, reason="bookmark")


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
            return written_under_another_name(stream, written[0])
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
        if row.key.pipeline == key.pipeline and row.committed_at and row.bookmark and is_of(row.source, {source})
    ]
    named = " ".join(f"{name}=VALUE" for name in stream.stream.read.bookmark_properties)
    return [
        f"{stream.name}: table {stream.destination_table!r} holds records that stream {name!r} has appended, which is "
        f"not in this pipeline any more. If it was {stream.name} under another name, they are appended once more: "
        f"`syncblocks state set {stream.name} {named}` makes the next run go on there, and `state show` has the value"
        for name in gone
        if name not in names
    ]


def _rows_of_stream(stream: Configured, table: TableState, sources: Collection[str]) -> list[LedgerRow]:
    """Return the ledger's rows of a stream in a table, the newest commit last.

    There are several where other pipelines write it, or where its name was written in other letters, which many
    databases take for the same.
    """
    rows = [row for row in table.ledger if row.key.stream == stream.name and is_of(row.source, sources)]
    dated = [(row.committed_at, place, row) for place, row in enumerate(rows) if row.committed_at is not None]
    return [row for _, _, row in sorted(dated)]
