"""LOG_BASED streams: what both ends must have, and which ledger rows hold the log."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from syncblocks.connectors.capabilities import Capabilities
from syncblocks.connectors.log_based import (
    GENERATED,
    UNLOGGED,
    WHOLE,
    GivenUp,
    LogLook,
    changes_stream,
    logged_rows,
    position_of,
)
from syncblocks.connectors.protocols import Capability, Destination
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.stream import DELETED_AT, LedgerRow, Stream, TableState
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition

from ...config import Pipeline
from ...config.globs import glob_matches
from ...config.load import render_destination_table
from ...errors import ConfigError
from ...store import Store
from ...store.model import FAILURE
from ..plan import Connectors, PlannedStream
from ..refusals import stream_error
from ..selected_stream import SelectedStream

_SLUG = re.compile(r"[^a-z0-9]+")

#: What a glob has in place of letters of a name; the schema before it is most often written out.
_GLOB = re.compile(r"[^\w.]+")


def is_logged(stream: Stream) -> bool:
    """Tell whether a stream is read out of the log."""
    return stream.read.method is ReplicationMethod.LOG_BASED


def check_log(
    pipeline: Pipeline,
    stream: SelectedStream,
    row: LedgerRow | None,
    connectors: Connectors,
    others: Sequence[str],
    *,
    is_anew: bool,
) -> None:
    """Refuse a LOG_BASED stream that one of both ends cannot serve.

    Raises:
        ConfigError: see above.
    """
    reads, notes = connectors.source_can.reads_log, connectors.destination_can.notes_log
    if reads is None:
        text = f"LOG_BASED: {pipeline.source.connector} does not have a log that is read"
        raise pipeline.error(
            (*stream.policy.location[:2], "replication_method"),
            f"stream {stream.name!r}: {text}. Use INCREMENTAL with bookmark_properties, or the source `postgres`",
            allowed=("FULL_TABLE", "INCREMENTAL"),
        )
    reason = reads.why_not_logged(stream.stream)
    if notes is None:
        reason = f"{pipeline.destination.connector} keeps no ledger, in which the place in the log would stand"
    if pipeline.executor.is_elsewhere:
        reason = "the log is read by one process: `executor: threads`"
    if any(condition.of_interval for condition in stream.stream.read.where):
        reason = "`where` cannot be of a run's interval: what it left out is not read again"
    generated = stream.stream.locator.get(GENERATED, ())
    if unknown := [each.field.name for each in stream.stream.read.where if each.field.name in generated]:
        reason = f"`where` asks for the generated column {unknown[0]!r}, which is not in the log: ask for its sources"
    is_of_log = row is not None and row.log and (row.bookmark is None or position_of(row))
    if row is not None and row.committed_at is not None and not is_of_log and not is_anew:
        reason = (
            "its log was dropped, or another replication method wrote its table: run once with `run --full-refresh`"
        )
    masks, key = stream.stream.read.masks, stream.stream.locator.get("key", ())
    hidden = [name for name in key if masks is not None and name in masks.fields]
    if hidden and stream.write.disposition is WriteDisposition.APPEND:
        reason = (
            f"its key ({', '.join(hidden)}) is masked, so that an append has no former keys: merge it, or show the key"
        )
    if stream.write.disposition is WriteDisposition.MERGE:
        reason = reason or _why_no_merge(pipeline, stream, connectors, others)
    if reason:
        raise stream_error(pipeline, stream, f"LOG_BASED: {reason}")


def _why_no_merge(pipeline: Pipeline, stream: SelectedStream, connectors: Connectors, others: Sequence[str]) -> str:
    """Say why changes of a stream cannot be merged; empty: they can."""
    if Capability.APPLIES_CHANGES not in connectors.destination_can:
        return f"its merge is not built for {pipeline.destination.connector} yet: say `write_disposition: append`"
    own_key = stream.stream.locator.get("key", ())
    if not own_key:
        return "its table has no primary key, by which it is merged: add one, or say `write_disposition: append`"
    if set(stream.stream.key_properties) != set(own_key):
        return f"it is merged by its table's primary key ({', '.join(own_key)}): say no other key"
    if others:
        return f"its table is written by others as well ({', '.join(others)}), whose records a TRUNCATE would delete"
    return ""


def with_whole_records(pipeline: Pipeline, stream: SelectedStream) -> SelectedStream:
    """Return a stream whose records pass functions of transformers: these need all values.

    Raises:
        ConfigError: it has no key, which is all that a delete has.
    """
    if not stream.stream.locator.get("key"):
        raise stream_error(pipeline, stream, "LOG_BASED: functions of transformers need a table with a primary key")
    whole = replace(stream.stream, locator={**stream.stream.locator, WHOLE: True})
    return replace(stream, stream=whole)


def check_arrival(pipeline: Pipeline, stream: SelectedStream, declared: Stream) -> None:
    """Refuse names of columns that are taken.

    Raises:
        ConfigError: see above.
    """
    if stream.write.disposition is not WriteDisposition.MERGE:
        return
    names = declared.schema.names
    ours = changes_stream(declared).schema.names[len(names) :]
    others = (*names, *stream.policy.added.names)
    if taken := sorted({name.casefold() for name in ours}.intersection(name.casefold() for name in others)):
        raise stream_error(pipeline, stream, f"LOG_BASED: {taken[0]!r} is a name that it gives a column: say another")
    if DELETED_AT in stream.stream.schema.names and DELETED_AT not in names:
        raise stream_error(pipeline, stream, f"LOG_BASED: `rename` of {DELETED_AT!r} is not built for it")


def log_name(pipeline: str, source: str, destination: str) -> str:
    """Return what slot and publication are called: nobody else's are, who reads or writes another place."""
    mark = hashlib.sha256(f"{pipeline}\0{source}\0{destination}".encode()).hexdigest()[:8]
    slug = _SLUG.sub("_", pipeline.lower()).strip("_")[:50]
    return f"{slug or 'pipeline'}_{mark}"


