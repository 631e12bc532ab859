"""Parse lines of records into Arrow batches, by blocks with Arrow's JSON reader, or line by line where needed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from ..arrow.text import first_invalid, is_json
from ..arrow.type_names import type_text
from .numbers import (
    LONG_RUN,
    NUMERALS,
    Wider,
    has_exponents,
    has_negative_zero,
    has_tiny,
    has_zero,
    holds,
    is_near,
    may_have_long_numbers,
    plain_digits,
    room,
)
from .text_values import from_texts
from .types import JSON, LONG, JSONReading, PropertyColumn
from .values import ParsedValue, shown, value_of

MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError)


class MalformedRecord(Exception):
    """A line is no record of the stream.

    Args:
        line: its number, from 1.
        reason: why.
        without_values: as much of the reason as holds no value of a record.
    """

    def __init__(self, line: int, reason: str, without_values: str = "") -> None:
        super().__init__(reason)
        self.line = line
        self.without_values = without_values


class Envelope(msgspec.Struct, frozen=True):
    """Where a message of `type` RECORD has its stream's name and its record; each is a path of keys."""

    stream: tuple[str, ...]
    record: tuple[str, ...]

    def place(self, stream: Any, record: Any) -> list[tuple[str, Any]]:
        """Return the fields of a message; `stream` and `record` stand where the message has them.

        Arrow refuses a line that has one of the fields twice.
        """
        fields: list[tuple[str, Any]] = [("type", stream)]
        if len(self.stream) == 1:
            return [*fields, (self.stream[0], stream), (self.record[0], record)]
        return [*fields, (self.record[0], [(self.stream[1], stream), (self.record[1], record)])]


#: `{"type": "RECORD", "stream": ..., "record": {...}}`
SINGER = Envelope(("stream",), ("record",))
#: `{"type": "RECORD", "record": {"stream": ..., "data": {...}}}`
AIRBYTE = Envelope(("record", "stream"), ("record", "data"))


