"""Adoption of a table that another program, or an append, has written: its records are checked, then it is ours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from msgspec import Struct

from syncblocks.connectors.arrow.declared_types import is_readable
from syncblocks.connectors.arrow.type_names import type_text, yaml_text
from syncblocks.connectors.errors import ConnectorConfigError
from syncblocks.connectors.field_facts import TypeOrigin, facts_of
from syncblocks.connectors.incremental.bookmarks import from_json, to_json
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.stream import TableRecords, TableState
from syncblocks.connectors.write_spec import WriteDisposition

from ..errors import StateError
from ..plan.guessed_types import is_unlike
from ..plan.plan import PlannedStream
from ..plan.policy import Configured
from ..plan.selected_stream import SelectedStream
from ..plan.selection import one_stream
from ..session.inspection import plan_alone, selected_streams
from ..session.session import PipelineSession
from ..store import Store
from ..store.model import StateCopy, StateVersion
from .stream_state import StreamState, bookmark_of_texts, key_of, refuse_while_running, write_bookmark


class Adoption(Struct, frozen=True, kw_only=True):
    """An adopted table."""

    state: StreamState
    #: What the next run will do to the table, and what the user should know.
    notes: tuple[str, ...]


def adopt_table(session: PipelineSession, store: Store | None, name: str, texts: Mapping[str, str]) -> Adoption:
    """Make the table of a stream this pipeline's: the next run goes on from its newest bookmark.

    A table that the stream itself has appended to without a key may be merged from now on; its bookmark stays.

    Args:
        session: the opened pipeline.
        store: the run store, if there is one.
        name: the stream.
        texts: a value for each of its bookmark_properties; empty: the newest in the table.

    Raises:
        ConfigError: no such stream, or a value of another type.
        StateError: the table cannot be adopted; says why, and what to do.
        AlreadyRunning: the pipeline is running.
    """
    refuse_while_running(session, store)
    session.use_store(store)
    selected = one_stream(selected_streams(session), name)
    table = session.destination.describe([selected.destination_table])[selected.destination_table]
    if store is not None and (appended := _appended(session, store, selected, table)) is not None:
        return _merge_appended(session, store, selected, table, appended, texts)
    _refuse_unfit(selected, table)
    planned = plan_alone(session, selected, table, key_of(session, selected))
    if planned.is_schema_decided and (differs := _renamed(planned) or _unfit(planned) or _unlike(selected, planned)):
        raise StateError(differs)
    records = _examined(session, planned, wants_bookmark=not texts)
    if records is not None:
        _refuse_keys(planned, records)
    if (unique := _unique_of_append(planned, records)) and not texts and _is_read_again(planned, records):
        raise StateError(_refused_append(planned, unique))
    bookmark = None
    if selected.stream.read.method is ReplicationMethod.INCREMENTAL:
        bookmark = bookmark_of_texts(planned, texts) if texts else _newest(planned, records)
    elif texts:
        bookmark_of_texts(selected, texts)  # raises: FULL_TABLE has no bookmark
    state = write_bookmark(session, store, selected, bookmark)
    return Adoption(state=state, notes=tuple(_notes(planned, unique)))


def _appended(
    session: PipelineSession, store: Store, selected: SelectedStream, table: TableState
) -> StateVersion | None:
    """Return what the run store knows of a stream that alone has written its table, without a key, and has one now."""
    key = key_of(session, selected)
    if selected.write.disposition is not WriteDisposition.MERGE or {row.key for row in table.ledger} != {key}:
        return None
    known = store.state(key.pipeline, key.stream, key.destination_table)
    return known if known is not None and known.shape is not None and not known.shape["keys"] else None


def _merge_appended(
    session: PipelineSession,
    store: Store,
    selected: SelectedStream,
    table: TableState,
    known: StateVersion,
    texts: Mapping[str, str],
) -> Adoption:
    """Let a merge continue a table that the stream has appended to, if no two of its records have one key."""
    if texts:
        raise StateError("the stream goes on from its bookmark; `syncblocks state set` sets another one")
    planned = plan_alone(session, selected, table, key_of(session, selected))
    records = _examined(session, planned, wants_bookmark=False)
    assert records is not None, "a merge has a key"
    _refuse_keys(planned, records, needs_index=False)
    shape = {**(known.shape or {}), "keys": list(planned.stream.key_properties)}
    copy = StateCopy(
        stream=known.stream,
        destination_table=known.destination_table,
        source=known.source,
        bookmark=known.bookmark,
        rows=known.rows,
        shape=shape,
    )
    store.save_state(known.pipeline, copy)
    (row,) = table.ledger
    state = StreamState(
        stream=known.stream,
        destination_table=known.destination_table,
        bookmark=row.bookmark,
        source=row.source,
        rows=row.rows,
        at=row.committed_at,
    )
    slow = f"a unique index on the key makes merges faster: {records.statement}"
    return Adoption(state=state, notes=() if records.has_index or not records.needs_index else (slow,))


def _refuse_unfit(selected: SelectedStream, table: TableState) -> None:
    shown = f"table {selected.destination_table!r}"
    if not table.is_described:
        raise StateError(f"{shown}: the destination cannot describe its tables, so nothing can be adopted")
    if table.schema is None:
        raise StateError(f"{shown} does not exist yet: a run creates it, there is nothing to adopt")
    if not table.is_table:
        raise StateError(f"{shown} is a view or the like: it cannot be written")
    if table.ledger:
        owners = ", ".join(dict.fromkeys(f"{row.key.stream} of {row.key.pipeline}" for row in table.ledger))
        raise StateError(f"{shown} is in the ledger already ({owners}); `syncblocks state set` changes a bookmark")


def _renamed(planned: PlannedStream) -> str:
    """Say before which names Mage has put `_` in the table, for which words depends on the database; empty: none."""
    assert planned.table.schema is not None
    called = {each.name: (each.name if each.kept is None else each.kept.column) for each in planned.mapping.columns}
    there = {name.casefold(): name for name in planned.table.schema.names}
    own = {name.casefold() for name in called.values()}
    renamed = {
        name: there[f"_{made.casefold()}"]
        for name, made in called.items()
        if made.casefold() not in there and f"_{made.casefold()}" in there.keys() - own
    }
    if not renamed:
        return ""
    names = ", ".join(f"{yaml_text(name)}: {yaml_text(made)}" for name, made in renamed.items())
    return (
        f"table {planned.key.destination_table!r} has {', '.join(renamed.values())} for {', '.join(renamed)}, as Mage "
        "calls columns that are reserved words; copy into the pipeline file, or add the columns by hand: "
        f"transformers: [{{block: names_of_mage, streams: [{planned.name}], rename: {{{names}}}}}]"
    )


def _unfit(planned: PlannedStream) -> str:
    """Say which columns do not fit those of the table, and the `types` to copy; empty: all do."""
    if not planned.mapping.refusals:
        return ""
    types = list[str]()
    arriving = dict(zip(planned.mapping.declared.schema.names, planned.stream.schema, strict=False))
    for column in planned.mapping.columns:
        kept, schema, own = column.kept, planned.table.schema, arriving.get(column.name)
        if kept is not None and kept.arrow is None and kept.held is not None and schema is not None:
            kind = schema.field(kept.column).type
            if own is None or _is_of_text(own) or is_readable(own.type, kind):
                types += [f"{yaml_text(column.name)}: {_type_text(kind)}"]
    reasons = "; ".join(planned.mapping.refusals)
    line = f"; or copy into the stream's entry under `streams`: types: {{{', '.join(types)}}}" if types else ""
    return f"stream {planned.name!r} does not fit table {planned.key.destination_table!r}: {reasons}{line}"


def _unlike(selected: SelectedStream, planned: PlannedStream) -> str:
    """Describe columns whose values are of another kind than the table's, with `types` to copy, or return ""."""
    guessed, schema = selected.stream.schema, planned.stream.schema
    found = [
        (name, guessed.field(name).type, schema.field(name).type)
        for name in schema.names
        if name in guessed.names and is_unlike(guessed.field(name), schema.field(name).type)
    ]
    if not found:
        return ""
    reasons = "; ".join(f"column {name!r} has {own} values, but the table has {kind}" for name, own, kind in found)
    types = ", ".join(f"{yaml_text(name)}: {_type_text(kind)}" for name, _, kind in found)
    return (
        f"stream {planned.name!r} does not fit table {planned.key.destination_table!r}: {reasons}. To read the values "
        f"as the table's type, copy into the stream's entry under `streams`: types: {{{types}}}"
    )