class WithDestination(Protocol):
    """Whatever has a destination."""

    @property
    def destination(self) -> Destination:
        """The destination."""

    @property
    def destination_can(self) -> Capabilities:
        """What it can do."""


def log_rows(pipeline: Pipeline, ends: WithDestination, tables: Sequence[str]) -> list[LedgerRow]:
    """Return the ledger rows of a pipeline's streams that are, or were, read out of the log.

    Args:
        pipeline: the pipeline file; beside each table that it names stands a ledger, also of streams that are left out.
        ends: among them the destination.
        tables: destination tables that are known.
    """
    name, lists = pipeline.pipeline, ends.destination_can.lists_ledger
    said = [
        render_destination_table(entry.destination_table, pipeline, _GLOB.sub("x", entry.stream))
        for entry in pipeline.streams
        if entry.destination_table
    ]
    # Last any table of the usual schema.
    listed = list(dict.fromkeys([*tables, *said, pipeline.destination.table or "x"]))
    if lists is not None:
        return logged_rows(lists.rows_of(name, listed))
    described = ends.destination.describe(listed)
    return logged_rows([row for state in described.values() for row in state.ledger if row.key.pipeline == name])


def holds_log(pipeline: Pipeline, row: LedgerRow) -> bool:
    """Tell whether the file still selects the stream of a row, also where a run leaves it out."""
    matching = [entry for entry in pipeline.streams if glob_matches(entry.stream, row.key.stream)]
    said = [entry.selected for entry in matching if "selected" in entry.model_fields_set]
    return bool(matching) and said[-1:] != [False]


def overdue_log(
    pipeline: Pipeline, selected: Sequence[SelectedStream], connectors: Connectors, store: Store | None
) -> GivenUp:
    """Ask the source what a run gives up of a log that has grown too long."""
    streams = [each.stream for each in selected if is_logged(each.stream)]
    reads = connectors.source_can.reads_log
    if not streams or reads is None or connectors.destination_can.notes_log is None:
        return GivenUp()

    def is_stuck(stream: str) -> bool:
        """Tell whether the last two runs of a stream have failed, and brought it nowhere."""
        if store is None:
            return False
        runs, _ = store.views.stream_runs(pipeline.pipeline, stream, most=2)
        places = [place for run in runs for place in (run.bookmark_before, run.bookmark_after)]
        return len(runs) == 2 and all(run.status == FAILURE and places[0] == place for run in runs for place in places)

    tables = [each.destination_table for each in selected if is_logged(each.stream)]
    name = log_name(pipeline.pipeline, connectors.source_name, connectors.destination.identity())
    return reads.overdue_log(name, streams, lambda: log_rows(pipeline, connectors, tables), is_stuck)


