"""State of streams: read, set, rewind and reset bookmarks. The ledger is written first, then the store's copy."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from syncblocks.connectors.arrow.type_names import type_text
from syncblocks.connectors.errors import ConnectorConfigError, ConnectorError
from syncblocks.connectors.incremental.bookmarks import (
    BOUNDARY,
    bookmark_values,
    can_look_back,
    from_json,
    is_ahead,
    is_number_in_text,
    lower_bound,
    to_json,
)
from syncblocks.connectors.log_based import LOG_POSITION, position_of
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.stream import Bookmark, LedgerKey, LedgerRow, Stream, TableState
from syncblocks.connectors.struct_helpers import replace

from ..config.value_types import span_s
from ..errors import AlreadyRunning, ConfigError, StateError, nearest_match
from ..plan.features.log_based import is_logged, log_name
from ..plan.policy import Configured
from ..plan.selection import one_stream
from ..plan.source_marks import source_of, unmarked
from ..plan.start import ledger_row
from ..session.inspection import selected_streams
from ..session.session import PipelineSession
from ..store import Store
from ..store.model import StateCopy
from .restored import in_restored_table

#: A date without a time; of a column with a zone it means midnight in UTC.
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """State of one stream."""

    stream: str
    destination_table: str
    bookmark: Bookmark | None
    source: str
    rows: int | None
    #: Time of the last commit (ledger) or of the copy (store).
    at: datetime | None
    #: `<run key>:<attempt>` that last completed the stream; None in a copy.
    completed_by: str | None = None
    #: The row says from which log the stream is, or was, read.
    is_logged: bool = False
    #: The bookmark has hashes of the records at it, so that an append does not write these again.
    knows_records: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """State of a pipeline, from the ledger or from the run store's copy."""

    streams: tuple[StreamState, ...]
    is_copy: bool
    notes: tuple[str, ...]


def read_state(session: PipelineSession, store: Store | None, *, has_refused: bool = False) -> State:
    """Return the state from the ledger, or the run store's copy if the destination cannot be reached.

    Args:
        session: the opened pipeline.
        store: the run store, if there is one.
        has_refused: the source may refuse streams of the file: then those that have run are returned.
    """
    session.use_store(store)
    pipeline, notes = session.pipeline.pipeline, list[str]()
    copies = store.states(pipeline) if store is not None else []
    tables = [copy.destination_table for copy in copies]
    try:
        tables += [stream.destination_table for stream in selected_streams(session)]
    except ConnectorError as error:
        notes.append(f"the source cannot be reached, only streams that have run are shown: {error}")
    except ConfigError:
        if not has_refused:
            raise
    try:
        described = session.destination.describe(list(dict.fromkeys(tables))) if tables else {}
    except ConnectorError as error:
        notes.append(f"the destination cannot be reached, this is the run store's copy: {error}")
        shown = tuple(
            StreamState(
                stream=copy.stream,
                destination_table=copy.destination_table,
                bookmark=copy.bookmark,
                source=copy.source,
                rows=copy.rows,
                at=copy.saved_at,
            )
            for copy in copies
        )
        return State(streams=shown, is_copy=True, notes=tuple(notes))
    lists = session.destination_can.lists_ledger
    listed = [row for table in described.values() for row in table.ledger if row.key.pipeline == pipeline]
    if lists is not None:  # also of streams that neither the source offers nor the run store knows
        listed += lists.rows_of(pipeline, list(described))
    rows = {row.key: row for row in listed}
    return State(
        streams=tuple(
            StreamState(
                stream=key.stream,
                destination_table=key.destination_table,
                bookmark=row.bookmark,
                source=row.source,
                rows=row.rows,
                at=row.committed_at,
                completed_by=row.completed_by,
                is_logged=bool(row.log),
            )
            for key, row in sorted(rows.items(), key=lambda item: (item[0].stream, item[0].destination_table))
        ),
        is_copy=False,
        notes=tuple(notes),
    )


def refuse_while_running(session: PipelineSession, store: Store | None) -> None:
    """Raise AlreadyRunning if a live process runs the pipeline: it would overwrite the bookmark."""
    run = store.active_run(session.pipeline.pipeline) if store is not None else None
    if store is not None and run is not None and store.owner_state(run) == "alive":
        raise AlreadyRunning(session.pipeline.pipeline, run.id, run.holder)