def _is_of_text(field: pa.Field) -> bool:
    """Tell whether a column is read from texts, which `types` may take for anything."""
    return facts_of(field).origin is not TypeOrigin.SOURCE


def _type_text(kind: pa.DataType) -> str:
    """Return a type as `types:` spells it."""
    if pa.types.is_decimal(kind):
        return f'"{type_text(kind)}"'  # it has a comma
    return type_text(kind)


def _columns(planned: PlannedStream, names: Sequence[str]) -> list[str]:
    """Return what the table calls some columns of the source's stream.

    Raises:
        StateError: the table lacks one of them.
    """
    arriving = dict(zip(planned.stream.schema.names, planned.mapping.declared.schema.names, strict=False))
    kept = {column.name: column.kept for column in planned.mapping.columns}
    assert planned.table.schema is not None
    found = []
    for name in names:
        column = kept.get(arriving[name])
        shown = arriving[name] if column is None else column.column
        if shown not in planned.table.schema.names:
            raise StateError(f"table {planned.key.destination_table!r} has no column {shown!r}, which it needs")
        found.append(shown)
    return found


def _examined(session: PipelineSession, planned: PlannedStream, *, wants_bookmark: bool) -> TableRecords | None:
    """Look into the table's records; None: nothing about them matters."""
    stream = planned.stream
    disposition = planned.write.disposition
    key = _columns(planned, stream.key_properties) if disposition is WriteDisposition.MERGE else []
    bookmark = _columns(planned, stream.read.bookmark_properties) if wants_bookmark else []
    examines = session.destination_can.examines_tables
    if not key and not bookmark and (disposition is not WriteDisposition.APPEND or examines is None):
        return None
    if examines is None:
        connector = session.pipeline.destination.connector
        raise StateError(
            f"destination connector {connector!r} cannot adopt tables: use another `destination_table`, or replace the "
            "table by a run with --full-refresh"
        )
    return examines.examine(planned.key.destination_table, key, bookmark)


