"""Queries as streams: described by the database, and read as a subquery."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from ...errors import ConnectorError, FatalConnectorError
from ...incremental.bookmarks import query_start
from ...named import parts
from ...stream import Block, Bookmark, Event, Stream
from ..identifiers import literal
from ..session import Lease, Session
from .source import SqlSource

if TYPE_CHECKING:
    from ...checksums.sql import Canonical
    from ...sides import Checksums, Side

#: What PostgreSQL calls a column that has no name.
_UNNAMED = ("", "?column?")

#: Why an INCREMENTAL read of a query may skip records.
LATE = "a query may read many tables, and nobody knows which transactions still write into them"

#: Why a query is not read by ranges.
WHOLE = "a query is read as a whole"

#: Parameter of a query for the bookmark from which it is read.
BOOKMARK = "bookmark"

#: What stands for it while a query is described, and the type of the bookmark's column is not known yet, in place of a
#: start that the system does not take. Some systems find no function for a NULL without a type.
_UNKNOWN = ("null", "cast(null as timestamp)", "cast(null as date)", "cast(null as decimal(18, 0))")


class QuerySource(SqlSource):
    """A source that reads queries, too."""

    @abstractmethod
    def described(self, session: Session, query: str) -> Sequence[pa.Field]:
        """Ask the database for the columns of a query, in the metadata that `streams` gives; read nothing."""

    def query_stream(self, name: str, query: str, start: str | float | None = None) -> Stream:
        """See `ReadsQueries`."""
        try:
            with self._sessions.lease(name) as lease:
                lease.begin()
                fields = self.described_unbounded(lease, query, start)
        except ConnectorError as error:
            error.connector, error.stream = error.connector or self.connector, error.stream or name
            raise
        _demand_names(name, [field.name for field in fields])
        return Stream(
            name=name, schema=pa.schema(fields), query=query, is_query_bounded=len(self.query_parts(query)) > 1
        )

    def may_write(self) -> str:
        """See `ReadsQueries`: the transactions of a source only read."""
        return ""

    def columns_now(self, lease: Lease, stream: Stream) -> Mapping[str, str]:
        """Describe a query once more, within the transaction that reads it."""
        if not stream.query:
            return self.table_columns_now(lease, stream)
        start = None if stream.bookmark_start is None else stream.bookmark_start.given[0]
        fields = self.described_unbounded(lease, stream.query, start)
        return {field.name: (field.metadata or {}).get(b"native_type", b"").decode() for field in fields}

    # ------------------------------------------------------------ the word `:bookmark`
    def query_parts(self, query: str) -> list[str]:
        """Return the texts around each `:bookmark` of a query."""
        return parts(query, BOOKMARK, has_hashes=self.dialect.facts.has_hash_comments)

    def unbounded(self, query: str, start: str | float | None) -> list[str]:
        """Return a query without `:bookmark`, in the ways in which it may be described."""
        texts = self.query_parts(query)
        if len(texts) < 2:
            return [query]
        said = [] if start is None else [literal(start) if isinstance(start, str) else repr(start)]
        return [each.join(texts) for each in (*said, *_UNKNOWN)]

    def described_unbounded(self, lease: Lease, query: str, start: str | float | None) -> Sequence[pa.Field]:
        """Describe a query whatever `:bookmark` in it will stand for."""
        failed: ConnectorError | None = None
        for text in self.unbounded(query, start):
            if failed is not None:
                lease.session.rollback()
                lease.begin()
            try:
                return self.described(lease.session, text)
            except FatalConnectorError as error:
                failed = failed or error
        assert failed is not None
        raise failed

    def bounded(self, stream: Stream, bookmark: Bookmark | None = None) -> Stream:
        """Return a stream whose query is read from a bookmark, or as if there were none."""
        texts = self.query_parts(stream.query) if stream.query else []
        if len(texts) < 2:
            return stream
        value = query_start(stream, bookmark)
        bound = "null" if value is None else self.bound(value, first_bookmark(stream))
        return replace(stream, query=bound.join(texts))

    def bound(self, value: pa.Scalar, field: pa.Field) -> str:
        """Write the value of `:bookmark` as a constant of the type of the bookmark's column."""
        return self.constant(value, field)

    def read(
        self, group: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None], wire: str = "arrow"
    ) -> Iterator[tuple[str, Event | Block]]:
        """Read queries from their bookmarks."""
        for stream in group:
            yield from super().read([self.bounded(stream, bookmarks.get(stream.name))], bookmarks, wire)

    def count(self, stream: Stream) -> int:
        """Count the records, of a query those since its start."""
        return super().count(self.bounded(stream))

    @contextmanager
    def opened_checksums(self, side: Side, canonical: Canonical, first: str = "") -> Iterator[Checksums]:
        """Compute checksums, of a query of the records since its start."""
        side = replace(side, stream=self.bounded(side.stream))
        with super().opened_checksums(side, canonical, first) as found:
            yield found

    @abstractmethod
    def table_columns_now(self, lease: Lease, stream: Stream) -> Mapping[str, str]:
        """Do as `columns_now` for a table."""


def first_bookmark(stream: Stream) -> pa.Field:
    """Return the column whose type `:bookmark` has; a stream that is narrowed down to some columns may lack it."""
    if stream.bookmark_properties:
        return stream.schema.field(stream.bookmark_properties[0])
    assert stream.bookmark_start is not None, "the plan demands it"
    return stream.bookmark_start.field


def _demand_names(stream: str, names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for place, name in enumerate(names, 1):
        if name in _UNNAMED:
            raise FatalConnectorError(f"column {place} of the query has no name: say `... as name`", stream=stream)
        if name.casefold() in seen:
            raise FatalConnectorError(
                f"two columns of the query are called {name!r}: give one of them another name with `as`", stream=stream
            )
        seen[name.casefold()] = name


__all__ = ["BOOKMARK", "LATE", "WHOLE", "QuerySource", "first_bookmark"]
