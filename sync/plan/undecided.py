"""Numbers without a limit of digits: the table decides their type, or their first load does. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from syncblocks.connectors.arrow.fidelity import Fidelity, Kept, compare, plain
from syncblocks.connectors.arrow.type_names import yaml_text
from syncblocks.connectors.protocols import StatesTypes
from syncblocks.connectors.stream import (
    GUESSED,
    INEXACT,
    LOOK,
    SAID,
    UNDECIDED,
    WIDENS,
    Stream,
    TableState,
    WriteDisposition,
)
from syncblocks.connectors.values import replace

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
    if not any(UNDECIDED in (field.metadata or {}) for field in stream.schema):
        return stream
    fields = []
    for field in stream.schema:
        if UNDECIDED in (field.metadata or {}):
            name = names[field.name]
            is_of_file = GUESSED in (field.metadata or {})
            types = rules.types if name not in rules.said and (is_decided or is_of_file) else None
            is_inexact = field.metadata[UNDECIDED] == INEXACT and name not in rules.said
            if types is not None:
                field = _settled(_marked(field), name, stream, rules, types, is_new=is_new)
            else:
                field = _as_written(field) if is_inexact else _marked(field)
        fields.append(field)
    return replace(stream, schema=pa.schema(fields))


def is_undecided(stream: Stream) -> bool:
    """Tell whether the first load decides the type of a column."""
    return any((field.metadata or {}).get(UNDECIDED) == LOOK for field in stream.schema)


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
        if UNDECIDED not in (field.metadata or {}) or column is None or column.said is not None:
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
        one = replace(stream, schema=pa.schema([kind]), key_properties=(), bookmark_properties=())
        return types.keeps(one, rules.table, WriteDisposition.REPLACE)[0]

    own, schema = kept(field.with_name(name)), rules.table.schema
    if own.is_native:
        return field
    place = -1 if schema is None or own.held is None or is_new else schema.get_field_index(own.column)
    if schema is not None and place >= 0:
        held = plain(schema.field(place).type)
        if pa.types.is_decimal128(held):
            return _marked(field.with_type(held), {WIDENS: b"1"})
        # Integers of a file that get fractions.
        is_wider = GUESSED in (field.metadata or {}) and pa.types.is_integer(held)
        return _marked(field, {UNDECIDED: LOOK}) if is_wider else field
    number = kept(pa.field(name, _DECIMAL))
    is_text = number.arrow is None or number.is_text or compare(_DECIMAL, number.arrow) is Fidelity.TEXT
    return _as_written(field) if is_text else _marked(field, {UNDECIDED: LOOK})


def _as_written(field: pa.Field) -> pa.Field:
    """Return numbers as texts; those of a file are taken as they are written."""
    kept = {key: value for key, value in (field.metadata or {}).items() if key not in (GUESSED, UNDECIDED)}
    said = {SAID: b"1"} if GUESSED in (field.metadata or {}) else {}
    return field.with_type(pa.string()).with_metadata({**kept, **said})


def _marked(field: pa.Field, marks: Mapping[bytes, bytes] | None = None) -> pa.Field:
    """Return a field with these marks in place of `UNDECIDED`."""
    kept = {key: value for key, value in (field.metadata or {}).items() if key != UNDECIDED}
    return field.with_metadata({**kept, **(marks or {})})
