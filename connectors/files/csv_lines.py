"""CSV by Python's reader, which is slow but knows line numbers: headers, delimiters, places of errors."""

from __future__ import annotations

import collections
import csv
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from ..arrow.conform import shown
from ..arrow.record_size import too_wide
from ..errors import FatalConnectorError
from .csv_input import Input, delimiter_of
from .csv_plain import SEPARATOR, PlainCSV
from .csv_wide import MAX_RECORD_BYTES
from .paths import DataFile, compression
from .ranges import FilePart
from .settings import CSVSourceSettings

#: Most columns of which a notice says what they are called.
_MOST_NAMES = 5

#: Stands for the end: no file has this record.
_END = "\x1a"


class CSVLines:
    """Reads the files of one source line by line."""

    def __init__(self, settings: CSVSourceSettings) -> None:
        self._settings = settings
        #: Label of a file -> its delimiter.
        self._delimiters: dict[str, str] = {}
        #: Label of a file -> which names its header does not have, or has twice.
        self.numbered: dict[str, str] = {}
        #: Name of a column -> its name in a header, where a column before it has that name.
        self.repeated: dict[str, str] = {}

    def input(self, file: DataFile, *options: Any, **more: Any) -> Input:
        """Open a file behind the lines that are passed over, as plain CSV; the other arguments are those of `Input`."""
        source = self._opened(file, *options, **more)
        settings, is_ours = self._settings, file.schema is not None
        trim, comment = settings.trim and not is_ours, "" if is_ours else settings.comment or ""
        if trim or comment or len(settings.delimiter or "") > 1:
            marks: dict[str, Any] = {"quote": settings.quote, "trim": trim, "comment": comment}
            try:
                delimiter, line = self.written_delimiter(file), source.lines_taken + 1
                source.make_plain(PlainCSV(delimiter=delimiter, label=file.label, line=line, **marks))
            except BaseException:
                source.close()
                raise
        return source

    def _opened(self, file: DataFile, *options: Any, **more: Any) -> Input:
        source = Input(file, self._settings.encoding, *options, **more)
        try:
            for _ in itertools.islice(source.lines(), self._settings.skip_lines):
                pass
            # What a destination of ours has written has no such line, though a record may look like one.
            is_begin = not source.lines_taken and not (isinstance(file, FilePart) and file.start)
            if is_begin and file.schema is None and (said := source.take_said_delimiter(self._settings.delimiter)):
                self._delimiters[file.label] = said
        except BaseException:
            source.close()
            raise
        return source

    def names(self, file: DataFile) -> list[str]:
        """Return the names of the columns, from the settings or the header.

        Raises:
            FatalConnectorError: two names of the settings are equal, or the first line cannot be read.
        """
        said = self._said_names(file)
        names = _numbered(said)
        if self._settings.header is True and names != said:
            self.numbered[file.label] = f"{file.label}: {_told(said, names)}"
            self.repeated |= {own: name for name, own in zip(said, names, strict=True) if name not in ("", own)}
        return names

    def _said_names(self, file: DataFile) -> list[str]:
        with self.input(file) as source:
            header = self._settings.header
            if isinstance(header, list):
                names = list(header)
                twice = next((name for name, count in collections.Counter(names).items() if count > 1 and name), None)
                if twice is not None:
                    raise FatalConnectorError(f"config.header: column {shown(twice)} exists twice", key="header")
            elif header:
                names = self.read_header(source) or []
                if len(set(names)) < len(names) and all(map(_looks_like_value, names)):
                    raise FatalConnectorError(
                        f"{file.label}:{max(1, source.lines_taken)}: two columns have one name, or this is not a "
                        "header: set the names in `config.header`, or `config.header: false` if the line is a "
                        "record",
                        key="header",
                        has_no_values=True,
                    )
            elif file.schema is not None:
                names = list(file.schema.names)
            else:
                first = self._first_record(source) or []
                names = [""] * len(first)
        return names

    def read_header(self, source: Input) -> list[str] | None:
        """Take the header, if there is one, off the front."""
        return self._first_record(source) if self._settings.header is True else None

    def _first_record(self, source: Input) -> list[str] | None:
        _allow_long_fields()
        reader = csv.reader(source.lines(), **self._dialect(source.file))
        try:
            record = next((record for record in reader if record), None)
        except csv.Error as error:
            raise FatalConnectorError(f"{source.file.label}:{source.lines_taken}: {error}", key="header") from error
        if record is not None and any(_has_surrogate(name) for name in record):
            raise self._not_encoded(source.file, source.lines_taken)
        return record

    def delimiter(self, file: DataFile) -> str:
        """Return the delimiter that a parser meets."""
        written = self.written_delimiter(file)
        return written if len(written) == 1 else SEPARATOR

    def written_delimiter(self, file: DataFile) -> str:
        """Return a file's delimiter, from the settings, a line `sep=;`, or the first line.

        Raises:
            FatalConnectorError: it is the quote or the escape sign as well.
        """
        if self._settings.delimiter:
            return self._settings.delimiter
        if file.label not in self._delimiters:
            name = (file.member or file.name).lower()
            codec = compression(name)
            default = "\t" if (name[: name.rindex(".")] if codec else name).endswith(".tsv") else ","
            comment = self._settings.comment
            with self._opened(file) as source:
                lines = source.lines()
                line = next(lines, "")
                while comment and line and (not line.strip() or line.lstrip(" \t").startswith(comment)):
                    line = next(lines, "")
            self._delimiters.setdefault(file.label, delimiter_of(line, default, self._settings.quote))
        found = self._delimiters[file.label]
        for key, mark in (("quote", self._settings.quote), ("escape", self._settings.escape)):
            if found == mark:
                raise FatalConnectorError(
                    f"{file.label}: {found!r} is both `config.{key}` and the delimiter: set another `delimiter`, "
                    f"or another `{key}`",
                    key=key,
                )
        return found

    def _dialect(self, file: DataFile) -> dict[str, Any]:
        quote = self._settings.quote
        return {
            "delimiter": self.delimiter(file),
            "quotechar": quote or None,
            "quoting": csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
            "escapechar": self._settings.escape,
            "strict": False,
        }

    def records(self, file: DataFile, names: list[str], end: Sequence[str] = ()) -> Iterator[tuple[int, list[str]]]:
        """Yield every record after the header with the line where it begins; `end`: lines to read after the file."""
        _allow_long_fields()
        with self.input(file) as source:
            reader = csv.reader(itertools.chain(source.lines(), end), **self._dialect(file))
            is_header = self._settings.header is True
            skipped = source.lines_taken
            begins = skipped + 1
            for record in reader:
                is_blank = not record and self.skips_empty_lines(names)
                if not is_blank and not is_header:
                    yield begins, record
                is_header = is_header and not record
                begins = skipped + reader.line_num + 1

    def skips_empty_lines(self, names: list[str]) -> bool:
        """Tell whether an empty line is no record; in a single column it is NULL, unless comments may leave one."""
        return len(names) > 1 or self._settings.comment is not None

    def line_of(self, file: DataFile, names: list[str], record: int) -> int | None:
        """Return the line where a record begins, by its number from 0."""
        found = next(itertools.islice(self.records(file, names), record, None), None)
        return found[0] if found else None

    def _first_line(self, file: DataFile, names: list[str], is_wrong: Callable[[list[str]], bool]) -> int | None:
        return next((line for line, record in self.records(file, names) if is_wrong(record)), None)

    def explained(self, file: DataFile, names: list[str], error: pa.ArrowInvalid | None) -> FatalConnectorError:
        """Return the error, with its line, for a file that Arrow cannot parse."""
        if "invalid UTF8" in str(error):
            line = self._first_line(file, names, lambda record: any(map(_has_surrogate, record)))
            return self._not_encoded(file, line)
        may_be_short = self._settings.short_rows == "null"
        for line, record in self.records(file, names):
            if len(record) != len(names) and record and not (may_be_short and len(record) < len(names)):
                what = f"{file.label}:{line}: {fields_differ(len(record), len(names))}"
                return FatalConnectorError(
                    f"{what}: {shown(self.written_delimiter(file).join(record))}; {_way_out(len(record), names)}; "
                    "`on_rejected: keep` sets such records aside",
                    without_values=what,
                )
        return FatalConnectorError(f"{file.label}: {shown(str(error))}")

    def demand_end(self, file: DataFile, names: list[str]) -> None:
        """Refuse a file that ends within quotes: it was cut off, or its last record includes others."""
        line, record = collections.deque(self.records(file, names, end=[_END]), maxlen=1).pop()
        if record != [_END]:
            raise self.not_closed(file, line, record[-1][:-1])

    def not_closed(self, file: DataFile, line: int, text: str) -> FatalConnectorError:
        """Return the error for a field without a closing quote."""
        what = f"{file.label}:{line}: a quoted field does not end"
        return FatalConnectorError(
            f'{what}: {shown(text)}; close the quote, or set `config.quote: ""` if quotes have no meaning in this file',
            key="quote",
            without_values=what,
        )

    def too_long(self, file: DataFile, line: int, most_bytes: int) -> FatalConnectorError:
        """Return the error for a record that is too long."""
        ways = ['close a quote that reaches too far, or set `config.quote: ""`'] if self._settings.quote else []
        if most_bytes >= MAX_RECORD_BYTES:
            mend = ways[0] if ways else "write JSON lines or Parquet"
            what = f"{file.label}:{line}: a record is longer than 1 GiB, the limit of CSV files: {mend}"
            return FatalConnectorError(what, has_no_values=True)
        return too_wide(f"{file.label}:{line}: a record", most_bytes, *ways)

    def _not_encoded(self, file: DataFile, line: int | None) -> FatalConnectorError:
        where = f"{file.label}:{line}" if line else file.label
        mend = file.kind_of_text("set `config.encoding: {}`")
        mend = mend or "; `config.encoding` names another one, such as cp1252"
        what = f"{where}: not encoded in {self._settings.encoding}{mend}"
        return FatalConnectorError(what, key="encoding", has_no_values=True)


