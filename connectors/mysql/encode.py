"""Arrow columns -> texts that MySQL reads: whole batches at once, without an object a value."""

from __future__ import annotations

import binascii
from collections.abc import Collection, Iterator

import pyarrow as pa
from msgspec import Struct

from ..arrow import compute as pc
from ..errors import FatalConnectorError

#: What LOAD DATA is told: fields end in a tab, records in a line feed, `\\` before either and before itself.
LOAD_FORMAT = (
    "character set utf8mb4 fields terminated by x'09' optionally enclosed by '' escaped by x'5c' "
    "lines terminated by x'0a'"
)


class Text(Struct, frozen=True):
    """A column as text."""

    array: pa.Array
    #: It holds hexadecimal digits of bytes.
    is_hex: bool = False
    #: A number: needs neither quotes nor escapes.
    is_number: bool = False
    #: May hold any character.
    is_free: bool = False


def text_of(array: pa.Array, column: str) -> Text:
    """Return a column as text, exact.

    Raises:
        FatalConnectorError: a value that MySQL has no place for.
    """
    kind, types = array.type, pa.types
    if types.is_boolean(kind):
        return Text(pc.cast(pc.cast(array, pa.int8()), pa.large_string()), is_number=True)
    if types.is_integer(kind) or types.is_decimal(kind):
        return Text(pc.cast(pc.cast(array, pa.string()), pa.large_string()), is_number=True)
    if types.is_floating(kind):
        _refuse_special(array, column)
        # The digits that tell a float from its neighbours round the largest ones up, past what the server takes.
        return Text(pc.cast(pc.cast(array, pa.float64()), pa.large_string()), is_number=True)
    if types.is_timestamp(kind):
        plain = pc.cast(pc.cast(array, pa.timestamp("us", kind.tz)), pa.timestamp("us"))
        return Text(_in_years(pc.cast(plain, pa.large_string()), 26, column))
    if types.is_date(kind):
        return Text(_in_years(pc.cast(array, pa.large_string()), 10, column))
    if types.is_time(kind):
        return Text(pc.cast(pc.cast(array, pa.time64("us")), pa.large_string()))
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return Text(_hex(pc.cast(array, pa.large_binary())), is_hex=True)
    return Text(pc.cast(array, pa.large_string()), is_free=True)


def years_written_out(batch: pa.RecordBatch, columns: Collection[str]) -> pa.RecordBatch:
    """Return the batch with years as four digits: '0' would become 2000.

    Raises:
        FatalConnectorError: a year from 1 to 99, which the server would put into this century or the last one.
    """
    for place, name in enumerate(batch.schema.names):
        if name not in columns:
            continue
        years = batch.column(place)
        is_short = pc.and_(pc.greater(years, 0), pc.less(years, 100))
        if pc.any(is_short).as_py():
            shown = years[pc.index(is_short, True).as_py()].as_py()
            raise FatalConnectorError(
                f"column {name!r}: a year of MySQL and MariaDB cannot be {shown}", connector="mysql"
            )
        batch = batch.set_column(place, name, pc.utf8_lpad(pc.cast(years, pa.string()), 4, "0"))
    return batch


def lines(batch: pa.RecordBatch) -> pa.Buffer | None:
    """Return a batch as a file for LOAD DATA (bytes as hexadecimal digits); None: no records."""
    fields = [_escaped(text_of(batch.column(place), name)) for place, name in enumerate(batch.schema.names)]
    return _joined(fields, "\t", "\n", "\\N")


