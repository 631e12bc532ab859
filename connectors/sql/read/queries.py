"""Queries as streams: described by the database, and read as a subquery."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import pyarrow as pa

from ...errors import ConnectorError, FatalConnectorError
from ...stream import Stream
from ..session import Lease, Session
from .source import SqlSource

#: What PostgreSQL calls a column that has no name.
_UNNAMED = ("", "?column?")

#: Why an INCREMENTAL read of a query may skip records.
LATE = "a query may read many tables, and nobody knows which transactions still write into them"

#: Why a query is not read by ranges.
WHOLE = "a query is read as a whole"


class QuerySource(SqlSource):
    """A source that reads queries, too."""

    @abstractmethod
    def described(self, session: Session, query: str) -> Sequence[pa.Field]:
        """Ask the database for the columns of a query, in the metadata that `streams` gives; read nothing."""

    def query_stream(self, name: str, query: str) -> Stream:
        """See `ReadsQueries`."""
        try:
            with self._sessions.lease(name) as lease:
                lease.begin()
                fields = self.described(lease.session, query)
        except ConnectorError as error:
            error.connector, error.stream = error.connector or self.connector, error.stream or name
            raise
        _demand_names(name, [field.name for field in fields])
        return Stream(name=name, schema=pa.schema(fields), query=query)

    def columns_now(self, lease: Lease, stream: Stream) -> Mapping[str, str]:
        """Describe a query once more, within the transaction that reads it."""
        if not stream.query:
            return self.table_columns_now(lease, stream)
        fields = self.described(lease.session, stream.query)
        return {field.name: (field.metadata or {}).get(b"native_type", b"").decode() for field in fields}

    @abstractmethod
    def table_columns_now(self, lease: Lease, stream: Stream) -> Mapping[str, str]:
        """Do as `columns_now` for a table."""


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


__all__ = ["LATE", "WHOLE", "QuerySource"]
