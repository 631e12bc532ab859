"""State that all parts of one load share: connection, target, columns and rejected records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from ...errors import FatalConnectorError, null_in_key
from ...stream import Load
from ...write_spec import WriteDisposition
from ..dialect.dialect import Dialect
from ..identifiers import TableName
from ..ledger import AbstractLedger
from ..session import Session, SessionLease
from .columns import StreamColumns
from .rejected import RejectedRecords
from .target import TargetTable

if TYPE_CHECKING:
    from ..files_read import FilesRead


class LoadContext(Struct, frozen=True, kw_only=True):
    """One load over one leased connection."""

    dialect: Dialect
    load: Load
    lease: SessionLease
    #: Format in which the data arrives.
    wire: str
    ledger: AbstractLedger
    target: TargetTable
    #: Follows the stream's schema, which may change during the load.
    columns: StreamColumns
    #: None: the first record that does not fit fails the stream.
    rejected: RejectedRecords | None
    #: None: the stream does not read files whose names are kept.
    files: FilesRead | None = None

    @classmethod
    def of(
        cls, dialect: Dialect, load: Load, target: TableName, lease: SessionLease, wire: str, ledger: AbstractLedger
    ) -> LoadContext:
        """Make the context of a load into a table."""
        limit = load.write.max_rejected
        return cls(
            dialect=dialect,
            load=load,
            lease=lease,
            wire=wire,
            ledger=ledger,
            target=TargetTable(dialect, target, lease, load),
            columns=StreamColumns(dialect, load, wire),
            rejected=None if limit is None else RejectedRecords(dialect, load, target, lease, limit),
            files=_files_read(dialect, target) if load.stream.read.tracks_files else None,
        )

    @property
    def session(self) -> Session:
        """The session of the lease; a reconnect replaces it."""
        return self.lease.session

    @property
    def required_properties(self) -> Sequence[str]:
        """Columns of the stream that must not be NULL: key columns, unless the load appends."""
        stream, disposition = self.load.stream, self.load.write.disposition
        if disposition is WriteDisposition.APPEND:
            return ()
        unique = stream.unique_properties if disposition is WriteDisposition.MERGE else ()
        return tuple(dict.fromkeys((*stream.key_properties, *unique)))

    def refuse_null_keys(self, staging: TableName, key: Sequence[str], stream_key: str = "key_properties") -> None:
        """Raise if a staged record has NULL in a column of its key; `stream_key` names the column in the stream."""
        query, null_key = self.session.query, self.dialect.writes.null_key
        if query(null_key(staging, key)):
            column = next(name for name in key if len(key) == 1 or query(null_key(staging, [name])))
            own = next((name for name, made in self.columns.names.items() if made == column), column)
            raise null_in_key(own, stream=self.load.stream.name, stream_key=stream_key)

    def error(self, message: str) -> FatalConnectorError:
        """Make the error that fails the stream."""
        return FatalConnectorError(message, stream=self.load.stream.name)


def _files_read(dialect: Dialect, target: TableName) -> FilesRead:
    from ..files_read import FilesRead

    return FilesRead(dialect, target)


__all__ = ["LoadContext"]