def fields_differ(fields: int, columns: int) -> str:
    """Return the reason for a record with another number of fields than the file has columns."""
    return f"{fields} fields for {columns} columns"


def _way_out(fields: int, names: list[str]) -> str:
    if names[0].startswith("#") or fields > len(names) == 1:
        return "set `config.delimiter`, or skip the first lines by `config.comment` or `config.skip_lines`"
    if fields < len(names):
        return "`config.short_rows: null` reads the last columns as NULL"
    return "name the missing column in the header, or quote the field that contains the delimiter"


def _allow_long_fields() -> None:
    """Let Python's reader accept fields of any length; its limit holds for the whole process."""
    csv.field_size_limit(2**31 - 1)


def _numbered(said: list[str]) -> list[str]:
    """Return names of which none is empty or there twice."""
    taken, names = set(said), dict[str, int]()
    numbers: dict[str, Iterator[int]] = {}
    for place, name in enumerate(said, 1):
        own = name or f"column_{place}"
        if own in (names if name else taken):
            count = numbers.setdefault(own, itertools.count(1))
            own = next(each for each in (f"{own}_{number}" for number in count) if each not in taken)
        taken.add(own)
        names[own] = place
    return list(names)


def _told(said: list[str], names: list[str]) -> str:
    """Say which columns got another name than the header has."""
    told = [
        f"column {place} {f'is another {shown(before)}' if before else 'has no name'} and is read as {shown(name)}"
        for place, (before, name) in enumerate(zip(said, names, strict=True), 1)
        if before != name
    ]
    more = f"; {len(told) - _MOST_NAMES:,} more are numbered" if len(told) > _MOST_NAMES else ""
    return "; ".join(told[:_MOST_NAMES]) + more


def _looks_like_value(name: str) -> bool:
    return not name or name.replace(".", "", 1).isdigit()


def _has_surrogate(text: str) -> bool:
    return any("\udc80" <= character <= "\udcff" for character in text)


__all__ = ["CSVLines", "fields_differ"]
