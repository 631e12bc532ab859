"""Settings of the file connectors."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from ..arrow.type_names import parse_type
from ..errors import ConnectorConfigError
from ..ranges import RANGE_BYTES
from ..settings import Config, Settings, is_url, refuse_ambiguous, url_scheme
from .encodings import codec
from .time_formats import checked_format

#: Bytes of one block that is parsed at once; batches have about this size.
BLOCK_BYTES = 4 << 20


def _checked(path: str) -> str:
    if is_url(path):
        try:
            url_scheme(path)
        except ConnectorConfigError as error:
            raise ValueError(str(error)) from error
        refuse_ambiguous(path, other="`storage_options`", is_of_files=True)
    return path


#: A place of files; the password in a URL ends where it is meant to.
_Place = Annotated[str, AfterValidator(_checked)]


def _relative(patterns: str | list[str]) -> list[str]:
    listed = [patterns] if isinstance(patterns, str) else patterns
    if not listed:
        raise ValueError("no pattern")
    for pattern in listed:
        if is_url(pattern) or pattern.startswith("/") or not all(pattern.split("/")) or ".." in pattern.split("/"):
            raise ValueError(f"{pattern!r} does not name files below `path`")
    return listed


#: Names of files below a folder; `*` stands for some letters of a name, `**` for any folders.
Patterns = Annotated[list[str], BeforeValidator(_relative)]


_Encoding = Annotated[str, AfterValidator(codec)]


def _mark(said: str | None) -> str | None:
    if said and (not said.isascii() or {"\r", "\n"} & set(said)):
        raise ValueError(f"must be an ASCII character and not a line end, not {said!r}")
    return said


def _separator(said: str | None) -> str | None:
    if said is not None and (said.isalnum() or said in '+-"\r\n'):
        raise ValueError(f"must not be a letter, digit, sign, quote or line end, but {said!r} is one")
    return said


def _null_word(said: Any) -> Any:
    """Read `null`, which YAML takes for nothing, as the word that it is here."""
    return "null" if said is None else said


class FileSourceSettings(Settings):
    """Settings of every file source."""

    path: _Place = Field(
        min_length=1, description="a file, a glob or a folder; relative to the pipeline file, or a URL"
    )
    streams: dict[str, Patterns] = Field(
        default_factory=dict,
        description="streams, each with one or several patterns below the folder `path`: {met: met/**/*.csv}; a "
        "stream is all files that match",
    )
    file_columns: bool = Field(
        default=False,
        description="add `_file`, the file's name below `path`, and `_file_modified`, the time of its last write",
    )
    file_rows: bool = Field(default=False, description="add `_file_row`, a record's number in its file, from 1")
    storage_options: Annotated[dict[str, Any], AfterValidator(Config)] = Field(
        default_factory=Config, description="options for fsspec, for URLs"
    )
    batch_size: int = Field(default=65_536, ge=1, description="maximum of records in a batch")
    checkpoint_records: int = Field(
        default=100_000,
        ge=1,
        description="minimum of records between two commits of new files (`_file_modified`); other INCREMENTAL reads "
        "of files commit once",
    )
    range_bytes: int = Field(
        default=RANGE_BYTES, ge=1, description="smallest range when `parallel_reads` splits the files"
    )
    max_columns: int = Field(default=10_000, ge=1, description="maximum of columns of a stream; more are an error")
    types: dict[str, str] = Field(
        default_factory=dict,
        description='types of columns, for every stream that has them: {zip: string}; a name may be a glob: {"*_at": '
        "timestamptz}",
    )

    @field_validator("streams")
    @classmethod
    def _are_names(cls, streams: dict[str, Patterns]) -> dict[str, Patterns]:
        for name in streams:
            if not name.strip() or "." in name:
                raise ValueError(
                    f"{name!r}: a stream's name must not be empty or contain a dot, which separates a schema"
                )
        return streams

    @field_validator("types")
    @classmethod
    def _known(cls, types: dict[str, str]) -> dict[str, str]:
        for column, name in types.items():
            try:
                parse_type(name)
            except ConnectorConfigError as error:
                raise ValueError(f"column {column!r}: {error}") from error
        return types

    def type_of(self, column: str) -> str | None:
        """Return the type that `types` says for a column: by its name, else by the first glob that matches."""
        return _said_of(self.types, column)

    def format_of(self, column: str) -> str | None:
        """Return how the dates and times of a column are written; None: as ISO 8601."""
        return None

    def said_columns(self) -> list[str]:
        """Return the names and globs of columns that the settings name."""
        return list(self.types)


def _said_of(said: Mapping[str, str], column: str) -> str | None:
    if column in said:
        return said[column]
    return next((value for glob, value in said.items() if fnmatchcase(column, glob)), None)


def _zone(name: str) -> str:
    import zoneinfo

    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        import difflib

        near = difflib.get_close_matches(name, zoneinfo.available_timezones(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ", such as Europe/Berlin or UTC"
        raise ValueError(f"{name!r} is not a time zone{hint}") from None
    return name


class TextSourceSettings(FileSourceSettings):
    """Settings of sources of text files."""

    numbers: Literal["double", "exact"] = Field(
        default="double", description="numbers with fractions: double, or exact for decimals with all their digits"
    )
    formats: dict[str, Annotated[str, AfterValidator(checked_format)]] = Field(
        default_factory=dict,
        description="formats of dates and times other than ISO 8601: "
        '{"*_at": "%d.%m.%Y %H:%M"}; unix or unix_ms: a number of seconds or milliseconds',
    )
    timezone: Annotated[str, AfterValidator(_zone)] | None = Field(
        default=None,
        description="zone of times without one, such as Europe/Berlin; their columns become moments. Default: such "
        "times have no zone",
    )

    def format_of(self, column: str) -> str | None:
        """Return how the dates and times of a column are written; None: as ISO 8601."""
        return _said_of(self.formats, column)

    def said_columns(self) -> list[str]:
        """Return the names and globs of columns that the settings name."""
        return [*self.types, *self.formats]


class CSVSourceSettings(TextSourceSettings):
    """Settings of a CSV source: how the files are written."""

    delimiter: Annotated[str | None, AfterValidator(_mark)] = Field(
        default=None,
        min_length=1,
        max_length=16,
        description="one or several characters. Default: the first line `sep=;` sets it, and is skipped. Without this "
        "line: comma, or tab in .tsv files; semicolon, tab or bar if only that gives several columns",
    )
    quote: Annotated[str, AfterValidator(_mark)] = Field(
        default='"', max_length=1, description="empty: no field is quoted"
    )
    escape: Annotated[str | None, AfterValidator(_mark)] = Field(
        default=None, min_length=1, max_length=1, description="default: none; quotes are doubled"
    )
    header: bool | list[str] = Field(
        default=True, description="false: no header, columns are column_1, ...; or a list of names"
    )
    encoding: _Encoding = Field(
        default="utf-8",
        description="any encoding that Python supports, by its usual names: latin1, windows1252, utf-16",
    )
    decimal: Literal[".", ","] = Field(default=".", description="decimal sign of numbers")
    thousands: Annotated[str | None, AfterValidator(_separator)] = Field(
        default=None, min_length=1, max_length=1, description="sign between groups of three digits of a number"
    )
    trim: bool = Field(default=False, description="remove blanks and tabs around unquoted values")
    comment: Annotated[str | None, AfterValidator(_mark)] = Field(
        default=None,
        min_length=1,
        max_length=16,
        description="first characters of lines that are not records, such as #; empty lines are then skipped too",
    )
    skip_lines: int = Field(default=0, ge=0, description="lines to skip before the header, or before the first record")
    short_rows: Annotated[Literal["fail", "null"], BeforeValidator(_null_word)] = Field(
        default="fail",
        description="records with fewer fields than columns: fail (an error, or rejected), or null (the last columns "
        "are NULL)",
    )
    null_values: list[str] = Field(default=[""], description="unquoted texts that mean NULL")

    @model_validator(mode="after")
    def _marks_differ(self) -> CSVSourceSettings:
        if self.escape and self.escape == self.quote:
            raise ValueError("escape: is the same as the quote: remove it, since quotes are then doubled")
        if self.delimiter and {self.quote, self.escape} & set(self.delimiter):
            raise ValueError("delimiter: must differ from `quote` and `escape`")
        if self.thousands == self.decimal:
            raise ValueError("thousands: is the decimal sign: set `decimal` too")
        if self.trim and self.delimiter and self.delimiter != self.delimiter.strip(" "):
            raise ValueError("trim: would remove the blanks of `delimiter`: write the delimiter without them")
        if self.comment and self.comment[0] in (self.quote, (self.delimiter or "")[:1], " ", "\t"):
            raise ValueError("comment: could begin a field: use characters that only begin comments")
        is_made_plain = self.trim or self.comment or len(self.delimiter or "") > 1
        if self.escape and is_made_plain:
            raise ValueError(
                "escape: cannot be combined with `trim`, `comment` or a delimiter of several characters: double "
                "quotes within quotes instead"
            )
        return self

    @model_validator(mode="after")
    def _nulls_are_met(self) -> CSVSourceSettings:
        lost = [text for text in self.null_values if self.escape and self.escape in text]
        if self.escape and lost:
            left = lost[0].replace(self.escape, "")
            raise ValueError(
                f"null_values: no field can be {lost[0]!r}, since `escape` turns it into {left!r}: write {left!r} "
                "if all such texts except NULL are quoted, or remove `escape`"
            )
        return self


class JSONLSourceSettings(TextSourceSettings):
    """Settings of a source of JSON lines."""


def _path_of_names(path: str | list[str]) -> tuple[str, ...]:
    names = (path.split(".") if path else []) if isinstance(path, str) else path
    if not all(names):
        raise ValueError(f'{path!r} contains an empty name; a name with a dot needs a list: [data, "a.b"]')
    return tuple(names)


class JSONSourceSettings(TextSourceSettings):
    """Settings of a source of JSON documents."""

    records: Annotated[tuple[str, ...], BeforeValidator(_path_of_names)] = Field(
        default=(),
        description="path of the array of records: names joined by dots, `data.items`, or a list of names; default: "
        "the document itself is the array",
    )


class ArrowSourceSettings(FileSourceSettings):
    """Settings of a source of Arrow IPC files, which have their own types; `types` casts them."""


class ParquetSourceSettings(FileSourceSettings):
    """Settings of a Parquet source; files have their own types, and `types` casts them."""


def _levels(said: list[str]) -> list[str]:
    from .partitions import parse_partitions  # with kernels that take time to load

    parse_partitions(said)
    return said


class FileDestinationSettings(Settings):
    """Settings of every file destination."""

    path: _Place = Field(
        min_length=1,
        description="a folder, or a file such as orders.csv for one stream; relative to the pipeline file, or a URL",
    )
    storage_options: Annotated[dict[str, Any], AfterValidator(Config)] = Field(
        default_factory=Config, description="options for fsspec, for URLs"
    )
    file_records: int | None = Field(
        default=None, ge=1, description="maximum of records in a file; default: one file for each commit"
    )
    file_bytes: int | None = Field(
        default=None,
        ge=1,
        description="a file of this size gets no further batch; default: one file for each commit",
    )
    partition_by: Annotated[list[Annotated[str, Field(min_length=1)]], AfterValidator(_levels)] = Field(
        default_factory=list,
        description="one folder for each value of columns: `[year(at), region]` gives `at_year=2024/region=eu`; year, "
        "month and day are in UTC",
    )


class TextDestinationSettings(FileDestinationSettings):
    """Settings of destinations of CSV and JSON lines."""

    compression: Literal["none", "gzip", "zstd"] = "none"


class CSVDestinationSettings(TextDestinationSettings):
    """Settings of a destination of CSV: how the files are written."""

    delimiter: Annotated[str, AfterValidator(_mark)] = Field(
        default=",", min_length=1, max_length=1, description="separates fields"
    )
    quote: Literal['"', ""] = Field(
        default='"', description="around texts; empty: no quotes, and a text that needs them fails the stream"
    )
    quoting: Literal["texts", "all", "needed"] = Field(
        default="texts",
        description="what to quote: texts, all values except NULL, or only texts that need it (and the empty text)",
    )
    header: bool = Field(default=True, description="false: the first line is a record")
    encoding: _Encoding = Field(default="utf-8", description="any encoding that Python supports")

    @model_validator(mode="after")
    def _has_quotes(self) -> CSVDestinationSettings:
        if self.delimiter == '"':
            raise ValueError("delimiter: must differ from the quote")
        if not self.quote and self.quoting != "texts":
            raise ValueError(f'quoting: {self.quoting} needs quotes, but `quote: ""` turns them off')
        return self


class ParquetDestinationSettings(FileDestinationSettings):
    """Settings of a Parquet destination."""

    compression: Literal["none", "zstd", "snappy", "gzip", "lz4", "brotli"] = "zstd"
