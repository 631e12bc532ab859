"""Guessed types yield to the table: a column whose type was guessed from values is read as the table's column. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from syncblocks.connectors.arrow.fidelity import Kept, is_text_of_something, plain
from syncblocks.connectors.arrow.flatten import marked, path_of
from syncblocks.connectors.field_facts import Precision, TypeOrigin, facts_of, with_facts
from syncblocks.connectors.stream import Stream, WriteDisposition
from syncblocks.connectors.values import replace

from .columns import Rules


def decided(stream: Stream, names: Mapping[str, str], rules: Rules) -> Stream:
    """Return a stream whose guessed columns have the types of the table's columns, where the table does not hold them.

    The source checks each value: one that the type does not hold exactly is refused with its place.

    Args:
        stream: as the source offers it.
        names: column of the source -> what it is called after the transformers, which have no function.
        rules: of the table.
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
    return replace(stream, schema=pa.schema(fields))


def _is_guessed(field: pa.Field) -> bool:
    facts = facts_of(field)
    return facts.origin is TypeOrigin.GUESSED or facts.unseen


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
        text = with_facts(pa.field(field.name, pa.string(), field.nullable), origin=TypeOrigin.DECLARED)
        return marked(text, path_of(field))
    if is_text_of_something(table.field(place)) or not _may_hold(held, guessed):
        return field
    if _gets_fractions(guessed, held, is_whole=facts.whole):
        return field
    if facts.is_undecided and pa.types.is_decimal128(held):
        decimal = with_facts(pa.field(field.name, held, field.nullable), precision=Precision.WIDENS)
        return marked(decimal, path_of(field))
    made = with_facts(pa.field(field.name, held, field.nullable), origin=TypeOrigin.TABLE, unseen=facts.unseen)
    return marked(made, path_of(field))


def _gets_fractions(guessed: pa.DataType, held: pa.DataType, *, is_whole: bool) -> bool:
    """Tell whether a column of integers gets other numbers, which make it wider."""
    types = pa.types
    return bool(types.is_integer(held) and types.is_floating(guessed) and not is_whole)


def _may_hold(held: pa.DataType, guessed: pa.DataType) -> bool:
    """Tell whether a column may hold some of the values; else the plan refuses it, before a file is read."""
    kind = _kind(held)
    return kind is not None and (kind == "text" or _kind(guessed) in ("text", kind))


def _kind(kind: pa.DataType) -> str | None:
    types = pa.types
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_date32(kind) or types.is_timestamp(kind):
        return "moment"
    if types.is_boolean(kind):
        return "flag"
    return "text" if types.is_string(kind) else None
