"""A stream's columns against what its destination keeps: what is exact, what is refused, and what is done about it.

Pure. Where the columns are declared the plan decides this; where a transformer decides them, the first batch does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from syncblocks.connectors.arrow.fidelity import Fidelity, Kept, as_text, cut, fidelity
from syncblocks.connectors.protocols import StatesTypes
from syncblocks.connectors.stream import Stream, TableState, WriteDisposition


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnPlan:
    """One column on its way into the destination."""

    #: As it arrives: after renames and transformers.
    name: str
    #: Type in which it arrives, by the source's own name where it has one.
    type: str
    #: None: the destination does not say.
    kept: Kept | None
    fidelity: Fidelity | None
    #: What `on_lossy` does with it: "cast", "text" or nothing.
    conversion: str = ""
    #: New, and `on_schema_change: ignore` leaves it out.
    is_left_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What columns are held against; constant for one stream of a plan."""

    #: None: the destination does not say how it keeps columns.
    types: StatesTypes | None
    #: Name of the destination's connector, for messages.
    connector: str
    table: TableState
    disposition: WriteDisposition
    #: fail, cast or text.
    on_lossy: str = "fail"
    #: `on_schema_change: ignore` leaves these columns out if the table does not have them, named as they arrive.
    left_out: frozenset[str] = frozenset()
    #: A source that changes while it is read fails the stream.
    is_frozen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnMapping:
    """A stream's columns, mapping to the destination."""

    #: As it was declared, or came out of the last transformer.
    declared: Stream
    #: As the destination gets it.
    arriving: Stream
    columns: tuple[ColumnPlan, ...]
    #: Why it may not be written, a sentence each; empty: it may.
    refusals: tuple[str, ...] = ()

    def convert(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Bring a batch of the stream that was mapping into the shape that the destination gets.

        Raises:
            FatalConnectorError: a value that has no text, or that is past the range of the type it is cut to.
        """
        conversions = {column.name: column.conversion for column in self.columns}
        arrays = [_converted(batch, field, conversions.get(field.name, "")) for field in self.arriving.schema]
        return pa.RecordBatch.from_arrays(arrays, schema=self.arriving.schema)


def _converted(batch: pa.RecordBatch, field: pa.Field, conversion: str) -> pa.Array:
    array = batch.column(field.name)
    if conversion == "text":
        return as_text(array, field.name)
    return cut(array, field.type, field.name) if conversion == "cast" and array.type != field.type else array


def map_columns(stream: Stream, rules: Rules) -> ColumnMapping:
    """Hold a stream against what the destination keeps."""
    if rules.types is None:
        columns = [ColumnPlan(name=f.name, type=_type_of(f), kept=None, fidelity=None) for f in stream.schema]
        return ColumnMapping(declared=stream, arriving=stream, columns=tuple(columns))
    kept = _keeps(stream, rules)
    fields, columns, refusals = [], [], []
    for field, one in zip(stream.schema, kept, strict=True):
        column = ColumnPlan(name=field.name, type=_type_of(field), kept=one, fidelity=fidelity(field, one))
        if field.name in rules.left_out and one.held is None:
            columns.append(replace(column, is_left_out=True))
            continue
        if column.fidelity is Fidelity.LOSSY:
            field, column, refusal = _converted_column(stream, field, column, rules)
            refusals += [refusal] if refusal else []
        fields.append(field)
        columns.append(column)
    arriving = replace(stream, schema=pa.schema(fields))
    return ColumnMapping(declared=stream, arriving=arriving, columns=tuple(columns), refusals=tuple(refusals))


def columns_held(stream: Stream, rules: Rules) -> frozenset[str]:
    """Return which columns of a stream the table has; all of them, where the destination does not say."""
    if rules.types is None:
        return frozenset(stream.schema.names)
    found = zip(stream.schema.names, _keeps(stream, rules), strict=True)
    return frozenset(name for name, kept in found if kept.held is not None)


def _converted_column(
    stream: Stream, field: pa.Field, column: ColumnPlan, rules: Rules
) -> tuple[pa.Field, ColumnPlan, str]:
    """Apply `on_lossy` to a column, or say why it is refused."""
    kept = column.kept
    assert kept is not None
    text = pa.field(field.name, pa.string(), field.nullable, {b"native_type": column.type.encode()})
    (as_text_kept,) = _keeps(replace(stream, schema=pa.schema([text])), rules)
    has_text = as_text_kept.arrow is not None
    if rules.on_lossy == "text" and has_text:
        return text, replace(column, kept=as_text_kept, fidelity=Fidelity.TEXT, conversion="text"), ""
    if rules.on_lossy == "cast" and kept.arrow is not None:
        return pa.field(field.name, kept.arrow, field.nullable), replace(column, conversion="cast"), ""
    return field, column, _refusal(column, kept, rules, has_text=has_text)


def _keeps(stream: Stream, rules: Rules) -> Sequence[Kept]:
    assert rules.types is not None, "asked for by `map_columns`"
    return rules.types.keeps(stream, rules.table, rules.disposition)


def _refusal(column: ColumnPlan, kept: Kept, rules: Rules, *, has_text: bool) -> str:
    exclude = f"leave it out with `columns: {{exclude: [{column.name}]}}`"
    if kept.arrow is None and kept.held is not None and rules.disposition is not WriteDisposition.REPLACE:
        as_text = "say `on_lossy: text` in this stream to write it as text, " if has_text else ""
        return (
            f"column {column.name!r} is {column.type}: {kept.note}; {as_text}change the table's column by hand, "
            f"{exclude}, or start the table over with --full-refresh"
        )
    if kept.arrow is None:
        return (
            f"column {column.name!r} is {column.type}, for which {rules.connector} has no type; say `on_lossy: text` "
            f"in this stream to keep it as text, or {exclude}"
        )
    return (
        f"column {column.name!r} is {column.type}, which {rules.connector} keeps as {kept.type}, and that changes some "
        "values; say `on_lossy: text` in this stream to keep them in full as text, `on_lossy: cast` to cut off what "
        f"does not fit, or {exclude}"
    )


def _type_of(field: pa.Field) -> str:
    native = str((field.metadata or {}).get(b"native_type", b""), "utf-8", "replace")
    return native or str(field.type)


def table_changes(mapping: ColumnMapping, table: TableState) -> list[str]:
    """Say which columns of a table that is there will be added or get another type."""
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
    return found


def computed_warnings(mappings: Mapping[str, ColumnMapping]) -> list[str]:
    """Warn of columns that the destination's table computes: as the source's are, or not."""
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
    """Count the columns of each fidelity, the least exact first; "unknown" where the destination does not say."""
    found = [str(column.fidelity or "unknown") for column in columns if not column.is_left_out]
    order = [*(str(each) for each in reversed(Fidelity)), "unknown"]
    return {each: found.count(each) for each in order if each in found}


__all__ = [
    "ColumnMapping",
    "ColumnPlan",
    "Rules",
    "columns_held",
    "computed_warnings",
    "map_columns",
    "summary",
    "table_changes",
]
