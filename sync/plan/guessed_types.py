"""Guessed types yield to the table: a column whose type was guessed from values is read as the table's column. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from syncblocks.connectors.arrow.digits import MOST_EXACT
from syncblocks.connectors.arrow.fidelity import Kept, is_text_of_something, plain
from syncblocks.connectors.arrow.flatten import marked, path_of
from syncblocks.connectors.field_facts import Precision, TypeOrigin, facts_of, with_facts
from syncblocks.connectors.stream import LedgerRow, Stream
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition

from .columns import ColumnMapping, Rules

#: A decimal of integers and fractions, with as many digits as there are.
_DECIMAL = pa.decimal128(38, 1)

#: Bits of the integers that a double stores exactly.
_EXACT_BITS = 53

#: Column of the table -> its least and its greatest value. `None` if the values are all NULL, or unknown.
Limits = Callable[[str], tuple[Any, Any] | None]


def decided(
    stream: Stream,
    names: Mapping[str, str],
    rules: Rules,
    changeable: Collection[str] = (),
    movable: Collection[str] = (),
    limits: Limits = lambda _: None,
    untyped: Collection[str] = (),
) -> Stream:
    """Return a stream whose guessed columns have the types of the table's columns, where the table does not hold them.

    The source checks each value: one that the type does not hold exactly is refused with its place.

    Args:
        stream: as the source offers it.
        names: column of the source -> what it is called after the transformers, which have no function.
        rules: of the table.
        changeable: columns of the source that may get another kind of values. Keys and bookmarks are not among them.
        movable: columns of `changeable` whose dates become times where such come.
        limits: returns the least and the greatest value of a column of the table, or `None` if there are none.
        untyped: columns of the table that get a type with their first values.
    """
    schema = rules.table.schema
    if schema is None or rules.types is None or not any(map(_is_guessed, stream.schema)):
        return stream
    renamed = replace(stream, schema=pa.schema([field.with_name(names[field.name]) for field in stream.schema]))
    # What a new table would have; a replacement keeps the types, too, so that they do not change with every file.
    found = rules.types.keeps(renamed, replace(rules.table, stays=False), WriteDisposition.REPLACE)
    widens = rules.widens and not rules.others
    compared = {*stream.key_properties, *stream.read.bookmark_properties}  # which cannot become text
    fields = [
        _decided(field, kept, schema, widens=widens and field.name not in compared)
        for field, kept in zip(stream.schema, found, strict=True)
    ]
    for place, (field, kept) in enumerate(zip(stream.schema, found, strict=True)):
        if kept.column in untyped and field.name in changeable and _is_typed_now(field, kept, schema):
            made = with_facts(field, first_values=True)
            if limits(kept.column) is None and _is_retyped(made.with_name(names[field.name]), renamed, rules):
                fields[place] = made
    fractions = set()
    for place, (field, kept) in enumerate(zip(stream.schema, found, strict=True)):
        if _gets_fractions(field, kept, schema) and not facts_of(field).is_undecided:
            made = _with_fractions(field, kept, names[field.name], renamed, rules, changeable, limits)
            if made is not None:
                fields[place] = made
                fractions.add(field.name)
    for place, (field, kept) in enumerate(zip(stream.schema, found, strict=True) if widens else ()):
        if field.name not in compared | fractions and _outgrows(field, kept, schema):
            fields[place] = _as_text(field, names[field.name], renamed, rules) or fields[place]
    for place, (field, kept) in enumerate(zip(stream.schema, found, strict=True)):
        if field.name in movable and _gets_times(field, kept, schema):
            fields[place] = _as_times(field, names[field.name], renamed, rules) or fields[place]
    return replace(stream, schema=pa.schema(fields))


def _is_guessed(field: pa.Field) -> bool:
    facts = facts_of(field)
    return facts.origin is TypeOrigin.GUESSED or facts.unseen


def in_common(stream: Stream, names: Mapping[str, str], others: Sequence[pa.Schema]) -> Stream:
    """Return a stream whose guessed columns have types that hold the values of other streams, too.

    For a table that is not there yet: it is made by the stream that comes first.

    Args:
        stream: as the source offers it.
        names: column of the source -> what it is called after the transformers, which have no function.
        others: columns of the other streams of the table, as they arrive.
    """
    fields = []
    for field in stream.schema:
        name = names[field.name]
        kind = _common(field, [other.field(name) for other in others if other.get_field_index(name) >= 0])
        becomes_text = kind == pa.string() and field.name in stream.read.bookmark_properties  # which has another order
        if _is_guessed(field) and kind is not None and kind != field.type and not becomes_text:
            field = _typed(field, kind, origin=TypeOrigin.TABLE, unseen=facts_of(field).unseen)
        fields.append(field)
    return replace(stream, schema=pa.schema(fields))


def _common(field: pa.Field, others: Sequence[pa.Field]) -> pa.DataType | None:
    """Return a type for the values of all; that of a column whose type somebody says. None: nobody can tell one."""
    kind: pa.DataType | None = None
    for each in (field, *others):
        facts, own = facts_of(each), plain(each.type)
        if facts.is_undecided or _kind(own) is None:
            return None
        if not _is_guessed(each):
            return own if _may_hold(own, plain(field.type)) else None
        if not facts.unseen:
            kind = own if kind is None or kind == own else _of_both(kind, own)
    return kind


def _of_both(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Return the type for values of two guessed ones."""
    types, both = pa.types, (one, other)
    if all(types.is_integer(kind) or types.is_floating(kind) for kind in both):
        return pa.float64()
    if any(types.is_date32(kind) for kind in both):
        return next((kind for kind in both if types.is_timestamp(kind) and kind.tz is None), pa.string())
    return pa.string()


