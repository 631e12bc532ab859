"""What a read of a database's log has beside other reads: columns, positions, and the read itself."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa
from msgspec import Struct

from .field_facts import Precision, with_facts
from .stream import DELETED_AT, Block, Bookmark, Event, LedgerRow, Stream
from .struct_helpers import replace

#: Columns of an appended change: what it is (`read`, `insert`, `update`, `delete`, `truncate`), when its transaction
#: was committed, where it stands in the log (texts that sort as the log does), which columns the log leaves out
#: since they are stored apart and have not changed (a list of names), and the key before the change, if that was
#: another one (an object of texts).
OPERATION, COMMITTED_AT, POSITION, UNCHANGED, OLD_KEY = "_op", "_committed_at", "_position", "_unchanged", "_old_key"

LOG_FIELDS = (
    pa.field(OPERATION, pa.string()),
    pa.field(COMMITTED_AT, pa.timestamp("us", "UTC")),
    pa.field(POSITION, pa.string()),
    pa.field(UNCHANGED, pa.json_()),
    pa.field(OLD_KEY, pa.json_()),
)

#: Of a change that is merged: the record of its key is written, or goes, or all records of the table go.
UPSERT, DELETE, TRUNCATE = "upsert", "delete", "truncate"

#: In place of a delete and of a TRUNCATE: the record of its key, or all that are not marked yet, get its `DELETED_AT`.
MARK, MARK_ALL = "mark", "mark_all"

#: In a stream's locator: what becomes of records that the source deletes, `hard`, `soft` or `ignore`.
DELETES = "deletes"

#: In a stream's locator, if there are any: the columns that the log leaves out, as the source computes them.
GENERATED = "generated"

#: In a stream's locator: its changes must have all values of their records, also large ones that have not changed.
WHOLE = "whole"

#: In a stream's locator: what `LogLook.unlogged` has of the stream.
UNLOGGED = "unlogged"

#: In a stream's locator: the moment that is read, see `LogMoment`.
SNAPSHOT = "snapshot"

#: What the columns of a merged change begin with that say under which key the table had the record before the batch,
#: where `UNCHANGED` names columns.
_OLD = "_old_"

#: In a bookmark: up to where in the log the table is complete, as the source writes it.
LOG_POSITION = "log_position"


class LogLook(Struct, frozen=True, kw_only=True):
    """What `ReadsLog.look_at_log` has found."""

    #: What a read needs and does not have, each with what mends it.
    missing: tuple[str, ...] = ()
    #: What a person should know before a run.
    notes: tuple[str, ...] = ()
    #: What each run tells as well.
    warnings: tuple[str, ...] = ()
    #: Stream -> changes of its table since the last run that gave existing records values which are not in the log.
    unlogged: Mapping[str, tuple[str, ...]] = {}
    #: How much log the source keeps for the pipeline; None: none, or nobody knows.
    retained_bytes: int | None = None


class GivenUp(Struct, frozen=True, kw_only=True):
    """What a run gives up first, since the source keeps more log than its settings allow."""

    #: Rows whose positions are emptied, so that their tables are copied: nothing holds the log for them any more.
    rows: tuple[LedgerRow, ...] = ()
    #: Whether the log itself is dropped then, in which case no row of the pipeline keeps a position.
    is_dropped: bool = False
    #: What a person should know, of what is given up or of why nothing is.
    warnings: tuple[str, ...] = ()


class LogLag(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a stream was behind the end of its log in one run; None: not known."""

    #: Bytes of log between the stream's place and the log's end as the read began; None also: it was copied.
    bytes_before: int | None = None
    #: Age of the oldest change that was not written yet, as the read began; None also: there was none.
    seconds_before: float | None = None
    #: As `bytes_before`, once all was committed.
    bytes_after: int | None = None
    #: How much log the source keeps for the pipeline then.
    retained_bytes: int | None = None


class LogMoment(Struct, frozen=True, kw_only=True):
    """A moment of the source that is held for readers: what a snapshot sees was committed below a place in the log."""

    bookmark: Bookmark
    #: Stands as `SNAPSHOT` in a stream's locator: reads of the stream see this moment.
    snapshot: str


class OpenLog(Protocol):
    """One read of several streams, begun by `ReadsLog.open_log`."""

    def read(
        self, group: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None], wire: str = "arrow", /
    ) -> Iterator[tuple[str, Event | Block]]:
        """Yield `(stream name, event)`, as `Source.read` does, up to where the log ended when it was opened.

        Without a bookmark a stream's records come first, as they are at some moment, and then the changes since then.
        Checkpoints come between transactions only; each stream's last event is one.
        """
        ...

    def confirm(self, streams: Collection[str]) -> None:
        """End the read of these streams, which have committed all.

        If no stream of the read has failed, the source may forget what is below the lowest of `held`.
        """
        ...

    def lag(self, stream: str) -> LogLag:
        """Return how far a stream was behind; what came after is known once `confirm` was called."""
        ...


