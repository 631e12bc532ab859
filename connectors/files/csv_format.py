"""The CSV format: Arrow parses texts, this module converts them, so that every error has a line."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from ..arrow.compute import constant
from ..arrow.record_size import SLACK_BYTES
from ..arrow.text import checked_json, first_invalid, from_text, is_text
from ..arrow.unbounded_numerics import wider_schema
from ..errors import FatalConnectorError
from ..field_facts import Precision, TypeOrigin, facts_of, with_facts
from ..ranges import RangesRefused
from ..rejected.halving import find_unfit
from ..struct_helpers import replace
from .csv_input import LEAST_AHEAD, Input, mark_before
from .csv_lines import CSVLines, fields_differ
from .csv_numbers import WrittenNumbers, has_decimal_commas
from .csv_short import ShortRecords
from .csv_wide import MAX_RECORD_BYTES, Records, TooLong, line_ends
from .csv_writer import CSVWriter, Quoting
from .formats import Writer, plain, sliced, unfit
from .paths import DataFile
from .ranges import FilePart, cut, is_cuttable, part_of, without_mark
from .read_rejections import InvalidValue, RaggedRecords, ReadRejections
from .settings import CSVDestinationSettings, CSVSourceSettings
from .split_files import Unit
from .time_formats import is_time, iso_texts
from .type_inference import Guess, GuessThreads, has_leading_zero, is_number, keeps_digits
from .zones import is_zoned, moments, with_zone

#: Bytes of a block; a longer record takes a larger block, and a still longer one is cut out by `csv_wide`.
BLOCK_BYTES = 1 << 20
_WIDE_BYTES = 8 << 20

#: Bytes of a block for each column. Each block costs time for each column, so a wide file is read in larger blocks.
_COLUMN_BYTES = 1 << 10

#: Blocks of that size that the parser reads ahead; of larger blocks as few as it needs.
AHEAD_BYTES = 2 << 20


#: Settings that say how a file is written.
_WRITTEN = {"delimiter", "quote", "header", "encoding"}


class CSVFormat:
    """CSV, with a header by default. NULL is an empty unquoted field, the empty text a quoted one."""

    suffix = "csv"
    suffixes: Sequence[str] = (".csv", ".tsv")
    needs_equal_columns = True

    def __init__(self, settings: CSVSourceSettings | None = None, quoting: Quoting = "texts") -> None:
        self._settings = settings or CSVSourceSettings(path=".")
        self._quoting = quoting
        usual = CSVDestinationSettings(path=".").model_dump(include=_WRITTEN)
        said = self._settings.model_dump(include=_WRITTEN)
        self.written: Mapping[str, Any] = {key: value for key, value in said.items() if value not in (None, usual[key])}
        self._lines = CSVLines(self._settings)
        is_plain = self._settings.decimal == "." and self._settings.thousands is None
        self._numbers = None if is_plain else WrittenNumbers(self._settings.decimal, self._settings.thousands)
        self.record_bytes = MAX_RECORD_BYTES

    def schema(self, files: Sequence[DataFile], budget_bytes: int) -> pa.Schema:
        guesses: dict[str, Guess] = {}
        left = budget_bytes
        numbered, with_commas = "", list[str]()
        for file in files:
            names = self.names(file)
            numbered = numbered or self._lines.numbered.get(file.label, "")
            for name in names:
                guesses.setdefault(name, Guess())
            ragged, seen = RaggedRecords(), 0
            with GuessThreads(guesses) as threads:
                for batch in self._texts(file, names, names, ragged):
                    if not seen and self._settings.decimal == ".":
                        with_commas += [name for name in names if has_decimal_commas(batch.column(name))]
                    seen += batch.num_rows
                    left -= batch.nbytes
                    batch = self._plain(file, batch)
                    threads.add(batch if self._settings.timezone is None else _with_zones(batch))
                    del batch  # not held while the next one is made
                    if left <= 0:
                        break
            if ragged.rejected > seen:
                # A few may be rejected while the file is read; so many mean that the settings do not fit the file.
                raise self._lines.explained(file, names, None)
        nulls, is_exact = self._settings.null_values, self._settings.numbers == "exact"
        fields = [guess.field(name, nulls, is_exact=is_exact) for name, guess in guesses.items()]
        for place, field in enumerate(fields):
            notices = [facts_of(field).notice, "" if place else numbered]
            if field.name in with_commas and is_text(field.type):
                notices.append(
                    f"column {field.name!r} is read as text: its values look like numbers with a decimal comma. "
                    "Set `decimal: ','` in the source's config (and `thousands: '.'` for grouped digits)"
                )
            said, repeated = "; ".join(filter(None, notices)), self._lines.repeated.get(field.name, "")
            if said or repeated:
                fields[place] = with_facts(field, notice=said, header_name=repeated)
        return pa.schema(fields)

    def _plain(self, file: DataFile, texts: pa.RecordBatch) -> pa.RecordBatch:
        """Return texts in which numbers are plain, if the settings say that the file's are not."""
        if self._numbers is None or file.schema is not None:
            return texts
        return pa.record_batch([self._numbers.plain(column) for column in texts.columns], texts.schema.names)

    def number_texts(self, file: DataFile, columns: Sequence[str]) -> Iterator[Mapping[str, pa.Array]]:
        names = self.names(file)
        present = [name for name in columns if name in names]
        for batch in self._texts(file, names, present, RaggedRecords()) if present else ():
            plain_batch = self._plain(file, batch)
            yield {name: plain_batch.column(name) for name in present}

    def read(
        self, file: DataFile, wanted: pa.Schema, known: frozenset[str], rejected: ReadRejections | None = None
    ) -> Iterator[pa.RecordBatch]:
        if isinstance(file, FilePart):
            yield from self._read_part(file, wanted)
            return
        names = self.names(file)
        there = set(names)
        present = [name for name in wanted.names if name in there]
        widening = {field.name for field in wanted if facts_of(field).precision is Precision.WIDENS}
        ragged = None if rejected is None else RaggedRecords()
        invalid: list[tuple[int, dict[str, Any], str]] = []
        done = 0
        for texts in self._texts(file, names, present or names[:1], ragged):
            for part in sliced(texts, self._settings.batch_size):
                numbers = self._plain(file, part.select([name for name in part.schema.names if name in widening]))
                wanted = wider_schema(wanted, dict(zip(numbers.schema.names, numbers.columns, strict=True)))
                if rejected is None or ragged is None:
                    yield self._typed(file, names, part, wanted, done)
                else:
                    yield from self._fitting(file, part, wanted, done, rejected, invalid)
                    rejected.demand_room(len(invalid) + ragged.rejected, "different in number of fields, or in type")
                done += part.num_rows
        if rejected is not None and ragged is not None:
            self._reject(file, names, ragged, invalid, rejected)

    def _fitting(
        self,
        file: DataFile,
        texts: pa.RecordBatch,
        wanted: pa.Schema,
        done: int,
        rejected: ReadRejections,
        invalid: list[tuple[int, dict[str, Any], str]],
    ) -> Iterator[pa.RecordBatch]:
        """Yield the records that fit; note the others in `invalid`: position without ragged records, values, reason."""
        try:
            yield self._converted(file, texts, wanted)
            return
        except InvalidValue:
            pass
        present = [field for field in wanted if field.name in texts.schema.names]
        reasons = find_unfit(
            ((texts.select([field.name]), partial(self._only, file, field)) for field in present), rejected.limit
        )
        records = texts.take(pa.array(list(reasons))).to_pylist()
        invalid += [(done + place, record, reasons[place]) for place, record in zip(reasons, records, strict=True)]
        if len(reasons) < texts.num_rows:
            is_fit = pa.array([place not in reasons for place in range(texts.num_rows)])
            yield self._converted(file, texts.filter(is_fit), wanted)

    def _only(self, file: DataFile, field: pa.Field, texts: pa.RecordBatch) -> pa.Array:
        """Convert the only column of a batch."""
        column = texts.column(0)
        try:
            return self._column(file, field, column)
        except (ValueError, pa.ArrowException) as error:
            raise InvalidValue(field, 0, column[0].as_py()) from error

    def _reject(
        self,
        file: DataFile,
        names: list[str],
        ragged: RaggedRecords,
        invalid: list[tuple[int, dict[str, Any], str]],
        rejected: ReadRejections,
    ) -> None:
        """Reject records with the lines where they begin, which takes another read of the file."""
        between = self._lines.delimiter(file), self._lines.written_delimiter(file)
        found: list[tuple[int, Any, str, str]] = []
        for number, (text, fields) in ragged.rows.items():
            why = fields_differ(fields, len(names))
            found.append((number - 1, text.replace(*between), why, why))
        found += [(ragged.place(place), values, reason, "") for place, values, reason in invalid]
        wanted = {place for place, *_ in found}
        lines: dict[int, int] = {}
        if wanted:
            records = itertools.islice(enumerate(self._lines.records(file, names)), max(wanted) + 1)
            lines = {place: line for place, (line, _) in records if place in wanted}
        for place, record, reason, without_values in sorted(found, key=lambda each: each[0]):
            where = f"{file.label}:{lines[place]}" if place in lines else file.label
            rejected.add(record, reason, where, without_values)

    def unit(self, file: DataFile) -> Unit:
        return "bytes" if is_cuttable(file, self._settings.encoding, self._settings.escape) else ""

    def split(self, file: DataFile, count: int, range_bytes: int) -> list[tuple[DataFile, str]]:
        """Split a file by bytes, if its encoding and quoting allow it."""
        settings = self._settings
        count = min(count, file.size_bytes() // range_bytes) if self.unit(file) else 1
        if count < 2:
            return [(file, file.label)]
        starts = cut(file, count, settings.quote)
        parts: list[tuple[DataFile, str]] = []
        for start, end in zip(starts, [*starts[1:], None], strict=True):
            label = f"{file.label} from byte {start:,}" + ("" if end is None else f" to {end - 1:,}")
            parts.append((part_of(file, start=start, end=end), label))
        return parts

    def _read_part(self, part: FilePart, wanted: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Read some bytes of a file. An error means that the file is read as a whole, which tells the cause."""
        names = self.names(part_of(part))
        present = [name for name in wanted.names if name in names] or names[:1]
        # Only the first part has the header.
        changes: dict[str, Any] = {} if part.start == 0 else {"header": names, "skip_lines": 0}
        changes["delimiter"] = delimiter = self._lines.written_delimiter(part_of(part))
        part = replace(part, marked=0 if part.end is None else len(names), delimiter=delimiter)
        format_ = CSVFormat(self._settings.model_copy(update=changes))
        format_.record_bytes = self.record_bytes
        try:
            texts = format_._texts(part, names, present)
            for batch in without_mark(part, texts) if part.marked else texts:
                for piece in sliced(batch, self._settings.batch_size):
                    yield format_._typed(part, names, piece, wanted, 0)
        except FatalConnectorError as error:
            raise RangesRefused(f"{part.label}: {error}") from error

    def count(self, file: DataFile) -> int:
        names = self.names(file)
        return sum(batch.num_rows for batch in self._texts(file, names, names[:1]))

    def stored(self, schema: pa.Schema) -> pa.Schema:
        return plain(schema)

    def written_type(self, kind: pa.DataType) -> pa.DataType:
        return kind

    def has_type(self, kind: pa.DataType) -> bool:
        return True

    def keeps_as_text(self, kind: pa.DataType) -> bool:
        return not is_text(kind)

    def writer(self, sink: BinaryIO, schema: pa.Schema) -> Writer:
        return CSVWriter(sink, schema, self._settings, self._quoting)

    def _typed(
        self, file: DataFile, names: list[str], texts: pa.RecordBatch, wanted: pa.Schema, done: int
    ) -> pa.RecordBatch:
        try:
            return self._converted(file, texts, wanted)
        except InvalidValue as error:
            line = self._lines.line_of(file, names, done + error.place)
            raise unfit(f"{file.label}:{line}" if line else file.label, error.field, error.value) from error

    def _converted(self, file: DataFile, texts: pa.RecordBatch, wanted: pa.Schema) -> pa.RecordBatch:
        columns = []
        present = dict(zip(texts.schema.names, texts.columns, strict=True))
        for field in wanted:
            column = present.get(field.name)
            if column is None:
                columns.append(pa.nulls(texts.num_rows, field.type))
                continue
            try:
                columns.append(self._column(file, field, column))
            except (ValueError, pa.ArrowException) as error:
                place = first_invalid(column, partial(self._column, file, field))
                raise InvalidValue(field, place, column[place].as_py()) from error
        return pa.record_batch(columns, schema=wanted)

    def _column(self, file: DataFile, field: pa.Field, texts: pa.Array) -> pa.Array:
        is_ours = file.schema is not None
        is_guessed = facts_of(field).origin is not TypeOrigin.DECLARED and not is_ours
        if not is_ours and (form := self._settings.format_of(field.name)) and is_time(field.type):
            texts = iso_texts(texts, form, field.type, is_empty_null=True)
        elif self._numbers is not None and not is_ours and is_number(field.type):
            texts = self._numbers.plain(texts)
        if is_guessed:
            _demand_guessed(texts, field.type)
        if self._settings.timezone is not None and not is_ours and is_zoned(field.type):
            return moments(texts, field.type, self._settings.timezone, is_empty_null=True)
        try:
            found = from_text(texts, field.type, is_empty_null=True)
        except ValueError:
            if not is_guessed:
                raise
            found = from_text(_without_zeros(texts, field.type), field.type, is_empty_null=True)
        return found if is_ours else checked_json(found)

    # Parsing

    def _texts(
        self, file: DataFile, names: list[str], wanted: Sequence[str], ragged: RaggedRecords | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield batches of strings.

        Records with another number of fields go into `ragged`; None: the first one is an error. Where `short_rows` says
        so, records with fewer fields are yielded in their places.
        """
        if self._settings.short_rows == "fail":
            yield from self._whole_texts(file, names, wanted, ragged)
            return
        found = RaggedRecords() if ragged is None else ragged
        options = self._options(file, names, wanted, 0, None)
        short = ShortRecords(found, names, self._lines.delimiter(file), options)
        for batch in self._whole_texts(file, names, wanted, found):
            yield short.joined(batch)
            del batch  # not held while the next one is made
        yield from short.left()
        if ragged is None and found.rows:
            raise self._lines.explained(file, names, None)

    def _whole_texts(
        self, file: DataFile, names: list[str], wanted: Sequence[str], ragged: RaggedRecords | None
    ) -> Iterator[pa.RecordBatch]:
        """Yield batches of strings; if a record does not fit into a block, begin again with larger blocks."""
        done = 0
        usual = max(BLOCK_BYTES, min(len(names) * _COLUMN_BYTES, _WIDE_BYTES))
        for block in dict.fromkeys((usual, _WIDE_BYTES, 0)) if names else ():
            seen = 0
            try:
                for batch in self._parsed(file, names, wanted, block, ragged):
                    left = batch.slice(max(0, min(done - seen, batch.num_rows)))
                    seen += batch.num_rows
                    done = max(done, seen)
                    del batch
                    if left.num_rows:
                        yield left
                    del left  # not held while the next one is made
                return
            except pa.ArrowInvalid as error:
                if not block or "straddling" not in str(error):
                    raise self._lines.explained(file, names, error) from error

    def _parsed(
        self, file: DataFile, names: list[str], wanted: Sequence[str], block: int, ragged: RaggedRecords | None
    ) -> Iterator[pa.RecordBatch]:
        """Parse a file in blocks of `block` bytes; 0: record by record."""
        ahead = max(LEAST_AHEAD, AHEAD_BYTES // block) if block else 0
        settings = self._settings
        is_checked = ragged is not None
        with self._lines.input(file, settings.quote, ahead, is_checked=is_checked) as source:
            self._lines.read_header(source)
            if source.is_at_end():
                return
            if not block:
                yield from self._pieces(source, names, wanted, ragged)
                return
            source.keep_mark()
            try:
                read, parse, convert = self._options(file, names, wanted, block, ragged)
                reader = pyarrow.csv.open_csv(pa.PythonFile(source, mode="r"), read, parse, convert)
            except pa.ArrowInvalid as error:
                if "Empty CSV file" in str(error):
                    return
                raise
            with reader, closing(source.parsed(reader)) as batches:
                yield from batches
            if source.is_quote_open:
                self._lines.demand_end(file, names)

    def _pieces(
        self, source: Input, names: list[str], wanted: Sequence[str], ragged: RaggedRecords | None
    ) -> Iterator[pa.RecordBatch]:
        settings, file, first = self._settings, source.file, source.lines_taken + 1
        if ragged is not None:
            ragged.begin()
        records = Records(
            source.take, delimiter=self._lines.delimiter(file), quote=settings.quote, escape=settings.escape
        )
        while True:
            try:
                piece = records.take(min(self.record_bytes + SLACK_BYTES, MAX_RECORD_BYTES))
            except TooLong:
                raise self._lines.too_long(file, first + records.line, self.record_bytes) from None
            if not piece:
                return
            if (place := records.open_quote) >= 0:
                line = first + records.line + line_ends(piece[:place])
                raise self._lines.not_closed(
                    file, line, piece[place + 1 : place + _WIDE_BYTES].decode("utf-8", "replace")
                )
            batch = records.batch(piece, names, wanted, settings.null_values) if records.is_wide else None
            if batch is None:
                piece[:0] = mark_before(piece)
                options = self._options(file, names, wanted, len(piece) + 1, ragged)
                batches = pyarrow.csv.read_csv(pa.BufferReader(piece), *options).to_batches()
            else:
                batches = [batch]
            del piece, batch  # not held while its records are converted
            if ragged is not None:
                ragged.go_on(sum(each.num_rows for each in batches))
            while batches:
                yield batches.pop(0)

    def _options(
        self, file: DataFile, names: list[str], wanted: Sequence[str], block: int, ragged: RaggedRecords | None
    ) -> tuple[Any, Any, Any]:
        # Without threads no background read goes on after an early close.
        read = pyarrow.csv.ReadOptions(column_names=names, block_size=block, use_threads=False)
        parse = pyarrow.csv.ParseOptions(
            delimiter=self._lines.delimiter(file),
            quote_char=self._settings.quote or False,
            escape_char=self._settings.escape or False,
            newlines_in_values=bool(self._settings.quote),
            ignore_empty_lines=self._lines.skips_empty_lines(names),
            invalid_row_handler=None if ragged is None else ragged.note,
        )
        convert = pyarrow.csv.ConvertOptions(
            column_types={name: pa.string() for name in names},
            include_columns=list(wanted),
            null_values=self._settings.null_values,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        return read, parse, convert

    def names(self, file: DataFile) -> list[str]:
        return self._lines.names(file)


def _demand_guessed(column: pa.Array, kind: pa.DataType) -> None:
    """Raise `ValueError` for texts that the cast accepts, but for which inference finds another type."""
    if is_number(kind) and has_leading_zero(column) is not None:
        raise ValueError("leading zero")
    if is_number(kind) and pc.any(pc.starts_with(column, "+")).as_py():
        raise ValueError("a plus sign")
    if pa.types.is_floating(kind) and not keeps_digits(column):
        raise ValueError("more digits than a double keeps")
    if pa.types.is_boolean(kind) and pc.any(pc.equal(pc.binary_length(column), constant(1))).as_py():
        raise ValueError("0 and 1 are numbers")


def _with_zones(texts: pa.RecordBatch) -> pa.RecordBatch:
    return pa.record_batch([with_zone(column) for column in texts.columns], names=texts.schema.names)


def _without_zeros(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return texts without fractions of zeros where integers are wanted: `1.0` is the integer 1."""
    if not pa.types.is_integer(kind):
        return column
    return pc.replace_substring_regex(column, r"^(-?[0-9]+)\.0+$", r"\1")
