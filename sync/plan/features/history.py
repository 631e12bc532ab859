"""`write_disposition: history`: its settings, what does not go with it, and the time of a run's versions. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from syncblocks.connectors.capabilities import Capabilities
from syncblocks.connectors.protocols import Capability
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.stream import (
    ADDED,
    ENDS,
    FILE,
    FILE_MODIFIED,
    FILE_ROW,
    NEWEST,
    TIMES,
    VALID_FROM,
    VALID_TO,
    HistoryLoad,
    LedgerRow,
    Stream,
    TableState,
)
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition

from ...config import Pipeline
from ...config.deletes import Deletes
from ...errors import ConfigError, Mistake
from ..policy import Configured
from ..refusals import stream_error
from ..selected_stream import Failer, SelectedStream

if TYPE_CHECKING:
    from ...flow.history import HistoryColumns

#: Columns that say from which file a record came.
_OF_FILES = (FILE, FILE_MODIFIED, FILE_ROW)

#: Where the times of versions are from, in `TIMES`.
_RUN, _BOOKMARK = "run", "bookmark"

#: Why settings do not go with a history.
_CONFLICTING = {
    "unique_conflict_method": ("IGNORE", "a history keeps every version of a record, IGNORE only the first one"),
    "unique_constraints": (None, "versions of one record have the same values there"),
    "deletes": ("hard", "a history keeps the versions of deleted records; `deletes: soft` ends them"),
}


def history_of(
    pipeline: Pipeline,
    stream: Stream,
    settings: Mapping[str, Any],
    kept: Sequence[str],
    fail: Failer,
) -> HistoryColumns:
    """Return the columns that a history adds to a stream.

    Args:
        pipeline: the pipeline file.
        stream: as the source offers it.
        settings: the stream's entries in the file, merged.
        kept: the columns that are read.
        fail: makes the error of a setting.

    Raises:
        ConfigError: a setting does not go with it.
    """
    from ...flow.history import HistoryColumns

    for key, (value, why) in _CONFLICTING.items():
        said = settings.get(key)
        said = said.mode if isinstance(said, Deletes) else said
        if said is not None and said != "ignore" and value in (None, said):
            raise fail(
                key, f"`{key}: {said}` and `write_disposition: history` contradict each other: {why}", alone=True
            )
    marks = tuple(name for name in settings.get("bookmark_properties") or () if name in kept)
    found = HistoryColumns(at=pipeline.execution_date, marks=marks)
    return found if settings.get("valid_from") is None else _of_bookmark(found, stream, settings, fail)


def _of_bookmark(found: HistoryColumns, stream: Stream, settings: Mapping[str, Any], fail: Failer) -> HistoryColumns:
    if len(found.marks) != 1:
        times = [field.name for field in stream.schema if pa.types.is_timestamp(field.type)]
        raise fail("valid_from", "`valid_from: bookmark` needs bookmark_properties with one column, a time", times)
    (mark,) = found.marks
    kind = stream.schema.field(mark).type
    if not pa.types.is_timestamp(kind):
        raise fail("valid_from", f"`valid_from: bookmark` needs a time, and bookmark property {mark!r} is {kind}")
    if (policy := settings.get("null_bookmarks")) in ("once", "always"):
        raise fail(
            "null_bookmarks",
            f"`{policy}` reads records without a time, and `valid_from: bookmark` needs one",
            alone=True,
        )
    return replace(found, bookmark=mark)


def check_history(
    pipeline: Pipeline,
    stream: SelectedStream,
    table: TableState,
    row: LedgerRow | None,
    can: Capabilities,
    *,
    full_refresh: bool,
    drop_history: bool,
) -> None:
    """Refuse a history that the destination cannot keep, and what would destroy one without a word.

    Raises:
        ConfigError: see above.
    """

    def fail(message: str, kind: type[ConfigError] = ConfigError) -> Exception:
        return stream_error(pipeline, stream, message, kind)

    is_wanted, is_held = stream.write.disposition is WriteDisposition.HISTORY, holds_history(table, row)
    name = stream.destination_table
    if is_wanted and Capability.KEEPS_HISTORY not in can:
        raise fail(
            "`write_disposition: history` needs a destination that keeps versions, and "
            f"{pipeline.destination.connector} does not: write merge, or use a database or files",
            Mistake,
        )
    if is_wanted and full_refresh and not drop_history and table.schema is not None:
        raise fail(
            f"--full-refresh would drop the history in table {name!r}, which the source does not have any more: "
            "`--full-refresh --drop-history` does so; `syncblocks state reset` reads all records again and keeps it",
            Mistake,
        )
    if drop_history and full_refresh:
        return
    if is_wanted and table.schema is not None and table.is_table:
        missing = [each for each in (VALID_FROM, VALID_TO) if not _has(table, each)]
        if missing:
            raise fail(
                f"table {name!r} has no column {missing[0]!r}: it was not written as a history. Give another "
                "`destination_table`, or start it over with --full-refresh --drop-history"
            )
    if (
        is_held
        and is_wanted
        and table.schema is not None
        and (text := _other_times(stream, row.history if row else {}))
    ):
        raise fail(
            f"{text}: a history has times of one kind; {stream.policy.ways.another_table}, or start it over with "
            "--full-refresh --drop-history"
        )
    if is_held and not is_wanted:
        raise fail(
            f"table {name!r} holds the history of its records, which {stream.write.disposition} would destroy: write "
            f"`write_disposition: history`, {stream.policy.ways.another_table}, or run once with --full-refresh "
            "--drop-history"
        )


def holds_history(table: TableState, row: LedgerRow | None) -> bool:
    """Return whether a table holds a history, perhaps of another pipeline."""
    return any(each.history for each in (row, *table.ledger) if each is not None)


def _other_times(stream: SelectedStream, held: Mapping[str, Any]) -> str:
    """Say how the times of a table's versions are of another kind than the stream's; empty: they are not."""
    name, before = stream.destination_table, held.get(TIMES) or (_RUN if held.get(NEWEST) else _BOOKMARK)
    if before == _times(stream):
        return ""
    if before == _RUN:
        return f"`valid_from: bookmark` is new, but the versions in table {name!r} have the times of runs"
    return f"`valid_from: bookmark` was removed, but the versions in table {name!r} have the times of records"


def _times(stream: Configured) -> str:
    return _BOOKMARK if stream.policy.added.history is not None and stream.policy.added.history.bookmark else _RUN


def _has(table: TableState, column: str) -> bool:
    return any(name.casefold() == column for name in (table.schema or pa.schema([])).names)


def timed(
    pipeline: Pipeline,
    stream: SelectedStream,
    history: HistoryColumns,
    row: LedgerRow | None,
    names: Mapping[str, str],
    *,
    drop_history: bool,
    may_be_late: bool,
) -> SelectedStream:
    """Return a stream with the time of this run's versions, and its columns by the names in which they arrive.

    Args:
        pipeline: the pipeline file.
        stream: the selected stream.
        history: the columns of its history.
        row: its ledger row.
        names: column of the source -> its name behind the transformers.
        drop_history: there will be no older version.
        may_be_late: nobody has given the run its execution date, or it was due before it began (a tick): it takes the
            newest time that was used.

    Raises:
        ConfigError: the execution date that the run was given is older than one that was used before.
    """
    at = history.at
    if row is not None and not drop_history and falls_behind(stream, row):
        newest = str(row.history[NEWEST])
        if not may_be_late:
            raise stream_error(
                pipeline,
                stream,
                f"the execution date {at.isoformat()} is older than {newest}, from which on the newest versions in "
                f"table {stream.destination_table!r} are valid: a history only goes on. Give `run --execution-date` a "
                "later one, or leave it out",
            )
        at = datetime.fromisoformat(newest)
    named = replace(
        history,
        at=at,
        bookmark=names.get(history.bookmark, history.bookmark),
        marks=tuple(names.get(mark, mark) for mark in history.marks),
    )
    return replace(stream, policy=replace(stream.policy, added=replace(stream.policy.added, history=named)))


def not_yet(history: HistoryColumns, now: datetime) -> tuple[str, ...]:
    """Warn if new versions begin later than now: until that time, all runs give their versions the same start."""
    if history.bookmark or history.at <= now:
        return ()
    return (
        f"new versions are valid from {history.at.isoformat()}, which is later than now ({now.isoformat()}): a clock "
        "was ahead, or an --execution-date. Until then later runs take that time, too, and a record that changes again "
        "replaces its newest version. `run --full-refresh --drop-history` begins the history anew",
    )


def falls_behind(stream: Configured, row: LedgerRow) -> bool:
    """Tell whether the time of a run's versions is older than the ledger's newest one."""
    history, newest = stream.policy.added.history, str(row.history.get(NEWEST, ""))
    return bool(newest) and history is not None and not history.bookmark and history.at < datetime.fromisoformat(newest)


def history_load(
    stream: Configured, history: HistoryColumns, row: Mapping[str, Any], *, starts_over: bool
) -> HistoryLoad:
    """Return what a load has to know of a history.

    Args:
        stream: the selected stream, as planned.
        history: the columns of its history.
        row: `LedgerRow.history` under the load's token.
        starts_over: the history that is there is dropped.
    """
    before = {} if starts_over else row
    newest = str(before.get(NEWEST, "")) if history.bookmark else history.at.isoformat()
    has_ends = stream.policy.deletes is not None or bool(before.get(ENDS))
    known = {NEWEST: newest, TIMES: _times(stream)} | ({ENDS: True} if has_ends else {})
    in_place = {*history.marks, *(column.field.name for column in stream.policy.added.columns)}
    return HistoryLoad(
        has_versions=bool(history.bookmark),
        time=history.bookmark,
        in_place=frozenset(in_place | ({*_OF_FILES} if stream.stream.has_files else set())),
        is_whole=not history.bookmark and stream.stream.read.method is ReplicationMethod.FULL_TABLE,
        starts_over=starts_over,
        known=known | ({ADDED: list(before[ADDED])} if before.get(ADDED) else {}),
    )


__all__ = ["check_history", "falls_behind", "history_load", "history_of", "holds_history", "not_yet", "timed"]
