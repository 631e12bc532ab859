"""The format of JSON lines: Arrow parses blocks where the types allow it, else records are parsed one by one.

Objects, arrays, mixed values, and numbers that no type holds stay JSON text. Integers past int64 and numbers that a
double would round become decimals. Texts that are all dates or times get that type. A new key is a new column.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from operator import itemgetter
from types import MappingProxyType
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from ..arrow.conform import shown
from ..arrow.decimals import plain_number
from ..arrow.flatten import Paths, has_place, leaf_of, marked, path_of
from ..arrow.text import SPECIAL, first_invalid, from_text, is_json, is_nested, is_text, is_utf8, revive, revived
from ..arrow.unbounded_numerics import wider_schema
from ..errors import ConnectorConfigError, FatalConnectorError
from ..field_facts import Precision, TypeOrigin, facts_of, with_facts
from ..rejected.halving import find_unfit
from .formats import Writer, demand_columns, next_chunk, plain, sliced, unfit
from .json_elements import HALF_PAIR, Whole, count_of, demand_size, has_half_pair, has_line_each
from .jsonl_numbers import demand_digits, doubtful_in, is_found
from .jsonl_objects import flattened, has_only, nested_schema
from .jsonl_structs import MOST_VALUES, ODD, Structs, is_read_singly, is_said
from .jsonl_writer import MALFORMED, JSONLWriter
from .paths import DataFile
from .read_rejections import ReadRejections
from .settings import JSONLSourceSettings, TextSourceSettings
from .split_files import Unit
from .time_formats import SINCE_1970, is_time, iso_texts
from .type_inference import WRITTEN_NUMBER, Guess, is_number
from .zones import is_zoned, moments, with_zone

#: Bytes from which types are inferred: fewer than of CSV, since JSON is parsed record by record.
INFER_JSON_BYTES = 16 << 20

JSON = pa.json_(pa.string())

#: What may stand at the start of a text in UTF-8.
BOM = b"\xef\xbb\xbf"

_NULL, _NULL_LINE = re.compile(rb"[ \t\r]*null"), re.compile(rb"\n[ \t\r]*null")

_NUMBER, _ANY_NUMBER = re.compile(rb"-?[0-9][0-9.]*"), re.compile(rb"-?[0-9][-+.0-9eE]*")

_NUMBERS = frozenset({"integer", "number"})
_SPECIAL = frozenset(SPECIAL.values())
_MOMENTS = frozenset({"date", "naive", "zoned"})


#: Values of a column, on average, that are examined at once, and the most values of all columns together.
_ENOUGH_VALUES, _MOST_PENDING_VALUES = 500, 1_000_000


class _Number(str):
    """The text of a number with a fraction or an exponent."""

    __slots__ = ()


#: Types of parsed values -> their kinds; all others are nested.
_KINDS = {type(None): "null", bool: "bool", int: "number", _Number: "number", str: "text"}

_records = msgspec.json.Decoder(dict[str, Any], float_hook=_Number)
_raw_records = msgspec.json.Decoder(dict[str, msgspec.Raw])
_values = msgspec.json.Decoder(float_hook=Decimal)


_NO_OBJECT = "not a JSON object in UTF-8"
#: What to do with JSON in another encoding.
SAVE = "save the file in UTF-8, which JSON requires"


class JSONLFormat:
    """One JSON object a line."""

    suffix = "jsonl"
    suffixes: Sequence[str] = (".jsonl", ".ndjson")
    written: Mapping[str, Any] = MappingProxyType({})
    needs_equal_columns = False
    #: A line that is no record says nothing about the next one, so that it may be rejected.
    has_own_lines = True

    def __init__(self, settings: TextSourceSettings | None = None) -> None:
        self._settings = settings or JSONLSourceSettings(path=".")
        #: Most bytes of a line.
        self.record_bytes = sys.maxsize

    def names(self, file: DataFile) -> None:
        """Return None: JSON lines have no header."""

    def _blocks(self, file: DataFile, whole: Whole | None = None) -> Iterator[tuple[int, Any]]:
        """Yield `(number of the first line, whole lines)`, about a block at a time.

        A format whose records are in arrays may yield batches as well, of arrays that `whole` reads.
        """
        return _blocks(file, self.record_bytes)

    def _place(self, file: DataFile, line: int) -> str:
        return f"{file.label}:{line}"

    def _malformed(self, file: DataFile, line: int, text: bytearray, error: Exception) -> FatalConnectorError:
        what = shown(text.decode(errors="replace"))
        is_document = text.lstrip().startswith(b"[") or text.strip() == b"{"
        mend = "; JSON lines have one object per line; `connector: json` reads a document"
        said = HALF_PAIR if has_half_pair(text) else error
        if not is_document:
            mend = file.kind_of_text(SAVE)
        where = f"{self._place(file, line)}: {_NO_OBJECT}"
        return FatalConnectorError(f"{where}: {what} ({said}){mend}", without_values=where)

    def schema(self, files: Sequence[DataFile], budget_bytes: int) -> pa.Schema:
        columns: dict[str, _Column] = {}
        paths = Paths()
        left = min(budget_bytes, INFER_JSON_BYTES)
        for file in files:
            pending = _Pending()
            for start, block in self._blocks(file):
                records = _whole_records(block)
                values = None if file.levels or paths.parents else _by_column(records)
                if values is None:
                    each = records or self._parsed(file, start, block, is_lenient=True)
                    values = self._gathered(file, flattened(file, each, paths, False, ConnectorConfigError))
                else:
                    for name in values:
                        paths.add(name, (name,))
                pending.add(values)
                demand_columns(file, len(pending), self._settings)
                if pending.is_full:
                    self._note(file, columns, pending.taken())
                left -= len(block)
                del block, records, values  # not held while the next one is read
                if left <= 0:
                    break
            self._note(file, columns, pending.taken())
        return self._fields(columns, paths, is_exact=self._is_exact)

    def _fields(self, columns: Mapping[str, _Column], paths: Paths, *, is_exact: bool = False) -> pa.Schema:
        """Return the columns; a name that stands for objects is one only if it has other values than NULL, too."""
        return pa.schema(
            [
                marked(column.field(name, is_exact=is_exact), paths.of[name])
                for name, column in columns.items()
                if column.has_value or name not in paths.parents
            ]
        )

    def _zone(self, file: DataFile) -> str | None:
        """Return the zone of times without one in a file that is not ours."""
        return self._settings.timezone if file.schema is None else None

    @property
    def _is_exact(self) -> bool:
        return self._settings.numbers == "exact"

    def number_texts(self, file: DataFile, columns: Sequence[str]) -> Iterator[Mapping[str, pa.Array]]:
        for start, block in self._blocks(file):
            parsed = self._parsed(file, start, block, is_lenient=True)
            records = list(flattened(file, parsed, Paths(), False, FatalConnectorError))
            del block  # not held while the next one is read
            yield {n: pa.array([_number_text(record.get(n)) for record in records], pa.string()) for n in columns}

    def read(
        self, file: DataFile, wanted: pa.Schema, known: frozenset[str], rejected: ReadRejections | None = None
    ) -> Iterator[pa.RecordBatch]:
        # Where a column comes from an earlier run, only the records tell where its values are.
        placed = [field for field in wanted if not file.levels or has_place(field)]
        paths = Paths(placed, perhaps=[field.name for field in wanted if not has_place(field)] if file.levels else ())
        parser = _BlockParser(self, file)
        parser.use(wanted, known)
        for start, block in self._blocks(file, parser.array):
            batch = block if isinstance(block, pa.RecordBatch) else parser.batch(block)
            if batch is not None:
                del block  # nothing is held here while its records are written
                yield from sliced(batch, self._settings.batch_size)
                continue
            found, wanted = self._found(file, start, block, wanted, known, rejected, paths)
            wanted = _wider(found, wanted)
            known |= set(wanted.names)
            if parser.wanted is not wanted:
                parser.use(wanted, known)
            del block
            size = max(1, min(self._settings.batch_size, MOST_VALUES // max(1, len(wanted))))
            while found:
                part, found = found.slice(0, size), found.slice(size, len(found))
                batches = self._converted(file, part, wanted, rejected)
                del part
                while batches:
                    yield batches.pop(0)

    def count(self, file: DataFile) -> int:
        return sum(sum(1 for line in block.splitlines() if line.strip()) for _, block in self._blocks(file))

    def unit(self, file: DataFile) -> Unit:
        return ""

    def split(self, file: DataFile, count: int, range_bytes: int) -> list[tuple[DataFile, str]]:
        """Read every file as a whole."""
        return [(file, file.label)]

    def stored(self, schema: pa.Schema) -> pa.Schema:
        return plain(schema)

    def written_type(self, kind: pa.DataType) -> pa.DataType:
        return kind

    def has_type(self, kind: pa.DataType) -> bool:
        return True

    def keeps_as_text(self, kind: pa.DataType) -> bool:
        types = pa.types
        if is_nested(kind):
            return any(self.keeps_as_text(kind.field(place).type) for place in range(kind.num_fields))
        is_number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
        return not (is_number or types.is_boolean(kind) or is_text(kind) or is_json(kind))

    def writer(self, sink: BinaryIO, schema: pa.Schema) -> Writer:
        return JSONLWriter(sink, schema)

    def _quick(
        self, file: DataFile, block: bytearray, wanted: pa.Schema, known: frozenset[str]
    ) -> pa.RecordBatch | None:
        """Parse a block as a whole; None: another type, a new key or an error needs a parse record by record."""
        if _NULL.match(block) or _NULL_LINE.search(block):  # Arrow crashes at some, and takes others for records
            return None
        raw = nested_schema([(path_of(field), _raw_type(field.type)) for field in wanted])
        others = "error" if known.issubset(wanted.names) else "infer"
        try:
            table = pyarrow.json.read_json(
                pa.BufferReader(block),
                read_options=pyarrow.json.ReadOptions(block_size=len(block) + 1, use_threads=False),
                parse_options=pyarrow.json.ParseOptions(explicit_schema=raw, unexpected_field_behavior=others),
            ).combine_chunks()
            if raw is None or not has_only(table.schema, file.levels, known):
                return None
            batch = table.to_batches()[0] if table.num_rows else None
            if batch is None:
                return None
            columns = [self._typed(file, field, leaf_of(batch, path_of(field))) for field in wanted]
            if any(pa.types.is_floating(each.type) and pc.any(pc.is_inf(each)).as_py() for each in columns):
                return None
        except (pa.ArrowException, ValueError, ArithmeticError):
            return None
        return pa.record_batch(columns, schema=wanted)

    def _found(
        self,
        file: DataFile,
        start: int,
        block: bytearray,
        wanted: pa.Schema,
        known: frozenset[str],
        rejected: ReadRejections | None,
        paths: Paths,
    ) -> tuple[_Found, pa.Schema]:
        """Return a block's records, their values not yet read, and the columns with those that are new."""
        found, is_text = _Found(), is_utf8(block)
        for line, text in _lines(start, block):
            try:
                if not is_text:
                    text.decode()
                record = _raw_records.decode(text)
            except MALFORMED as error:
                if rejected is None or not self.has_own_lines:
                    raise self._malformed(file, line, text, error) from error
                rejected.add(bytes(text), f"{_NO_OBJECT}: {error}", self._place(file, line), _NO_OBJECT)
                continue
            found.append((line, record))
        if file.levels:
            flat = flattened(file, (record for _, record in found), paths, True, FatalConnectorError)
            found = _Found([(line, record) for (line, _), record in zip(found, flat, strict=True)])
        if any(not known.issuperset(record) for _, record in found):
            wanted = self._widened(file, start, block, wanted, known, paths, is_lenient=rejected is not None)
        return found, wanted

    def _converted(
        self, file: DataFile, found: _Found, wanted: pa.Schema, rejected: ReadRejections | None
    ) -> list[pa.RecordBatch]:
        if rejected is None:
            return [self._whole(file, found, wanted)]
        try:
            return [self._whole(file, found, wanted)]
        except FatalConnectorError:
            single = ((found, partial(self._whole, file, wanted=pa.schema([field]))) for field in wanted)
            reasons = find_unfit(single, rejected.limit)
        for place, reason in reasons.items():
            line, record = found[place]
            # Without the place at the start of its message: the record keeps the place apart.
            where = self._place(file, line)
            reason = reason.removeprefix(f"{where}: ")
            rejected.add({name: _values.decode(raw) for name, raw in record.items()}, reason, where)
        fit = _Found(each for place, each in enumerate(found) if place not in reasons)
        return [self._whole(file, fit, wanted)] if fit else []

    def _whole(self, file: DataFile, found: _Found, wanted: pa.Schema) -> pa.RecordBatch:
        lines, records = [line for line, _ in found], [record for _, record in found]
        columns = [self._column(file, field, lines, [each.get(field.name) for each in records]) for field in wanted]
        if not columns:
            return pa.RecordBatch.from_struct_array(pa.array([{}] * len(records), pa.struct([])))
        return pa.record_batch(columns, schema=wanted)

    def _guessed(self, file: DataFile, wanted: pa.Schema) -> list[str]:
        """Return the columns that are floats by inference only."""
        if file.schema is not None:  # ours
            return []
        floats = [field for field in wanted if pa.types.is_floating(field.type)]
        return [field.name for field in floats if facts_of(field).origin is not TypeOrigin.DECLARED]

    def _widened(
        self,
        file: DataFile,
        start: int,
        block: bytearray,
        wanted: pa.Schema,
        known: frozenset[str],
        paths: Paths,
        *,
        is_lenient: bool,
    ) -> pa.Schema:
        columns: dict[str, _Column] = {}
        records = self._parsed(file, start, block, is_lenient=is_lenient)
        self._note(file, columns, self._gathered(file, flattened(file, records, paths, False, FatalConnectorError)))
        new = [field for field in self._fields(columns, paths) if field.name not in known]
        demand_columns(file, len(wanted) + len(new), self._settings)
        return pa.schema([*wanted, *new])

    def _column(
        self, file: DataFile, field: pa.Field, lines: Sequence[int], raws: Sequence[msgspec.Raw | None]
    ) -> pa.Array:
        facts = facts_of(field)
        is_decided = facts.origin is TypeOrigin.TABLE
        as_said = is_said(field)
        is_guessed = bool(self._guessed(file, pa.schema([field])))
        is_since = self._form(file, field) in SINCE_1970
        values: list[Any] = []
        for line, raw in zip(lines, raws, strict=True):
            try:
                if is_since and raw is not None and _NUMBER.fullmatch(bytes(raw)):
                    raw = msgspec.Raw(b'"' + bytes(raw) + b'"')
                if facts.plain_numbers and raw is not None and _ANY_NUMBER.fullmatch(bytes(raw)):
                    raw = msgspec.Raw(b'"' + plain_number(bytes(raw).decode()).encode() + b'"')
                values.append(None if raw is None else _value(raw, field.type, is_said=as_said, is_decided=is_decided))
                if is_guessed and raw is not None:
                    demand_digits(bytes(raw).decode())
            except (*MALFORMED, ArithmeticError, TypeError) as error:
                raise unfit(self._place(file, line), field, _text_of(raw)) from error
        texts = is_json(field.type) or not _is_bare(field.type)
        column = pa.array(values, pa.string()) if texts else None

        def converts(part: Any) -> pa.Array:
            return self._typed(file, field, part) if texts else revived(part, field.type)

        subject = values if column is None else column
        try:
            return converts(subject)
        except (ValueError, TypeError, ArithmeticError, pa.ArrowException) as error:
            place = first_invalid(_Values(values) if column is None else column, converts)
            raise unfit(self._place(file, lines[place]), field, _text_of(raws[place])) from error

    def _form(self, file: DataFile, field: pa.Field) -> str | None:
        """Return how the times of a column are written in a file that is not ours; None: as ISO 8601."""
        return self._settings.format_of(field.name) if file.schema is None and is_time(field.type) else None

    def _typed(self, file: DataFile, field: pa.Field, column: pa.Array) -> pa.Array:
        form = self._form(file, field)
        if form is not None:
            column = iso_texts(column, form, field.type, is_empty_null=False)
        return _typed(column, field.type, self._zone(file))

    def _gathered(self, file: DataFile, records: Iterator[dict[str, Any]]) -> dict[str, list[Any]]:
        values: dict[str, list[Any]] = {}
        for record in records:
            for key, value in record.items():
                values.setdefault(key, []).append(value)
            demand_columns(file, len(values), self._settings)
        return values

    def _note(self, file: DataFile, columns: dict[str, _Column], values: Mapping[str, list[Any]]) -> None:
        demand_columns(file, len(columns.keys() | values.keys()), self._settings)
        for key, found in values.items():
            if key not in columns:
                columns[key] = _Column(self._settings.timezone)
            columns[key].add(found)

    def _parsed(self, file: DataFile, start: int, block: bytearray, *, is_lenient: bool) -> Iterator[dict[str, Any]]:
        """Yield a block's records; if lenient, allow up to half of the lines to be malformed."""
        good, malformed = 0, []
        for line, text in _lines(start, block):
            try:
                yield _records.decode(text)
                good += 1
            except MALFORMED as error:
                malformed.append(self._malformed(file, line, text, error))
                if not is_lenient or not self.has_own_lines:
                    raise malformed[0] from error
        if len(malformed) > good:
            raise malformed[0]


