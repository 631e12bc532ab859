"""Write JSON lines: Arrow kernels turn each column into JSON text and join the columns."""

from __future__ import annotations

import json
import re
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from ..arrow.conform import shown
from ..arrow.text import SPECIAL, is_json, is_nested, is_text, to_json, to_text
from ..errors import FatalConnectorError

#: Characters that are escaped, and how; the backslash comes first, since the others add some.
_ESCAPES = {"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
_CONTROL = r"[\x00-\x1f]"
_UNSAFE = r'[\x00-\x1f"\\]'

#: Errors of parsing JSON.
MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError)

_lists = msgspec.json.Decoder(tuple[msgspec.Raw])


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
        self._sink.write(_adjacent(pc.binary_join_element_wise(*parts)))

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
    # Of all others, none has a text with such a character.
    return pc.binary_join_element_wise('"', _escaped(text) if is_text(kind) else text, '"', "")


def _escaped(text: pa.Array) -> pa.Array:
    """Return texts as they stand within the quotes of JSON."""
    if not pc.any(pc.match_substring_regex(text, _UNSAFE)).as_py():
        return text
    for letter, escape in _ESCAPES.items():
        text = pc.replace_substring(text, letter, escape)
    rare = pc.match_substring_regex(text, _CONTROL)
    if not pc.any(rare).as_py():
        return text
    escaped = [re.sub(_CONTROL, _numbered, value) for value in text.filter(rare).to_pylist()]
    return pc.replace_with_mask(text, rare, pa.array(escaped, pa.string()))


def _numbered(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def _checked_json(column: pa.Array, name: str) -> pa.Array:
    text = column.storage.cast(pa.string())
    if not _is_json(text):
        _refuse_malformed(text, name)
    for end in "\n\r":  # between values; within a text they are escaped
        text = pc.replace_substring(text, end, " ")
    return text


def _is_json(text: pa.Array) -> bool:
    """Tell whether each text is one JSON value."""
    there = text.drop_null()
    # In a list of its own no value runs into the next line's, and two values on a line are too many.
    lines = pc.binary_join_element_wise("[", there, "]\n", "")
    try:
        return len(_lists.decode_lines(_adjacent(lines))) == len(there)
    except MALFORMED:
        return False


def _refuse_malformed(text: pa.Array, name: str) -> None:
    for value in text.to_pylist():
        try:
            if value is not None:
                msgspec.json.decode(value, type=msgspec.Raw)
        except MALFORMED as error:
            raise FatalConnectorError(f"column {name!r}: {shown(value)} is not JSON: {error}") from error


def _adjacent(texts: pa.Array) -> memoryview:
    """Return the bytes of texts that a kernel has made, one after the other."""
    _, offsets, data = texts.buffers()
    size = pa.Array.from_buffers(pa.int32(), len(texts) + 1, [None, offsets])[len(texts)].as_py()
    return memoryview(data)[:size]


__all__ = ["MALFORMED", "JSONLWriter"]