def _refuse_keys(planned: PlannedStream, records: TableRecords, *, needs_index: bool = True) -> None:
    if planned.write.disposition is not WriteDisposition.MERGE:
        return
    keys, table = ", ".join(planned.stream.key_properties), planned.key.destination_table
    if records.ambiguous is not None:
        shown = ", ".join(map(str, records.ambiguous))
        what = "NULL in its key" if None in records.ambiguous else f"the key {shown}, and it is not the only one"
        raise StateError(f"a record of table {table!r} has {what} ({keys}): a merge would not know which one to update")
    if needs_index and records.needs_index and not records.has_index:
        raise StateError(
            f"table {table!r} has no unique index on its key ({keys}), by which a merge finds records; make it, then "
            f"adopt the table: {records.statement}"
        )


def _unique_of_append(planned: PlannedStream, records: TableRecords | None) -> tuple[str, ...]:
    """Return the columns of a unique index that refuses a record which an append writes once more; empty: none does."""
    if records is None or planned.write.disposition is not WriteDisposition.APPEND:
        return ()
    if planned.stream.read.max_rejected is not None:
        return ()  # such records are set aside
    written = {each.name if each.kept is None else each.kept.column for each in planned.mapping.columns}
    return next((columns for columns in records.unique if written.issuperset(columns)), ())


