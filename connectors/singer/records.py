"""Lines of records -> Arrow batches: whole blocks by Arrow's JSON reader, line by line only where a block needs it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Context, Decimal, InvalidOperation
from math import isfinite
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from ..files.text import SPECIAL, is_json, misfit, revive
from .moments import from_texts
from .types import JSON, LONG, Column, Reading

MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError)

#: So many digits in a row (a point among them) may be more than a double holds.
LONG_RUN = 16
_STRIDE = LONG_RUN // 2
#: Digits and points as 0, signs as -, the e of exponents; anything else as a space.
_NUMERALS = bytes(
    48 if 48 <= byte < 58 or byte == 46 else 101 if byte in b"eE" else 45 if byte in b"+-" else 32
    for byte in range(256)
)

#: Keeps the digits of any number: Python's own context rounds to 28 of them.
EXACT = Context(prec=5000)

_values = msgspec.json.Decoder(float_hook=Decimal)


class BadRecord(Exception):
    """A line that is no record of the stream: `line` counts from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


class Wider(Exception):
    """A value needs a wider type than its column's; the block is to be read again with it."""

    def __init__(self, column: Column, kind: pa.DataType | None) -> None:
        super().__init__(column.name)
        self.column = column
        #: A decimal type; None: digits as text.
        self.kind = kind


class RecordMessage(msgspec.Struct):
    """A RECORD message, its record's values still as JSON."""

    type: Any = None
    stream: Any = None
    record: dict[str, msgspec.Raw] | None = None