class _BlockParser:
    """What parses blocks of a file, each as a whole."""

    def __init__(self, made: JSONLFormat, file: DataFile) -> None:
        self._made = made
        self._file = file

    def use(self, wanted: pa.Schema, known: frozenset[str]) -> None:
        """Parse into these columns from now on."""
        made, file = self._made, self._file
        self.wanted = wanted
        self._known = known
        self._is_placed = not file.levels or all(map(has_place, wanted))
        self._has_said_texts = any(is_text(field.type) and is_said(field) for field in wanted)
        self._is_flat = not any(is_json(kind) or is_nested(kind) for kind in wanted.types)
        own_names = pa.schema([field.with_name(path_of(field)[-1]) for field in wanted])
        self._doubtful = doubtful_in(own_names, made._guessed(file, own_names))
        self._guessed = frozenset(made._guessed(file, wanted))
        #: Parsers of blocks, by whether they are careful; None: there is none.
        self._structs: dict[bool, Structs | None] = {}

    def batch(self, block: bytearray) -> pa.RecordBatch | None:
        """Return the records of a block; None: another type, a new key or an error needs a parse record by record."""
        if not self._is_placed or not is_utf8(block):  # Arrow's parser takes any bytes for a text
            return None
        is_quick = self._is_flat and not is_found(self._doubtful, block)
        batch = self._made._quick(self._file, block, self.wanted, self._known) if is_quick else None
        return self._by_structs(Structs.of_lines, block, is_careful=False) if batch is None else batch

    def array(self, text: bytes) -> pa.RecordBatch | None:
        """Do so for the text of an array; None also if the text is none, or Arrow's parser reads its lines faster."""
        if not self._is_placed or (self._is_flat and any(map(is_read_singly, self.wanted.types))) or not is_utf8(text):
            return None
        return self._by_structs(Structs.of_array, text, is_careful=False)

    def _by_structs(
        self, parse: Callable[[Structs, Any], Sequence[msgspec.Struct]], text: bytes | bytearray, *, is_careful: bool
    ) -> pa.RecordBatch | None:
        if is_careful not in self._structs:
            self._structs[is_careful] = self._structs_of(is_careful)
        structs, made, file = self._structs[is_careful], self._made, self._file
        if structs is None:
            return None
        try:
            return structs.batch(
                parse(structs, text),
                lambda column, field: made._typed(file, field, column),
                lambda field, raws: made._column(file, field, range(len(raws)), raws),
            )
        except (*ODD, FatalConnectorError):
            # A column of texts may take other values, as they are written.
            return None if is_careful or not self._has_said_texts else self._by_structs(parse, text, is_careful=True)

    def _structs_of(self, is_careful: bool) -> Structs | None:
        others = self._known.difference(self.wanted.names)
        if not len(self.wanted) or (others and self._file.levels):
            return None
        try:
            return Structs(self.wanted, others, self._file.levels, self._guessed, is_careful=is_careful)
        except ValueError:
            return None


