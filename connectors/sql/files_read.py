"""The files already read: one row each in a table beside the ledger, written in the data's transaction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence

import pyarrow as pa

from ..errors import FatalConnectorError
from ..known_files import KnownFiles
from ..stream import FileRead, LedgerKey
from .dialect.dialect import Dialect
from .identifiers import TableName
from .session import Session
from .tables import Column

FILES_TABLE = "_syncblocks_files"

#: Maximum of names in one list of a statement.
_MOST = 500

#: Some systems ignore case in texts, or cannot compare long texts: rows are found by hashes.
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("ledger_row", pa.string()),
        ("pipeline", pa.string()),
        ("stream", pa.string()),
        ("destination_table", pa.string()),
        ("path", pa.string()),
        ("size_bytes", pa.int64()),
        ("modified", pa.string()),
        ("etag", pa.string()),
        ("run", pa.string()),
    ]
)
_READ = ("path", "size_bytes", "modified", "etag")


class FilesRead:
    """Statements on `_syncblocks_files`; each runs in the session's transaction, which the caller ends."""

    def __init__(self, dialect: Dialect, target: TableName) -> None:
        self._dialect = dialect
        self.name = TableName(target.schema, FILES_TABLE)
        self._table = dialect.naming.table(self.name)

    def exists(self, session: Session) -> bool:
        """Return whether the table exists."""
        return self._dialect.catalog.exists(session, self.name)

    def create(self, session: Session) -> None:
        """Create the table if it is missing; other processes may do so at the same time."""
        if self.exists(session):
            return
        dialect = self._dialect
        dialect.tables.lock_creation(session, self.name)
        types = dict.fromkeys(("id", "ledger_row"), "varchar(64)") | {"size_bytes": dialect.facts.bigint_type}
        columns = [Column(name=each.name, type=types.get(each.name, dialect.facts.text_type)) for each in _SCHEMA]
        session.execute(dialect.tables.create(self.name, columns, if_not_exists=True))

    def read(self, session: Session, key: LedgerKey) -> KnownFiles:
        """Return the files of one ledger row."""
        where = f"{self._dialect.naming.quote('ledger_row')} = $1"
        sql = f"select {self._dialect.naming.names(_READ)} from {self._table} where {where}"
        return KnownFiles.of(session.query(sql, [_hash(key)]))

    def record(self, session: Session, key: LedgerKey, run: str, files: Sequence[FileRead]) -> None:
        """Write the files of a commit; rows of their earlier states are deleted."""
        self.forget(session, key, [each.path for each in files if each.is_changed])
        if files:
            session.ingest(self.name, _SCHEMA, _batches(key, run, files), "arrow")

    def forget(self, session: Session, key: LedgerKey, paths: Collection[str] | None = None) -> None:
        """Delete the rows of some files, or of all."""
        quote = self._dialect.naming.quote
        if paths is None:
            session.execute(f"delete from {self._table} where {quote('ledger_row')} = $1", [_hash(key)])
            return
        ids = [_hash(key, path) for path in paths]
        for start in range(0, len(ids), _MOST):
            part = ids[start : start + _MOST]
            listed = ", ".join(f"${place}" for place in range(1, len(part) + 1))
            session.execute(f"delete from {self._table} where {quote('id')} in ({listed})", part)


def _batches(key: LedgerKey, run: str, files: Sequence[FileRead]) -> Iterator[pa.RecordBatch]:
    of_row = (_hash(key), key.pipeline, key.stream, key.destination_table)
    rows = [
        (_hash(key, each.path), *of_row, each.path, each.size_bytes, each.modified, each.etag, run) for each in files
    ]
    columns = zip(*rows, strict=True)
    try:
        arrays = [pa.array(values, field.type) for values, field in zip(columns, _SCHEMA, strict=True)]
    except UnicodeEncodeError as error:
        raise FatalConnectorError(
            f"the name of the file {error.object!r} is not valid UTF-8: rename the file", key="path"
        ) from error
    yield pa.record_batch(arrays, schema=_SCHEMA)


def _hash(key: LedgerKey, path: str = "") -> str:
    names = [key.pipeline, key.stream, key.destination_table, path]
    return hashlib.blake2b(json.dumps(names).encode(), digest_size=16).hexdigest()


__all__ = ["FILES_TABLE", "FilesRead"]