def _is_read_again(planned: PlannedStream, records: TableRecords | None) -> bool:
    """Tell whether the next run reads records that the table has, as far as is known before its transformers run."""
    stream = planned.stream
    if planned.table.is_empty or not planned.is_schema_decided:
        return False
    if stream.read.method is not ReplicationMethod.INCREMENTAL:
        return True
    return records is not None and records.newest is not None and not stream.read.is_above_bookmark


def _refused_append(planned: PlannedStream, unique: Sequence[str]) -> str:
    names = planned.stream.read.bookmark_properties
    above, values = ", ".join(f'{name}: ">"' for name in names), " ".join(f"{name}=VALUE" for name in names)
    past = (
        f"`bookmark_property_operators: {{{above}}}` if the table has all records at its newest bookmark, give a later "
        f"one ({values}), "
    )
    return (
        f"stream {planned.name!r} is appended, and table {planned.key.destination_table!r} has a unique index on "
        f"{', '.join(unique)}: the next run writes {_repeated(planned)} once more, and the database refuses those that "
        f"are there. Say `write_disposition: merge` with key_properties, {past if names else ''}or drop the index"
    )


def _repeated(planned: PlannedStream) -> str:
    is_incremental = planned.stream.read.method is ReplicationMethod.INCREMENTAL
    return "records at the bookmark" if is_incremental else "all records"


def _newest(selected: Configured, records: TableRecords | None) -> dict[str, Any] | None:
    """Return the newest bookmark of the table; None: it has no record with one."""
    if selected.stream.keeps_own_bookmark:
        raise StateError(f"stream {selected.name!r} keeps its own bookmark: it is not in the table; give COLUMN=VALUE")
    if records is None or records.newest is None:
        return None
    names, bookmark = selected.stream.read.bookmark_properties, {}
    for name, value in zip(names, records.newest, strict=True):
        kind = selected.stream.schema.field(name).type
        try:
            if isinstance(value, float) and not math.isfinite(value):
                raise ConnectorConfigError(f"{value} is no bookmark")
            bookmark[name] = to_json(from_json(_json_of(value, kind), kind, column=name, stream=selected.name))
        except ConnectorConfigError as error:
            raise StateError(
                f"the newest value of column {name!r} in the table is {value!r}, which is no {kind}; give {name}=VALUE"
            ) from error
    return bookmark


def _json_of(value: Any, kind: pa.DataType) -> Any:
    """Return a value of the table in the form of a bookmark; times without a zone are taken to be in UTC."""
    if pa.types.is_timestamp(kind):
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        if kind.tz is None and moment.tzinfo is not None:
            moment = moment.astimezone(UTC).replace(tzinfo=None)
        elif kind.tz is not None and moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.isoformat()
    return to_json(value)


def _notes(planned: PlannedStream, unique: Sequence[str]) -> list[str]:
    changes = [change for change in planned.texts.changes if change != "replace table"]
    notes = [f"the next run changes the table: {'; '.join(changes)}"] if changes else []
    if not planned.is_schema_decided:
        differing = [text for text in (_renamed(planned), _unfit(planned)) if text]
        notes += [f"unless a transformer makes other columns: {text}" for text in differing]
    if planned.write.disposition is WriteDisposition.REPLACE:
        notes.append("the next run replaces the table's records")
    elif planned.write.disposition is WriteDisposition.APPEND:
        refused = f"; its unique index on {', '.join(unique)} refuses those that are there" if unique else ""
        notes.append(f"{planned.name} is appended: the next run writes {_repeated(planned)} once more{refused}")
    return notes