def _gets_times(field: pa.Field, kept: Kept, table: pa.Schema) -> bool:
    """Tell whether a column of dates gets times without a zone."""
    facts = facts_of(field)
    place = -1 if kept.held is None or kept.is_computed else table.get_field_index(kept.column)
    if facts.origin is not TypeOrigin.GUESSED or place < 0 or not pa.types.is_date32(table.field(place).type):
        return False
    return facts.moments or (pa.types.is_timestamp(field.type) and field.type.tz is None)


def _as_times(field: pa.Field, name: str, stream: Stream, rules: Rules) -> pa.Field | None:
    """Return a column of dates and times as one of times; None: the destination does not make them of its dates."""
    made = _typed(field, pa.timestamp("us"), origin=TypeOrigin.GUESSED)
    return made if _is_kept(made.with_name(name), stream, rules) else None


def _outgrows(field: pa.Field, kept: Kept, table: pa.Schema) -> bool:
    """Tell whether a column gets numbers or times that its type, which is of the same kind, does not hold."""
    facts, types = facts_of(field), pa.types
    place = -1 if kept.held is None or kept.is_computed else table.get_field_index(kept.column)
    if facts.origin is not TypeOrigin.GUESSED or facts.is_undecided or place < 0:
        return False
    held, guessed = plain(table.field(place).type), plain(field.type)
    if types.is_timestamp(guessed) and (types.is_timestamp(held) or types.is_date32(held)):
        return (guessed.tz is None) != (types.is_date32(held) or held.tz is None)
    return bool((types.is_integer(held) or types.is_floating(held)) and types.is_decimal(guessed))


def _as_text(field: pa.Field, name: str, stream: Stream, rules: Rules) -> pa.Field | None:
    """Return a column as the texts that the file has; None: the destination does not make its column text."""
    made = _typed(field, pa.string(), origin=TypeOrigin.DECLARED)
    becomes = with_facts(pa.field(name, pa.string(), field.nullable), native_type=str(field.type), becomes_text=True)
    return made if _is_kept(becomes, stream, rules) else None


def _is_kept(field: pa.Field, stream: Stream, rules: Rules) -> bool:
    """Tell whether the table's column takes a column, or can be altered to take it."""
    assert rules.types is not None, "asked for by `decided`"
    one = replace(stream, schema=pa.schema([field]))
    (kept,) = rules.types.keeps(one, rules.table, rules.disposition)
    return kept.arrow is not None


def _is_typed_now(field: pa.Field, kept: Kept, table: pa.Schema) -> bool:
    """Return true if a text column of the table gets its first values, which have another type."""
    place = -1 if kept.held is None else table.get_field_index(kept.column)
    is_text = place >= 0 and pa.types.is_string(plain(table.field(place).type))
    facts = facts_of(field)
    is_guessed = facts.origin is TypeOrigin.GUESSED and not facts.unseen
    return is_text and is_guessed and not pa.types.is_string(plain(field.type))


def _is_retyped(field: pa.Field, stream: Stream, rules: Rules) -> bool:
    """Return true if the destination changes its text column to the type of a column."""
    assert rules.types is not None, "asked for by `decided`"
    (kept,) = rules.types.keeps(replace(stream, schema=pa.schema([field])), rules.table, rules.disposition)
    return kept.arrow is not None and kept.held != kept.type and not pa.types.is_string(plain(kept.arrow))


