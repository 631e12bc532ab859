"""WHERE and ORDER BY of an INCREMENTAL read, in an order that is the values' own and not that of their texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..sql.identifiers import quote
from .encode import stored
from .types import Form, kind_for

#: Forms whose stored values SQLite compares as Arrow compares the decoded ones.
_ORDERED = (Form.INTEGER, Form.REAL, Form.NUMBER, Form.BOOLEAN, Form.TEXT, Form.BLOB, Form.DATE, Form.DECIMAL)


@dataclass(frozen=True, slots=True)
class Order:
    """What stands behind FROM."""

    sql: str = ""
    parameters: tuple[Any, ...] = ()
    #: The records come in ascending order, none below the bookmark.
    is_ordered: bool = True


def order_by(fields: Sequence[pa.Field], start: Sequence[pa.Scalar] | None, has: Callable[[str], bool]) -> Order:
    """Write the order for bookmark properties.

    Args:
        fields: of the bookmark properties, in their order.
        start: the bookmark; None: from scratch.
        has: asks whether a record fulfils a condition.
    """
    expressions = [_expression(field, has) for field in fields]
    known = [expression for expression in expressions if expression is not None]
    if len(known) < len(fields):
        return _coarse(fields, start)
    listed = ", ".join(known)
    if start is None:
        # Records without a bookmark come first: no run that goes on from a checkpoint would see them again.
        return Order(f"order by {' and '.join(_complete(field) for field in fields)}, {listed}")
    values = tuple(_comparable(value, field) for value, field in zip(start, fields, strict=True))
    marks = [f"${place}" for place in range(1, len(fields) + 1)]
    where = f"{known[0]} >= {marks[0]}" if len(known) == 1 else f"({listed}) >= ({', '.join(marks)})"
    return Order(f"where {where} order by {listed}", values)


def _complete(field: pa.Field) -> str:
    name = f"t.{quote(field.name)}"
    is_there = f"{name} is not null"
    return f"({is_there} and {name} <> 'NaN')" if pa.types.is_floating(field.type) else is_there


def _coarse(fields: Sequence[pa.Field], start: Sequence[pa.Scalar] | None) -> Order:
    """Read unordered; of times, leave out what is more than a day below the bookmark (offsets are less)."""
    kind = kind_for(fields[0])
    if start is None or kind.form is not Form.TIMESTAMP:
        return Order(is_ordered=False)
    day = (pc.cast(start[0], pa.date32()).as_py() - timedelta(days=1)).isoformat()
    return Order(f"where t.{quote(fields[0].name)} >= $1", (day,), is_ordered=False)


def _expression(field: pa.Field, has: Callable[[str], bool]) -> str | None:
    """Return the SQL to compare by; None: there is none."""
    name, kind = f"t.{quote(field.name)}", kind_for(field)
    if kind.form is Form.TIMESTAMP:
        return _normal_timestamp(name, kind.arrow, has)
    if kind.form is Form.DECIMAL and kind.arrow.precision > 15:
        return None
    if kind.form is Form.TEXT:
        return f"{name} collate binary"
    return name if kind.form in _ORDERED else None


def _normal_timestamp(name: str, kind: pa.DataType, has: Callable[[str], bool]) -> str | None:
    """Bring all ways to write a moment to one length; not those in other zones than UTC."""
    text = name
    if kind.tz is not None:
        is_other = f"{name} is not null and {name} not like '%Z' and {name} not like '%+00:00'"
        if has(is_other):
            return None
        text = (
            f"case when {name} like '%Z' then substr({name}, 1, length({name}) - 1) "
            f"else substr({name}, 1, length({name}) - 6) end"
        )
    width = 29 if kind.unit == "ns" else 26
    short = f"replace({text}, 'T', ' ')"
    zeros = "0" * (width - 20)
    return (
        f"substr({short} || case length({short}) when 10 then ' 00:00:00.{zeros}' when 16 then ':00.{zeros}' "
        f"when 19 then '.{zeros}' else '{zeros}' end, 1, {width})"
    )


def _comparable(value: pa.Scalar, field: pa.Field) -> Any:
    """Return the bookmark in the form that the expression has."""
    text = stored(pa.array([value.as_py()], field.type), field.name)[0].as_py()
    return text.removesuffix("+00:00") if pa.types.is_timestamp(field.type) else text
