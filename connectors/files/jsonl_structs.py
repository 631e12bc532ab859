"""Parse JSON lines whose records hold objects or arrays: a block at a time, into structs with a field for each column.

Arrow's parser gives no text of an object. Here each value is read once, by its column's type; a block in which a value
has another type, a key is new or anything else is odd is left to the parser that goes value by value.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter
from typing import Any, cast

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from ..arrow.compute import constant
from ..arrow.flatten import path_of
from ..arrow.text import from_text, is_json, is_text
from ..field_facts import TypeOrigin, facts_of
from .json_elements import ONE_LINE, count_of, has_line_each
from .jsonl_objects import Path, tree_of
from .type_inference import keeps_digits

#: What a block can hold that this parser does not read.
ODD = (msgspec.DecodeError, pa.ArrowException, ValueError, TypeError, ArithmeticError, RecursionError)

#: Values of a batch, NULL included: a column has one for each record.
MOST_VALUES = 4 << 20

#: A type of values -> how they are parsed; those of other types are parsed one by one.
_KINDS: Mapping[pa.DataType, Any] = {
    pa.bool_(): bool | None,
    pa.float64(): msgspec.Raw,  # whose digits are looked at, before Arrow makes doubles of all of them
    **dict.fromkeys((pa.int8(), pa.int16(), pa.int32(), pa.int64()), int | None),
    **dict.fromkeys((pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()), int | None),
}

#: Reads values that are not parsed yet, of a column whose type needs a look at each of them.
EachValue = Callable[[pa.Field, Sequence[msgspec.Raw | None]], pa.Array]


class Structs:
    """The parser of one set of columns."""

    def __init__(
        self, wanted: pa.Schema, others: Collection[str], levels: int, guessed: Collection[str], *, is_careful: bool
    ) -> None:
        """Make the parser.

        Args:
            wanted: the columns.
            others: names of columns that are known and not wanted; only without levels.
            levels: down to how many levels objects become columns.
            guessed: columns of floats that must keep all digits.
            is_careful: numbers are read one by one, and so are texts whose column takes other values as they are
                written.

        Raises:
            ValueError: a name stands for objects, and for other values.
        """
        self._wanted = wanted
        self._levels = levels
        self._guessed = guessed
        self._is_careful = is_careful
        self._kinds = [_kind(field, is_careful=is_careful) for field in wanted]
        kinds: dict[Path, Any] = {path_of(field): kind for field, kind in zip(wanted, self._kinds, strict=True)}
        kinds |= {(name,): msgspec.Raw for name in others}
        tree = tree_of(list(kinds.items()))
        if tree is None:
            raise ValueError("a name has objects in some records and other values in others")
        self._getters: dict[Path, list[Callable[[Any], Any]]] = {}
        record = self._struct(tree, (), ())
        self._decoder = msgspec.json.Decoder(record)
        self._decode_array = msgspec.json.Decoder(list[record]).decode  # type: ignore[valid-type]
        self._columns = len(kinds)

    def _struct(self, tree: Mapping[str, Any], path: Path, above: Sequence[str]) -> type[msgspec.Struct]:
        """Return the type of objects that have some values, and note how each is reached."""
        fields, names = [], {}
        for place, (name, kind) in enumerate(tree.items()):
            own = f"f{place}"
            names[own] = name
            inner, steps = (*path, name), [*above, own]
            if isinstance(kind, dict):
                kind = self._struct(kind, inner, steps) | None
            else:
                self._getters[inner] = [attrgetter(step) for step in steps]
            fields.append((own, kind, None))
        return msgspec.defstruct("Record", fields, rename=names, forbid_unknown_fields=True, gc=False)

    def of_lines(self, block: bytearray) -> list[msgspec.Struct]:
        """Return the records of whole lines; raises `ODD`."""
        self._demand_few(block)
        records = self._decoder.decode_lines(block)
        if not has_line_each(block, len(records)):  # a record on two lines, or two on one, are an error
            records = [self._decoder.decode(line) for line in bytes(block).split(b"\n") if line]
        return records

    def of_array(self, text: bytes) -> list[msgspec.Struct]:
        """Return the records of an array; raises `ODD`, also if the text is something else."""
        self._demand_few(text)
        return self._decode_array(text)

    def _demand_few(self, text: bytes | bytearray) -> None:
        # Each record has a bracket.
        if len(text) * self._columns > MOST_VALUES < count_of(text, ord("{")) * self._columns:
            raise ValueError("too many values for one batch")

    def batch(
        self,
        records: Sequence[msgspec.Struct],
        typed: Callable[[pa.Array, pa.Field], pa.Array],
        each: EachValue,
    ) -> pa.RecordBatch:
        """Return records as a batch; a nested value is one line.

        Args:
            records: of this parser.
            typed: gives a column of texts its type.
            each: reads the values of a column one by one.

        Raises:
            ODD: there is something in it that this parser does not read.
        """
        columns = []
        for field, kind in zip(self._wanted, self._kinds, strict=True):
            values: Sequence[Any] = records
            for number, get in enumerate(self._getters[path_of(field)]):
                values = (
                    [None if value is None else get(value) for value in values] if number else list(map(get, values))
                )
            if is_json(field.type):
                columns.append(typed(self._texts(field, values), field))
            elif pa.types.is_float64(field.type) and not self._is_careful:
                columns.append(self._floats(field, values))
            elif kind is msgspec.Raw:
                columns.append(each(field, [value and msgspec.Raw(_one_line(value)) for value in values]))
            elif field.type in _KINDS:
                columns.append(pa.array(values, field.type))
            else:
                columns.append(typed(pa.array(values, pa.string()), field))
        return pa.record_batch(columns, schema=self._wanted)

    def _texts(self, field: pa.Field, values: Sequence[msgspec.Raw | None]) -> pa.Array:
        """Return values as JSON text; `null` is NULL."""
        found = _texts_of(values)
        if len(path_of(field)) <= self._levels and pc.any(pc.starts_with(found, "{")).as_py():
            raise ValueError("an object whose fields are separate columns")
        return found

    def _floats(self, field: pa.Field, values: Sequence[msgspec.Raw | None]) -> pa.Array:
        found = _texts_of(values)
        if field.name in self._guessed and not keeps_digits(found):
            raise ValueError("more digits than a double keeps")
        is_zero = pc.equal(found, constant("-0"))
        if pc.any(is_zero).as_py():  # which is the integer 0
            found = pc.if_else(is_zero, constant("0"), found)
        return from_text(found, field.type, is_empty_null=False)


def _texts_of(values: Sequence[msgspec.Raw | None]) -> pa.Array:
    """Return the texts of values, each in one line; `null` is NULL."""
    try:
        joined = b"\0".join(cast("Sequence[msgspec.Raw]", values))  # no JSON has this byte
    except TypeError:  # some are not there
        joined = b"\0".join(b"null" if value is None else value for value in values)
    whole = pa.array([_one_line(joined)], pa.binary()).cast(pa.string())
    found = pc.split_pattern(whole, "\0").flatten() if values else whole[:0]
    is_null = pc.equal(found, constant("null"))
    if pc.any(is_null).as_py():  # seldom, and to choose copies the column
        found = pc.if_else(is_null, pa.nulls(1, pa.string())[0], found)
    return found


def _one_line(value: Any) -> bytes:
    text = bytes(value)
    # To look for them is much cheaper than to translate.
    return text.translate(ONE_LINE) if b"\r" in text or b"\n" in text else text


def _kind(field: pa.Field, *, is_careful: bool) -> Any:
    """Return what the parser makes of a column's values; `Raw`: nothing yet."""
    kind = field.type
    if kind in _KINDS:
        return msgspec.Raw if is_careful and not pa.types.is_boolean(kind) else _KINDS[kind]
    if is_json(kind) or is_read_singly(kind) or (is_careful and is_text(kind) and is_said(field)):
        return msgspec.Raw
    return str | None


def is_said(field: pa.Field) -> bool:
    """Tell whether `types` or the table's column say a column's type."""
    return facts_of(field).origin in (TypeOrigin.DECLARED, TypeOrigin.TABLE)


def is_read_singly(kind: pa.DataType) -> bool:
    """Tell whether values of a type that JSON does not write as texts are read one by one."""
    types = pa.types
    is_number = types.is_floating(kind) or types.is_decimal(kind) or types.is_integer(kind)
    return kind not in _KINDS and bool(is_number or types.is_nested(kind))


__all__ = ["MOST_VALUES", "ODD", "EachValue", "Structs", "is_read_singly", "is_said"]