def without_positions(tables: Mapping[str, TableState], given_up: GivenUp) -> Mapping[str, TableState]:
    """Return tables as they are once a run has given up what holds the log for them."""
    keys = {row.key for row in given_up.rows}
    return {
        name: replace(
            table, ledger=tuple(replace(row, bookmark=None) if row.key in keys else row for row in table.ledger)
        )
        for name, table in tables.items()
    }


def look_at_log(
    pipeline: Pipeline, streams: Sequence[PlannedStream], connectors: Connectors, given_up: GivenUp
) -> LogLook:
    """Ask the source what it lacks for its log to be read; return what a person should know.

    Raises:
        ConfigError: something is missing; the error says the statement that mends it.
    """
    logged = [planned for planned in streams if is_logged(planned.stream) and not planned.verdict.refusal]
    reads = connectors.source_can.reads_log
    if not logged or reads is None:
        return LogLook()
    tables = [planned.destination_table for planned in logged]
    rows = log_rows(pipeline, connectors, tables)
    anew = {planned.key for planned in logged if planned.write.disposition is WriteDisposition.REPLACE}
    anew |= {row.key for row in given_up.rows}
    kept = [replace(row, bookmark=None) if row.key in anew else row for row in rows]
    name = log_name(pipeline.pipeline, connectors.source_name, connectors.destination.identity())
    found = reads.look_at_log(name, [planned.stream for planned in logged], kept)
    if found.missing:
        listed = "".join(f"\n  {each}" for each in found.missing)
        raise pipeline.error(("source",), f"the log cannot be read:{listed}")
    copied = [planned.name for planned in logged if planned.start.bookmark is None]
    notes = [f"copied first, and read out of the log from then on: {', '.join(copied)}"] if copied else []
    warnings = (*given_up.warnings, *found.warnings)
    return replace(found, notes=(*notes, *found.notes), warnings=warnings)


def with_unlogged(streams: Sequence[PlannedStream], found: LogLook) -> tuple[tuple[PlannedStream, ...], list[str]]:
    """Return the streams with what `LogLook.unlogged` has of them, and the warnings. A frozen stream will fail."""
    planned, warnings = [], []
    for stream in streams:
        if changes := found.unlogged.get(stream.name, ()):
            locator = {**stream.stream.locator, UNLOGGED: changes}
            stream = replace(stream, stream=replace(stream.stream, locator=locator))
            what = f"{'; '.join(changes)}. The log does not have these values,"
            remedy = f"To copy the table again, run `syncblocks run --full-refresh --stream {stream.name}`"
            if stream.schema.rules.is_frozen:
                refusal = f"{what} and `on_schema_change: freeze` allows no change of the source. {remedy}"
                verdict = replace(stream.verdict, refusal=refusal, is_refused_by_destination=False)
                stream = replace(stream, verdict=verdict)
            else:
                why = f"{what} so records that do not change keep their former values. {remedy}"
                warnings.append(f"stream {stream.name!r}: {why}")
        planned.append(stream)
    return tuple(planned), warnings


def refuse_apart(streams: Sequence[PlannedStream]) -> LogLook:
    """Refuse LOG_BASED streams where each stream is run by itself: one read yields all of them.

    Raises:
        ConfigError: there are some.
    """
    if named := [planned.name for planned in streams if is_logged(planned.stream)]:
        raise ConfigError(
            f"LOG_BASED streams ({', '.join(named)}) are read together: they cannot be tasks of their own"
        )
    return LogLook()


__all__ = [
    "check_arrival",
    "check_log",
    "holds_log",
    "is_logged",
    "log_name",
    "log_rows",
    "look_at_log",
    "overdue_log",
    "refuse_apart",
    "with_unlogged",
    "with_whole_records",
    "without_positions",
]
