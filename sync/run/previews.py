"""The first records of a stream, as a run would send them. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from syncblocks.connectors.incremental.bookmarks import to_json
from syncblocks.connectors.log_based import plain_stream
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.rejected.halving import convert_or_reject
from syncblocks.connectors.stream import Stream, TableState
from syncblocks.connectors.struct_helpers import replace

from ..delivery.masked_output import masked_output
from ..errors import ConfigError
from ..flow.naming import naming_steps
from ..flow.transform import Transformer, declared_stream
from ..plan.columns import Rules, map_columns
from ..plan.features.log_based import is_logged
from ..plan.selected_stream import SelectedStream
from ..plan.selection import left_out_by_when, one_stream, select_streams
from ..plan.stream_transformers import transformers_of
from ..session.inspection import existing_store
from ..session.session import PipelineSession, make_plan
from .transformers import make_transformers, why_keys_are_kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The first records of a stream, in the form that the destination would get."""

    stream: str
    destination_table: str
    #: Column name -> type, in order.
    columns: Mapping[str, str]
    #: JSON values, keys are column names.
    records: tuple[dict[str, Any], ...]


def preview(session: PipelineSession, name: str, limit: int) -> Preview:
    """Read the first records of a selected stream and apply its transformers; write nothing."""
    with masked_output(session.redactor):
        return _preview(session, name, limit)


def _preview(session: PipelineSession, name: str, limit: int) -> Preview:
    selection = session.select()
    if name in selection.left_out:
        raise ConfigError(left_out_by_when(name, selection.left_out[name]), key="--stream")
    selected = one_stream(select_streams(session.pipeline, selection), name)
    if selected.on_schema_change == "ignore":  # table and last run decide which columns are new
        with existing_store(session.pipeline) as store:
            (planned,) = make_plan(session, store, only=[name], is_of_run=False).streams
        selected = replace(selected, stream=planned.stream)
    added = replace(selected.policy.added, history=None)  # times of versions come from a run
    # A full table is read in no order, so the first records arrive at once.
    offered = plain_stream(selected.stream) if is_logged(selected.stream) else selected.stream
    stream = replace(offered, read=replace(offered.read, method=ReplicationMethod.FULL_TABLE, bookmark_properties=()))
    naming = naming_steps(selected.policy.naming, session.pipeline.destination.block)
    transformers = [*_transformers(session, selected), *naming]
    rules = _rules(session, selected, declared_stream(selected.stream, transformers))
    schema, records = added.schema(declared_stream(stream, transformers).schema), list[dict[str, Any]]()
    if limit > 0:
        with closing(session.source.read([stream], {stream.name: None})) as events:  # type: ignore[type-var]
            for _, event in events:
                if isinstance(event, Stream):
                    stream, schema = event, added.schema(declared_stream(event, transformers).schema)
                if not isinstance(event, pa.RecordBatch):
                    continue
                batch = _apply(transformers, event.slice(0, max(limit * 10, 1000)), stream)
                batch = added.apply(batch)
                schema = batch.schema
                mapping = map_columns(replace(stream, schema=schema), rules)
                while batch.num_rows and len(records) < limit:  # more than one turn if records are rejected
                    shown = batch.slice(0, limit - len(records))
                    batch = batch.slice(shown.num_rows)
                    fitting, _ = convert_or_reject(shown, mapping.convert, selected.write.max_rejected)
                    records += [_json_record(record) for each in fitting for record in each.to_pylist()]
                if len(records) >= limit:
                    break
    arriving = map_columns(replace(stream, schema=schema), rules).arriving
    return Preview(
        stream=name,
        destination_table=selected.destination_table,
        columns={field.name: str(field.type) for field in arriving.schema},
        records=tuple(records),
    )


def _rules(session: PipelineSession, selected: SelectedStream, declared: Stream) -> Rules:
    """Return the rules of `types` and `decode`; the destination is not asked."""
    names = dict(zip(selected.stream.schema.names, declared.schema.names, strict=True))
    return Rules(
        types=None,
        connector=session.pipeline.destination.connector,
        table=TableState(),
        disposition=selected.write.disposition,
        said={names[name]: kind for name, kind in selected.said.items() if name in names},
        decode={names[name]: form for name, form in selected.decode.items() if name in names},
    )


def _transformers(session: PipelineSession, selected: SelectedStream) -> list[Transformer]:
    pipeline = session.pipeline
    blocks = {block.block for block in transformers_of(pipeline, selected)}
    if not blocks:
        return []
    from syncblocks.callbacks.kwargs import (
        INTERVAL,
        interval_values,
    )  # a pipeline without transformers spares the import

    execution_date = pipeline.execution_date.isoformat()
    kwargs = {
        **pipeline.variables,
        "stream": pipeline.called(selected.name),
        "destination_table": selected.destination_table,
        "pipeline_uuid": pipeline.pipeline,
        "pipeline_run": {
            "id": 0,  # there is no run
            "pipeline_uuid": pipeline.pipeline,
            "execution_date": execution_date,
            "variables": pipeline.variables,
        },
        "ds": pipeline.ds,
        "hr": pipeline.hr,
        "execution_date": execution_date,
        "execution_partition": pipeline.execution_partition,
        "event": {},
        "pipeline_run_id": 0,
        "trigger_name": "cli",
        **dict.fromkeys(INTERVAL),
        **({} if pipeline.interval is None else interval_values(*pipeline.interval)),
    }
    why = why_keys_are_kept(selected.stream, selected.policy)
    return make_transformers(pipeline, session.code, blocks, kwargs, kept_keys=why)


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
