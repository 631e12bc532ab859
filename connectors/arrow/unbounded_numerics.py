"""Numbers without a limit of digits: decimals from their first load on, made wider for a later one that needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa
from msgspec import Struct

from ..errors import FatalConnectorError
from ..field_facts import Precision, TypeOrigin, facts_of, with_facts
from ..stream import Stream
from ..struct_helpers import replace
from .casts import cast_array
from .digits import MOST_DIGITS, SPARE_DIGITS, USUAL_DIGITS, Digits, widened
from .type_names import type_text, yaml_text


class Numbers(Struct, frozen=True, kw_only=True):
    """What a look at all numbers of a column has found."""

    digits: Digits
    #: Values that no decimal holds, NaN and infinities, each with its number; empty: there are none.
    special: tuple[tuple[str, int], ...] = ()


def undecided(stream: Stream) -> list[pa.Field]:
    """Return the columns whose type is to be decided before the records are read."""
    return [field for field in stream.schema if facts_of(field).precision is Precision.LOOK]


def decided(stream: Stream, found: Mapping[str, Numbers]) -> Stream:
    """Return the stream with the types of its undecided columns.

    Args:
        stream: as it was planned.
        found: column -> its numbers; a column that is missing stays a text.
    """
    fields = []
    for field in stream.schema:
        facts = facts_of(field)
        if facts.is_undecided:
            facts = replace(facts, precision=Precision.KNOWN)
        numbers = found.get(field.name)
        if numbers is not None:
            kind = None if numbers.special else decimal_of(_beside(numbers.digits, field))
            if facts.origin is TypeOrigin.TABLE:
                # Integers of a table. They stay if no decimal stores all numbers, and each fraction is rejected.
                if kind is not None:
                    field, facts = field.with_type(kind), replace(facts, origin=TypeOrigin.GUESSED)
            elif kind is None:
                field, facts = field.with_type(pa.string()), replace(facts, notice=_notice(field.name, numbers))
                if facts.origin is TypeOrigin.GUESSED:  # of a file, whose numbers are taken as they are written
                    facts = replace(facts, origin=TypeOrigin.DECLARED)
            else:
                field, facts = field.with_type(kind), replace(facts, precision=Precision.WIDENS)
        fields.append(with_facts(field, facts))
    return replace(stream, schema=pa.schema(fields))


def decimal_of(digits: Digits) -> pa.DataType | None:
    """Return the decimal for a column of such numbers; None: 38 digits are not enough."""
    fractions = (digits.fraction, digits.least_fraction)
    for fraction in fractions:
        if digits.whole + fraction + SPARE_DIGITS <= USUAL_DIGITS:
            return pa.decimal128(USUAL_DIGITS, fraction)
    fitting = [fraction for fraction in fractions if digits.whole + fraction <= MOST_DIGITS]
    return pa.decimal128(MOST_DIGITS, fitting[0]) if fitting else None


def _beside(digits: Digits, field: pa.Field) -> Digits:
    """Return the digits of numbers and of all integers of the column's type."""
    if not pa.types.is_integer(field.type):
        return digits
    bits = field.type.bit_width - pa.types.is_signed_integer(field.type)
    return replace(digits, whole=max(digits.whole, len(str(2**bits))))


def _notice(column: str, numbers: Numbers) -> str:
    digits, name = numbers.digits, yaml_text(column)
    if numbers.special:
        named = ", ".join(f"{value} in {count:,}" for value, count in numbers.special)
        return (
            f"column {column!r} is read as text: no decimal holds {named} of its records. To read numbers, set "
            f'`types: {{{name}: double}}`, or `types: {{{name}: "decimal(38,{min(digits.least_fraction, 9)})"}}` '
            "with `on_rejected: keep`, and run once with --full-refresh"
        )
    return (
        f"column {column!r} is read as text: its numbers have up to {digits.whole} digits before and "
        f"{digits.least_fraction} after the point, and a decimal has at most {MOST_DIGITS}. To read numbers, set "
        f"`types: {{{name}: double}}`, and run once with --full-refresh"
    )


def widens(stream: Stream) -> bool:
    """Tell whether a number may make a column wider."""
    return any(facts_of(field).precision is Precision.WIDENS for field in stream.schema)


def with_wider(stream: Stream, batch: pa.RecordBatch) -> Stream:
    """Return the stream with the types that a batch's numbers need; itself where its types hold them."""
    schema = wider_schema(stream.schema, dict(zip(stream.schema.names, batch.columns, strict=True)))
    return stream if schema is stream.schema else replace(stream, schema=schema)


def wider_schema(schema: pa.Schema, texts: Mapping[str, pa.Array]) -> pa.Schema:
    """Return columns with the types that some numbers need; the schema itself where its types hold them.

    Args:
        schema: columns; those that are `Precision.WIDENS` may become wider.
        texts: column -> its numbers; others than strings count for nothing.
    """
    fields = list(schema)
    for place, field in enumerate(fields):
        array = texts.get(field.name)
        if facts_of(field).precision is Precision.WIDENS and array is not None and pa.types.is_string(array.type):
            fields[place] = field.with_type(widened(field.type, array))
    wider = pa.schema(fields)
    return schema if wider.equals(schema) else wider


def explained(
    convert: Callable[[pa.RecordBatch], pa.RecordBatch], batch: pa.RecordBatch, stream: Stream
) -> pa.RecordBatch:
    """Convert a batch; of a number that no decimal of its column holds, say what to do."""
    try:
        return convert(batch)
    except FatalConnectorError as error:
        from .conform import shown  # with kernels that take time to load

        for place, field in enumerate(stream.schema):
            array = batch.column(place)
            if facts_of(field).precision is not Precision.WIDENS or not pa.types.is_string(array.type):
                continue
            value = _misfit(array, field)
            if value is not None:
                raise FatalConnectorError(
                    f"column {field.name!r}: {shown(value)} does not fit its {type_text(field.type)}, which can be "
                    f"widened to {MOST_DIGITS} digits only; set `types: {{{yaml_text(field.name)}: string}}` in "
                    "this stream, and run once with --full-refresh",
                    stream=stream.name,
                ) from error
        raise


def _misfit(array: pa.Array, field: pa.Field) -> str | None:
    """Return the first text that is no number of a column; None: all are."""
    from .text import first_invalid

    def convert(part: pa.Array) -> pa.Array:
        try:
            return cast_array(part, field.type, field.name, "")
        except FatalConnectorError as error:
            raise ValueError from error

    try:
        convert(array)
    except ValueError:
        return str(array[first_invalid(array, convert)].as_py())
    return None


__all__ = ["Numbers", "decided", "explained", "undecided", "widens", "wider_schema", "with_wider"]