class _Pending(dict[str, list[Any]]):
    """Values of columns that were read, but not examined.

    A few values of a column take as long to examine as hundreds, so several blocks of a wide file are examined at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def add(self, values: Mapping[str, list[Any]]) -> None:
        """Append the values of a block."""
        for name, found in values.items():
            self.setdefault(name, []).extend(found)
            self._count += len(found)

    @property
    def is_full(self) -> bool:
        """Return true if the columns have enough values on average, or all of them need much memory."""
        return self._count >= min(_ENOUGH_VALUES * len(self), _MOST_PENDING_VALUES)

    def taken(self) -> Mapping[str, list[Any]]:
        """Return the values and forget them."""
        values = dict(self)
        self.clear()
        self._count = 0
        return values


class _Column:
    """The kinds of values that one key had so far."""

    def __init__(self, zone: str | None) -> None:
        self._zone = zone
        self._kinds: set[str] = set()
        self._numbers = Guess(_NUMBERS)
        self._texts = Guess(_MOMENTS)
        self._has_empty = False

    @property
    def has_value(self) -> bool:
        """Tell whether there was something else than NULL."""
        return bool(self._kinds - {"null"})

    def add(self, values: list[Any]) -> None:
        types = set(map(type, values))
        kinds = {_KINDS.get(kind, "nested") for kind in types}
        # Most columns have values of one type: to choose among them takes as long as to parse them.
        texts = values if types == {str} else [value for value in values if type(value) is str]
        numbers: list[str] = []
        if "number" in kinds:
            are_all = types == {_Number}
            numbers = values if are_all else [str(value) for value in values if type(value) in (int, _Number)]
        special = [] if _SPECIAL.isdisjoint(texts) else [text for text in texts if text in _SPECIAL]
        if special and len(special) == len(texts):
            kinds = kinds - {"text"} | {"special"}
        self._kinds |= kinds
        if numbers or special:
            self._numbers.add(pa.array(numbers + special, pa.string()))
        if texts:
            self._has_empty = self._has_empty or "" in texts
            column = pa.array(texts, pa.string())
            self._texts.add(column if self._zone is None else with_zone(column))

    def field(self, name: str, *, is_exact: bool = False) -> pa.Field:
        kinds = self._kinds - {"null"}
        if kinds == {"bool"}:
            kind = pa.bool_()
        elif kinds in ({"number"}, {"number", "special"}):
            kind = self._numbers.exact_type() if is_exact else self._numbers.type()
            if is_text(kind):
                kind = JSON
        elif kinds <= {"text", "special"}:
            kind = pa.string() if self._has_empty else self._texts.type()
        else:
            kind = JSON
        if not kinds:
            return with_facts(pa.field(name, kind), origin=TypeOrigin.GUESSED, unseen=True)
        facts = (self._texts if is_text(kind) else self._numbers).facts(kind, is_exact=is_exact)
        return with_facts(pa.field(name, kind), facts, native_type="json" if is_json(kind) else "")


class _Values(list[Any]):
    """A list with Arrow's `slice`, for `first_invalid`."""

    def slice(self, start: int, size: int) -> _Values:
        return _Values(self[start : start + size])


