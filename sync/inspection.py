"""What the command line looks at and changes beside running: previews, counts, state. Prints nothing."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pyarrow as pa

from connectors.bookmarks import from_json, to_json
from connectors.errors import ConnectorConfigError, ConnectorError
from connectors.registry import make_source
from connectors.stream import Bookmark, LedgerKey, ReplicationMethod, Stream

from .catalog import SelectedStream, select_streams
from .config import Pipeline, config_error_from_connector, glob_matches
from .errors import AlreadyRunning, ConfigError, StateError, nearest_match
from .session import Session, open_session
from .store import Store
from .store.model import StateCopy
from .subscriptions import applies
from .transform import Transformer


@contextmanager
def opened(pipeline: Pipeline) -> Iterator[Session]:
    """Open a pipeline's connectors and user code for a while.

    Raises:
        ConfigError: settings, callback or transformer files are wrong, or a connector says so later.
    """
    session = open_session(pipeline)
    try:
        yield session
    except ConnectorConfigError as error:
        raise config_error_from_connector(pipeline, _role(pipeline, error), error) from error
    finally:
        session.close()


@contextmanager
def existing_store(pipeline: Pipeline) -> Iterator[Store | None]:
    """Open the run store for a while if there is one; create none."""
    if not Store.exists(pipeline.store_url):
        yield None
        return
    store = Store.open(pipeline.store_url)
    try:
        yield store
    finally:
        store.close()


def selected_streams(session: Session, globs: Sequence[str] = ()) -> tuple[SelectedStream, ...]:
    """Ask the source for its catalog and return the selected streams that match.

    Raises:
        ConfigError: the `streams` entries do not fit the catalog, or a glob matches none of them.
        ConnectorError: the source cannot be reached.
    """
    selected = select_streams(session.pipeline, session.source.discover())
    if not globs:
        return selected
    names = [stream.name for stream in selected]
    matched = set(matching(names, globs))
    return tuple(stream for stream in selected if stream.name in matched)


def matching(names: Sequence[str], globs: Sequence[str]) -> list[str]:
    """Return the names that a `--stream` matches, in their order.

    Raises:
        ConfigError: a glob matches none of them.
    """
    for glob in globs:
        if not any(name == glob or glob_matches(glob, name) for name in names):
            raise ConfigError(
                f"{glob!r} matches no stream",
                key="--stream",
                allowed=tuple(names[:20]),
                nearest=nearest_match(glob, names),
            )
    return [name for name in names if not globs or any(name == glob or glob_matches(glob, name) for glob in globs)]


# -- preview -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The first records of a stream, as they would arrive at the destination."""

    stream: str
    destination_table: str
    #: Column name -> type, in order.
    columns: Mapping[str, str]
    #: JSON values, keys are column names.
    records: tuple[dict[str, Any], ...]


def preview(session: Session, name: str, limit: int) -> Preview:
    """Read the first records of a selected stream from scratch, through its transformers; write nothing."""
    selected = _one(selected_streams(session), name)
    # As a full table: no order is needed, so that the first records come at once.
    stream = replace(selected.stream, replication_method=ReplicationMethod.FULL_TABLE, bookmark_properties=())
    transformers = _transformers(session, selected)
    schema, records = _declared(stream, transformers).schema, list[dict[str, Any]]()
    if limit > 0:
        with closing(session.source.read([stream], {stream.name: None})) as events:  # type: ignore[type-var]
            for _, event in events:
                if isinstance(event, Stream):
                    stream, schema = event, _declared(event, transformers).schema
                if not isinstance(event, pa.RecordBatch):
                    continue
                batch = _apply(transformers, event.slice(0, max(limit * 10, 1000)), stream)
                schema = batch.schema
                records += [_json_record(record) for record in batch.slice(0, limit - len(records)).to_pylist()]
                if len(records) >= limit:
                    break
    return Preview(
        stream=name,
        destination_table=selected.destination_table,
        columns={field.name: str(field.type) for field in schema},
        records=tuple(records),
    )


