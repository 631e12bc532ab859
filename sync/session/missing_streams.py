"""Streams that a pipeline has synced and its source does not offer any more, and tables that nobody may read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.stream import LedgerKey, LedgerRow, Stream

from ..config import Pipeline, exact_name, glob_matches, matcher
from ..plan.plan import MAX_SAID, Connectors, Missing
from ..plan.selection import found_by_globs, is_left_out, merged_settings
from ..plan.stream_settings import destination_table


def look_for_missing(
    pipeline: Pipeline,
    connectors: Connectors,
    catalog: Sequence[Stream],
    known: Collection[tuple[str, str]],
    *,
    globs: Sequence[str],
    tags: Sequence[str],
    only: Collection[str] | None,
    is_of_run: bool,
) -> tuple[tuple[Missing, ...], tuple[str, ...]]:
    """Find the streams of this command that globs of the file have found before and do not find now.

    What the file names is an error where it is gone.

    Args:
        pipeline: the pipeline file.
        connectors: its source and destination.
        catalog: the source's streams.
        known: (stream, destination table) of each state in the run store; the ledger decides.
        globs: of `--stream`; empty: all.
        tags: of `--tag`; empty: all.
        only: exact names; None: all.
        is_of_run: False: streams count whatever their `when` says.

    Returns:
        These streams, and a sentence for each glob under which there are tables that may not be read.
    """
    if all(exact_name(entry.stream) is not None for entry in pipeline.streams):
        return (), ()
    by_name = {stream.name: stream for stream in catalog}
    entries, settings = merged_settings(pipeline, by_name, is_lenient=True)
    is_named = matcher(globs)

    def is_asked(name: str, table: str) -> bool:
        said = found_by_globs(pipeline, name)
        return (
            said is not None
            and said.get("selected", True) is not False
            and not said.get("optional")
            and (not globs or is_named(name))
            and (not tags or bool(set(tags) & set(said.get("tags") or ())))
            and (only is None or name in only)
            and not (is_of_run and is_left_out(pipeline, name, table))
        )

    tables = [destination_table(pipeline, by_name[name], settings[name]) for name in entries]
    lists = connectors.source_can.lists_unreadable
    unreadable = [] if lists is None else [name for name in lists.unreadable_tables() if is_asked(name, "")]
    rows = _ledger_rows(pipeline.pipeline, connectors, tables, [key for key in known if key[0] not in entries])
    found = {
        row.key.stream: Missing(
            stream=row.key.stream,
            destination_table=row.key.destination_table,
            why=_why(row.key.stream, by_name, unreadable),
        )
        for row in rows
        if row.key.stream not in entries
        and (row.bookmark is not None or row.rows is not None)  # else the row was reset
        and is_asked(row.key.stream, row.key.destination_table)
    }
    return tuple(found[name] for name in sorted(found)), _unreadable(pipeline, unreadable)


def _ledger_rows(
    pipeline: str, connectors: Connectors, tables: Sequence[str], known: Sequence[tuple[str, str]]
) -> list[LedgerRow]:
    """Return the rows of the pipeline: in the ledgers of its tables, and of what the run store knows beside them."""
    can = connectors.destination_can.lists_ledger
    named = [name for name in dict.fromkeys(tables) if _can_be_named(connectors, name)]
    rows = [] if can is None else list(can.rows_of(pipeline, named))
    listed = {row.key for row in rows}
    keys = {LedgerKey(pipeline=pipeline, stream=name, destination_table=table) for name, table in known} - listed
    if keys:
        described = connectors.destination.describe(sorted({key.destination_table for key in keys}))
        rows += [row for state in described.values() for row in state.ledger if row.key in keys]
    return rows


def _can_be_named(connectors: Connectors, table: str) -> bool:
    """Tell whether the destination can have a table of this name; the plan says what becomes of its stream."""
    names = connectors.destination_can.names_tables
    try:
        if names is not None:
            names.one_name(table)
    except FatalConnectorError:
        return False
    return True


def _why(name: str, by_name: Mapping[str, Any], unreadable: Collection[str]) -> str:
    if name in unreadable:
        return "may not be read by this user any more"
    if name in by_name:
        return "is a view now, which no glob finds"
    return "is not offered by the source any more"


def _unreadable(pipeline: Pipeline, names: Sequence[str]) -> tuple[str, ...]:
    """Return a sentence for each glob, with the tables that no glob before it finds."""
    texts, left = [], list(names)
    for pattern in dict.fromkeys(entry.stream for entry in pipeline.streams if exact_name(entry.stream) is None):
        own = [name for name in left if glob_matches(pattern, name)]
        left = [name for name in left if name not in own]
        if own:
            what = "1 table" if len(own) == 1 else f"{len(own):,} tables"
            shown = ", ".join(own[:MAX_SAID]) + (", ..." if len(own) > MAX_SAID else "")
            texts.append(f"{what} under {pattern!r} may not be read by this user: {shown}")
    return tuple(texts)


__all__ = ["look_for_missing"]