class Parser:
    """Parses the records of one stream with one set of columns.

    Args:
        columns: the columns of the batches, in order.
        not_null: key columns; a record without a value is an error.
        stream: the stream's name in messages.
        envelope: what lines have around a record; None: nothing.
    """

    def __init__(
        self,
        columns: Sequence[PropertyColumn],
        not_null: frozenset[str] = frozenset(),
        *,
        stream: str,
        envelope: Envelope | None = SINGER,
    ) -> None:
        self.columns = list(columns)
        self.schema = pa.schema([column.field(nullable=column.name not in not_null) for column in columns])
        self._keys = [column.name for column in columns if column.name in not_null]
        self._stream = stream
        self.envelope = envelope
        self._numbers = [column for column in columns if column.reading is JSONReading.NUMBER]
        self._raw = [column for column in columns if column.reading is JSONReading.JSON]
        self._reader_schema = self._wrapped(
            [pa.field(c.name, _read_as(c)) for c in self.columns if c.reading is not JSONReading.JSON]
        )
        self._long_schema = self._wrapped(
            [
                pa.field(c.name, LONG if c.reading is JSONReading.NUMBER else _read_as(c))
                for c in self.columns
                if c.reading is not JSONReading.JSON
            ]
        )
        self._decimals = [c for c in columns if c.reading is not JSONReading.JSON and pa.types.is_decimal(_read_as(c))]
        #: Fewest digits that may be too many for a decimal column.
        self._room = min((room(_read_as(column)) for column in self._decimals), default=0)
        self._raw_decoder = self._make_raw_decoder()
        rows: Any = dict[str, msgspec.Raw]
        if envelope is not None:
            rows = _message_type(envelope.place(Any, dict[str, msgspec.Raw] | None))
        self._rows: Any = msgspec.json.Decoder(rows)

    def parse(self, block: bytes, lines: Sequence[int]) -> pa.RecordBatch:
        """Return one batch with a record for each line; `lines` are the numbers of the lines that are not blank.

        Raises:
            MalformedRecord: a line is no record of this stream.
            Wider: a column needs a wider type.
        """
        batch = self._quick(block, len(lines))
        if batch is None:
            batch = self._slow(block, lines)
        for name in self._keys:
            if batch.column(name).null_count:
                place = pc.index(pc.is_null(batch.column(name)), True).as_py()
                why = f"has no value for the key {name!r}"
                raise MalformedRecord(lines[place], why, why)
        return batch

    # -- the whole block at once --------------------------------------------------------------------------------

    def _wrapped(self, fields: Sequence[pa.Field]) -> pa.Schema:
        if self.envelope is None:
            return pa.schema(fields)
        return pa.schema([_arrow(*each) for each in self.envelope.place(pa.string(), pa.struct(fields))])

    def _make_raw_decoder(self) -> Any:
        if not self._raw:
            return None
        fields = [(f"f{number}", msgspec.Raw, msgspec.Raw(b"null")) for number in range(len(self._raw))]
        names = {f"f{number}": column.name for number, column in enumerate(self._raw)}
        kind: Any = msgspec.defstruct("Record", fields, rename=names)
        for key in reversed(self.envelope.record if self.envelope else ()):
            kind = msgspec.defstruct("Line", [(key, kind)])
        return msgspec.json.Decoder(kind)

    def _quick(self, block: bytes, count: int) -> pa.RecordBatch | None:
        """Parse the block as a whole; None: it must be parsed line by line."""
        if not self.columns:
            return None
        try:
            if not block.isascii():
                block.decode()
            found = self._exact_fields(block, count)
            if found is None:
                return None
            raw = self._raw_columns(block, count)
            columns = [
                raw[column.name] if column.reading is JSONReading.JSON else _typed(column, found[column.name])
                for column in self.columns
            ]
        except (pa.ArrowException, msgspec.MsgspecError, ValueError, ArithmeticError):
            return None
        return pa.record_batch(columns, schema=self.schema)

    def _exact_fields(self, block: bytes, count: int) -> dict[str, pa.Array] | None:
        """Return the columns as Arrow's JSON reader makes them; None: it may have got a number wrong.

        A double may lack digits: long numbers are read as decimals, and become doubles if doubles hold all digits. For
        a text with an exponent the reader may return a wrong decimal without an error (1e50 as decimal(76,40); 1e-41 as
        decimal(12,2) is 0): such decimals are compared with doubles of a second reading.

        Raises:
            Wider: a double does not hold all digits.
        """
        if not self._numbers and not self._decimals:
            return self._parsed(block, self._reader_schema, count)
        has_powers = has_exponents(block, in_texts=bool(self._decimals))  # for decimals the reader takes texts, too
        numerals = block.translate(NUMERALS) if has_powers or may_have_long_numbers(block) else b""
        is_long = b"0" * LONG_RUN in numerals
        if is_long and self._decimals and b"0" * self._room in numerals:
            return None
        # What is tiny has an exponent, so the search for those spares most blocks another one.
        if (has_powers if self._decimals else is_long) and has_tiny(block):
            return None
        has_large = has_powers and (b"0e0" in numerals or b"0e+" in numerals)
        numbers = self._numbers if is_long else []
        if numbers and not has_large:
            found = self._parsed(block, self._long_schema, count)
            if found is None:
                return None
            is_doubtful = any(has_zero(found[column.name]) for column in numbers)
            if not (is_doubtful and (has_powers or has_negative_zero(block))):  # as decimals 1e-120 and -0 are 0
                for column in numbers:
                    decimals = found[column.name]
                    found[column.name] = decimals.cast(pa.string()).cast(pa.float64())
                    if not holds(column, found[column.name], decimals):
                        return None
                numbers = []
            else:
                found = self._parsed(block, self._reader_schema, count)
        else:
            found = self._parsed(block, self._reader_schema, count)
        if found is None:
            return None
        has_small = has_powers and b"0e-" in numerals
        doubted = [each for each in self._decimals if has_large or (has_small and has_zero(found[each.name]))]
        if (numbers or doubted) and not self._is_exact(found, block, count, numbers, doubted):
            return None
        return found

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
        numbers: Sequence[PropertyColumn],
        decimals: Sequence[PropertyColumn],
    ) -> bool:
        """Read the doubles as decimals and the decimals as doubles, and compare them."""
        fields = [pa.field(column.name, LONG) for column in numbers]
        fields += [pa.field(column.name, pa.string() if column.is_text else pa.float64()) for column in decimals]
        again = self._parsed(block, self._wrapped(fields), count)
        if again is None or not all(is_near(found[column.name], again[column.name]) for column in decimals):
            return False
        return all(holds(column, found[column.name], again[column.name]) for column in numbers)

    def _fields(self, table: pa.Table) -> dict[str, pa.Array] | None:
        fields = {name: _one(table.column(name)) for name in table.column_names}
        for key in self.envelope.record if self.envelope else ():
            inner = fields[key]
            if inner.null_count:
                return None
            fields = {field.name: inner.field(place) for place, field in enumerate(inner.type)}
        return fields

    def _raw_columns(self, block: bytes, count: int) -> dict[str, pa.Array]:
        if self._raw_decoder is None:
            return {}
        lines = self._raw_decoder.decode_lines(block)
        if len(lines) != count:
            raise ValueError("more or fewer values than lines")
        records = [at(line, self.envelope.record) for line in lines] if self.envelope else lines
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
            raise AssertionError("a line number for each line that is not blank")
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
        if self.envelope is None:
            return dict(message)
        if message.type != "RECORD" or at(message, self.envelope.stream) != self._stream:
            raise MalformedRecord(line, why := "names its type or stream twice", why)
        record = at(message, self.envelope.record)
        if record is None:
            raise MalformedRecord(line, why := "is a RECORD without a record", why)
        return dict(record)

    def _lenient(self, line: int, text: bytes, error: Exception) -> Any:
        """Read NaN and infinities, as Python's JSON writer writes them."""
        try:
            found = json.loads(text.decode(), parse_float=Decimal)
        except (ValueError, ArithmeticError, RecursionError) as other:
            reason = error if isinstance(other, UnicodeDecodeError) or "NaN" not in str(text) else other
            raise MalformedRecord(line, f"is not JSON: {shown(text)} ({reason})", "is not JSON") from error
        record = at(found, self.envelope.record) if self.envelope else found
        if not isinstance(found, dict) or not isinstance(record, dict):
            why = "is not a record (a JSON object)"
            raise MalformedRecord(line, f"{why}: {shown(text)}", why) from error
        values = {name: ParsedValue(value) for name, value in record.items()}
        if self.envelope is None:
            return values
        return _Lenient(found.get("type"), self.envelope, at(found, self.envelope.stream), values)

    def _column(self, column: PropertyColumn, records: Sequence[dict[str, Any]], lines: Sequence[int]) -> pa.Array:
        values: list[Any] = []
        for line, record in zip(lines, records, strict=True):
            raw = record.get(column.name)
            try:
                values.append(None if raw is None else value_of(column, raw))
            except (*MALFORMED, ArithmeticError, TypeError) as error:
                raise self._bad(column, line, raw) from error
        is_text = column.reading is JSONReading.TEXT or column.reading is JSONReading.JSON

        def converts(part: Any) -> pa.Array:
            if column.reading is JSONReading.TEXT:
                return from_texts(part, column.type)
            if column.reading is JSONReading.JSON:
                return pa.ExtensionArray.from_storage(JSON, part)
            return pa.array(part, column.type)

        try:
            subject: Any = pa.array(values, pa.string()) if is_text else _List(values)
            return converts(subject)
        except (ValueError, TypeError, ArithmeticError, pa.ArrowException) as error:
            if isinstance(error, UnicodeEncodeError):
                place = next(i for i, value in enumerate(values) if not _is_encodable(value))
            else:
                place = first_invalid(subject, converts)
            if column.is_widened and pa.types.is_decimal(column.type):
                raise Wider(column, None) from error
            raise self._bad(column, lines[place], records[place].get(column.name)) from error

    def _bad(self, column: PropertyColumn, line: int, raw: Any) -> MalformedRecord:
        return MalformedRecord(
            line, f"column {column.name!r}: {shown(raw)} is not {_named(column.type)}, the type in its schema"
        )


