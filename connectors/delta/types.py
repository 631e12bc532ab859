"""Which type a column has in a Delta table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from ..arrow.fidelity import Fidelity, Kept, compare, plain
from ..arrow.text import is_text
from ..arrow.type_names import type_text
from ..arrow.unified import both_held
from ..field_facts import facts_of
from ..stream import TableState

#: The widest decimal of Delta has so many digits.
MOST_DIGITS = 38

#: In the metadata of `TableState.schema`: the table's protocol knows times without a zone.
KNOWS_NAIVE = b"syncblocks.knows_naive"

#: There as well: the files of the table are few enough to be written anew in wider columns.
MAY_WIDEN = b"syncblocks.may_widen"

#: Letters in names that Spark reads only with a mapping of columns, which we do not write.
_ODD = frozenset(" ,;{}()\n\t=")

_WIDER = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20),
    pa.float16(): pa.float32(),
}
_SAME = frozenset(
    [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.bool_(), pa.string(), pa.binary()]
)


def stored(kind: Any) -> pa.DataType | None:
    """Return the type that a new column has; None: Delta has none for it."""
    types, kind = pa.types, plain(kind)
    if kind in _SAME:
        return kind
    if kind in _WIDER:
        return _WIDER[kind]
    if types.is_date(kind):
        return pa.date32()
    if types.is_timestamp(kind):
        return pa.timestamp("us", None if kind.tz is None else "UTC")
    if types.is_decimal(kind):
        digits, scale = kind.precision + max(-kind.scale, 0), max(kind.scale, 0)
        return pa.decimal128(max(digits, scale), scale) if max(digits, scale) <= MOST_DIGITS else None
    if types.is_fixed_size_binary(kind):
        return pa.binary()
    if types.is_nested(kind):
        return _nested(kind)
    # A time of day, a span, a UUID or JSON is its text; a column without a type yet may become anything.
    return None if types.is_union(kind) else pa.string()


def stored_in(kind: Any, held: pa.DataType | None) -> pa.DataType | None:
    """Return the type in which a column is written: that of the table's column if this type holds all values."""
    found = stored(kind)
    return found if held is None or found is None or not _is_held(kind, held) else held


def _is_held(kind: Any, held: pa.DataType) -> bool:
    """Return true if a column of the table holds all values. Only text holds texts, since Arrow reads `0x10` as 16."""
    return is_text(held) or (not is_text(plain(kind)) and compare(kind, held) is not Fidelity.LOSSY)


def wider(held: pa.DataType, kind: pa.DataType | None) -> pa.DataType | None:
    """Return the type of numbers that a column of the table gets when others arrive; None: it keeps its own.

    Within lists, maps and structs, and between dates and times, a column keeps its type.
    """
    if kind is None or not (_is_number(held) and _is_number(kind)):
        return None
    try:
        found = stored(both_held(held, kind))
    except pa.ArrowException:
        return None
    is_exact = found is not None and Fidelity.LOSSY not in (compare(held, found), compare(kind, found))
    return found if is_exact else None


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _nested(kind: Any) -> pa.DataType | None:
    """Return the type of a list, map or struct, whose parts must keep their types: casts make no texts within."""
    types = pa.types
    if types.is_struct(kind):
        parts = [(field.name, _part(field.type)) for field in kind]
        return pa.struct(parts) if parts and all(part is not None for _, part in parts) else None
    if types.is_map(kind):
        key, item = _part(kind.key_type), _part(kind.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        part = _part(kind.value_type)
        return None if part is None else pa.list_(part)
    return None


def _part(kind: Any) -> pa.DataType | None:
    found = stored(kind)
    is_text_now = found is not None and is_text(found) and not is_text(plain(kind)) and not pa.types.is_null(kind)
    return None if is_text_now else found


def has_naive(kind: Any) -> bool:
    """Tell whether a type holds a time without a zone, for which a table needs a feature of newer readers."""
    types = pa.types
    if types.is_timestamp(kind):
        return kind.tz is None
    if types.is_map(kind):
        return has_naive(kind.key_type) or has_naive(kind.item_type)
    if types.is_struct(kind):
        return any(has_naive(field.type) for field in kind)
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return bool(is_list and has_naive(kind.value_type))


def keeps(schema: pa.Schema, table: TableState, *, is_new: bool) -> list[Kept]:
    """Return how each column of a stream is kept; `is_new`: the table is made anew, whatever types it has."""
    twice = twins([*(() if is_new or table.schema is None else table.schema.names), *schema.names])
    return [_kept(field, table, is_new=is_new, twin=twice.get(field.name, "")) for field in schema]


def _says(table: TableState, fact: bytes) -> bool:
    return table.schema is not None and fact in (table.schema.metadata or {})


def twins(names: Iterable[str]) -> dict[str, str]:
    """Return names that differ from another one in case only -> that other one; Delta takes them for one column."""
    first: dict[str, str] = {}
    found: dict[str, str] = {}
    for name in names:
        other = first.setdefault(name.casefold(), name)
        if other != name:
            found |= {name: other}
    return found


def _kept(field: pa.Field, table: TableState, *, is_new: bool, twin: str) -> Kept:
    kind, held = stored(field.type), None
    if table.schema is not None and (place := table.schema.get_field_index(field.name)) >= 0:
        held = table.schema.field(place).type
    before = None if held is None else str(held)
    if twin:
        note = f"it differs from column {twin!r} in case only, and Delta takes the two for one: rename it"
        return Kept(column=field.name, type="", arrow=None, held=before or "", note=note)
    if held is not None and not is_new:
        return _of_held(field, kind, held, may_widen=_says(table, MAY_WIDEN))
    if kind is None:
        return Kept(column=field.name, type="", arrow=None)
    note = ""
    if has_naive(kind):
        risen = "reader 3, writer 7 (timestampNtz)"
        if table.schema is not None and not is_new and not _says(table, KNOWS_NAIVE):
            note = f"a time without a zone raises the table's protocol to {risen}, which older readers refuse"
            return Kept(column=field.name, type="", arrow=None, note=note)
        note = f"readers need protocol {risen}"
    elif _ODD.intersection(field.name):
        note = "Spark does not read columns of such a name"
    is_as_text = is_text(kind) and not is_text(plain(field.type))
    return Kept(column=field.name, type=str(kind), arrow=kind, held=before, is_text=is_as_text, note=note)


def _of_held(field: pa.Field, kind: pa.DataType | None, held: pa.DataType, *, may_widen: bool) -> Kept:
    """Return how a column is kept in a column of the table, which may become wider or text."""
    before = str(held)
    if is_text(held):
        is_as_text = not is_text(plain(field.type)) and not pa.types.is_null(field.type)
        return Kept(column=field.name, type=before, arrow=held, held=before, is_text=is_as_text)
    if kind is not None and _is_held(field.type, held):
        return Kept(column=field.name, type=before, arrow=held, held=before)
    if kind is not None and kind == held:  # as exact as in a new table
        return Kept(column=field.name, type=before, arrow=held, held=before)
    note = f"the table's column is {type_text(held)}, the stream's is {type_text(field.type)}, and "
    if (wide := kind if facts_of(field).becomes_text else wider(held, kind)) is None:
        note += "such a column of a Delta table does not become wider"
    elif may_widen:
        note = "all files of the table are written anew"
        return Kept(column=field.name, type=str(wide), arrow=wide, held=before, note=note)
    else:
        note += "the table is too large to be written anew for it, or takes appends only"
    return Kept(column=field.name, type=before, arrow=None, held=before, note=note)
