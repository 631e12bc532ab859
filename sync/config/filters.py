"""`where` of a stream, as the pipeline file writes it: a mapping of columns to values, or to operators with values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import PlainValidator, WithJsonSchema

from ..errors import nearest_match
from .base import wrong
from .value_types import Moment

_COMPARING = ("=", "!=", "<", "<=", ">", ">=", "in")
_OPERATORS = (*_COMPARING, "is_null")
_EQUALS = ("=", "in", "is_null")
#: As other languages write an operator.
_OTHER_OPERATORS = {"=>": ">=", "=<": "<=", "==": "=", "<>": "!=", "eq": "=", "ne": "!=", "not": "!="}
_LENGTHS = ("min_length", "max_length")
_OF_CHECKS = (*_LENGTHS, "matches")
#: Key of `checks` with columns in place of a column.
UNIQUE = "unique"


class FilterCondition(NamedTuple):
    """One condition; its values are JSON values, which the column's type decides how to read."""

    column: str
    #: `=`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `is_null`, `is_not_null`, or of a check `min_length`, `max_length`,
    #: `matches` or `UNIQUE`, which all columns of a unique combination have.
    operator: str
    values: tuple[Any, ...]


def _where(given: Any) -> tuple[FilterCondition, ...]:
    return _conditions(given, _OPERATORS)


def _warn_checks(given: Any) -> tuple[FilterCondition, ...]:
    return _conditions(given, (*_OPERATORS, *_OF_CHECKS))


def _checks(given: Any) -> tuple[FilterCondition, ...]:
    if not isinstance(given, Mapping) or not isinstance(given.get(UNIQUE), list):
        return _warn_checks(given)
    columns = given[UNIQUE]
    if not columns or not all(isinstance(each, str) for each in columns):
        raise wrong("`unique` is a list of columns, such as {unique: [customer_id, day]}")
    if len(set(columns)) < len(columns):
        raise wrong("`unique` names a column twice")
    others = {column: said for column, said in given.items() if column != UNIQUE}
    return (
        *(_warn_checks(others) if others else ()),
        *(FilterCondition(str(column), UNIQUE, ()) for column in columns),
    )


def _deleted_when(given: Any) -> tuple[FilterCondition, ...]:
    found = _conditions(given, _EQUALS)
    if len(found) > 1:
        raise wrong("takes one condition on one column, such as {is_deleted: true} or {op: [D, d]}")
    return found


def _conditions(given: Any, operators: Sequence[str]) -> tuple[FilterCondition, ...]:
    if not isinstance(given, Mapping):
        raise wrong("must be a mapping of columns to values, such as {region: eu, amount: {'>=': 10}}")
    if not given:
        raise wrong("is empty: name a column, or leave the key out")
    return tuple(each for column, said in given.items() for each in _comparisons(str(column), said, operators))


def _comparisons(column: str, said: Any, operators: Sequence[str]) -> list[FilterCondition]:
    if isinstance(said, Mapping):
        if not said:
            raise wrong(f"column {column!r} has no condition")
        return [_comparison(column, str(operator), value, operators) for operator, value in said.items()]
    return [_comparison(column, "in" if isinstance(said, list) else "=", said, operators)]


def _comparison(column: str, operator: str, value: Any, operators: Sequence[str]) -> FilterCondition:
    if operator in _OF_CHECKS and operator not in operators:
        raise wrong(f"column {column!r}: {operator!r} is for `checks`; `where` compares values")
    if operator not in operators:
        nearest = _OTHER_OPERATORS.get(operator) or nearest_match(operator, operators)
        meant = f", did you mean {nearest!r}?" if nearest in operators else ""
        raise wrong(f"column {column!r}: there is no operator {operator!r}{meant} (one of {', '.join(operators)})")
    if operator in _LENGTHS:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
            raise wrong(f"column {column!r}: {operator} is a number of characters, such as 100")
        return FilterCondition(column, operator, (value,))
    if operator == "matches":
        if not isinstance(value, str):
            raise wrong(f"column {column!r}: matches is a regular expression in quotes, such as '^[A-Z]{{2}}$'")
        return FilterCondition(column, operator, (str(value),))
    if operator == "is_null":
        asked = {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value
        if not isinstance(asked, bool):
            raise wrong(f"column {column!r}: is_null must be true or false")
        return FilterCondition(column, "is_null" if asked else "is_not_null", ())
    values = value if isinstance(value, list) else [value]
    if operator == "in" and (not isinstance(value, list) or not value):
        raise wrong(f"column {column!r}: `in` needs a list with a value at least")
    if operator != "in" and isinstance(value, list):
        raise wrong(f"column {column!r}: {operator!r} takes one value; use `in` for a list")
    for each in values:
        if each is None:
            raise wrong(f"column {column!r}: nothing equals null: write {{is_null: true}}")
        if not isinstance(each, str | bool | int | float):
            raise wrong(f"column {column!r}: {operator!r} compares with texts, numbers, true and false")
    return FilterCondition(
        column,
        operator,
        tuple(str(each) if isinstance(each, str) and not isinstance(each, Moment) else each for each in values),
    )


_SCALAR = {"type": ["string", "number", "boolean"]}
_LIST = {"type": "array", "items": _SCALAR, "minItems": 1}
_COMPARED: dict[str, Any] = {
    "type": "object",
    "properties": {
        **{operator: _SCALAR for operator in _COMPARING if operator != "in"},
        "in": _LIST,
        "is_null": {"type": ["boolean", "string"]},
    },
    "additionalProperties": False,
    "minProperties": 1,
}

_MEASURED: dict[str, Any] = {
    **_COMPARED,
    "properties": {
        **_COMPARED["properties"],
        **{each: {"type": "integer", "minimum": 0} for each in _LENGTHS},
        "matches": {"type": "string"},
    },
}


def _schema(compared: Mapping[str, Any], **limits: int) -> WithJsonSchema:
    columns = {"anyOf": [_SCALAR, _LIST, compared]}
    return WithJsonSchema({"type": "object", "additionalProperties": columns, "minProperties": 1, **limits})


_EQUAL = {
    **_COMPARED,
    "properties": {each: _COMPARED["properties"][each] for each in _EQUALS},
    "maxProperties": 1,
}

Where = Annotated[tuple[FilterCondition, ...], PlainValidator(_where), _schema(_COMPARED)]
DeletedWhen = Annotated[tuple[FilterCondition, ...], PlainValidator(_deleted_when), _schema(_EQUAL, maxProperties=1)]
Checks = Annotated[tuple[FilterCondition, ...], PlainValidator(_checks), _schema(_MEASURED)]
WarnChecks = Annotated[tuple[FilterCondition, ...], PlainValidator(_warn_checks), _schema(_MEASURED)]