def set_state(session: PipelineSession, store: Store | None, name: str, texts: Mapping[str, str]) -> StreamState:
    """Set a stream's bookmark; `texts` has a value for each of its bookmark_properties.

    Raises:
        ConfigError: no such stream, not INCREMENTAL, wrong columns, or a value of another type.
        StateError: the table is another program's, or was dropped after a commit.
        AlreadyRunning: the pipeline is running.
    """
    refuse_while_running(session, store)
    session.use_store(store)
    selected = one_stream(selected_streams(session), name)
    is_log = is_logged(selected.stream)
    bookmark = _place_in_log(session, selected, texts) if is_log else bookmark_of_texts(selected, texts)
    _refuse_lost(session, store, selected)
    return write_bookmark(session, store, selected, bookmark, accepts=True)


def rewind_state(
    session: PipelineSession,
    store: Store | None,
    name: str,
    *,
    to: Mapping[str, str] | None = None,
    by: str | None = None,
    run_id: int | None = None,
) -> tuple[StreamState, Bookmark]:
    """Move a stream's bookmark back: the next run reads the records at or past it again.

    Args:
        session: the opened pipeline.
        store: the run store, if there is one.
        name: the stream.
        to: a value for each of its bookmark_properties.
        by: an amount to subtract from the only bookmark property: a number, or `1d12h` for times.
        run_id: go back to the bookmark after this run.

    Returns:
        The new state, and the former bookmark.

    Raises:
        ConfigError: no such stream, no bookmark yet, a value of another type, or a value past the current bookmark.
        StateError: the table was restored to an older version, and an append cannot recognize the records in it.
        AlreadyRunning: the pipeline is running.
    """
    refuse_while_running(session, store)
    session.use_store(store)
    selected = one_stream(selected_streams(session), name)
    stream = selected.stream
    _refuse_log(selected)
    present = _present(session, selected)
    if run_id is not None:
        wanted = _left_by(store, session.pipeline.pipeline, stream, run_id)
    elif by is not None:
        wanted = _taken_off(stream, present, by)
    else:
        wanted = bookmark_of_texts(selected, to or {})
    new, old = bookmark_values(stream, wanted), bookmark_values(stream, present)
    if new is not None and old is not None and is_ahead(stream, new, old):
        shown = ", ".join(f"{column}={present[column]}" for column in stream.read.bookmark_properties)
        raise ConfigError(
            f"is past the current bookmark of stream {name!r} ({shown}): records between the two would never be read; "
            "`syncblocks state set` sets it nevertheless",
            key="STREAM",
        )
    key = key_of(session, selected)
    table, _ = _table_and_row(session, key)
    if key not in table.rolled_back or stream.keeps_own_bookmark:
        return write_bookmark(session, store, selected, wanted), present
    wanted = in_restored_table(session, selected, table, key, wanted)
    return replace(write_bookmark(session, store, selected, wanted), knows_records=BOUNDARY in wanted), present


def _place_in_log(session: PipelineSession, selected: Configured, texts: Mapping[str, str]) -> dict[str, Any]:
    """Return a place in the log as a bookmark, if the source still has the log from there on."""
    if set(texts) != {LOG_POSITION}:
        text = f"stream {selected.name!r} is LOG_BASED: say its place in the log, as `state show` does"
        raise ConfigError(text, key="COLUMN=VALUE", allowed=(LOG_POSITION,))
    _, row = _table_and_row(session, key_of(session, selected))
    reads = session.source_can.reads_log
    if reads is None or row is None or not position_of(row):
        text = f"stream {selected.name!r} has no place in the log yet: the next run copies its table"
        raise ConfigError(text, key="STREAM")
    name = log_name(session.pipeline.pipeline, session.source_name, session.destination.identity())
    bookmark = dict(texts)
    if missing := reads.look_at_log(name, [], [replace(row, bookmark=bookmark)]).missing:
        raise ConfigError("; ".join(missing), key="COLUMN=VALUE")
    return bookmark


def _refuse_log(selected: Configured) -> None:
    if is_logged(selected.stream):
        raise ConfigError(
            f"stream {selected.name!r} is LOG_BASED: its source keeps no older log; `syncblocks state reset` makes the "
            "next run copy the table",
            key="STREAM",
        )


def _present(session: PipelineSession, selected: Configured) -> Bookmark:
    _, row = _table_and_row(session, key_of(session, selected))
    if row is None or not row.bookmark:
        is_full = selected.stream.read.method is not ReplicationMethod.INCREMENTAL
        reason = "is FULL_TABLE: every run reads all of it" if is_full else "has no bookmark yet"
        raise ConfigError(f"stream {selected.name!r} {reason}; there is nothing to rewind", key="STREAM")
    return row.bookmark