def _transformers(session: Session, selected: SelectedStream) -> list[Transformer]:
    from callbacks.kwargs import hydrate

    pipeline, made = session.pipeline, []
    for block in pipeline.transformers:
        if not applies(block.streams, selected.name):
            continue
        execution_date = pipeline.execution_date.isoformat()
        kwargs = hydrate(
            {
                **pipeline.variables,
                "block_uuid": block.block,
                "stream": selected.name,
                "destination_table": selected.destination_table,
                "pipeline_uuid": pipeline.pipeline,
                "pipeline_run": {
                    "id": 0,  # no run is made
                    "pipeline_uuid": pipeline.pipeline,
                    "execution_date": execution_date,
                    "variables": pipeline.variables,
                },
                "ds": pipeline.ds,
                "hr": pipeline.hr,
                "execution_date": execution_date,
                "execution_partition": pipeline.execution_partition,
                "event": {},
            }
        )
        functions = [_bound(function, kwargs) for function in session.code.transformers[block.block]]
        made.append(Transformer(block.block, functions, block.rename or {}))
    return made


def _bound(function: Any, kwargs: Mapping[str, Any]) -> Any:
    def call(frame: Any) -> Any:
        positional, named = function.binding.arguments(kwargs, frame)
        return function.function(*positional, **named)

    return call


def _declared(stream: Stream, transformers: Sequence[Transformer]) -> Stream:
    for transformer in transformers:
        stream = transformer.stream(stream)
    return stream


def _apply(transformers: Sequence[Transformer], batch: pa.RecordBatch, stream: Stream) -> pa.RecordBatch:
    for transformer in transformers:
        batch = transformer.apply(batch, stream)
        stream = transformer.stream(stream)
    return batch


def _json_record(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: json_value(value) for name, value in record.items()}


def json_value(value: Any) -> Any:
    """Return a value of a record as JSON, nested ones too."""
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    return to_json(value)


