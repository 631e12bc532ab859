"""Filters: conditions on single columns, all of which a record must meet. The one meaning, whoever applies them.

Values are compared in the column's own type: texts by their bytes, NaN above all numbers. NULL meets `is_null` only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from operator import eq, ge, gt, le, lt, ne
from typing import Any, TypeVar

import pyarrow as pa

from .arrow import compute as pc
from .arrow.casts import cast_array
from .arrow.conform import python_value, shown
from .arrow.digits import is_number_in_text
from .arrow.json_scalars import scalar_from_json
from .arrow.text import is_bytes, is_text, is_uuid
from .arrow.type_names import type_text
from .errors import FatalConnectorError
from .field_facts import facts_of, is_unseen
from .read_spec import ASKING, MATCHES, MEASURING, RANGE, Condition
from .stream import Stream
from .struct_helpers import replace

Records = TypeVar("Records", pa.RecordBatch, pa.Table)

_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def literal_of(value: Any, field: pa.Field) -> pa.Scalar:
    """Read a value of the pipeline file (JSON) in a column's type; a UUID is its text.

    Raises:
        ValueError: it is no such value; the message says how it is written, for people to read.
    """
    kind, types = field.type, pa.types
    if value is None:
        raise ValueError("nothing equals NULL: write {is_null: true}")
    if _is_uuid(field):
        if not isinstance(value, str) or not _UUID.fullmatch(value.lower()):
            raise ValueError("write a UUID like '123e4567-e89b-12d3-a456-426614174000'")
        return pc.constant(value.lower())
    if types.is_boolean(kind):
        found = {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else value
        if not isinstance(found, bool):
            raise ValueError("write true or false")
        return pc.constant(found)
    if is_number_in_text(field):
        return pc.constant(format(Decimal(_number(value)), "f"))
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return _typed(_number(value), kind, "which this number does not fit exactly")
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        if not isinstance(value, str):
            raise ValueError("write it in quotes: the column contains texts")
        if "\0" in value or (not value.isascii() and any("\ud800" <= each <= "\udfff" for each in value)):
            raise ValueError("no database accepts a text with NUL or half a surrogate pair")
        return pc.constant(str(value), kind)
    if types.is_timestamp(kind):
        return _typed(_moment(value, kind), kind, f"write it like 2024-01-31T23:59:00{'Z' if kind.tz else ''}")
    if types.is_date(kind):
        return _typed(_text(value), kind, "write it like 2024-01-31")
    if types.is_time(kind):
        return _typed(_text(value), kind, "write it like 23:59:00")
    raise ValueError("its values cannot be compared; the only operator is `is_null`")


def _is_uuid(field: pa.Field) -> bool:
    """Tell whether a column holds UUIDs, also where a database hands them out as texts: in small letters."""
    native = facts_of(field).native_type.lower()
    return is_uuid(field.type) or (native == "uuid" and is_text(field.type))


def _typed(text: str, kind: pa.DataType, how: str) -> pa.Scalar:
    try:
        found = scalar_from_json(text, kind)
    except (pa.ArrowException, ValueError, TypeError, ArithmeticError) as error:
        raise ValueError(how) from error
    if pa.types.is_floating(kind) and abs(found.as_py()) == float("inf"):
        raise ValueError(how)
    return found


def _length(value: int, field: pa.Field) -> pa.Scalar:
    """Read the bound of a length, which only texts and bytes have."""
    if is_number_in_text(field) or not (is_text(field.type) or is_bytes(field.type)):
        raise ValueError("only texts and bytes have a length")
    return pc.constant(value)


def pattern_of(text: str) -> pa.Scalar:
    """Read a regular expression of RE2.

    Raises:
        ValueError: RE2 refuses the expression; the message is the one of RE2.
    """
    try:
        _searched(pc.constant("", pa.string()), text)
    except pa.ArrowException as error:
        raise ValueError(f"RE2 does not accept this regular expression: {str(error).partition(': ')[2]}") from error
    return pc.constant(text)


def _searched(texts: Any, pattern: str) -> Any:
    return pc.match_substring_regex(texts, pattern)


def _pattern(value: str, field: pa.Field) -> pa.Scalar:
    """Read the regular expression for a column, which only texts match."""
    if is_number_in_text(field) or not is_text(field.type):
        raise ValueError(f"a regular expression is searched in texts only. Set `types: {{{field.name}: string}}`")
    return pattern_of(value)


def _number(value: Any) -> str:
    text = str(value).strip()
    if isinstance(value, bool) or not isinstance(value, int | float | str) or not _NUMBER.fullmatch(text):
        raise ValueError("write a number")
    return text


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("write it in quotes")
    return value


def _moment(value: Any, kind: pa.DataType) -> str:
    """A day is its first moment; a time without a zone is in UTC, where the column has a zone."""
    text = _text(value).strip()
    if _DATE.fullmatch(text):
        text += "T00:00:00"
    is_zoned = re.search(r"(Z|[-+][0-9]{2}:?[0-9]{2})$", text[10:]) is not None
    if kind.tz and not is_zoned:
        return f"{text}+00:00"
    if is_zoned and not kind.tz:
        raise ValueError("the column's times have no zone: write the time without one")
    return text


def condition_of(field: pa.Field, operator: str, given: Sequence[Any]) -> Condition:
    """Make a condition of values of the pipeline file.

    Raises:
        ValueError: see `literal_of`.
    """
    read = _length if operator in MEASURING else _pattern if operator == MATCHES else literal_of
    values = tuple(read(value, field) for value in given)
    return Condition(field=field, operator=operator, values=values, given=tuple(given))


def refitted(stream: Stream) -> Stream:
    """Return a stream whose conditions have the types that its columns have now.

    Raises:
        ValueError: a value cannot be read in such a type; the message names the column.
    """
    if not stream.read.where:
        return stream
    names = stream.schema.names
    fields = [
        stream.schema.field(each.field.name) if each.field.name in names else each.field for each in stream.read.where
    ]
    try:
        return replace(stream, read=replace(stream.read, where=tuple(map(fitted, stream.read.where, fields))))
    except ValueError as error:
        raise ValueError(f"where: {error}") from error


def fitted(condition: Condition, field: pa.Field) -> Condition:
    """Return a condition with its values in the type that its column has now.

    Raises:
        ValueError: a value cannot be read in it; the message names the column.
    """
    if field.type == condition.field.type:
        return condition
    given, place = condition.given, f"column {field.name!r} is {type_text(field.type)}"
    if condition.of_interval and condition.of_interval != RANGE:
        try:
            demand_time(field)
        except ValueError as error:
            remedy = f"Set `types: {{{field.name}: date}}`, and rewrite the table with --full-refresh"
            raise ValueError(f"{place}, but {error}. {remedy}") from error
        given = tuple(moment_in(value, field.type) for value in given)
    try:
        return replace(condition_of(field, condition.operator, given), of_interval=condition.of_interval)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def demand_time(field: pa.Field) -> None:
    """Refuse a column that cannot be compared with a run's interval.

    A column without a value is accepted, because its type is not known yet.

    Raises:
        ValueError: the message says why, and is one full sentence for people to read.
    """
    kind = field.type
    if not (pa.types.is_date(kind) or pa.types.is_timestamp(kind) or pa.types.is_time(kind) or is_unseen(field)):
        raise ValueError(
            "a condition on `interval_*` needs a date or a time, because texts would be compared by their letters"
        )


def moment_in(moment: str, kind: pa.DataType) -> str:
    """Return a time in UTC as a column has it: without its zone, or as a date at midnight."""
    if pa.types.is_timestamp(kind) and kind.tz is None:
        return moment.removesuffix("+00:00")
    if pa.types.is_date(kind) and moment.endswith("T00:00:00+00:00"):
        return moment[:10]
    return moment


def matches(records: pa.RecordBatch, conditions: Sequence[Condition]) -> pa.Array:
    """Return a mask, without NULL, of the records that meet all conditions.

    Args:
        records: with all columns that the conditions name.
        conditions: one at least.

    Raises:
        FatalConnectorError: a column has become one of a type in which a condition's value cannot be read.
    """
    mask = None
    for each in conditions:
        column, condition = records.column(each.field.name), _refitted(records, each, "where")
        if each.of_interval and column.null_count < len(column):
            _demand_times(column, each.field.name)
        met = _met(column, condition)
        mask = met if mask is None else pc.and_(mask, met)
    return pc.fill_null(mask, False)


def _demand_times(column: pa.Array, name: str) -> None:
    """Refuse values of a column whose type was not known when the plan was made."""
    try:
        demand_time(pa.field(name, column.type))
    except ValueError as error:
        raise FatalConnectorError(
            f"where: column {name!r} is {type_text(column.type)}: {error}. Set the column's type in `types`"
        ) from error


def without_deleted(records: Records, condition: Condition | None) -> Records:
    """Return the records that do not say, by a condition, that they are deleted.

    Raises:
        FatalConnectorError: the column is not there, or has become one of a type in which the value cannot be read.
    """
    return records if condition is None else records.filter(pc.invert(say_deleted(records, condition)))


def say_deleted(records: pa.RecordBatch | pa.Table, condition: Condition) -> pa.Array:
    """Return a mask, without NULL, of the records that say they are deleted.

    Raises:
        FatalConnectorError: see `without_deleted`.
    """
    if condition.field.name not in records.schema.names:
        raise FatalConnectorError(f"deleted_when: column {condition.field.name!r} does not arrive")
    met = _met(records.column(condition.field.name), _refitted(records, condition, "deleted_when"))
    return pc.fill_null(met, False)


def passes(records: pa.RecordBatch, checks: Sequence[Condition]) -> pa.Array:
    """Return a mask of the records that pass some checks: NULL passes all but `is_null`.

    Raises:
        FatalConnectorError: see `matches`.
    """
    mask = None
    for each in checks:
        met = _passed(records, each)
        mask = met if mask is None else pc.and_(mask, met)
    return mask


def failures(records: pa.RecordBatch, checks: Sequence[Condition]) -> list[str]:
    """Say of each of some records which check it fails, and with what value; of all checks the first counts."""
    masks = [_passed(records, each).to_pylist() for each in checks]
    found = []
    for place in range(records.num_rows):
        number = next(number for number, mask in enumerate(masks) if not mask[place])
        check = _refitted(records, checks[number])
        value = python_value(records.column(check.field.name)[place])
        found.append(f"column {check.field.name!r}: {shown(value)} fails the check `{check}`")
    return found


def _passed(records: pa.RecordBatch, check: Condition) -> pa.Array:
    met = _met(records.column(check.field.name), _refitted(records, check))
    return met if check.operator in ASKING else pc.fill_null(met, True)


def _refitted(records: pa.RecordBatch | pa.Table, condition: Condition, setting: str = "checks") -> Condition:
    try:
        return fitted(condition, records.schema.field(condition.field.name))
    except ValueError as error:
        raise FatalConnectorError(f"{setting}: {error}") from error


def _met(column: pa.Array, condition: Condition) -> pa.Array:
    operator = condition.operator
    if operator in ASKING:
        return pc.is_null(column) if operator == "is_null" else pc.is_valid(column)
    if operator in MEASURING:
        lengths = pc.binary_length(column) if is_bytes(column.type) else pc.utf8_length(column)
        return _compared(lengths, ">=" if operator == "min_length" else "<=", condition.values[0])
    if operator == MATCHES:
        return _searched(column, condition.values[0].as_py())
    if pa.types.is_dictionary(column.type) or column.type == pa.uuid():
        column = cast_array(column, condition.values[0].type, condition.field.name, "")
    compared = _numbers_compared if is_number_in_text(condition.field) else _compared
    met = compared(column, "=" if operator == "in" else operator, condition.values[0])
    for value in condition.values[1:]:
        met = pc.or_(met, compared(column, "=", value))
    return met


_FUNCTIONS = {"=": "equal", "!=": "not_equal", "<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal"}


def _compared(column: pa.Array, comparison: str, value: pa.Scalar) -> pa.Array:
    met = getattr(pc, _FUNCTIONS[comparison])(column, value)
    if comparison in (">", ">=") and pa.types.is_floating(column.type):
        return pc.or_(met, pc.is_nan(column))
    return met


_ORDERS = {"=": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}


def _numbers_compared(column: pa.Array, comparison: str, value: pa.Scalar) -> pa.Array:
    """Compare numbers that stand in texts, of any number of digits: Arrow has no type for them."""
    order, limit = _ORDERS[comparison], Decimal(value.as_py())
    numbers = [None if text is None else Decimal(text) for text in column.to_pylist()]
    above = Decimal("Infinity")
    return pa.array(
        [None if each is None else order(above if each.is_nan() else each, limit) for each in numbers], pa.bool_()
    )


__all__ = [
    "condition_of",
    "demand_time",
    "failures",
    "fitted",
    "literal_of",
    "matches",
    "moment_in",
    "passes",
    "pattern_of",
    "refitted",
    "say_deleted",
    "without_deleted",
]
