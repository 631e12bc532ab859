"""Thrift's compact protocol, as far as Parquet's footers need it: a struct read and written again, fields unknown."""

from __future__ import annotations

from typing import Any

from ..errors import FatalConnectorError

#: A struct's fields by their number, each with its type; a list is its values' type and the values.
Struct = dict[int, tuple[int, Any]]

TRUE, FALSE, BYTE, DOUBLE, BINARY, LIST, SET, MAP, STRUCT, UUID = 1, 2, 3, 7, 8, 9, 10, 11, 12, 13
_INTEGERS = (4, 5, 6)

#: Of types whose values have always the same size: their bytes.
_SIZES = {BYTE: 1, DOUBLE: 8, UUID: 16}

#: Lists of at least so many values have their length behind the first byte.
_LONG = 15


def parse(data: bytes) -> Struct:
    """Read a struct.

    Raises:
        FatalConnectorError: these bytes are none.
    """
    reader = _Reader(data)
    try:
        return reader.struct()
    except (IndexError, RecursionError) as error:
        raise FatalConnectorError(f"a Thrift struct is damaged near byte {reader.place}") from error


def written(fields: Struct) -> bytes:
    """Write a struct."""
    out = bytearray()
    _write_struct(out, fields)
    return bytes(out)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.place = 0

    def struct(self) -> Struct:
        fields: Struct = {}
        number = 0
        while head := self._byte():
            kind = head & 0x0F
            number = number + (head >> 4) if head >> 4 else self._integer()
            fields[number] = (kind, None if kind in (TRUE, FALSE) else self._value(kind))
        return fields

    def _value(self, kind: int) -> Any:
        if kind in _INTEGERS:
            return self._integer()
        if kind == BINARY:
            return self._bytes(self._number())
        if kind == STRUCT:
            return self.struct()
        if kind in (LIST, SET):
            head = self._byte()
            length = head >> 4
            inner = head & 0x0F
            return inner, [self._item(inner) for _ in range(self._number() if length == _LONG else length)]
        if kind == MAP:
            length = self._number()
            kinds = self._byte() if length else 0
            return kinds, [(self._item(kinds >> 4), self._item(kinds & 0x0F)) for _ in range(length)]
        if kind in _SIZES:
            return self._bytes(_SIZES[kind])
        raise IndexError(kind)

    def _item(self, kind: int) -> Any:
        """Read a value inside of a list, where booleans are bytes."""
        return self._bytes(1) if kind in (TRUE, FALSE) else self._value(kind)

    def _byte(self) -> int:
        byte = self._data[self.place]
        self.place += 1
        return byte

    def _bytes(self, size: int) -> bytes:
        start, self.place = self.place, self.place + size
        if self.place > len(self._data):
            raise IndexError(size)
        return self._data[start : self.place]

    def _number(self) -> int:
        result = shift = 0
        while True:
            byte = self._byte()
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result
            shift += 7

    def _integer(self) -> int:
        number = self._number()
        return (number >> 1) ^ -(number & 1)


def _write_struct(out: bytearray, fields: Struct) -> None:
    before = 0
    for number, (kind, value) in fields.items():
        if 0 < number - before < 16:
            out.append((number - before) << 4 | kind)
        else:
            out.append(kind)
            _write_integer(out, number)
        before = number
        if kind not in (TRUE, FALSE):
            _write(out, kind, value)
    out.append(0)


def _write(out: bytearray, kind: int, value: Any) -> None:
    if kind in _INTEGERS:
        _write_integer(out, value)
    elif kind == BINARY:
        _write_number(out, len(value))
        out += value
    elif kind == STRUCT:
        _write_struct(out, value)
    elif kind in (LIST, SET):
        inner, items = value
        out.append(min(len(items), _LONG) << 4 | inner)
        if len(items) >= _LONG:
            _write_number(out, len(items))
        for item in items:
            _write_item(out, inner, item)
    elif kind == MAP:
        kinds, pairs = value
        _write_number(out, len(pairs))
        if pairs:
            out.append(kinds)
        for key, item in pairs:
            _write_item(out, kinds >> 4, key)
            _write_item(out, kinds & 0x0F, item)
    else:
        out += value


def _write_item(out: bytearray, kind: int, value: Any) -> None:
    if kind in (TRUE, FALSE):
        out += value
    else:
        _write(out, kind, value)


def _write_number(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _write_integer(out: bytearray, number: int) -> None:
    _write_number(out, number << 1 if number >= 0 else (-number << 1) - 1)


__all__ = ["BINARY", "LIST", "STRUCT", "Struct", "parse", "written"]
