"""The state of one stream while its lines are read: columns, lines that are not parsed yet, records sent again."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa

from ..arrow.masking import rule_of
from ..errors import FatalConnectorError
from ..field_facts import facts_of
from ..read_spec import ReplicationMethod
from ..stream import Bookmark, Stream
from ..struct_helpers import replace
from .records import SINGER, Envelope, Parser
from .resent import ResentRecords
from .types import JSONReading, PropertyColumn, columns_of, widened_as

#: Key in a bookmark of the columns that hold more digits than their schema declares.
WIDER = "wider"

log = logging.getLogger("syncblocks")


class LineStream:
    """One selected stream: its present columns, and its lines that are not parsed yet."""

    connector: ClassVar[str]
    envelope: ClassVar[Envelope] = SINGER

    def __init__(
        self,
        stream: Stream,
        bookmark: Bookmark | None,
        *,
        adds_columns: bool,
        max_columns: int = sys.maxsize,
        wider: Mapping[str, Any] | None = None,
    ) -> None:
        self.stream = stream
        #: Its name in messages.
        self.called = ""
        self.lines: list[bytes] = []
        self.numbers: list[int] = []
        self.has_schema = False
        #: Records since the last checkpoint.
        self.pending = 0
        self._bookmark = bookmark
        self.resent = self._resent_records(_first(stream.read.bookmark_properties))
        self._adds_columns = adds_columns
        self._max_columns = max_columns
        self._left_out: set[str] = set()
        #: Columns that an earlier run widened, in the table, too.
        self._wider: Mapping[str, Any] = {**(wider or {}), **((bookmark or {}).get(WIDER) or {})}
        self._columns: dict[str, PropertyColumn] = {}
        self._parsers: dict[bool, Parser] = {}

    @property
    def is_incremental(self) -> bool:
        """Whether the stream has checkpoints."""
        return self.stream.read.method is not ReplicationMethod.FULL_TABLE

    def declare(self, schema: Mapping[str, Any], bookmark_properties: Any) -> Stream | None:
        """Take the JSON Schema of its records; return the stream if its columns have changed.

        Raises:
            FatalConnectorError: it has too many columns.
        """
        declared = {column.name: column for column in columns_of(schema)}
        if not self.has_schema:
            key = _first(self.stream.read.bookmark_properties) or _first(bookmark_properties)
            self.resent = self._resent_records(key)
        self.has_schema = True
        known = dict.fromkeys(self.stream.schema.names)
        new = [name for name in declared if name not in known]
        taken = [name for name in new if self._adds_columns and self.stream.read.takes([name])]
        for name in sorted(set(new) - self._left_out - set(taken)):
            log.debug("%s: column %r is not selected and is left out", self.stream.name, name)
            self._left_out.add(name)
        new = taken
        if len(known) + len(new) > self._max_columns:
            raise FatalConnectorError(
                f"stream {self.stream.name!r}: {too_many(self._max_columns)}",
                connector=self.connector,
                key="max_columns",
            )
        columns: dict[str, PropertyColumn] = {}
        for name in (*known, *new):
            before, now = self._columns.get(name), declared.get(name)
            if now is None:
                now = before or _unsent(self.stream.schema.field(name))
            elif before is not None and before.is_widened and before.declared == now.declared:
                now = before
            elif before is None and name in self._wider:
                now = widened_as(now, self._wider[name])
            columns[name] = now
        return self._set(columns)

    def widen(self, column: PropertyColumn, kind: pa.DataType | None) -> Stream | None:
        """Give one column a wider type."""
        log.info(
            "%s: column %r holds more digits than %s; it becomes %s. Declare that by `schema` in the source's config",
            self.stream.name,
            column.name,
            column.type,
            "a text of digits" if kind is None else kind,
        )
        return self._set({**self._columns, column.name: column.widened(kind)})

    def _set(self, columns: dict[str, PropertyColumn]) -> Stream | None:
        self._columns = columns
        self._parsers = {}
        fields = []
        for column in columns.values():
            place = self.stream.schema.get_field_index(column.name)
            fields.append(column.field(nullable=place < 0 or self.stream.schema.field(place).nullable))
        schema = pa.schema(fields)
        if schema.equals(self.stream.schema, check_metadata=False):
            return None
        self.stream = replace(self.stream, schema=schema)
        return self.stream

    def parser(self, *, is_wrapped: bool = True) -> Parser:
        """Return the parser for the present columns; `is_wrapped`: lines are messages, otherwise records."""
        if is_wrapped not in self._parsers:
            not_null = frozenset(field.name for field in self.stream.schema if not field.nullable)
            self._parsers[is_wrapped] = Parser(
                list(self._columns.values()),
                not_null,
                stream=self.called,
                envelope=self.envelope if is_wrapped else None,
            )
        return self._parsers[is_wrapped]

    def conform(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the batch with the stream's schema and its metadata."""
        return pa.RecordBatch.from_arrays(batch.columns, schema=self.stream.schema)

    def _resent_records(self, column: str | None) -> ResentRecords:
        stream = self.stream
        keys = stream.key_properties if set(stream.key_properties) <= set(stream.schema.names) else ()
        if column is not None and rule_of(stream.read.masks, column) is not None:
            raise FatalConnectorError(
                f"stream {stream.name!r}: its source goes on by column {column!r}, and the state holds values that no "
                "mask hides: leave the column out, or read the stream FULL_TABLE",
                connector=self.connector,
                stream=stream.name,
            )
        return ResentRecords(
            stream.name, column, self._bookmark, keys=keys, is_merged=stream.read.may_repeat, masks=stream.read.masks
        )

    def wider(self) -> dict[str, list[int] | None]:
        """Return precision and scale of each column that is wider than its SCHEMA, as JSON for the STATE."""
        return {each.name: _digits(each.type) for each in self._columns.values() if each.is_widened}


def too_many(most: int) -> str:
    """Say that a stream has more columns than it may have."""
    return f"more than {most:,} columns; `config.max_columns` allows more"


def _first(names: Any) -> str | None:
    if isinstance(names, str):
        return names
    return next((name for name in names or () if isinstance(name, str)), None)


def _digits(kind: pa.DataType) -> list[int] | None:
    """Return precision and scale as a JSON value; None: digits as text."""
    return [kind.precision, kind.scale] if pa.types.is_decimal(kind) else None


def _unsent(field: pa.Field) -> PropertyColumn:
    """Return a column that the catalog has and the SCHEMA lacks: it stays, and is NULL."""
    kind = field.type
    is_json = isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.json"
    is_text = isinstance(kind, pa.BaseExtensionType) or pa.types.is_temporal(kind) or pa.types.is_binary(kind)
    native = facts_of(field).native_type
    reading = JSONReading.JSON if is_json else JSONReading.TEXT if is_text else JSONReading.PLAIN
    return PropertyColumn(name=field.name, type=kind, reading=reading, native=native)
