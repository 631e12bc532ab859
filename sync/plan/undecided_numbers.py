"""Numbers without a limit of digits: the table decides their type, or their first load does. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from syncblocks.connectors.arrow.fidelity import Fidelity, Kept, compare, plain
from syncblocks.connectors.arrow.type_names import yaml_text
from syncblocks.connectors.field_facts import Precision, TypeOrigin, facts_of, with_facts
from syncblocks.connectors.protocols import StatesTypes
from syncblocks.connectors.stream import Stream, TableState
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition

from .columns import ColumnMapping, Rules

#: A number as it is kept once its type is decided.
_DECIMAL = pa.decimal128(18, 2)


def settled(stream: Stream, names: Mapping[str, str], rules: Rules, *, is_decided: bool, is_new: bool) -> Stream:
    """Return a stream whose undecided columns are texts, decimals as the table's, or to be looked at (`LOOK`).

    Args:
        stream: as the source offers it.
        names: column of the source -> what it is called after the transformers.
        rules: of the table.
        is_decided: no function of a transformer decides the columns; one gets texts.
        is_new: the table is made anew, whatever types it has.
    """
    if not any(facts_of(field).is_undecided for field in stream.schema):
        return stream
    fields = []
    for field in stream.schema:
        facts = facts_of(field)
        if facts.is_undecided and facts.origin is not TypeOrigin.TABLE:
            name = names[field.name]
            is_of_file = facts.origin is TypeOrigin.GUESSED
            types = rules.types if name not in rules.said and (is_decided or is_of_file) else None
            is_inexact = facts.precision is Precision.INEXACT and name not in rules.said
            known = with_facts(field, precision=Precision.KNOWN)
            if types is not None:
                field = _settled(known, name, stream, rules, types, is_new=is_new)
            else:
                field = _as_written(known) if is_inexact else known
        fields.append(field)
    return replace(stream, schema=pa.schema(fields))


def is_undecided(stream: Stream) -> bool:
    """Tell whether the first load decides the type of a column."""
    return any(facts_of(field).precision is Precision.LOOK for field in stream.schema)


def text_warnings(stream: Stream, names: Mapping[str, str], mapping: ColumnMapping, *, is_decided: bool) -> list[str]:
    """Say which numbers of a source arrive as texts, and what makes numbers of them.

    Args:
        stream: as the source offers it, before `settled`.
        names: column of the source -> what it is called after the transformers.
        mapping: of the settled stream.
        is_decided: no function of a transformer decides the columns.
    """
    columns, found = {column.name: column for column in mapping.columns}, []
    for field in stream.schema:
        column = columns.get(names.get(field.name, ""))
        if not facts_of(field).is_undecided or column is None or column.said is not None:
            continue
        said = f'`types: {{{yaml_text(field.name)}: "decimal(38,9)"}}` makes numbers of it'
        if not is_decided:
            found.append(f"{stream.name}: the transformer's function gets {field.name} as text; {said}")
        elif column.fidelity is Fidelity.TEXT and column.kept is not None and column.kept.held is not None:
            found.append(
                f"{stream.name}: {field.name} is text, as the table's column is ({column.kept.held}); with "
                "--full-refresh its type is decided anew"
            )
    return found


def turned_to_text(mapping: ColumnMapping, table: TableState) -> list[str]:
    """Say which columns of numbers the table has as texts from now on: in a replace, nothing else would tell."""
    found = []
    schema = pa.schema([]) if table.schema is None else table.schema
    for column in mapping.columns:
        kept = column.kept
        place = -1 if kept is None or kept.held is None else schema.get_field_index(kept.column)
        if kept is None or place < 0 or kept.arrow is None or kept.held == kept.type:
            continue
        held = schema.field(place).type
        is_number = pa.types.is_integer(held) or pa.types.is_floating(held) or pa.types.is_decimal(held)
        if is_number and pa.types.is_string(plain(kept.arrow)):
            found.append(f"column {column.name!r} turns from {kept.held} into {kept.type}: its numbers become texts")
    return found


def _settled(field: pa.Field, name: str, stream: Stream, rules: Rules, types: StatesTypes, *, is_new: bool) -> pa.Field:
    def kept(kind: pa.Field) -> Kept:
        one = replace(
            stream, schema=pa.schema([kind]), key_properties=(), read=replace(stream.read, bookmark_properties=())
        )
        return types.keeps(one, rules.table, WriteDisposition.REPLACE)[0]

    own, schema = kept(field.with_name(name)), rules.table.schema
    if own.is_native:
        return field
    gets_type = facts_of(field).first_values
    place = -1 if schema is None or own.held is None or is_new or gets_type else schema.get_field_index(own.column)
    if schema is not None and place >= 0:
        held = plain(schema.field(place).type)
        if pa.types.is_decimal128(held):
            return with_facts(field.with_type(held), precision=Precision.WIDENS)
        # Integers of a file that get fractions.
        is_wider = facts_of(field).origin is TypeOrigin.GUESSED and pa.types.is_integer(held)
        return with_facts(field, precision=Precision.LOOK) if is_wider else field
    number = kept(with_facts(pa.field(name, _DECIMAL), first_values=gets_type))
    is_text = number.arrow is None or number.is_text or compare(_DECIMAL, number.arrow) is Fidelity.TEXT
    return _as_written(field) if is_text else with_facts(field, precision=Precision.LOOK)


def _as_written(field: pa.Field) -> pa.Field:
    """Return numbers as texts; those of a file are taken as they are written."""
    text = field.with_type(pa.string())
    is_of_file = facts_of(field).origin is TypeOrigin.GUESSED
    return with_facts(text, origin=TypeOrigin.DECLARED, whole=False) if is_of_file else text
