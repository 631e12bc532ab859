"""`replace_existing: false`: streams that are left out of a run while their table is there. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from syncblocks.connectors.stream import TableState

from ..config import Pipeline
from ..errors import Mistake
from .refusals import stream_error
from .selected_stream import SelectedStream


def without_existing(
    pipeline: Pipeline, selected: Sequence[SelectedStream], tables: Mapping[str, TableState]
) -> tuple[tuple[SelectedStream, ...], tuple[str, ...]]:
    """Leave out the streams that replace no table which is there; return the others, and a sentence for each of them.

    Raises:
        ConfigError: the destination cannot list its tables.
    """
    kept, left = [], []
    for stream in selected:
        table = tables[stream.destination_table]
        if not stream.replaces_existing and not table.is_described:
            why = f"`replace_existing: false`: {pipeline.destination.connector} cannot list its tables"
            raise stream_error(pipeline, stream, why, Mistake)
        is_there = table.schema is not None or not table.is_table
        if stream.replaces_existing or not is_there:
            kept.append(stream)
        else:
            name = stream.destination_table
            left.append(f"stream {stream.name!r} is skipped: table {name!r} is there (`replace_existing: false`)")
    return tuple(kept), tuple(left)


__all__ = ["without_existing"]