class _List(list[Any]):
    """A list with Arrow's `slice`, for `first_invalid`."""

    def slice(self, start: int, size: int) -> _List:
        return _List(self[start : start + size])


class _Lenient:
    """A message with values that Python's JSON reader has parsed."""

    def __init__(self, kind: Any, envelope: Envelope, stream: Any, record: dict[str, Any]) -> None:
        self.type = kind
        for path, value in ((envelope.stream, stream), (envelope.record, record)):
            holder = self
            for key in path[:-1]:
                holder = vars(holder).setdefault(key, SimpleNamespace())
            setattr(holder, path[-1], value)


def at(value: Any, path: tuple[str, ...]) -> Any:
    """Return what a message has at a path of keys; None: nothing."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else getattr(value, key, None)
    return value


def _message_type(fields: list[tuple[str, Any]]) -> Any:
    """Return the type of messages with these fields, all of which may be missing."""
    made = [(name, (_message_type(kind) if isinstance(kind, list) else kind) | None, None) for name, kind in fields]
    return msgspec.defstruct("RecordMessage", made)


def _arrow(name: str, kind: Any) -> pa.Field:
    return pa.field(name, pa.struct([_arrow(*each) for each in kind]) if isinstance(kind, list) else kind)


def _read_as(column: PropertyColumn) -> pa.DataType:
    """Return the type in the schema for Arrow's JSON reader."""
    if column.reading is JSONReading.TEXT:
        return pa.string()
    return LONG if column.reading is JSONReading.NUMERIC else column.type


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _typed(column: PropertyColumn, found: pa.Array) -> pa.Array:
    if column.reading is JSONReading.TEXT:
        return from_texts(found, column.type)
    if pa.types.is_decimal(found.type):
        found.validate(full=True)  # the reader does not check whether the digits fit
    if column.reading is JSONReading.NUMERIC:
        return plain_digits(found)
    return found


def _is_encodable(value: Any) -> bool:
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def _named(kind: pa.DataType) -> str:
    return "JSON" if is_json(kind) else type_text(kind)


__all__ = ["AIRBYTE", "MALFORMED", "SINGER", "Envelope", "MalformedRecord", "Parser", "Wider", "at"]