class Parser:
    """Parses the records of one stream with one set of columns.

    Args:
        columns: in the order of the batches.
        not_null: keys; a record without one is an error.
        stream: as the messages call it.
        is_wrapped: lines are RECORD messages; otherwise the records themselves.
    """

    def __init__(
        self, columns: Sequence[Column], not_null: frozenset[str] = frozenset(), *, stream: str, is_wrapped: bool = True
    ) -> None:
        self.columns = list(columns)
        self.schema = pa.schema([column.field(nullable=column.name not in not_null) for column in columns])
        self._keys = [column.name for column in columns if column.name in not_null]
        self._stream = stream
        self._is_wrapped = is_wrapped
        self._numbers = [column for column in columns if column.reading is Reading.NUMBER]
        self._raw = [column for column in columns if column.reading is Reading.JSON]
        self._reader_schema = self._wrapped(
            [pa.field(c.name, _read_as(c)) for c in self.columns if c.reading is not Reading.JSON]
        )
        self._decimals = [c for c in columns if c.reading is not Reading.JSON and pa.types.is_decimal(_read_as(c))]
        #: The fewest digits for which one of the decimal columns may have no room.
        self._room = min((_room(_read_as(column)) for column in self._decimals), default=0)
        self._raw_decoder = self._make_raw_decoder()
        self._rows: Any = msgspec.json.Decoder(RecordMessage if is_wrapped else dict[str, msgspec.Raw])

    def parse(self, block: bytes, lines: Sequence[int]) -> pa.RecordBatch:
        """Return one batch with a record a line; `lines` are the numbers of the lines that hold something.

        Raises:
            BadRecord: a line that is no record of this stream.
            Wider: a column needs a wider type.
        """
        batch = self._quick(block, len(lines))
        if batch is None:
            batch = self._slow(block, lines)
        for name in self._keys:
            if batch.column(name).null_count:
                place = pc.index(pc.is_null(batch.column(name)), True).as_py()
                raise BadRecord(lines[place], f"has no value of the key {name!r}")
        return batch

    # -- the whole block at once --------------------------------------------------------------------------------

    def _wrapped(self, fields: Sequence[pa.Field]) -> pa.Schema:
        if not self._is_wrapped:
            return pa.schema(fields)
        # `type` and `stream` are asked for so that a second one in a line is seen.
        return pa.schema([("type", pa.string()), ("stream", pa.string()), ("record", pa.struct(fields))])

    def _make_raw_decoder(self) -> Any:
        if not self._raw:
            return None
        fields = [(f"f{number}", msgspec.Raw, msgspec.Raw(b"null")) for number in range(len(self._raw))]
        names = {f"f{number}": column.name for number, column in enumerate(self._raw)}
        record = msgspec.defstruct("Record", fields, rename=names)
        if self._is_wrapped:
            return msgspec.json.Decoder(msgspec.defstruct("Line", [("record", record)]))
        return msgspec.json.Decoder(record)

    def _quick(self, block: bytes, count: int) -> pa.RecordBatch | None:
        """Parse the block as a whole; None where it needs a closer look."""
        if not self.columns:
            return None
        is_long = bool(self._numbers or self._decimals) and has_long_numbers(block)
        has_exponents = False
        if self._decimals:
            numerals = block.translate(_NUMERALS)
            if is_long and b"0" * self._room in numerals:
                return None
            has_exponents = b"0e0" in numerals or b"0e-" in numerals
        try:
            if not block.isascii():
                block.decode()
            found = self._parsed(block, self._reader_schema, count)
            if found is None or not self._is_exact(
                found,
                block,
                count,
                numbers=self._numbers if is_long else (),
                decimals=self._decimals if has_exponents else (),
            ):
                return None
            raw = self._raw_columns(block, count)
            columns = [
                raw[column.name] if column.reading is Reading.JSON else _typed(column, found[column.name])
                for column in self.columns
            ]
        except (pa.ArrowException, msgspec.MsgspecError, ValueError, ArithmeticError):
            return None
        return pa.record_batch(columns, schema=self.schema)

    def _parsed(self, block: bytes, schema: pa.Schema, count: int) -> dict[str, pa.Array] | None:
        table = pyarrow.json.read_json(
            pa.BufferReader(block),
            read_options=pyarrow.json.ReadOptions(block_size=len(block) + 1, use_threads=False),
            parse_options=pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
        return self._fields(table) if table.num_rows == count else None

    def _is_exact(
        self,
        found: Mapping[str, pa.Array],
        block: bytes,
        count: int,
        *,
        numbers: Sequence[Column],
        decimals: Sequence[Column],
    ) -> bool:
        """Tell whether the numbers are what the block says; where that is not sure, read them in a second way.

        A double may lack digits, so long numbers are read as decimals too. A decimal of Arrow's JSON reader may be
        plain wrong where the text has an exponent (1e50 as decimal(76,40), 1e-41 as decimal(12,2)), so it is held
        against a double.

        Raises:
            Wider: a double does not hold all digits.
        """
        if not numbers and not decimals:
            return True
        fields = [pa.field(column.name, LONG) for column in numbers]
        fields += [pa.field(column.name, pa.string() if column.is_text else pa.float64()) for column in decimals]
        again = self._parsed(block, self._wrapped(fields), count)
        if again is None or not all(_is_near(found[column.name], again[column.name]) for column in decimals):
            return False
        return all(_holds(column, found[column.name], again[column.name]) for column in numbers)

    def _fields(self, table: pa.Table) -> dict[str, pa.Array] | None:
        if not self._is_wrapped:
            return {name: _one(table.column(name)) for name in table.column_names}
        records = _one(table.column("record"))
        if records.null_count:
            return None
        return {field.name: records.field(place) for place, field in enumerate(records.type)}

    def _raw_columns(self, block: bytes, count: int) -> dict[str, pa.Array]:
        if self._raw_decoder is None:
            return {}
        lines = self._raw_decoder.decode_lines(block)
        if len(lines) != count:
            raise ValueError("more or fewer values than lines")
        records = [line.record for line in lines] if self._is_wrapped else lines
        found = {}
        for number, column in enumerate(self._raw):
            name = f"f{number}"
            texts = [bytes(getattr(record, name)) for record in records]
            values = pa.array([None if text == b"null" else text for text in texts], pa.binary())
            found[column.name] = pa.ExtensionArray.from_storage(JSON, values.cast(pa.string()))
        return found

    # -- line by line --------------------------------------------------------------------------------------------

    def _slow(self, block: bytes, lines: Sequence[int]) -> pa.RecordBatch:
        texts = [text for text in block.split(b"\n") if text.strip()]
        if len(texts) != len(lines):
            raise AssertionError("a line number for each line that holds something")
        records = [self._record(line, text) for line, text in zip(lines, texts, strict=True)]
        if not self.columns:
            return pa.RecordBatch.from_struct_array(pa.array([{}] * len(records), pa.struct([])))
        columns = [self._column(column, records, lines) for column in self.columns]
        return pa.record_batch(columns, schema=self.schema)

    def _record(self, line: int, text: bytes) -> dict[str, Any]:
        try:
            message = self._rows.decode(text)
        except MALFORMED as error:
            message = self._lenient(line, text, error)
        if not self._is_wrapped:
            return dict(message)
        if message.type != "RECORD" or message.stream != self._stream:
            raise BadRecord(line, "names its type or stream twice")
        if message.record is None:
            raise BadRecord(line, "is a RECORD without a record")
        return dict(message.record)

    def _lenient(self, line: int, text: bytes, error: Exception) -> Any:
        """Read what Python's own writer makes of floats that JSON does not have."""
        try:
            found = json.loads(text.decode(), parse_float=Decimal)
        except (ValueError, RecursionError) as other:
            reason = error if isinstance(other, UnicodeDecodeError) or "NaN" not in str(text) else other
            raise BadRecord(line, f"is no JSON: {shown(text)} ({reason})") from error
        record = found.get("record") if self._is_wrapped and isinstance(found, dict) else found
        if not isinstance(found, dict) or not isinstance(record, dict):
            raise BadRecord(line, f"is no record, which is an object: {shown(text)}") from error
        values = {name: _Given(value) for name, value in record.items()}
        if not self._is_wrapped:
            return values
        return _Lenient(found.get("type"), found.get("stream"), values)

    def _column(self, column: Column, records: Sequence[dict[str, Any]], lines: Sequence[int]) -> pa.Array:
        values: list[Any] = []
        for line, record in zip(lines, records, strict=True):
            raw = record.get(column.name)
            try:
                values.append(None if raw is None else _value(column, raw))
            except (*MALFORMED, ArithmeticError, TypeError) as error:
                raise self._bad(column, line, raw) from error
        is_text = column.reading is Reading.TEXT or column.reading is Reading.JSON

        def converts(part: Any) -> pa.Array:
            if column.reading is Reading.TEXT:
                return from_texts(part, column.type)
            if column.reading is Reading.JSON:
                return pa.ExtensionArray.from_storage(JSON, part)
            return pa.array(part, column.type)

        try:
            subject: Any = pa.array(values, pa.string()) if is_text else _List(values)
            return converts(subject)
        except (ValueError, TypeError, ArithmeticError, pa.ArrowException) as error:
            if isinstance(error, UnicodeEncodeError):
                place = next(i for i, value in enumerate(values) if not _is_encodable(value))
            else:
                place = misfit(subject, converts)
            if column.is_widened and pa.types.is_decimal(column.type):
                raise Wider(column, None) from error
            raise self._bad(column, lines[place], records[place].get(column.name)) from error

    def _bad(self, column: Column, line: int, raw: Any) -> BadRecord:
        return BadRecord(
            line, f"column {column.name!r}: {shown(raw)} is no {_named(column.type)}, which its schema says"
        )


class _List(list[Any]):
    """A list with Arrow's `slice`, for `misfit`."""

    def slice(self, start: int, size: int) -> _List:
        return _List(self[start : start + size])


class _Given:
    """A value that was parsed already."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class _Lenient:
    __slots__ = ("record", "stream", "type")

    def __init__(self, kind: Any, stream: Any, record: dict[str, Any]) -> None:
        self.type, self.stream, self.record = kind, stream, record


def has_long_numbers(block: bytes) -> bool:
    """Tell whether there may be a number with more digits than every double holds: 16 or more in a row.

    Every such run covers two places in a row of those that are a stride apart, so most blocks need a look at a part of
    their bytes only.
    """
    return b"00" in block[::_STRIDE].translate(_NUMERALS) and b"0" * LONG_RUN in block.translate(_NUMERALS)


def _read_as(column: Column) -> pa.DataType:
    """Return the type that Arrow's JSON reader is told."""
    if column.reading is Reading.TEXT:
        return pa.string()
    return LONG if column.reading is Reading.NUMERIC else column.type


def _room(kind: pa.DataType) -> int:
    """Return with how many digits Arrow's JSON reader may get a decimal wrong, once it is scaled."""
    return (38 if pa.types.is_decimal128(kind) else 76) - int(kind.scale) + 1


def _is_near(decimals: pa.Array, doubles: pa.Array) -> bool:
    doubles = doubles.cast(pa.float64())
    gap = pc.abs(pc.subtract(decimals.cast(pa.float64()), doubles))
    is_near = pc.less_equal(gap, pc.multiply(pc.abs(doubles), 1e-6))
    return pc.all(is_near).as_py() is not False


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _typed(column: Column, found: pa.Array) -> pa.Array:
    if column.reading is Reading.TEXT:
        return from_texts(found, column.type)
    if pa.types.is_decimal(found.type):
        found.validate(full=True)  # the reader does not look whether the digits fit
    if column.reading is Reading.NUMERIC:
        return _plain_digits(found)
    return found


def _plain_digits(found: pa.Array) -> pa.Array:
    """Write decimals without the zeros that their common scale gives them."""
    text = found.cast(pa.string())
    if pc.any(pc.match_substring(text, "E")).as_py():
        values = [None if value is None else format(value, "f") for value in found.to_pylist()]
        text = pa.array(values, pa.string())
    return pc.utf8_rtrim(pc.utf8_rtrim(text, "0"), ".")


def _holds(column: Column, doubles: pa.Array, decimals: pa.Array) -> bool:
    """Tell whether the doubles hold every digit of the decimals; False where the decimals may be wrong themselves.

    Raises:
        Wider: they do not.
    """
    same = pc.equal(doubles.cast(pa.string()).cast(LONG), decimals)
    if pc.all(same).as_py() is not False:
        return True
    is_other = pc.invert(pc.fill_null(same, True))
    others = zip(doubles.filter(is_other).to_pylist(), decimals.filter(is_other).to_pylist(), strict=True)
    for double, value in others:
        if not 1e-30 < abs(double) < 1e30:
            return False
        if not is_exact(value):
            raise Wider(column, _decimal_for(decimals))
    return True


def is_exact(value: Decimal | int) -> bool:
    """Tell whether a double holds all digits, or the digits are those of a double written with 17 of them."""
    try:
        double = float(value)
    except OverflowError:
        return False
    if not isfinite(double):
        return False
    number = Decimal(value)
    return Decimal(repr(double)) == number or Decimal(f"{double:.17g}") == number


def _decimal_for(values: Any) -> pa.DataType | None:
    """Return a decimal type that holds these values; None where there is none of 38 digits."""
    scale = whole = 0
    for value in values.to_pylist() if isinstance(values, pa.Array) else values:
        if value is None:
            continue
        _, digits, exponent = value.normalize(EXACT).as_tuple()
        scale = max(scale, -exponent)
        whole = max(whole, len(digits) + exponent)
    if whole + scale > 38:
        return None
    # Room for more digits behind the point, as far as that leaves room before it.
    return pa.decimal128(38, max(scale, min(18, 38 - max(whole, 15))))


def _value(column: Column, raw: Any) -> Any:
    """Turn one JSON value into what Arrow takes for the column.

    Raises:
        ValueError: it is no such value.
    """
    if column.reading is Reading.JSON:
        text = _as_json(raw.value) if isinstance(raw, _Given) else bytes(raw).decode()
        return None if text == "null" else text
    value = raw.value if isinstance(raw, _Given) else _values.decode(raw)
    if value is None:
        return None
    if column.reading is Reading.NUMBER:
        return _number(column, value)
    if column.reading is Reading.NUMERIC:
        return _digits(value)
    kind = column.type
    if pa.types.is_integer(kind):
        return _integer(column, value)
    if pa.types.is_decimal(kind):
        return _decimal(column, value)
    if column.reading is Reading.TEXT or pa.types.is_string(kind):
        if not isinstance(value, str):
            raise ValueError("no text")
        return value
    return revive(value, kind)


def _number(column: Column, value: Any) -> float | None:
    if isinstance(value, str):
        if value not in SPECIAL.values():
            raise ValueError("no number")
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | Decimal | float):
        raise ValueError("no number")
    if isinstance(value, float):
        return value
    if isinstance(value, Decimal) and not value:
        return float(value)
    if not is_exact(value):
        raise Wider(column, _decimal_for([Decimal(value)]))
    return float(value)


