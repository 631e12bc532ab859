"""Records out of a result: the server writes each as one line of CSV, Arrow reads blocks of them.

A driver makes an object a value, which takes ten times as long as the server needs.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable

import pyarrow as pa
import pyarrow.csv as pacsv

from .. import compute as pc
from ..errors import FatalConnectorError
from ..sql.casts import cast_array
from ..stream import Stream
from .types import HEX_MARK, selected

#: What makes an empty line of a record impossible: a column of our own behind the only one.
_LAST = "last"

_ERROR = re.compile(r"In CSV column #(\d+): (.*)", re.DOTALL)


def line(stream: Stream, quote: Callable[[str], str]) -> str:
    """Return the SQL of a record's line."""
    parts = [selected(f"t.{quote(field.name)}", _native(field), field.type) for field in stream.schema]
    if len(parts) < 2:
        parts.append("'0'")
    return "concat(" + ", ',', ".join(parts) + ")"


def decode(block: pa.Buffer, stream: Stream) -> pa.RecordBatch:
    """Return the records of some lines, with the stream's schema.

    Raises:
        FatalConnectorError: a value that no Arrow type holds (zero dates, times past 24 hours).
    """
    fields = list(stream.schema)
    names = [f"c{place}" for place in range(len(fields))]
    kinds = {name: _csv_type(field.type) for name, field in zip(names, fields, strict=True)}
    if len(names) < 2:
        names.append(_LAST)
        kinds[_LAST] = pa.string()
    try:
        table = pacsv.read_csv(
            pa.BufferReader(block),
            read_options=pacsv.ReadOptions(column_names=names, block_size=min(max(block.size + 1, 1 << 16), 2**31 - 2)),
            parse_options=pacsv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            convert_options=pacsv.ConvertOptions(
                column_types=kinds,
                null_values=[""],
                true_values=["1"],
                false_values=["0"],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        raise _misfit(error, stream) from error
    columns = []
    for name, field in zip(names, fields, strict=False):
        column = table.column(name)
        array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        if pa.types.is_binary(field.type):
            array = _unhexed(array)
        elif pa.types.is_string(array.type):
            array = _unmarked(array)
        columns.append(cast_array(array, field.type, field.name, stream.name))
    return pa.RecordBatch.from_arrays(columns, schema=stream.schema)


def _native(field: pa.Field) -> str:
    metadata = field.metadata or {}
    return metadata.get(b"native_type", b"").decode() if metadata.get(b"native_system") == b"mysql" else ""


def _csv_type(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        return _csv_type(kind.storage_type)
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us")
    if pa.types.is_binary(kind):
        return pa.string()
    return kind


def _unhexed(array: pa.Array) -> pa.Array:
    """Turn a column of hexadecimal digits into bytes, all at once."""
    array = pa.concat_arrays([array]) if array.offset else array
    valid, offsets, data = array.buffers()
    places = pa.Array.from_buffers(pa.int32(), len(array) + 1, [None, offsets])
    first, last = places[0].as_py(), places[len(array)].as_py()
    raw = binascii.unhexlify(memoryview(data)[first:last]) if data is not None else b""
    halved = pc.divide(pc.subtract(places, first), pa.scalar(2, pa.int32())).cast(pa.int32())
    return pa.Array.from_buffers(
        pa.binary(), len(array), [valid, halved.buffers()[1], pa.py_buffer(raw)], array.null_count
    )


def _unmarked(array: pa.Array) -> pa.Array:
    """Turn the few texts that came as hexadecimal digits back."""
    is_marked = pc.fill_null(pc.starts_with(array, HEX_MARK), False)
    if not pc.any(is_marked).as_py():
        return array
    texts = [bytes.fromhex(text[len(HEX_MARK) :]).decode() for text in array.filter(is_marked).to_pylist()]
    return pc.replace_with_mask(array, is_marked, pa.array(texts, array.type))


def _misfit(error: pa.ArrowInvalid, stream: Stream) -> FatalConnectorError:
    match = _ERROR.search(str(error))
    if match is None or int(match[1]) >= len(stream.schema):
        return FatalConnectorError(f"a record cannot be read: {error}", connector="mysql", stream=stream.name)
    field = stream.schema.field(int(match[1]))
    found = re.search(r"invalid value '(.*?)'", match[2], re.DOTALL)
    value = found[1] if found else match[2]
    kind = _native(field).partition("(")[0]
    hint = "correct the value, or exclude the column with `columns`"
    reason = f"which is no {field.type}"
    if kind == "tinyint":
        reason, hint = "which is no boolean", "set `tinyint1_as_bool: false` to read tinyint(1) as an integer"
    elif kind in ("date", "datetime", "timestamp"):
        reason = "a zero date, which no other system has"
        hint = "make it NULL, read it through a view with NULLIF, or exclude the column with `columns`"
    elif kind == "time":
        reason = "which is a span of time and no time of day"
        hint = "read it through a view with TIME_TO_SEC, or exclude the column with `columns`"
    return FatalConnectorError(
        f"column {field.name!r} holds {value}, {reason}: {hint}", connector="mysql", stream=stream.name
    )


__all__ = ["decode", "line"]