class _Found(list[tuple[int, dict[str, msgspec.Raw]]]):
    """Lines and their records, which `convert_by_halves` takes."""

    @property
    def num_rows(self) -> int:
        return len(self)

    def slice(self, start: int, size: int) -> _Found:
        return _Found(self[start : start + size])


def _blocks(file: DataFile, most_bytes: int) -> Iterator[tuple[int, bytearray]]:
    """Yield `(number of the first line, whole lines)`, about a block at a time.

    Raises:
        RecordTooWide: a line has more than `most_bytes`.
    """
    line, begun = 1, bytearray()
    with file.open() as source:
        while True:
            chunk = next_chunk(file, source)
            if line == 1 and not begun:
                chunk = chunk.removeprefix(BOM)
            cut, is_over = chunk.rfind(b"\n") + 1, not chunk
            begun += chunk if chunk and not cut else memoryview(chunk)[:cut]
            if chunk and not cut:
                demand_size(len(begun), most_bytes, f"{file.label}:{line}")
                continue
            blocks, begun = [begun], bytearray(chunk[cut:])
            del chunk
            first, line = line, line + count_of(blocks[0], ord("\n"))
            if blocks[0] and not blocks[0].isspace():
                yield first, blocks.pop()  # not held while its records are converted
            if is_over:
                return