def _left_by(store: Store | None, pipeline: str, stream: Stream, run_id: int) -> Bookmark:
    """Return a stream's bookmark after a run, without the hashes of the records at the bookmark."""
    runs = {run.id: run for run in store.runs(pipeline, limit=10_000)} if store is not None else {}
    if store is None or run_id not in runs:
        raise ConfigError(
            f"there is no run {run_id} of this pipeline", key="--run", allowed=tuple(map(str, list(runs)[:20]))
        )
    found = [each.bookmark_after for each in store.block_runs(run_id) if each.stream == stream.name]
    bookmarks = [bookmark for bookmark in found if bookmark]
    if not bookmarks:
        raise ConfigError(f"run {run_id} has no bookmark of stream {stream.name!r}", key="--run")
    last: dict[str, Any] = dict(bookmarks[-1])
    return last if stream.keeps_own_bookmark else {key: value for key, value in last.items() if key != BOUNDARY}


def _taken_off(stream: Stream, present: Bookmark, by: str) -> Bookmark:
    names = stream.read.bookmark_properties
    if len(names) != 1:
        raise ConfigError(
            f"stream {stream.name!r} has {len(names)} bookmark_properties: say `--to` with a value for each", key="--by"
        )
    kind = stream.schema.field(names[0]).type
    amount = _amount(by, is_moment=pa.types.is_timestamp(kind) or pa.types.is_date(kind))
    if not can_look_back(kind) or amount is None:
        allowed = "a time like 1d, 12h, 30m or 45s" if pa.types.is_temporal(kind) else "a number"
        hint = allowed if can_look_back(kind) else f"nothing can be taken off a {kind}; say `--to`"
        raise ConfigError(f"--by {by!r} fits no column of type {kind}: {hint}", key="--by")
    lower = lower_bound(replace(stream, read=replace(stream.read, lookback=amount)), bookmark_values(stream, present))
    try:
        if lower is not None:
            return {names[0]: to_json(lower[0])}
    except (ValueError, OverflowError):  # before the year 1
        lower = None
    raise ConfigError(f"--by {by!r} is further back than {kind} reaches; `state reset` starts over", key="--by")


def _amount(text: str, *, is_moment: bool) -> float | None:
    """Parse a number, or seconds from `1d12h`; None if it is neither, or not positive."""
    if is_moment and (seconds := span_s(text)) is not None:
        return seconds
    try:
        amount = float(text) if "." in text else int(text)
    except ValueError:
        return None
    return amount if amount > 0 and not is_moment else None


def key_of(session: PipelineSession, selected: Configured) -> LedgerKey:
    return LedgerKey(
        pipeline=session.pipeline.pipeline, stream=selected.name, destination_table=selected.destination_table
    )


def _table_and_row(session: PipelineSession, key: LedgerKey) -> tuple[TableState, LedgerRow | None]:
    table = session.destination.describe([key.destination_table])[key.destination_table]
    return table, ledger_row(table, key)


def _number(text: str, field: pa.Field) -> Decimal:
    with suppress(ArithmeticError):
        if (number := Decimal(text)).is_finite():
            return number
    raise ConfigError(f"{text!r} is no value of column {field.name!r}: write it as a number", key="COLUMN=VALUE")


def _refuse_lost(session: PipelineSession, store: Store | None, selected: Configured) -> None:
    """Raise if a bookmark would have no effect: the table is not ours, or it was dropped after a commit."""
    key, name = key_of(session, selected), selected.name
    table, row = _table_and_row(session, key)
    is_known = table.ledger or (store is not None and _is_known(store, key))
    if table.schema is not None and not table.is_empty and not is_known:
        raise StateError(
            f"table {key.destination_table!r} holds records, and no pipeline of syncblocks has written it; "
            f"`syncblocks state adopt {name} COLUMN=VALUE` checks it and sets the bookmark"
        )
    if table.schema is None and table.is_described and row is not None and row.committed_at is not None:
        raise StateError(
            f"table {key.destination_table!r} is gone: a run starts from scratch, whatever the bookmark; "
            f"`syncblocks state reset --forget {name}` first, and the bookmark counts before the first run"
        )


def write_bookmark(
    session: PipelineSession,
    store: Store | None,
    selected: Configured,
    bookmark: Bookmark | None,
    *,
    accepts: bool = False,
) -> StreamState:
    """Write a bookmark to the ledger, then to the store's copy; `accepts`: also the stream's query and filter."""
    name, key = selected.name, key_of(session, selected)
    _, row = _table_and_row(session, key)
    source = source_of(session.source_name, selected)
    if row is not None and not (accepts and unmarked(row.source) == session.source_name):
        source = row.source
    if row is None or row.source != source:
        # No commit has made the row: it must name the source of the bookmark.
        session.destination.take_over(key, token=secrets.token_hex(16), owner="set by hand", source=source)
    session.destination.set_bookmark(key, bookmark)
    state = StreamState(
        stream=name,
        destination_table=key.destination_table,
        bookmark=bookmark,
        source=source,
        rows=None if row is None else row.rows,
        at=None if row is None else row.committed_at,
    )
    if store is not None:
        copy = StateCopy(
            stream=name,
            destination_table=state.destination_table,
            source=state.source,
            bookmark=None if bookmark is None else dict(bookmark),
            rows=state.rows,
        )
        store.save_state(session.pipeline.pipeline, copy)
    return state