def changes_stream(stream: Stream) -> Stream:
    """Return a merged stream as its changes arrive: `OPERATION`, `UNCHANGED` and a former key behind its columns.

    A delete has values in its key only, a mark in `DELETED_AT` also. A TRUNCATE, or what is in its place, is a batch of
    its own, of one record without other values. In a batch that has `UNCHANGED` each key is there once, but for a mark.
    """
    old = [stream.schema.field(name).with_name(old).with_nullable(True) for old, name in former_keys(stream).items()]
    more = [pa.field(OPERATION, pa.string()), pa.field(UNCHANGED, pa.string()), *old]
    return replace(stream, schema=pa.schema([*(field.with_nullable(True) for field in stream.schema), *more]))


def former_keys(stream: Stream) -> dict[str, str]:
    """Return for each column of a former key the column of the key, in the order of changes."""
    return {f"{_OLD}{name}": name for name in stream.key_properties}


def renamed_changes(extra: pa.RecordBatch, stream: Stream, names: Mapping[str, str]) -> pa.RecordBatch:
    """Return what a batch of changes has beside its records, for other names of the stream's columns.

    Args:
        extra: these columns.
        stream: with the former names.
        names: former name -> name.
    """
    texts = renamed_unchanged(extra.column(UNCHANGED), names)
    olds = [f"{_OLD}{names[name]}" for name in stream.key_properties]
    return pa.RecordBatch.from_arrays(
        [extra.column(OPERATION), texts, *extra.columns[2:]], [OPERATION, UNCHANGED, *olds]
    )


def renamed_unchanged(texts: pa.Array, names: Mapping[str, str]) -> pa.Array:
    """Return names of columns that are left out, as JSON, in other names."""
    if texts.null_count == len(texts):
        return texts
    named = [text and json.dumps([names[each] for each in json.loads(text)]) for text in texts.to_pylist()]
    return pa.array(named, pa.string())


def plain_columns(stream: Stream) -> int:
    """Return how many of a stream's columns are the table's own, where it is one of changes."""
    names = stream.schema.names
    return names.index(OPERATION) if OPERATION in names else len(names)


def plain_stream(stream: Stream) -> Stream:
    """Return a stream without the columns that the log gives it: as its table has it at the source."""
    own = plain_columns(stream) - (stream.locator.get(DELETES) == "soft")
    return replace(stream, schema=pa.schema(list(stream.schema)[:own]))


def logged_stream(stream: Stream, own_key: Sequence[str]) -> Stream:
    """Return a stream that is read out of the log, with the columns of its table.

    Args:
        stream: with the key by which it is merged.
        own_key: of its table.
    """
    # Numbers without a limit of digits stay texts: no read of the log sees all of them.
    fields = [with_facts(field, precision=Precision.KNOWN) for field in stream.schema]
    locator = {**stream.locator, "key": tuple(own_key)}
    return replace(stream, schema=pa.schema(fields), keeps_own_bookmark=True, locator=locator)


def with_log_columns(stream: Stream, *, is_appended: bool, deletes: str) -> Stream:
    """Add the columns that the log gives a stream; one that is appended is as its changes arrive.

    Args:
        stream: as `logged_stream` returns it.
        is_appended: every change is kept.
        deletes: see `DELETES`.
    """
    fields = list(stream.schema)
    if is_appended:
        fields = [*(field.with_nullable(True) for field in fields), *LOG_FIELDS]
    elif deletes == "soft":
        fields = [*fields, pa.field(DELETED_AT, pa.timestamp("us", "UTC"))]
    return replace(
        stream,
        schema=pa.schema(fields),
        key_properties=() if is_appended else stream.key_properties,
        locator={**stream.locator, DELETES: "" if is_appended else deletes},
    )


def is_logged(stream: Stream) -> bool:
    """Return true if a stream is read from the log, also while its table is copied."""
    return DELETES in stream.locator


def value_remedies(stream: Stream, column: str) -> str:
    """Return the remedies for a value that a column of a logged stream cannot have, as full sentences."""
    copied = (
        f" After either, copy the table once with `syncblocks run --full-refresh --stream {stream.name}`."
        if stream.locator[DELETES]
        else ""
    )
    return (
        f"To read the column as text, add `{stream.name}.{column}` to the source's `text_columns`. To set such records "
        f"aside, set `on_rejected: keep` of the stream.{copied} Or exclude the column with `columns`"
    )


def logged_rows(rows: Sequence[LedgerRow]) -> list[LedgerRow]:
    """Return the rows of streams that are, or were, read out of a log."""
    return [row for row in rows if row.log]


def position_of(row: LedgerRow) -> str:
    """Return up to where a table is complete; empty: it has to be copied."""
    found: Any = (row.bookmark or {}).get(LOG_POSITION, "")
    return str(found)


__all__ = [
    "COMMITTED_AT",
    "DELETE",
    "DELETES",
    "GENERATED",
    "LOG_FIELDS",
    "LOG_POSITION",
    "MARK",
    "MARK_ALL",
    "OLD_KEY",
    "OPERATION",
    "POSITION",
    "SNAPSHOT",
    "TRUNCATE",
    "UNCHANGED",
    "UNLOGGED",
    "UPSERT",
    "WHOLE",
    "GivenUp",
    "LogLag",
    "LogLook",
    "LogMoment",
    "OpenLog",
    "changes_stream",
    "former_keys",
    "is_logged",
    "logged_rows",
    "logged_stream",
    "plain_columns",
    "plain_stream",
    "position_of",
    "renamed_changes",
    "renamed_unchanged",
    "value_remedies",
    "with_log_columns",
]
