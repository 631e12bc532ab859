"""Values of SQLite -> exact Arrow columns, or an error: a value need not be of its column's declared type.

ADBC's driver takes a column's type from its first values, and silently converts some later ones. So each SELECT begins
with a record of literals, which fixes the types, and has a column that counts the values whose conversion neither the
driver nor Arrow would report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from ..arrow.compute import constant
from ..arrow.decimals import from_texts
from ..arrow.text import read_interval
from ..sql.identifiers import quote
from .types import EXACT_DIGITS, SQLiteKind, StorageForm, kind_for

#: Highest integers that a float64 holds, all of them.
_EXACT_FLOAT = 2**53

_INT, _FLOAT, _STRING, _BINARY = pa.int64(), pa.float64(), pa.string(), pa.binary()
_LITERALS = {_INT: "0", _FLOAT: "0.5", _STRING: "'a'", _BINARY: "x'00'"}


class TypeMismatch(Exception):
    """A value does not have its column's declared type; `value` is what was selected, if known."""

    def __init__(self, column: str, value: bytes | None = None, reason: str = "") -> None:
        super().__init__(column)
        self.column = column
        self.value = value
        self.reason = reason


class SelectedColumn(Struct, frozen=True):
    """How one column is selected, checked and turned into Arrow."""

    name: str
    kind: SQLiteKind
    #: Type that the driver must find.
    physical: pa.DataType
    #: SQL of what is selected.
    selected: str
    #: SQL condition: the value does not fit.
    mismatch: str
    #: SQL condition: it does not fit, and neither driver nor Arrow would notice; empty where they all would.
    unnoticed: str
    #: Target type.
    arrow: pa.DataType

    def decode(self, array: pa.Array) -> pa.Array:
        """Turn what the driver read into the target type."""
        try:
            return _cast(_DECODERS.get(self.kind.form, _same)(array, self.kind.arrow), self.arrow)
        except (pa.ArrowException, ValueError, KeyError) as error:
            raise TypeMismatch(self.name, self._first_mismatch(array), str(error).partition("\n")[0]) from error

    def _first_mismatch(self, array: pa.Array) -> bytes | None:
        decode = _DECODERS.get(self.kind.form, _same)
        low, high = 0, len(array)
        while high - low > 1:
            middle = (low + high) // 2
            try:
                _cast(decode(array.slice(low, middle - low), self.kind.arrow), self.arrow)
            except (pa.ArrowException, ValueError, KeyError):
                high = middle
            else:
                low = middle
        if not len(array) or not pa.types.is_string(array.type):
            return None
        # TEXT may hold bytes that are no text.
        value: bytes | None = array.slice(low, 1).cast(pa.binary())[0].as_py()
        return value


