"""Write JSON lines: Arrow kernels turn each column into JSON text and join the columns."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from ..arrow.conform import shown
from ..arrow.text import SPECIAL, is_json, is_nested, to_json, to_text
from ..errors import FatalConnectorError

_UNSAFE = r'[\x00-\x1f"\\]'

#: Errors of parsing JSON.
MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError)


class JSONLWriter:
    """Writes every column of every record, NULL as null."""

    def __init__(self, sink: BinaryIO, schema: pa.Schema) -> None:
        self._sink = sink
        start = "{"
        self._prefixes = []
        for name in schema.names:
            self._prefixes.append(f"{start}{json.dumps(name, ensure_ascii=False)}:")
            start = ","

    def write(self, batch: pa.RecordBatch) -> None:
        if not batch.num_columns:
            self._sink.write(b"{}\n" * batch.num_rows)
            return
        parts: list[Any] = []
        for prefix, column, name in zip(self._prefixes, batch.columns, batch.schema.names, strict=True):
            parts += [prefix, pc.fill_null(_json_text(column, name), "null")]
        parts += ["}\n", ""]
        text = pc.binary_join_element_wise(*parts)
        _, offsets, data = text.buffers()
        # The texts are adjacent in Arrow's buffer: the buffer is the output.
        size = pa.Array.from_buffers(pa.int32(), len(text) + 1, [None, offsets])[len(text)].as_py()
        self._sink.write(memoryview(data)[:size])

    def close(self) -> None:
        """Nothing is buffered."""

    def abandon(self) -> None:
        """Nothing is open."""


def _json_text(column: pa.Array, name: str) -> pa.Array:
    """Return each value as JSON, NULL as NULL."""
    kind = column.type
    types = pa.types
    if is_json(kind):
        return _checked_json(column, name)
    if is_nested(kind):
        return pa.array([None if v is None else to_json(v, kind) for v in column.to_pylist()], pa.string())
    text = to_text(column, name).cast(pa.string())
    if types.is_floating(kind):
        for written, special in SPECIAL.items():
            text = pc.if_else(pc.equal(text, written), json.dumps(special), text)
        # An integer has no negative zero.
        return pc.if_else(pc.equal(text, "-0"), "-0.0", text)
    if types.is_integer(kind) or types.is_decimal(kind) or types.is_boolean(kind):
        return text
    unsafe = pc.match_substring_regex(text, _UNSAFE)
    if pc.any(unsafe).as_py():
        escaped = [json.dumps(value, ensure_ascii=False)[1:-1] for value in text.filter(unsafe).to_pylist()]
        text = pc.replace_with_mask(text, unsafe, pa.array(escaped, pa.string()))
    return pc.binary_join_element_wise('"', text, '"', "")


def _checked_json(column: pa.Array, name: str) -> pa.Array:
    values = []
    for value in column.storage.to_pylist():
        try:
            if value is not None:
                msgspec.json.decode(value, type=msgspec.Raw)
        except MALFORMED as error:
            raise FatalConnectorError(f"column {name!r}: {shown(value)} is no JSON: {error}") from error
        values.append(None if value is None else value.replace("\n", " ").replace("\r", " "))
    return pa.array(values, pa.string())


__all__ = ["MALFORMED", "JSONLWriter"]
