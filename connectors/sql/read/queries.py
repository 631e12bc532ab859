"""Queries as streams: the database describes them, and they are read as subqueries."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ...errors import ConnectorError, FatalConnectorError
from ...field_facts import facts_of
from ...incremental.bookmarks import query_start
from ...named_parameters import parameter_names, replaced
from ...stream import Block, Bookmark, Event, Stream
from ...struct_helpers import replace
from ..identifiers import literal
from ..session import Session, SessionLease
from .source import SqlSource

if TYPE_CHECKING:
    from ...checksums.sql import Canonical
    from ...compared_values import Checksums, Side

#: PostgreSQL's name for an unnamed column.
_UNNAMED = ("", "?column?")

#: Reason why an INCREMENTAL read of a query may skip records.
LATE = "a query may read many tables, so the transactions that still write into them are unknown"

#: Reason why a query is not read by ranges.
WHOLE = "a query is read as a whole"

#: Parameter of a query: the bookmark from which it is read.
BOOKMARK = "bookmark"

#: Replaces the parameter while a query is described and the bookmark column's type is unknown, or if
#: the system does not accept the start. Some systems find no function for an untyped NULL.
_UNKNOWN = ("null", "cast(null as timestamp)", "cast(null as date)", "cast(null as decimal(18, 0))")


class QuerySource(SqlSource):
    """A source that also reads queries."""

    #: A backslash escapes the next character in a constant.
    has_backslashes: bool = False

    @abstractmethod
    def described(self, session: Session, stream: Stream) -> Sequence[pa.Field]:
        """Ask the database for a query's columns, with the metadata of `streams`; read no records."""

    def query_stream(
        self, name: str, query: str, values: Mapping[str, Any] | None = None, start: str | float | None = None
    ) -> Stream:
        """See `ReadsQueries`."""
        found, values = self.parameters(query), values or {}
        _demand_places(name, values, found)
        stream = Stream(
            name=name, schema=pa.schema([]), query=query, query_values=values, is_query_bounded=BOOKMARK in found
        )
        try:
            with self._sessions.lease(name) as lease:
                lease.begin()
                fields = self._described(lease, stream, start)
        except ConnectorError as error:
            error.connector, error.stream = error.connector or self.connector, error.stream or name
            raise
        _demand_names(name, [field.name for field in fields])
        return replace(stream, schema=pa.schema(fields))

    def may_write(self) -> str:
        """See `ReadsQueries`: the transactions of a source only read."""
        return ""

    def columns_now(self, lease: SessionLease, stream: Stream) -> Mapping[str, str]:
        """Describe a query once more, within the transaction that reads it."""
        if not stream.query:
            return self.table_columns_now(lease, stream)
        start = None if stream.read.bookmark_start is None else stream.read.bookmark_start.given[0]
        fields = self._described(lease, stream, start)
        return {field.name: facts_of(field).native_type for field in fields}

    # ---------------------------------------------------------------- parameters
    def parameters(self, query: str) -> Sequence[str]:
        """Return the names of a query's parameters."""
        has_hashes = self.dialect.facts.has_hash_comments
        return parameter_names(query, has_hashes=has_hashes, has_backslashes=self.has_backslashes)

    def placed(self, query: str, texts: Mapping[str, str]) -> str:
        """Replace parameters by SQL texts."""
        has_hashes = self.dialect.facts.has_hash_comments
        return replaced(query, texts, has_hashes=has_hashes, has_backslashes=self.has_backslashes)

    def unbounded(self, query: str, start: str | float | None) -> list[str]:
        """Return a query without `:bookmark`, in the forms in which it can be described."""
        if BOOKMARK not in self.parameters(query):
            return [query]
        said = [] if start is None else [self.written(start)]
        return [self.placed(query, {BOOKMARK: each}) for each in (*said, *_UNKNOWN)]

    def filled(self, stream: Stream) -> Stream:
        """Return a stream with constant values in its query."""
        if not stream.query_values:
            return stream
        texts = {name: self.written(value) for name, value in stream.query_values.items()}
        return replace(stream, query=self.placed(stream.query, texts), query_values={})

    def bounded(self, stream: Stream, bookmark: Bookmark | None = None) -> Stream:
        """Return a stream whose query has its values and its bookmark, or the start value without a bookmark."""
        if not stream.query:
            return stream
        stream = self.filled(stream)
        if BOOKMARK not in self.parameters(stream.query):
            return stream
        value = query_start(stream, bookmark)
        bound = "null" if value is None else self.bound(value, first_bookmark(stream))
        return replace(stream, query=self.placed(stream.query, {BOOKMARK: bound}))

    def written(self, value: Any) -> str:
        """Write a parameter's value as a constant, which takes its type from the comparison."""
        if value is None or isinstance(value, bool):
            return "null" if value is None else str(value).lower()
        if isinstance(value, int | float):
            return f"({value!r})"
        return literal(value.isoformat() if isinstance(value, datetime) else str(value))

    def _described(self, lease: SessionLease, stream: Stream, start: str | float | None) -> Sequence[pa.Field]:
        """Describe a query independently of its `:bookmark`."""
        stream, failed = self.filled(stream), None
        for text in self.unbounded(stream.query, start):
            if failed is not None:
                lease.session.rollback()
                lease.begin()
            try:
                return self.described(lease.session, replace(stream, query=text))
            except FatalConnectorError as error:
                failed = failed or error
        assert failed is not None
        raise failed

    def bound(self, value: pa.Scalar, field: pa.Field) -> str:
        """Write the value of `:bookmark` as a constant of the bookmark column's type."""
        return self.constant(value, field)

    def read(
        self, group: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None], wire: str = "arrow"
    ) -> Iterator[tuple[str, Event | Block]]:
        """Read queries from their bookmarks."""
        for stream in group:
            yield from super().read([self.bounded(stream, bookmarks.get(stream.name))], bookmarks, wire)

    def count(self, stream: Stream) -> int:
        """Count the records; for a query, the records since its start."""
        return super().count(self.bounded(stream))

    @contextmanager
    def opened_checksums(self, side: Side, canonical: Canonical, first: str = "") -> Iterator[Checksums]:
        """Compute checksums; for a query, over the records since its start."""
        side = replace(side, stream=self.bounded(side.stream))
        with super().opened_checksums(side, canonical, first) as found:
            yield found

    @abstractmethod
    def table_columns_now(self, lease: SessionLease, stream: Stream) -> Mapping[str, str]:
        """Do as `columns_now` for a table."""


def first_bookmark(stream: Stream) -> pa.Field:
    """Return the column that gives `:bookmark` its type; a stream with selected columns may lack it."""
    if stream.read.bookmark_properties:
        return stream.schema.field(stream.read.bookmark_properties[0])
    assert stream.read.bookmark_start is not None, "the plan demands it"
    return stream.read.bookmark_start.field


def _demand_places(stream: str, values: Mapping[str, Any], found: Sequence[str]) -> None:
    for number, name in enumerate(values, 1):
        if name not in found:
            raise FatalConnectorError(
                f"template {number} of the query is in quotes, in a comment or within a name, where a value is not "
                "allowed: write it without quotes, `where region = {{ variables('region') }}`",
                stream=stream,
            )


def _demand_names(stream: str, names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for place, name in enumerate(names, 1):
        if name in _UNNAMED:
            raise FatalConnectorError(f"column {place} of the query has no name: add `as name`", stream=stream)
        if name.casefold() in seen:
            raise FatalConnectorError(
                f"two columns of the query are called {name!r}: give one of them another name with `as`", stream=stream
            )
        seen[name.casefold()] = name


__all__ = ["BOOKMARK", "LATE", "WHOLE", "QuerySource", "first_bookmark"]
