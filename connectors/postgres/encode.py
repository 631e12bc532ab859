"""Arrow batches -> COPY's binary format: by pgpq, or here for types that pgpq cannot encode.

Source: PostgreSQL, COPY, Binary Format; the `_recv` functions of its types.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa

from ..errors import FatalConnectorError
from ..field_facts import facts_of, with_facts
from ..stream import Block
from .type_names import Name

_BLOCK_BYTES = 1 << 20
#: Values larger than this on average are not copied into one buffer with their record.
_WIDE_BYTES = 1 << 16

#: pgpq's message about a value.
_REASON = re.compile(r'reason: "(.*?)"')

_NULL = b"\xff\xff\xff\xff"
_END = b"\xff\xff"
_length = struct.Struct(">i").pack

#: Types whose arrays pgpq writes with the correct element OID, and the OIDs of the others.
_KNOWN_ELEMENTS = frozenset(
    {"smallint", "integer", "bigint", "real", "double precision", "boolean", "text", "bytea", "date", "numeric"}
) | {"time without time zone", "timestamp without time zone"}
_OIDS = {
    "json": 114,
    "character": 1042,
    "character varying": 1043,
    "timestamp with time zone": 1184,
    "interval": 1186,
    "numeric": 1700,
    "uuid": 2950,
    "jsonb": 3802,
}


def blocks(schema: pa.Schema, batches: Iterator[pa.RecordBatch | Block]) -> Iterator[Block]:
    """Yield one stream of COPY's binary format, in blocks of about a megabyte.

    Args:
        schema: schema of the batches; a field's facts give the `column_type`.
        batches: in the exact types of the columns.

    Raises:
        FatalConnectorError: the format cannot hold a value.
    """
    columns = [_Column(field) for field in schema]
    encoder = _encoder(columns)
    yield encoder.write_header()
    for batch in batches:
        assert isinstance(batch, pa.RecordBatch)
        try:
            arrays = [column.prepared(batch.column(place)) for place, column in enumerate(columns)]
            if _is_wide(arrays):
                yield encoder.finish()[: -len(_END)]  # the encoder's remaining bytes
                yield from _wide(columns, arrays)
                encoder = _encoder(columns)
                encoder.write_header()
                continue
            yield from _cut(encoder.write_batch(_record(columns, arrays)))
        except ValueError as error:
            raise _misfit(columns, batch, error) from error
    yield encoder.finish()


class _Column:
    """How one column is encoded: by pgpq, or as bytes in the server's binary form."""

    def __init__(self, field: pa.Field) -> None:
        name = Name.parse(facts_of(field).column_type)
        self.own = _own(field.type, name)
        kind = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
        self.field = pa.field(field.name, kind if self.own is None else pa.binary())
        self.is_jsonb = name.base == "jsonb" and self.own is None

    def prepared(self, array: pa.Array) -> pa.Array:
        """Return the values in the form that the encoder accepts."""
        array = array.storage if isinstance(array.type, pa.BaseExtensionType) else array
        return array if self.own is None else self.own(array)

    def builder(self) -> Any:
        """Return pgpq's encoder."""
        from pgpq import ArrowToPostgresBinaryEncoder, encoders, schema

        if self.is_jsonb:
            return encoders.StringEncoderBuilder.new_with_output(self.field, schema.Jsonb())
        return ArrowToPostgresBinaryEncoder.infer_encoder(self.field)


def _encoder(columns: Sequence[_Column]) -> Any:
    from pgpq import ArrowToPostgresBinaryEncoder

    builders = {column.field.name: column.builder() for column in columns}
    return ArrowToPostgresBinaryEncoder.new_with_encoders(pa.schema([column.field for column in columns]), builders)


def _misfit(columns: Sequence[_Column], batch: pa.RecordBatch, error: ValueError) -> FatalConnectorError:
    """Name the column, since the error does not always do."""
    name = "?"
    for place, column in enumerate(columns):
        try:
            _fields(column, column.prepared(batch.column(place)))
        except ValueError as found:
            name, error = column.field.name, found
            break
    reason = _REASON.search(str(error))
    return FatalConnectorError(
        f"column {name!r} contains a value that PostgreSQL cannot store: {reason[1] if reason else error}",
        connector="postgres",
    )