def _lines(start: int, block: bytearray) -> Iterator[tuple[int, bytearray]]:
    for line, text in enumerate(block.split(b"\n"), start):
        if text.strip():
            yield line, text


def _is_bare(kind: pa.DataType) -> bool:
    """Tell whether JSON writes values of the type as a number, a boolean or a nested value."""
    types = pa.types
    return bool(
        types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or is_nested(kind)
    ) and not is_json(kind)


def _raw_type(kind: pa.DataType) -> pa.DataType:
    """Return the type in the schema for Arrow's parser."""
    types = pa.types
    return kind if (_is_bare(kind) and not types.is_float16(kind)) or types.is_decimal(kind) else pa.string()


def _typed(column: pa.Array, kind: pa.DataType, zone: str | None) -> pa.Array:
    if column.type.equals(kind):
        return column
    if zone is not None and is_zoned(kind):
        return moments(column, kind, zone, is_empty_null=False)
    return from_text(column, kind, is_empty_null=False)


def _value(raw: msgspec.Raw, kind: pa.DataType, *, is_said: bool, is_decided: bool) -> Any:
    """Return a value that Arrow takes.

    Args:
        raw: JSON.
        kind: the column's type.
        is_said: `types` or the table's column say the type: a text may be the number of a column of numbers, and
            other values are their JSON text in one of texts.
        is_decided: the table's column says it.
    """
    if is_json(kind):
        text = bytes(raw).decode()
        return None if text == "null" else text
    value = _values.decode(raw)
    if is_said and isinstance(value, str) and is_number(kind) and WRITTEN_NUMBER.fullmatch(value):
        value = Decimal(value)
    elif is_said and not is_decided and pa.types.is_boolean(kind) and value in ("true", "false"):
        value = value == "true"
    if value is None or _is_bare(kind):
        return revive(value, kind)
    if pa.types.is_decimal(kind) and isinstance(value, int | Decimal) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        if is_said and is_text(kind):
            return bytes(raw).decode()
        raise ValueError("no text")
    return value


