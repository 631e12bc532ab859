"""Write Singer messages as lines. Arrow kernels write records: a string array's data buffer is the output."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa

from ..arrow import compute as pc
from ..arrow.decimals import as_number
from ..arrow.type_names import type_text
from ..errors import FatalConnectorError
from ..stream import Stream
from .json_schema import json_schema

_is = pa.types

#: Bytes of records written at once: the text is several times as long, and must stay below 2 GiB.
SLICE_BYTES = 32 << 20

#: Characters that a JSON text must escape.
_SPECIAL = r'[\x00-\x1f"\\]'
_CONTROL = r"[\x00-\x1f]"
_ESCAPES = (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"))


def to_line(message: Mapping[str, Any]) -> bytes:
    """Write one message, with all digits of a Decimal."""
    import msgspec

    return msgspec.json.Encoder(decimal_format="number").encode(message) + b"\n"


def schema_line(stream: Stream, name: str | None = None) -> bytes:
    """Write the SCHEMA message of a stream."""
    return to_line(
        {
            "type": "SCHEMA",
            "stream": name or stream.name,
            "schema": json_schema(stream),
            "key_properties": list(stream.key_properties),
            "bookmark_properties": list(stream.read.bookmark_properties),
        }
    )


def state_line(value: Any) -> bytes:
    """Write a STATE message."""
    return to_line({"type": "STATE", "value": value})


def version_line(name: str, version: int) -> bytes:
    """Write an ACTIVATE_VERSION message."""
    return to_line({"type": "ACTIVATE_VERSION", "stream": name, "version": version})


class RecordLines:
    """Writes the batches of one stream as RECORD messages."""

    def __init__(self, stream: str, *, version: int | None = None, is_wrapped: bool = True) -> None:
        self._stream = stream
        self._head = f'{{"type":"RECORD","stream":{_text(stream)},"record":{{' if is_wrapped else "{"
        self._tail = "}" if version is None else f'}},"version":{version}'
        if not is_wrapped:  # a record without the RECORD message around it, as in a file of a BATCH
            self._tail = ""

    def write(self, batch: pa.RecordBatch, extracted_at: str | None = None) -> Iterator[memoryview]:
        """Yield the lines of a batch, in a few large pieces.

        Raises:
            FatalConnectorError: JSON lacks a value (NaN, infinity, a year past 9999).
        """
        end = self._tail + ("" if extracted_at is None else f',"time_extracted":"{extracted_at}"') + "}\n"
        step = max(1, batch.num_rows * SLICE_BYTES // max(batch.nbytes, 1))
        for offset in range(0, batch.num_rows, step):
            yield self._slice(batch.slice(offset, step), end)

    def _slice(self, batch: pa.RecordBatch, end: str) -> memoryview:
        parts: list[Any] = []
        open_text = self._head
        for place, field in enumerate(batch.schema):
            open_text += ("," if place else "") + _text(field.name) + ":"
            array, is_quoted = self._column(batch.column(place), field.name)
            if is_quoted and array.null_count:
                array, is_quoted = pc.binary_join_element_wise('"', array, '"', ""), False
            parts += [open_text + ('"' if is_quoted else ""), array]
            open_text = '"' if is_quoted else ""
        if not parts:
            return memoryview((self._head + end).encode() * batch.num_rows)
        parts.append(open_text + end)
        lines = pc.binary_join_element_wise(*parts, "", null_handling="replace", null_replacement="null")
        return _data(lines)

    def _column(self, array: pa.Array, name: str) -> tuple[pa.Array, bool]:
        """Return a column as JSON text, and whether it needs quotes."""
        try:
            return _as_text(array)
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            raise FatalConnectorError(
                f"column {name!r} of type {type_text(array.type)}: {str(error).splitlines()[0]}; a Singer message "
                "cannot contain it: exclude the column with `columns` or change it in a transformer",
                stream=self._stream,
            ) from error


def _as_text(array: pa.Array) -> tuple[pa.Array, bool]:
    kind = array.type
    if _is.is_dictionary(kind):
        return _as_text(array.dictionary_decode())
    if kind == pa.uuid():
        return _each(array.storage, lambda value: _uuid(value)), True
    if isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name == "arrow.json":
            return _one_line(pc.cast(array.storage, pa.string())), False
        return _as_text(array.storage)
    if _is.is_null(kind):
        return pa.nulls(len(array), pa.string()), False
    if _is.is_floating(kind):
        return _floats(array), False
    if _is.is_integer(kind) or _is.is_boolean(kind) or _is.is_decimal(kind):
        return pc.cast(array, pa.string()), False
    if _is.is_string(kind) or _is.is_large_string(kind) or _is.is_string_view(kind):
        return _escaped(array if _is.is_string(kind) else pc.cast(array, pa.string())), True
    if _is.is_timestamp(kind):
        return _moments(array), True
    if _is.is_date(kind):
        return _within_four_digits(pc.cast(pc.cast(array, pa.date32()), pa.string()), 10), True
    if _is.is_time(kind):
        return pc.cast(array, pa.string()), True
    if _is.is_duration(kind) or _is.is_interval(kind):
        return _each(array, _duration), True
    if _is.is_binary(kind) or _is.is_large_binary(kind) or _is.is_fixed_size_binary(kind) or _is.is_binary_view(kind):
        return _each(array, lambda value: base64.b64encode(value).decode("ascii")), True
    return _each(
        array, lambda value: json.dumps(value, default=_json_value, ensure_ascii=False, allow_nan=False)
    ), False


def _floats(array: pa.Array) -> pa.Array:
    if not pc.all(pc.is_finite(array), skip_nulls=True).as_py() and array.null_count < len(array):
        raise ValueError("JSON has no NaN and no infinity")
    return pc.cast(array, pa.string())


def _moments(array: pa.Array) -> pa.Array:
    if array.type.tz:
        array = pc.cast(array, pa.timestamp(array.type.unit, "UTC"))
    texts = _within_four_digits(pc.cast(array, pa.string()), len("2024-01-01 00:00:00"))
    return pc.binary_replace_slice(texts, start=10, stop=11, replacement="T")


def _within_four_digits(texts: pa.Array, at_least: int) -> pa.Array:
    """Refuse years before 1 or past 9999, which Arrow writes in another form."""
    is_odd = pc.match_substring_regex(texts, rf"^(-|<|[0-9]{{5}}|.{{0,{at_least - 1}}}$)")
    if pc.any(is_odd).as_py():
        raise ValueError("a date before the year 1 or after 9999")
    return texts


def _escaped(array: pa.Array) -> pa.Array:
    if not pc.any(pc.match_substring_regex(array, _SPECIAL)).as_py():
        return array
    for plain, escape in _ESCAPES:
        array = pc.replace_substring(array, plain, escape)
    if pc.any(pc.match_substring_regex(array, _CONTROL)).as_py():
        array = _each(array, lambda text: "".join(c if c >= " " else f"\\u{ord(c):04x}" for c in text))
    return array


def _one_line(array: pa.Array) -> pa.Array:
    """Remove line ends, which a JSON text has between its tokens only."""
    if pc.any(pc.match_substring_regex(array, r"[\r\n]")).as_py():
        array = pc.replace_substring_regex(array, r"[\r\n]+", " ")
    return array


def _each(array: pa.Array, text: Any) -> pa.Array:
    """Write values one by one, where Arrow has no kernel."""
    return pa.array([None if value is None else text(value) for value in array.to_pylist()], pa.string())


def _uuid(value: bytes) -> str:
    import uuid

    return str(uuid.UUID(bytes=value))


def _duration(value: Any) -> str:
    """Write an ISO 8601 duration."""
    if hasattr(value, "months"):
        from ..arrow.text import interval_text  # its kernels take time to load

        return interval_text(value.months, value.days, value.nanoseconds)
    seconds = Decimal(value.days * 86_400 + value.seconds) + Decimal(value.microseconds).scaleb(-6)
    return f"PT{seconds.normalize():f}S"


def _json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Decimal):
        return as_number(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _data(lines: pa.Array) -> memoryview:
    """Return the bytes of all values of a string array that has no nulls."""
    offsets = memoryview(lines.buffers()[1]).cast("i")
    start, end = offsets[lines.offset], offsets[lines.offset + len(lines)]
    return memoryview(lines.buffers()[2])[start:end]


__all__ = ["RecordLines", "schema_line", "state_line", "to_line", "version_line"]