def _is_known(store: Store, key: LedgerKey) -> bool:
    return any(
        (copy.stream, copy.destination_table) == (key.stream, key.destination_table)
        for copy in store.states(key.pipeline)
    )


def reset_state(session: PipelineSession, store: Store | None, name: str, *, forget: bool) -> tuple[LedgerKey, ...]:
    """Delete a stream's bookmark, or with `forget` its ledger row; return the keys of the changed rows.

    Raises:
        ConfigError: neither the ledger nor the run store has such a stream.
        AlreadyRunning: the pipeline is running.
    """
    refuse_while_running(session, store)
    known = read_state(session, store, has_refused=True)
    if known.is_copy:
        raise StateError(known.notes[-1])
    copies = store.states(session.pipeline.pipeline) if store is not None else []
    in_ledger = [row for row in known.streams if row.stream == name]
    in_store = [copy for copy in copies if copy.stream == name]
    if not in_ledger and not in_store:
        names = sorted({row.stream for row in known.streams} | {copy.stream for copy in copies})
        raise ConfigError(
            f"stream {name!r} has no state", key="STREAM", allowed=tuple(names), nearest=nearest_match(name, names)
        )
    pipeline = session.pipeline.pipeline
    if forget and any(row.is_logged for row in in_ledger):
        raise ConfigError(
            f"the ledger row of stream {name!r} says which slot is ours: `syncblocks log drop` first", key="--forget"
        )
    for row in in_ledger:
        key = LedgerKey(pipeline=pipeline, stream=name, destination_table=row.destination_table)
        session.destination.set_bookmark(key, None, forget=forget)
    places = {copy.destination_table: copy.source for copy in in_store}
    places |= {row.destination_table: row.source for row in in_ledger}
    for table, source in places.items():
        if store is None:
            continue
        if forget:
            store.delete_state(pipeline, name, table)
        else:
            store.save_state(pipeline, StateCopy(stream=name, destination_table=table, source=source))
    return tuple(LedgerKey(pipeline=pipeline, stream=name, destination_table=table) for table in places)


def bookmark_of_texts(selected: Configured, texts: Mapping[str, str]) -> dict[str, Any]:
    names = selected.stream.read.bookmark_properties
    if selected.stream.read.tracks_files:
        raise ConfigError(
            f"stream {selected.name!r} reads the files that are new, which no value says; `syncblocks state rewind` "
            "makes it read files again",
            key="STREAM",
        )
    if not names:
        raise ConfigError(
            f"stream {selected.name!r} is FULL_TABLE: it has no bookmark to set; "
            "say `replication_method: INCREMENTAL` and `bookmark_properties`",
            key="STREAM",
        )
    for column in texts:
        if column not in names:
            raise ConfigError(
                f"{column!r} is not a bookmark property of {selected.name!r}",
                key="COLUMN=VALUE",
                allowed=names,
                nearest=nearest_match(column, names),
            )
    missing = [column for column in names if column not in texts]
    if missing:
        raise ConfigError(f"a value for {', '.join(missing)} is missing", key="COLUMN=VALUE", allowed=names)
    bookmark = {}
    for column in names:
        field = selected.stream.schema.field(column)
        kind = field.type
        if is_number_in_text(field):
            _number(texts[column], field)
        text = texts[column]
        if pa.types.is_timestamp(kind) and kind.tz and _DATE.fullmatch(text):
            text += "T00:00:00+00:00"
        try:
            bookmark[column] = to_json(from_json(text, kind, column=column, stream=selected.name))
        except ConnectorConfigError as error:
            text = f"{texts[column]!r} is no value of column {column!r} ({type_text(kind)}): {_example(kind)}"
            raise ConfigError(text, key="COLUMN=VALUE") from error
    return bookmark


def _example(kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        zone = "+00:00" if kind.tz else ""
        return f"write it like 2024-01-31T23:59:00{zone}{'' if zone else ', without a zone'}"
    if pa.types.is_date(kind):
        return "write it like 2024-01-31"
    return "write it as the source shows it"