# -- count -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCount:
    """How many records a stream has on both sides."""

    stream: str
    destination_table: str
    source: int
    #: None: there is no such table, or it cannot be counted.
    destination: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The counts of several streams."""

    streams: tuple[StreamCount, ...]
    #: Why the destination was not counted; None: it was.
    note: str | None


def count_streams(session: Session, globs: Sequence[str] = ()) -> Counts:
    """Count the selected streams in the source, and their tables in the destination as far as that goes."""
    selected = selected_streams(session, globs)
    in_source = {stream.name: session.source.count(stream.stream) for stream in selected}
    note, in_tables = None, dict[str, int]()
    try:
        in_tables = _count_tables(session, [stream.destination_table for stream in selected])
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
    )


def _count_tables(session: Session, tables: Sequence[str]) -> dict[str, int]:
    """Count destination tables by reading the destination as a source, where its connector is one."""
    described = session.destination.describe(list(dict.fromkeys(tables)))
    names = {table: state.stream_name or table for table, state in described.items() if state.schema is not None}
    if not names:
        return {}
    session.destination.close()  # some databases open a file only once
    block = session.pipeline.destination
    reader = make_source(block.connector, block.config, session.pipeline.folder)
    try:
        offered = {stream.name: stream for stream in reader.discover()}
        return {table: reader.count(offered[name]) for table, name in names.items() if name in offered}
    finally:
        reader.close()


# -- state -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """Where one stream of the pipeline stands."""

    stream: str
    destination_table: str
    bookmark: Bookmark | None
    source: str
    rows: int | None
    #: Last commit (ledger), or when the copy was made (store).
    at: datetime | None
    #: `<run key>:<attempt>` that last completed it; only the ledger knows.
    completed_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """State of a pipeline: the ledger's, or the store's copy of it."""

    streams: tuple[StreamState, ...]
    is_copy: bool
    notes: tuple[str, ...]


def read_state(session: Session, store: Store | None) -> State:
    """Return the ledger's rows of this pipeline; the store's copy where the destination cannot be reached."""
    session.use_store(store)
    pipeline, notes = session.pipeline.pipeline, list[str]()
    copies = store.states(pipeline) if store is not None else []
    tables = [copy.destination_table for copy in copies]
    try:
        tables += [stream.destination_table for stream in selected_streams(session)]
    except ConnectorError as error:
        notes.append(f"the source cannot be reached, only streams that have run are shown: {error}")
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
    rows = {row.key: row for table in described.values() for row in table.ledger if row.key.pipeline == pipeline}
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
            )
            for key, row in sorted(rows.items(), key=lambda item: (item[0].stream, item[0].destination_table))
        ),
        is_copy=False,
        notes=tuple(notes),
    )


def refuse_while_running(session: Session, store: Store | None) -> None:
    """Raise AlreadyRunning while a living process runs the pipeline: it would write its own bookmark over ours."""
    run = store.active_run(session.pipeline.pipeline) if store is not None else None
    if store is not None and run is not None and store.owner_state(run) == "alive":
        raise AlreadyRunning(session.pipeline.pipeline, run.id, str(run.owner))


def set_state(session: Session, store: Store | None, name: str, texts: Mapping[str, str]) -> StreamState:
    """Set a stream's bookmark by hand: each of its bookmark_properties, in the type of its column.

    Raises:
        ConfigError: no such stream, not INCREMENTAL, wrong columns, or a value that is none of the column's type.
        StateError: there is no destination table yet.
        AlreadyRunning: the pipeline is running.
    """
    refuse_while_running(session, store)
    session.use_store(store)
    selected = _one(selected_streams(session), name)
    bookmark = _bookmark(selected, texts)
    key = LedgerKey(pipeline=session.pipeline.pipeline, stream=name, destination_table=selected.destination_table)
    table = session.destination.describe([key.destination_table])[key.destination_table]
    if table.schema is None and table.is_described:
        raise StateError(
            f"table {key.destination_table!r} is not there yet: a run starts from scratch, whatever the bookmark"
        )
    row = next((row for row in table.ledger if row.key == key), None)
    if row is None:
        # A row that nobody's commit has made: it must say which source the bookmark belongs to.
        source = session.source.identity()
        session.destination.take_over(key, token=secrets.token_hex(16), owner="set by hand", source=source)
    session.destination.set_bookmark(key, bookmark)
    state = StreamState(
        stream=name,
        destination_table=key.destination_table,
        bookmark=bookmark,
        source=session.source.identity() if row is None else row.source,
        rows=None if row is None else row.rows,
        at=None if row is None else row.committed_at,
    )
    if store is not None:
        copy = StateCopy(
            stream=name,
            destination_table=state.destination_table,
            source=state.source,
            bookmark=bookmark,
            rows=state.rows,
        )
        store.save_state(session.pipeline.pipeline, copy)
    return state


def reset_state(session: Session, store: Store | None, name: str, *, forget: bool) -> tuple[LedgerKey, ...]:
    """Take a stream's bookmark away, or (forget) its whole ledger row; return the rows that were changed.

    Raises:
        ConfigError: neither ledger nor store know such a stream.
        AlreadyRunning: the pipeline is running.
    """
    refuse_while_running(session, store)
    known = read_state(session, store)
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


def _bookmark(selected: SelectedStream, texts: Mapping[str, str]) -> dict[str, Any]:
    names = selected.stream.bookmark_properties
    if not names:
        raise ConfigError(
            f"stream {selected.name!r} is FULL_TABLE: it has no bookmark to set; "
            "say `replication_method: INCREMENTAL` and `bookmark_properties`",
            key="STREAM",
        )
    for column in texts:
        if column not in names:
            raise ConfigError(
                f"{column!r} is none of the bookmark_properties of {selected.name!r}",
                key="COLUMN=VALUE",
                allowed=names,
                nearest=nearest_match(column, names),
            )
    missing = [column for column in names if column not in texts]
    if missing:
        raise ConfigError(f"a value for {', '.join(missing)} is missing", key="COLUMN=VALUE", allowed=names)
    bookmark = {}
    for column in names:
        kind = selected.stream.schema.field(column).type
        try:
            bookmark[column] = to_json(from_json(texts[column], kind, column=column, stream=selected.name))
        except ConnectorConfigError as error:
            raise ConfigError(
                f"{texts[column]!r} is no value of column {column!r} ({kind}): {_example(kind)}", key="COLUMN=VALUE"
            ) from error
    return bookmark


def _example(kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        zone = "+00:00" if kind.tz else ""
        return f"write it like 2024-01-31T23:59:00{zone}{'' if zone else ', without a zone'}"
    if pa.types.is_date(kind):
        return "write it like 2024-01-31"
    return "write it as the source shows it"


def _one(selected: Sequence[SelectedStream], name: str) -> SelectedStream:
    for stream in selected:
        if stream.name == name:
            return stream
    names = [stream.name for stream in selected]
    raise ConfigError(
        f"{name!r} is none of the selected streams",
        key="--stream",
        allowed=tuple(names[:20]),
        nearest=nearest_match(name, names),
    )


def _role(pipeline: Pipeline, error: ConnectorConfigError) -> str:
    is_source = error.connector == pipeline.source.connector and error.connector != pipeline.destination.connector
    return "source" if is_source else "destination"