def _record(columns: Sequence[_Column], arrays: Sequence[pa.Array]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(arrays, [column.field.name for column in columns])


def _cut(content: Block) -> Iterator[Block]:
    view = memoryview(content)
    for start in range(0, len(view), _BLOCK_BYTES):
        yield view[start : start + _BLOCK_BYTES]


# --------------------------------------------------------------------- wide records
def _is_wide(arrays: Sequence[pa.Array]) -> bool:
    return any(array.nbytes // len(array) > _WIDE_BYTES for array in arrays if len(array))


def _wide(columns: Sequence[_Column], arrays: Sequence[pa.Array]) -> Iterator[Block]:
    """Yield records with long values taken from Arrow's memory: copies may not fit in memory."""
    parts = [
        _views(column, array) if pa.types.is_string(array.type) or pa.types.is_binary(array.type) else None
        for column, array in zip(columns, arrays, strict=True)
    ]
    fields = [
        _fields(column, array) if part is None else []
        for column, array, part in zip(columns, arrays, parts, strict=True)
    ]
    head = struct.pack(">h", len(columns))
    for row in range(len(arrays[0])):
        yield head
        for part, found in zip(parts, fields, strict=True):
            if part is None:
                yield found[row]
            else:
                yield from part(row)


def _views(column: _Column, array: pa.Array) -> Callable[[int], Iterator[Block]]:
    """Return a function that yields a text or binary value of the column, after its length. No value is copied."""
    is_valid = array.is_valid().to_pylist()
    _, offsets, data = array.buffers()
    ends = memoryview(offsets).cast("i")[array.offset :]
    content = memoryview(data or b"")
    version = b"\1" if column.is_jsonb else b""

    def value(row: int) -> Iterator[Block]:
        if not is_valid[row]:
            yield _NULL
            return
        start, end = ends[row], ends[row + 1]
        yield _length(end - start + len(version)) + version
        yield from _cut(content[start:end])

    return value


def _fields(column: _Column, array: pa.Array) -> list[bytes]:
    """Return each value of a column with its length in front, in the form of a record."""
    encoder = _encoder([column])
    encoder.write_header()
    content = encoder.write_batch(_record([column], [array])) + encoder.finish()
    found, at = [], 2  # after the count of columns
    while at < len(content):
        end = at + 4 + max(int.from_bytes(content[at : at + 4], "big", signed=True), 0)
        found.append(content[at:end])
        at = end + 2
    return found


# --------------------------------------------------------------------- types beyond pgpq
def _own(kind: pa.DataType, name: Name) -> Callable[[pa.Array], pa.Array] | None:
    """Return the function that encodes values as the server's bytes; None: pgpq does it."""
    if pa.types.is_list(kind):
        if name.base in _KNOWN_ELEMENTS and not pa.types.is_decimal256(kind.value_type):
            return None
        return _lists(kind.value_type, name)
    if kind == pa.month_day_nano_interval():
        return _intervals
    if pa.types.is_decimal256(kind):
        return _numerics
    return None


def _intervals(array: pa.Array) -> pa.Array:
    """Write microseconds, days and months; Arrow has months, days and nanoseconds."""
    import numpy as np

    count = array.offset + len(array)
    validity, values = array.buffers()
    held = np.frombuffer(values, [("months", "<i4"), ("days", "<i4"), ("nanos", "<i8")], count)
    made = np.empty(count, [("us", ">i8"), ("days", ">i4"), ("months", ">i4")])
    made["us"], made["days"], made["months"] = held["nanos"] // 1000, held["days"], held["months"]
    fixed = pa.Array.from_buffers(pa.binary(16), len(array), [validity, pa.py_buffer(made)], offset=array.offset)
    return fixed.cast(pa.binary())


def _numerics(array: pa.Array) -> pa.Array:
    scale = array.type.scale
    return pa.array([None if value is None else _numeric(value, scale) for value in array.to_pylist()], pa.binary())


def _numeric(value: Decimal, scale: int) -> bytes:
    """Write a number by groups of four digits around the point."""
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits)) + "0" * max(exponent, 0)
    behind = max(-exponent, 0)
    text = text.zfill(behind + 1)
    whole, fraction = text[: len(text) - behind], text[len(text) - behind :]
    whole = whole.zfill(-(-len(whole) // 4) * 4)
    fraction = fraction.ljust(-(-len(fraction) // 4) * 4, "0")
    every = whole + fraction
    groups = [int(every[start : start + 4]) for start in range(0, len(every), 4)]
    head = (len(groups), len(whole) // 4 - 1, 0x4000 if sign else 0, max(scale, 0))
    return struct.pack(f">HhHH{len(groups)}H", *head, *groups)


def _lists(element: pa.DataType, name: Name) -> Callable[[pa.Array], pa.Array]:
    """Return the function that writes one-dimensional arrays whose element OID pgpq gets wrong."""
    column = _Column(with_facts(pa.field("element", element), column_type=name.base))
    oid = _OIDS[name.base]

    def write(array: pa.Array) -> pa.Array:
        elements = column.prepared(array.flatten())
        fields, at = _fields(column, elements), 0
        made: list[bytes | None] = []
        for count in array.value_lengths().to_pylist():
            if count is None:
                made.append(None)
                continue
            some = fields[at : at + count]
            at += count
            head = struct.pack(">iii", 1 if count else 0, int(_NULL in some), oid)
            made.append(b"".join([head, struct.pack(">ii", count, 1) if count else b"", *some]))
        return pa.array(made, pa.binary())

    return write


__all__ = ["blocks"]
