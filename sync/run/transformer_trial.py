"""Try a transformer file on some records: its result, its tests, and whether single records give the same result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from syncblocks.callbacks.output_tests import run_tests
from syncblocks.connectors.stream import Stream

from ..errors import SyncError
from ..flow.transform import Frames, Transformer
from .previews import json_value
from .transformers import bound

if TYPE_CHECKING:
    from syncblocks.callbacks.loader import CallbackFile


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerTrial:
    """Result of a transformer file for some records."""

    records: pa.RecordBatch
    #: Name of each function marked by `@test` -> its error, None if it passed.
    tests: Mapping[str, str | None]
    #: How the other kind of frames differs; None: same result.
    difference: str | None


def try_transformer(
    loaded: CallbackFile,
    data: pa.Table,
    kwargs: Mapping[str, Any],
    *,
    stream: str,
    rename: Mapping[str, str],
    frames: Frames,
) -> TransformerTrial:
    """Call a transformer with all records at once or one by one, as a run would, and its tests with the result.

    Args:
        loaded: the file.
        data: records before the transformer.
        kwargs: its keyword arguments, without `index`.
        stream: name of the stream.
        rename: `rename` of the block, applied before `@transformer(rename_columns=...)`.
        frames: library and types of a DataFrame.

    Raises:
        SyncError: the function raised, or its result cannot be loaded.
    """
    (batch,) = data.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], data.schema)]
    (function,) = loaded.transformers
    block = str(kwargs["block_uuid"])

    def transformed(frames: Frames) -> pa.RecordBatch:
        names = {**rename, **function.rename_columns}
        transformer = Transformer(block, [bound(function, kwargs)], names, frames)
        return transformer.apply(batch, Stream(name=stream, schema=batch.schema))

    made = transformed(frames)
    return TransformerTrial(
        records=made,
        tests=run_tests(loaded.tests, made.to_pandas, loaded.path),
        difference=_difference(made, lambda: transformed("record" if frames == "batch" else "batch")),
    )


def json_records(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return records as JSON values."""
    return [{name: json_value(value) for name, value in record.items()} for record in batch.to_pylist()]


def _difference(made: pa.RecordBatch, other: Callable[[], pa.RecordBatch]) -> str | None:
    try:
        found = other()
    except SyncError as error:
        return f"it fails: {error}"
    if made.num_rows != found.num_rows:
        return f"it gives {found.num_rows} records"
    if made.schema.names != found.schema.names:
        return f"it gives the columns {', '.join(found.schema.names)}"
    for place, (one, two) in enumerate(zip(json_records(made), json_records(found), strict=True)):
        for name in one:
            if one[name] != two[name]:
                return f"record {place + 1} has {two[name]!r} in column {name!r}, not {one[name]!r}"
    return None