def untyped_columns(
    mapping: ColumnMapping, row: LedgerRow | None, rules: Rules, *, full_refresh: bool
) -> tuple[str, ...]:
    """Return the columns of a table that the load leaves as texts because no value has arrived.

    Args:
        mapping: of the stream. Its columns without a value are texts.
        row: the ledger's row, with the columns that had no value before.
        rules: of the table.
        full_refresh: the table is made again, whatever types it has.
    """
    schema = pa.schema([]) if rules.table.schema is None else rules.table.schema
    texts = {field.name for field in schema if pa.types.is_string(plain(field.type))}
    known = texts.intersection(() if row is None or full_refresh else row.untyped)
    found, fields = set(known), {field.name: field for field in mapping.arriving.schema}
    for column in mapping.columns:
        if column.kept is None or column.is_left_out:
            continue
        facts, name = facts_of(fields[column.name]), column.kept.column
        if not facts.unseen:
            found.discard(name)
        elif column.kept.held is None or full_refresh:
            is_text = column.kept.arrow is not None and pa.types.is_string(plain(column.kept.arrow))
            found |= {name} if is_text and column.name not in rules.said else set()
        if name in known and facts.first_values and (rules.disposition is not WriteDisposition.REPLACE):
            found.add(name)  # until the load has changed its type
    return tuple(sorted(found))


def _typed(field: pa.Field, kind: pa.DataType, **facts: Any) -> pa.Field:
    """Return a column with another type and other facts, from the same place of the record."""
    return marked(with_facts(pa.field(field.name, kind, field.nullable), **facts), path_of(field))


def _decided(field: pa.Field, kept: Kept, table: pa.Schema, *, widens: bool) -> pa.Field:
    facts = facts_of(field)
    place = -1 if kept.held is None else table.get_field_index(kept.column)
    if not _is_guessed(field) or place < 0 or kept.is_computed:
        return field
    if kept.type == kept.held and not facts.unseen:
        return field
    held, guessed = plain(table.field(place).type), plain(field.type)
    if widens and not facts.unseen and _kind(held) not in (None, "text", _kind(guessed)):
        # Its values are read as they are written, and the plan makes the table's column text, or refuses that.
        return _typed(field, pa.string(), origin=TypeOrigin.DECLARED)
    if is_text_of_something(table.field(place)) or not _may_hold(held, guessed):
        return field
    if facts.is_undecided and _gets_fractions(field, kept, table):
        return field
    if facts.is_undecided and pa.types.is_decimal128(held):
        return _typed(field, held, precision=Precision.WIDENS)
    return _typed(field, held, origin=TypeOrigin.TABLE, unseen=facts.unseen)


def _gets_fractions(field: pa.Field, kept: Kept, table: pa.Schema) -> bool:
    """Return true if numbers with fractions arrive for a column of integers."""
    facts, types = facts_of(field), pa.types
    place = -1 if kept.held is None or kept.is_computed else table.get_field_index(kept.column)
    if facts.origin is not TypeOrigin.GUESSED or facts.whole or place < 0:
        return False
    guessed = plain(field.type)
    is_fraction = types.is_floating(guessed) or (types.is_decimal(guessed) and guessed.scale > 0)
    return bool(is_fraction and types.is_integer(table.field(place).type))


def _with_fractions(
    field: pa.Field,
    kept: Kept,
    name: str,
    stream: Stream,
    rules: Rules,
    changeable: Collection[str],
    limits: Limits,
) -> pa.Field | None:
    """Return a column of integers as doubles or decimals. Return `None` if the integers stay."""
    assert rules.table.schema is not None, "it has the integers"
    held = rules.table.schema.field(kept.column).type
    is_replaced = rules.disposition is WriteDisposition.REPLACE
    is_double = pa.types.is_floating(field.type)
    if is_double and _is_kept(field.with_name(name), stream, rules):
        found = () if is_replaced or held.bit_width < _EXACT_BITS else limits(kept.column) or ()
        if all(abs(int(each)) <= MOST_EXACT for each in found):
            return field
    decimal = pa.field(name, _DECIMAL if is_double else field.type)
    if field.name not in changeable or not _is_kept(decimal, stream, rules):
        return None
    return _typed(field, held, origin=TypeOrigin.TABLE, precision=Precision.LOOK) if is_double else field


def _may_hold(held: pa.DataType, guessed: pa.DataType) -> bool:
    """Return true if the source can read the values as the type of the table's column, and check each of them."""
    # JSON is the common type of unlike values of one column, such as a number and a text.
    return _kind(held) is not None and (guessed == pa.json_() or _kind(guessed) is not None)


def is_unlike(field: pa.Field, held: pa.DataType) -> bool:
    """Return true if all values of a column with a guessed type are of another kind than the type of the table."""
    if not _is_guessed(field) or facts_of(field).unseen or field.type == pa.json_():
        return False
    return _kind(plain(held)) not in (None, "text") and _kind(plain(field.type)) not in ("text", _kind(plain(held)))


def _kind(kind: pa.DataType) -> str | None:
    types = pa.types
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_date32(kind) or types.is_timestamp(kind):
        return "moment"
    if types.is_boolean(kind):
        return "flag"
    return "text" if types.is_string(kind) else None
