"""WHERE and ORDER BY of an INCREMENTAL read: in the order of the values, not of the texts that store them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from ..incremental.window import Window
from ..read_spec import ASKING, Condition
from ..sql.identifiers import quote
from .encode import stored
from .types import StorageForm, kind_for

#: Forms whose stored values SQLite compares as Arrow compares the decoded ones.
_ORDERED = (
    StorageForm.INTEGER,
    StorageForm.REAL,
    StorageForm.NUMBER,
    StorageForm.BOOLEAN,
    StorageForm.TEXT,
    StorageForm.BLOB,
    StorageForm.DATE,
    StorageForm.DECIMAL,
)


#: Forms whose stored values are compared with a constant as Arrow compares the decoded ones.
_FILTERED = (
    StorageForm.INTEGER,
    StorageForm.REAL,
    StorageForm.NUMBER,
    StorageForm.BOOLEAN,
    StorageForm.TEXT,
    StorageForm.DATE,
)


def is_filterable(condition: Condition) -> bool:
    """Tell whether a condition may be put to SQLite."""
    return condition.operator in ASKING or kind_for(condition.field).form in _FILTERED


class BookmarkOrder(Struct, frozen=True):
    """The end of the SELECT, after FROM."""

    sql: str = ""
    parameters: tuple[Any, ...] = ()
    #: The records come in ascending order, none below the bookmark.
    is_ordered: bool = True


def order_by(window: Window, has: Callable[[str], bool]) -> BookmarkOrder:
    """Write the order for bookmark properties; `has` asks whether a record fulfils a condition."""
    fields, lower = window.fields, window.lower
    expressions = [_expression(field, has) for field in fields]
    known = [expression for expression in expressions if expression is not None]
    missing = " or ".join(filter(None, map(incomplete, fields)))
    # Asked beforehand (`refuse_missing`) where NULL fails: `or ... is null` would cost the index.
    is_added = window.adds_incomplete(is_asked=True)
    if len(known) < len(fields):
        return _coarse(fields, lower, missing if is_added else "")
    listed = ", ".join(known)
    where, values = "", ()
    if lower is not None:
        values = tuple(_comparable(value, field) for value, field in zip(lower, fields, strict=False))
        marks = [f"${place}" for place in range(1, len(values) + 1)]
        where = f"({listed}) >= ({', '.join(marks)})" if len(values) > 1 else f"{known[0]} >= {marks[0]}"
    if missing and is_added:
        where = f"({where}) or {missing}" if where else ""
        listed = f"case when {missing} then 0 else 1 end, {listed}"
    elif missing and window.leaves_out_incomplete and not where:
        where = f"not ({missing})"
    return BookmarkOrder(f"{f'where {where} ' if where else ''}order by {listed}", values)


def incomplete(field: pa.Field) -> str:
    """Return the condition under which a value is no bookmark; empty if there is none."""
    name = f"t.{quote(field.name)}"
    missing = [f"{name} is null"] if field.nullable else []
    if pa.types.is_floating(field.type):
        missing.append(f"{name} = 'NaN'")
    return " or ".join(missing)


def _coarse(fields: Sequence[pa.Field], lower: Sequence[pa.Scalar] | None, missing: str) -> BookmarkOrder:
    """Read unordered; of times, leave out what is more than a day below the bookmark (offsets are less)."""
    kind = kind_for(fields[0])
    if lower is None or kind.form is not StorageForm.TIMESTAMP:
        return BookmarkOrder(is_ordered=False)
    day = (pc.cast(lower[0], pa.date32()).as_py() - timedelta(days=1)).isoformat()
    where = f"t.{quote(fields[0].name)} >= $1"
    return BookmarkOrder(f"where {where} or {missing}" if missing else f"where {where}", (day,), is_ordered=False)


def _expression(field: pa.Field, has: Callable[[str], bool]) -> str | None:
    """Return the SQL to compare by; None: there is none."""
    name, kind = f"t.{quote(field.name)}", kind_for(field)
    if kind.form is StorageForm.TIMESTAMP:
        is_other = kind.arrow.tz is not None and has(other_zone(name))
        return None if is_other else normal_timestamp(name, kind.arrow)
    if kind.form is StorageForm.DECIMAL and kind.arrow.precision > 15:
        return None
    if kind.form is StorageForm.TEXT:
        return f"{name} collate binary"
    return name if kind.form in _ORDERED else None


def other_zone(name: str) -> str:
    """Return the condition that a moment of a column with a zone is written in another one than UTC."""
    return f"{name} is not null and {name} not like '%Z' and {name} not like '%+00:00'"


def normal_timestamp(name: str, kind: pa.DataType) -> str:
    """Bring all ways to write a moment, in UTC or without a zone, to one length."""
    text = name
    if kind.tz is not None:
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
    text = stored(pa.repeat(value, 1), field.name)[0].as_py()
    return text.removesuffix("+00:00") if pa.types.is_timestamp(field.type) else text