def values(batch: pa.RecordBatch, size_bytes: int) -> Iterator[tuple[int, pa.Buffer]]:
    """Yield a batch as lists for INSERT ... VALUES, each with its number of records, of about this size."""
    fields = [_literal(text_of(batch.column(place), name)) for place, name in enumerate(batch.schema.names)]
    rows = pc.binary_join_element_wise(
        *fields, pa.scalar(",", pa.large_string()), null_handling="replace", null_replacement="null"
    )
    rows = pc.binary_join_element_wise(_text("("), rows, _text("),"), _text(""))
    lengths = pc.binary_length(rows).to_pylist()
    start = total = 0
    for place, length in enumerate(lengths):
        if total and total + length > size_bytes:
            yield place - start, _content(rows.slice(start, place - start), 1)
            start, total = place, 0
        total += length
    if total:
        yield len(lengths) - start, _content(rows.slice(start), 1)


def _joined(fields: list[pa.Array], separator: str, end: str, null: str) -> pa.Buffer | None:
    rows = pc.binary_join_element_wise(
        *fields, pc.constant(separator, pa.large_string()), null_handling="replace", null_replacement=null
    )
    rows = pc.binary_join_element_wise(rows, pc.constant("", pa.large_string()), pc.constant(end, pa.large_string()))
    return _content(rows) if len(rows) else None


def _content(rows: pa.Array, less: int = 0) -> pa.Buffer:
    """Return the bytes of all texts, one behind the other, but for some at the end."""
    _, offsets, data = rows.buffers()
    places = pa.Array.from_buffers(pa.int64(), rows.offset + len(rows) + 1, [None, offsets])
    first, last = places[rows.offset].as_py(), places[rows.offset + len(rows)].as_py()
    return data.slice(first, last - first - less)


def _escaped(text: Text) -> pa.Array:
    array = text.array
    if text.is_free:
        for plain, escaped in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n")):
            if pc.any(pc.match_substring(array, pattern=plain)).as_py():
                array = pc.replace_substring(array, plain, escaped)
    return array


def _text(text: str) -> pa.Scalar:
    return pa.scalar(text, pa.large_string())


def _literal(text: Text) -> pa.Array:
    array = text.array
    if text.is_number:
        return array
    if text.is_free and pc.any(pc.match_substring(array, pattern="'")).as_py():
        array = pc.replace_substring(array, "'", "''")
    opening = pa.scalar("x'" if text.is_hex else "'", pa.large_string())
    return pc.binary_join_element_wise(opening, array, _text("'"), _text(""))


def _hex(array: pa.Array) -> pa.Array:
    array = pa.concat_arrays([array]) if array.offset else array
    valid, offsets, data = array.buffers()
    places = pa.Array.from_buffers(pa.int64(), len(array) + 1, [None, offsets])
    first, last = places[0].as_py(), places[len(array)].as_py()
    digits = binascii.hexlify(memoryview(data)[first:last]) if data is not None else b""
    doubled = pc.multiply(pc.subtract(places, first), 2)
    buffers = [valid, doubled.buffers()[1], pa.py_buffer(digits)]
    return pa.Array.from_buffers(pa.large_string(), len(array), buffers, array.null_count)


def _refuse_special(array: pa.Array, column: str) -> None:
    if pc.all(pc.is_finite(array)).as_py() is False:
        raise FatalConnectorError(
            f"column {column!r} contains NaN or an infinity, which MySQL and MariaDB cannot store: turn it into "
            "NULL in a transformer, or exclude the column with `columns`",
            connector="mysql",
        )


def _in_years(text: pa.Array, width: int, column: str) -> pa.Array:
    """Refuse years before 1 and past 9999."""
    is_fine = pc.and_(
        pc.equal(pc.binary_length(text), pc.constant(width)), pc.greater_equal(text, pc.constant("0001", text.type))
    )
    if pc.all(is_fine).as_py() is False:
        shown = text[pc.index(is_fine, False).as_py()].as_py()
        raise FatalConnectorError(
            f"column {column!r}: {shown!r} is outside the years 1 to 9999, the range of MySQL and MariaDB: "
            "`on_rejected: keep` sets such records aside, `text_columns` of a PostgreSQL source reads the column "
            "as text; or exclude it with `columns`",
            connector="mysql",
        )
    return text


__all__ = ["LOAD_FORMAT", "lines", "values", "years_written_out"]