def _integer(column: Column, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or value != int(value):
        raise ValueError("no integer")
    number = int(value)
    if column.type.bit_width == 64 and not -(2**63) <= number < 2**63:
        raise Wider(column, pa.decimal128(38, 0) if abs(number) < 10**38 else None)
    return number


def _decimal(column: Column, value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        raise ValueError("no number")
    number = Decimal(value)
    is_long = number.is_finite() and -int(number.normalize(EXACT).as_tuple().exponent) > column.type.scale
    if column.is_widened and (is_long or not number.is_finite()):
        raise Wider(column, None)
    if is_long:  # Arrow would make 0 of 1e-41
        raise ValueError("more digits than the column has")
    return number


def _digits(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str | float):
        raise ValueError("no number")
    if isinstance(value, float):  # NaN or an infinity
        return SPECIAL.get(str(value), str(value))
    try:
        number = Decimal(value)
    except InvalidOperation as error:
        raise ValueError("no number") from error
    if not number.is_finite():
        return str(value)
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _as_json(value: Any) -> str:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, float):
        return json.dumps(SPECIAL.get(str(value), str(value)))
    if isinstance(value, dict):
        pairs = (f"{json.dumps(name, ensure_ascii=False)}:{_as_json(item)}" for name, item in value.items())
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_as_json(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _is_encodable(value: Any) -> bool:
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def _named(kind: pa.DataType) -> str:
    return "JSON" if is_json(kind) else str(kind)


def shown(raw: Any, limit: int = 80) -> str:
    """Return a value as an error shows it, cut short."""
    if raw is None:
        return "null"
    if isinstance(raw, _Given):
        raw = repr(raw.value).encode("utf-8", "replace")
    text = bytes(raw).decode("utf-8", "replace").strip()
    return text if len(text) <= limit else f"{text[:limit]}..."