def column(field: pa.Field, *, has_affinity: bool) -> SelectedColumn:
    """Say how a column of a stream is read.

    Args:
        field: of the stream; its table is called `t`.
        has_affinity: SQLite turned what was stored into the declared type where it could (not so in a view).
    """
    kind, name = kind_for(field), f"t.{quote(field.name)}"
    form = kind.form
    physical, selected = _STRING, name
    mismatch = f"typeof({name}) not in ('text', 'null')"
    # Most forms are texts that are parsed below; the parser refuses any other value.
    unnoticed = ""
    if form in (StorageForm.INTEGER, StorageForm.BOOLEAN):
        physical, mismatch = _INT, f"typeof({name}) not in ('integer', 'null')"
        if form is StorageForm.BOOLEAN:
            mismatch = f"{name} is not null and {name} not in (0, 1)"
    elif form in (StorageForm.REAL, StorageForm.NUMBER):
        physical = _FLOAT
        is_wide = f"typeof({name}) = 'integer' and {name} not between -{_EXACT_FLOAT} and {_EXACT_FLOAT}"
        mismatch = f"(typeof({name}) in ('text', 'blob') and {name} is not 'NaN') or ({is_wide})"
        selected = f"case when {name} = 'NaN' then null else {name} end"
        if form is StorageForm.NUMBER:
            unnoticed = is_wide
    elif form is StorageForm.BLOB:
        physical, mismatch = _BINARY, f"typeof({name}) not in ('blob', 'null')"
        unnoticed = mismatch
    elif form is StorageForm.TEXT:
        # A column with text affinity can hold only texts and blobs.
        unnoticed = f"typeof({name}) = 'blob'" if has_affinity and field.metadata else mismatch
    elif form is StorageForm.LOOSE_TEXT:
        selected, mismatch = f"cast({name} as text)", f"typeof({name}) in ('blob', 'real')"
        unnoticed = mismatch
    elif form is StorageForm.JSON:
        exact = f"case when cast(cast({name} as text) as real) = {name} then cast({name} as text)"
        selected = f"case typeof({name}) when 'real' then {exact} else printf('%!.17g', {name}) end else {name} end"
        selected, mismatch = f"cast({selected} as text)", f"typeof({name}) = 'blob'"
        unnoticed = mismatch
    elif form is StorageForm.DECIMAL:
        selected = f"case typeof({name}) when 'real' then {_digits(name, kind.arrow.scale)} else {name} end"
        selected, mismatch = f"cast({selected} as text)", f"typeof({name}) = 'blob'"
    elif form is StorageForm.UUID:
        physical = _BINARY
        selected = f"unhex(replace({name}, '-', ''))"
        mismatch = f"{name} is not null and ({mismatch} or length({selected}) is not 16)"
        unnoticed = mismatch
    return SelectedColumn(field.name, kind, physical, selected, mismatch, unnoticed, field.type)


def _digits(name: str, scale: int) -> str:
    """Write a real number as the decimal that it stands for.

    How many digits a cast writes is a matter of SQLite's version; more than 15 are not the number's own. Where they do
    not reach down to the scale, all are needed that tell it from its neighbours: with fewer it would be another number.
    """
    short, longer, longest = (f"printf('%!.{digits}g', {name})" for digits in range(EXACT_DIGITS, EXACT_DIGITS + 3))
    return (
        f"case when abs({name}) < 1e{EXACT_DIGITS - scale} or cast({short} as real) = {name} then {short} "
        f"when cast({longer} as real) = {name} then {longer} else {longest} end"
    )


