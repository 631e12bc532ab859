"""Mapping of a stream's columns to the destination's types: exact, converted or refused. Pure.

The plan maps declared columns. If a transformer decides the columns, its first batch is mapped.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import msgspec
import pyarrow as pa

from syncblocks.connectors.arrow.declared_types import decoded, is_readable, read_as
from syncblocks.connectors.arrow.fidelity import Fidelity, Kept, as_text, cut, fidelity, plain
from syncblocks.connectors.arrow.type_names import yaml_text
from syncblocks.connectors.field_facts import Precision, TypeOrigin, facts_of, with_facts
from syncblocks.connectors.protocols import StatesTypes
from syncblocks.connectors.stream import VALID_FROM, VALID_TO, Stream, TableState
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition

from ..config.remedies import IN_FILE, Ways
from .lengths import of_length

_OF_HISTORY = (VALID_FROM, VALID_TO)

#: In place of a type that the plan cannot know.
_LATER = "decided at the first load"


class ColumnPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One column of a stream, and how the destination keeps it."""

    #: Name after renames and transformers.
    name: str
    #: Type in which it arrives; the source's own name of the type, if there is one.
    type: str
    #: How the destination keeps it; None if the destination does not say.
    kept: Kept | None
    fidelity: Fidelity | None
    #: Type that `types` says, if the source reads it in another one.
    said: pa.DataType | None = None
    #: How its texts write the bytes that arrive; empty: they are not decoded.
    decode: str = ""
    #: Conversion by `on_lossy`: "cast", "text" or "" for none.
    conversion: str = ""
    #: Whether it is new and left out by `on_schema_change: ignore`.
    is_left_out: bool = False

    @property
    def is_text(self) -> bool:
        """Whether the destination gets texts of values that are none: by `types`, or since it has no such type."""
        return self.conversion == "text" or self.said == pa.string()


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Rules for the columns of one stream; constant during a run."""

    #: The destination's types; None if it does not say how it keeps columns.
    types: StatesTypes | None
    #: Name of the destination's connector, for messages.
    connector: str
    table: TableState
    disposition: WriteDisposition
    #: fail, cast or text.
    on_lossy: str = "fail"
    #: How messages name what mends a mistake.
    ways: Ways = IN_FILE
    #: Types that the pipeline says, by the arriving names of their columns.
    said: Mapping[str, pa.DataType] = msgspec.field(default_factory=dict)
    #: How texts write bytes, by the arriving names of their columns.
    decode: Mapping[str, str] = msgspec.field(default_factory=dict)
    #: Most characters of texts, by the arriving names of their columns.
    lengths: Mapping[str, int] = msgspec.field(default_factory=dict)
    #: Columns, by their arriving names, that `on_schema_change: ignore` leaves out if the table lacks them.
    left_out: frozenset[str] = frozenset()
    #: Whether a source that changes during the read fails the stream.
    is_frozen: bool = False
    #: Whether a column of the table that does not hold the stream's becomes text.
    widens: bool = False
    #: Columns, by their arriving names, whose values decide what becomes of a record (`WriteSpec.deciding`).
    deciding: frozenset[str] = frozenset()
    #: Columns that the pipeline file adds to the stream.
    added: frozenset[str] = frozenset()
    #: Other streams that write the table, and may need the types of its columns.
    others: tuple[str, ...] = ()


class ColumnMapping(msgspec.Struct, frozen=True, kw_only=True):
    """A stream's columns as they come, and as the destination gets them."""

    #: The stream as declared, or as it leaves the last transformer.
    declared: Stream
    #: The stream as the destination gets it.
    arriving: Stream
    columns: tuple[ColumnPlan, ...]
    #: Reasons not to write it, one sentence each; empty if it can be written.
    refusals: tuple[str, ...] = ()

    def convert(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Convert a batch to the columns that the destination gets.

        Raises:
            FatalConnectorError: a value has no text form, is none of the type that `types` says, or is out of range
                for the type of its cast.
        """
        planned = {column.name: column for column in self.columns}
        arrays = [_converted(batch.column(f.name), f, planned.get(f.name)) for f in self.arriving.schema]
        return pa.RecordBatch.from_arrays(arrays, schema=self.arriving.schema)


def _converted(array: pa.Array, field: pa.Field, column: ColumnPlan | None) -> pa.Array:
    if column is None:
        return array
    if column.said is not None:
        if column.decode:
            return decoded(array, column.decode, field.name)
        array = read_as(array, column.said, field.name)
    if column.conversion == "text":
        return as_text(array, field.name)
    return cut(array, field.type, field.name) if column.conversion == "cast" and array.type != field.type else array


def map_columns(stream: Stream, rules: Rules) -> ColumnMapping:
    """Map a stream's columns to the destination's types."""
    if rules.types is None:
        said, refusals = _said(stream, rules)
        columns = [
            ColumnPlan(
                name=f.name,
                type=_type_of(f),
                kept=None,
                fidelity=None,
                said=_if_other(f, own),
                decode=rules.decode.get(f.name, ""),
            )
            for f, own in zip(said.schema, stream.schema, strict=True)
        ]
        return ColumnMapping(declared=stream, arriving=said, columns=tuple(columns), refusals=tuple(refusals))
    declared = stream
    stream, refusals = _said(declared, rules)
    kept = _keeps(stream, rules)
    fields, columns = [], []
    for field, own, one in zip(stream.schema, declared.schema, kept, strict=True):
        column = ColumnPlan(
            name=field.name,
            type=_type_of(field),
            kept=one,
            fidelity=fidelity(field, one),
            said=_if_other(field, own),
            decode=rules.decode.get(field.name, ""),
        )
        if facts_of(field).precision is Precision.LOOK:
            undecided = replace(one, type=_LATER, note="a decimal that holds every number, else text")
            if facts_of(field).origin is TypeOrigin.TABLE:  # integers that get fractions
                undecided = replace(one, type="a decimal", note="numbers that no decimal stores are rejected")
            column = replace(column, kept=undecided, fidelity=Fidelity.EXACT)
        if field.name in rules.left_out and one.held is None:
            columns.append(replace(column, is_left_out=True))
            continue
        if column.fidelity is Fidelity.LOSSY:
            field, column, refusal = _converted_column(stream, field, column, rules)
            refusals += [refusal] if refusal else []
        fields.append(field)
        columns.append(column)
    arriving = replace(stream, schema=pa.schema(fields))
    return ColumnMapping(declared=declared, arriving=arriving, columns=tuple(columns), refusals=tuple(refusals))


def _said(stream: Stream, rules: Rules) -> tuple[Stream, list[str]]:
    """Return the stream in the types that the pipeline says, and why some columns cannot be read so."""
    fields, refusals = [], []
    for field in stream.schema:
        kind = rules.said.get(field.name, field.type)
        if field.name in rules.decode and not pa.types.is_string(plain(field.type)):
            refusals.append(f"column {field.name!r} is {_type_of(field)}, and `decode` takes texts only")
        elif not is_readable(field.type, kind):
            refusals.append(f"column {field.name!r} is {_type_of(field)}, which cannot be read as {kind}: see `types`")
        elif kind != field.type:
            field = pa.field(field.name, kind, field.nullable)
        if field.name in rules.lengths:
            field = of_length(field, rules.lengths[field.name], rules.connector)
        fields.append(field)
    return replace(stream, schema=pa.schema(fields)), refusals


def _if_other(field: pa.Field, own: pa.Field) -> pa.DataType | None:
    return None if field.type == own.type else field.type


def table_columns(stream: Stream, rules: Rules) -> frozenset[str]:
    """Return the columns of a stream that the table has; all of them if the destination does not say."""
    if rules.types is None:
        return frozenset(stream.schema.names)
    found = zip(stream.schema.names, _keeps(stream, rules), strict=True)
    return frozenset(name for name, kept in found if kept.held is not None)


def _converted_column(
    stream: Stream, field: pa.Field, column: ColumnPlan, rules: Rules
) -> tuple[pa.Field, ColumnPlan, str]:
    """Apply `on_lossy` to a column; return its field, its plan, and why it is refused."""
    kept = column.kept
    assert kept is not None
    if rules.widens and kept.arrow is None and kept.held is not None:
        return _widened_column(stream, field, column, rules)
    text = with_facts(pa.field(field.name, pa.string(), field.nullable), native_type=column.type)
    (as_text_kept,) = _keeps(replace(stream, schema=pa.schema([text])), rules)
    has_text = as_text_kept.arrow is not None
    is_relaxed = facts_of(field).relaxed
    # An integer enters a text column that is there as its text, which has all of it.
    is_whole = pa.types.is_integer(field.type) and as_text_kept.held is not None
    is_whole = is_whole and as_text_kept.held == as_text_kept.type
    if has_text and (rules.on_lossy == "text" or is_whole):
        text = with_facts(text, relaxed=is_relaxed)
        return text, replace(column, kept=as_text_kept, fidelity=Fidelity.TEXT, conversion="text"), ""
    if rules.on_lossy == "cast" and kept.arrow is not None:
        cast = with_facts(pa.field(field.name, kept.arrow, field.nullable), relaxed=is_relaxed)
        return cast, replace(column, conversion="cast"), ""
    widens = kept.arrow is None and kept.held is not None and not (rules.is_frozen or rules.ways != IN_FILE)
    widens = widens and not _as_text_in_place(stream, field, column, rules)[2]
    return field, column, _refusal(column, kept, rules, has_text=has_text, widens=widens)


def _widened_column(
    stream: Stream, field: pa.Field, column: ColumnPlan, rules: Rules
) -> tuple[pa.Field, ColumnPlan, str]:
    """Make a column of the table text, or say why it cannot become that; returns as `_converted_column`."""
    assert column.kept is not None
    text, kept, why = _as_text_in_place(stream, field, column, rules)
    if why:
        refusal = _refusal(column, column.kept, rules, has_text=False)
        return field, column, f"{refusal}. `on_schema_change: widen` does not make it text: {why}"
    return text, replace(column, kept=kept, fidelity=Fidelity.TEXT, conversion="text"), ""


def _as_text_in_place(stream: Stream, field: pa.Field, column: ColumnPlan, rules: Rules) -> tuple[pa.Field, Kept, str]:
    """Return a column of the table as text, and why it cannot become that."""
    assert column.kept is not None
    text = with_facts(pa.field(field.name, pa.string(), field.nullable), native_type=column.type)
    text = with_facts(text, relaxed=facts_of(field).relaxed, becomes_text=True)
    (kept,) = _keeps(replace(stream, schema=pa.schema([text])), rules)
    compared = {*stream.key_properties, *stream.unique_properties, *stream.read.bookmark_properties, *rules.deciding}
    why = ""
    if kept.arrow is not None and kept.held == kept.type:  # it is text already
        pass
    elif field.name in compared:
        why = "it is a key, a bookmark or compared otherwise, and texts have another order"
    elif rules.others:
        why = f"{', '.join(rules.others)} writes the table, too"
    elif kept.arrow is None:
        why = f"{rules.connector} does not write the values of a {column.kept.held} as text in place"
    return text, kept, why


def _keeps(stream: Stream, rules: Rules) -> Sequence[Kept]:
    assert rules.types is not None, "asked for by `map_columns`"
    return rules.types.keeps(stream, rules.table, rules.disposition)


def start_over(disposition: WriteDisposition) -> str:
    """Return the options of a run that begins a table anew, as messages name them."""
    return "--full-refresh" + (" --drop-history" if disposition is WriteDisposition.HISTORY else "")


def _refusal(column: ColumnPlan, kept: Kept, rules: Rules, *, has_text: bool, widens: bool = False) -> str:
    exclude = _way_without(column.name, rules)
    is_replace = rules.disposition is WriteDisposition.REPLACE
    if kept.arrow is None and kept.held is not None and (rules.table.stays or not is_replace):
        as_text = [f"say {rules.ways.lossy_as_text} to write it as text"] if has_text else []
        as_text += ["say `on_schema_change: widen` to make the column text"] if widens else []
        over = f"start the table over with {start_over(rules.disposition)}"
        last = "drop what depends on the table" if rules.table.stays else over
        ways = _any_of(*as_text, "change the table's column by hand", *exclude, last)
        return f"column {column.name!r} is {column.type}: {kept.note}; {ways}"
    if kept.arrow is None:
        why = f" ({kept.note})" if kept.note else ""
        return f"column {column.name!r} is {column.type}, for which {rules.connector} has no type{why}; " + _any_of(
            *([f"say {rules.ways.lossy_as_text} to keep it as text"] if has_text else []), *exclude
        )
    return (
        f"column {column.name!r} is {column.type}, which {rules.connector} keeps as {kept.type}, and that changes some "
        "values; "
        + _any_of(
            *([f"say {rules.ways.lossy_as_text} to keep them in full as text"] if has_text else []),
            f"say {rules.ways.lossy_cast} to cut off what does not fit",
            *exclude,
        )
    )


def _way_without(name: str, rules: Rules) -> list[str]:
    """Say how the column ceases to come, or comes as another type; empty: a history cannot be without it."""
    if name in rules.added:
        return [f"give it another type with `types: {{{yaml_text(name)}: ...}}`"]
    return [] if name in _OF_HISTORY else [f"leave it out with `columns: {{exclude: [{yaml_text(name)}]}}`"]


def _any_of(*ways: str) -> str:
    *others, last = ways
    return f"{', '.join(others)}, or {last}" if others else last


def _type_of(field: pa.Field) -> str:
    native = facts_of(field).native_type
    return sys.intern(native or str(field.type))


def other_names(mapping: ColumnMapping) -> list[str]:
    """Say which columns get another name in the table than the stream's, when the table gets them."""
    found = []
    for column in mapping.columns:
        called = column.name if column.kept is None or column.kept.held is not None else column.kept.column
        if called.lower() == column.name.lower():
            continue
        same = [
            each.name for each in mapping.columns if each is not column and each.name.lower() == column.name.lower()
        ]
        why = f"{same[0]!r} is the same name there" if same else "the table cannot have that name"
        found.append(f"column {column.name!r} is called {called!r} in the table, since {why}")
    return found


def table_changes(mapping: ColumnMapping, table: TableState, *, is_replaced: bool = False) -> list[str]:
    """Say which columns of an existing table will be added, get another type, or hold NULL from now on."""
    if table.schema is None:
        return []
    found = []
    for column in mapping.columns:
        if column.is_left_out:
            continue
        if column.kept is None:  # only names are known
            found += [f"add column {column.name}"] if column.name not in table.schema.names else []
        elif column.kept.held is None:
            found.append(f"add column {column.kept.column}")
        elif column.kept.held != column.kept.type:
            found.append(f"{column.kept.column}: {column.kept.held} becomes {column.kept.type}")
    return [*found, *_relaxed(mapping, table, is_replaced=is_replaced)]


def _relaxed(mapping: ColumnMapping, table: TableState, *, is_replaced: bool) -> list[str]:
    """Say which columns of a table cease to refuse NULL; a replacement lacks those that do not arrive."""
    fields = {field.name: field for field in mapping.arriving.schema}
    arriving = {column.kept.column: fields.get(column.name) for column in mapping.columns if column.kept is not None}
    found = []
    for needed in (field for field in table.schema or () if facts_of(field).needed):
        field = arriving.get(needed.name)
        if needed.name not in arriving:
            found += [] if is_replaced else [f"{needed.name}: NOT NULL is dropped, nothing arrives for it"]
        elif field is not None and facts_of(field).relaxed:
            found.append(f"{needed.name}: NOT NULL is dropped, NULL may arrive")
    return found


def computed_warnings(mappings: Mapping[str, ColumnMapping]) -> list[str]:
    """Warn of generated columns of the destination's table: the stream's values are not written."""
    found = {
        name: [column.name for column in mapping.columns if column.kept is not None and column.kept.is_computed]
        for name, mapping in mappings.items()
    }
    return [
        f"{name}: the table computes {', '.join(columns)} (generated): what the stream has for it is not written"
        for name, columns in found.items()
        if columns
    ]


def summary(columns: Sequence[ColumnPlan]) -> dict[str, int]:
    """Count the columns of each fidelity, the least exact first; "unknown" if the destination does not say."""
    found = [str(column.fidelity or "unknown") for column in columns if not column.is_left_out]
    order = [*(str(each) for each in reversed(Fidelity)), "unknown"]
    return {each: found.count(each) for each in order if each in found}