def _whole_records(block: bytearray) -> list[dict[str, Any]]:
    """Return a block's records, parsed at once; none: a line of it is not one record."""
    try:
        records = _records.decode_lines(block)
    except MALFORMED:
        return []
    return records if has_line_each(block, len(records)) else []


def _by_column(records: list[dict[str, Any]]) -> dict[str, list[Any]] | None:
    """Return the values of records that all have the same keys; None: there are none, or they have others."""
    if len(set(map(len, records))) != 1:
        return None
    try:
        return {key: list(map(itemgetter(key), records)) for key in records[0]}
    except KeyError:
        return None


def _number_text(value: Any) -> str | None:
    """Return a number, or a text that stands for one, as it is written."""
    is_number = type(value) in (int, _Number) or (type(value) is str and value in _SPECIAL)
    return str(value) if is_number else None


def _wider(found: _Found, wanted: pa.Schema) -> pa.Schema:
    """Return the columns with the types that a block's numbers need."""
    texts = {}
    for name in [field.name for field in wanted if facts_of(field).precision is Precision.WIDENS]:
        raws = [record.get(name) for _, record in found]
        texts[name] = pa.array([None if raw is None else _text_of(raw) for raw in raws], pa.string())
    return wider_schema(wanted, texts)


def _text_of(raw: msgspec.Raw | None) -> str:
    return "null" if raw is None else bytes(raw).decode(errors="replace")