class SelectPlan(Struct, frozen=True):
    """One stream's SELECT, and how its batches become the stream's."""

    schema: pa.Schema
    columns: tuple[SelectedColumn, ...]

    @classmethod
    def of(cls, schema: pa.Schema, *, has_affinity: bool) -> SelectPlan:
        """Plan for a stream's columns."""
        return cls(schema, tuple(column(field, has_affinity=has_affinity) for field in schema))

    def mismatch(self) -> str:
        """Write the condition that a record of `t` holds a value of another kind than its column's; may be NULL."""
        return " or ".join(f"({each.mismatch})" for each in self.columns)

    def select_mismatched(self, table: str, where: str, limit: int) -> str:
        """Write the SELECT of records that do not fit: each value as SQL writes it, then for each whether it fits."""
        values = [f"cast(substr(quote({_own(each)}), 1, 10000) as blob)" for each in self.columns]
        flags = [f"({each.mismatch}) is true" for each in self.columns]
        inner = f"select * from {table} as t {where}"
        return (
            f"select {', '.join([*values, *flags])} from ({inner}) as t where ({self.mismatch()}) is true limit {limit}"
        )

    def select_widths(self, table: str, where: str) -> str:
        """Write the SELECT of the longest value of each text and blob; SQLite reads no value for it. Empty: none."""
        lengths = [f"max(octet_length({_own(each)}))" for each in self.columns if each.physical in (_STRING, _BINARY)]
        return f"select {', '.join(lengths)} from {table} as t {where}" if lengths else ""

    def select(self, table: str, rest: str) -> str:
        """Write the SELECT.

        Args:
            table: quoted.
            rest: WHERE and ORDER BY, over `t`.
        """
        mismatched = [f"({each.unnoticed})" for each in self.columns if each.unnoticed]
        floats = [f"({_own(each)} is 'NaN')" for each in self._floats()]
        selected = [each.selected for each in self.columns]
        counts = [" + ".join(mismatched) or "0", *floats]
        literals = [*(_LITERALS[each.physical] for each in self.columns), *("0" for _ in counts)]
        names = [f"c{place}" for place in range(len(literals))]
        shown = ", ".join(f"{sql} as {name}" for sql, name in zip([*selected, *counts], names, strict=True))
        # LIMIT keeps SQLite from merging the inner SELECT into the outer one, which has no order.
        inner = f"select {shown} from {table} as t {rest} limit -1"
        return f"select {', '.join(literals)} union all select * from ({inner})"

    def check(self, batch: pa.RecordBatch) -> None:
        """Demand the types of the literals; raises `TypeMismatch`."""
        for each, array in zip(self.columns, batch.columns, strict=False):
            if array.type != each.physical:
                raise TypeMismatch(each.name)

    def decode(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Turn a batch (without the literals) into the stream's.

        Raises:
            TypeMismatch: a value does not fit.
        """
        if pc.any(pc.not_equal(batch.column(len(self.columns)), constant(0))).as_py():
            raise TypeMismatch("")
        arrays = [each.decode(array) for each, array in zip(self.columns, batch.columns, strict=False)]
        places = {each.name: place for place, each in enumerate(self.columns)}
        for offset, each in enumerate(self._floats(), start=len(self.columns) + 1):
            is_nan = pc.equal(batch.column(offset), constant(1))
            if pc.any(is_nan).as_py():
                place = places[each.name]
                nan = pa.scalar(float("nan"), arrays[place].type)
                arrays[place] = pc.if_else(is_nan, nan, arrays[place])
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _floats(self) -> Sequence[SelectedColumn]:
        return [each for each in self.columns if each.kind.form in (StorageForm.REAL, StorageForm.NUMBER)]


def _own(each: SelectedColumn) -> str:
    return f"t.{quote(each.name)}"


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    return array if array.type == kind else pc.cast(array, kind)


def _same(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(array.type):
        array.validate(full=True)  # TEXT may hold any bytes
    return array


def _boolean(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if pc.all(pc.is_in(array, pa.array([0, 1, None]))).as_py() is False:
        raise ValueError("neither 0 nor 1")
    return pc.equal(array, 1)


def _parsed(array: pa.Array, kind: pa.DataType) -> pa.Array:
    array.validate(full=True)
    return from_texts(array, kind) if pa.types.is_decimal(kind) else pc.cast(array, kind)


def _time(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if pc.any(pc.less(pc.binary_length(array), constant(len("23:59")))).as_py():
        # Arrow would take the number 12 for noon.
        raise ValueError("not a time of the form 23:59:59.999999")
    moments = pc.cast(pc.binary_join_element_wise("1970-01-01", array, " "), pa.timestamp("us"))
    return pc.cast(moments, kind)


def _uuid(array: pa.Array, kind: pa.DataType) -> pa.Array:
    return kind.wrap_array(pc.cast(array, kind.storage_type))


def _json(array: pa.Array, kind: pa.DataType) -> pa.Array:
    array.validate(full=True)
    return kind.wrap_array(array)


def _interval(array: pa.Array, kind: pa.DataType) -> pa.Array:
    return pa.array([None if text is None else read_interval(text) for text in array.to_pylist()], kind)


_DECODERS: dict[StorageForm, Callable[[pa.Array, pa.DataType], pa.Array]] = {
    StorageForm.BOOLEAN: _boolean,
    StorageForm.DATE: _parsed,
    StorageForm.DECIMAL: _parsed,
    StorageForm.DECIMAL_TEXT: _parsed,
    StorageForm.INTERVAL: _interval,
    StorageForm.JSON: _json,
    StorageForm.TIME: _time,
    StorageForm.TIMESTAMP: _parsed,
    StorageForm.UUID: _uuid,
}
