"""Opened pipelines for commands that run nothing: selected streams and counts. Prints nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from syncblocks.connectors.errors import ConnectorConfigError, ConnectorError
from syncblocks.connectors.stream import LedgerKey, LedgerRow, Stream, TableState
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WrittenRange

from ..config import Pipeline, config_error_from_connector, put_at_its_place
from ..delivery.masked_output import masked_output
from ..plan.plan import PlannedStream
from ..plan.planning import plan_streams
from ..plan.selected_stream import SelectedStream
from ..plan.selection import select_streams
from ..store import Store
from .destination_reader import copy_of, destination_reader, live_records, offered_streams, within
from .session import PipelineSession, open_session, role_of


@contextmanager
def opened(pipeline: Pipeline) -> Iterator[PipelineSession]:
    """Open a pipeline's connectors and user code; close them with the context.

    Raises:
        ConfigError: settings, callback files or transformer files are wrong.
    """
    session = open_session(pipeline)
    try:
        with masked_output(session.redactor), placed_errors(pipeline):
            yield session
    finally:
        session.close()


@contextmanager
def placed_errors(pipeline: Pipeline, role: str | None = None) -> Iterator[None]:
    """Show file and line of the setting with each error of a connector; `role` None: the error tells whose it is."""
    try:
        yield
    except ConnectorConfigError as error:
        raise config_error_from_connector(pipeline, role or role_of(pipeline, error), error) from error
    except ConnectorError as error:
        put_at_its_place(pipeline, role or role_of(pipeline, error), error)
        raise


@contextmanager
def existing_store(pipeline: Pipeline) -> Iterator[Store | None]:
    """Open the run store if it exists; close it with the context. Creates nothing."""
    if not Store.exists(pipeline.store_url):
        yield None
        return
    store = Store.open(pipeline.store_url)
    try:
        yield store
    finally:
        store.close()


def has_run(pipeline: Pipeline) -> bool:
    """Tell whether the run store knows a run of a pipeline."""
    with existing_store(pipeline) as store:
        return store is not None and store.latest_run(pipeline.pipeline) is not None


def selected_streams(session: PipelineSession) -> tuple[SelectedStream, ...]:
    """Ask the source for its catalog and return the selected streams, also those that their `when` leaves out now.

    What a stream has and needs between two runs does not depend on the run that would come next.

    Raises:
        ConfigError: an entry of `streams` matches nothing.
        ConnectorError: the source cannot be reached.
    """
    return select_streams(session.pipeline, session.select(is_of_run=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCount:
    """Numbers of records of a stream in source and destination."""

    stream: str
    destination_table: str
    source: int
    #: None: the table does not exist or cannot be counted.
    destination: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The counts of several streams."""

    streams: tuple[StreamCount, ...]
    #: Why the destination was not counted; None if it was.
    note: str | None
    #: Streams that were not counted, since their `when` is false -> the condition.
    left_out: Mapping[str, str] = field(default_factory=dict)
    #: Streams that were not counted, since there is nothing to read them from -> why.
    absent: Mapping[str, str] = field(default_factory=dict)


def count_streams(session: PipelineSession, globs: Sequence[str] = (), tags: Sequence[str] = ()) -> Counts:
    """Count the selected streams in the source, and their tables in the destination if possible."""
    selection = session.select(globs, tags=tags)
    selected = select_streams(session.pipeline, selection)
    in_source = {stream.name: session.source.count(stream.stream) for stream in selected}
    note, in_tables = None, dict[str, int]()
    try:
        in_tables = _count_tables(session, selected)
    except ConnectorError as error:
        note = f"the destination was not counted: {error}"
    return Counts(
        streams=tuple(
            StreamCount(
                stream=stream.name,
                destination_table=stream.destination_table,
                source=in_source[stream.name],
                destination=in_tables.get(stream.destination_table),
            )
            for stream in selected
        ),
        note=note,
        left_out=selection.left_out,
        absent=selection.absent,
    )


def plan_alone(session: PipelineSession, selected: SelectedStream, table: TableState, key: LedgerKey) -> PlannedStream:
    """Plan one stream as if its table had a ledger row without a bookmark."""
    row = LedgerRow(key=key, source=session.source_name, token="")
    tables = {selected.destination_table: replace(table, ledger=(row,), rolled_back=frozenset())}
    now = session.clock.now()
    plan = plan_streams(session.pipeline, [selected], tables, {}, session.code, connectors=session.connectors, now=now)
    return plan.streams[0]


def _count_tables(session: PipelineSession, selected: Sequence[SelectedStream]) -> dict[str, int]:
    """Count destination tables; the destination is opened as a source."""
    described = session.destination.describe(list(dict.fromkeys(stream.destination_table for stream in selected)))
    if all(state.schema is None for state in described.values()):
        return {}
    with destination_reader(session) as reader:
        offered, found = offered_streams(reader, described.values()), {}
        for stream in selected:
            state = described[stream.destination_table]
            copy = copy_of(state, offered)
            if copy is not None and stream.destination_table not in found:
                copy = _ranged(live_records(copy, stream), state, stream.write.written_range)
                found[stream.destination_table] = reader.source.count(copy)
        return found


def _ranged(copy: Stream, state: TableState, written: WrittenRange | None) -> Stream:
    """Return the records that a source is counted for: those of the interval, where the column has the same name."""
    if written is None or written.interval is None:
        return copy
    return within(copy, state, written.column, written.interval) or copy
