"""Unfinished loads by ranges: finds and drops the tables that they left."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from msgspec import Struct

from ...errors import ConnectorError, FatalConnectorError
from ...stream import LedgerKey
from ..dialect.dialect import Dialect
from ..identifiers import CONVERTED_SUFFIX, TableName, staging_name
from ..ledger import commit
from ..session import Session, SessionLease

#: Suffix of the ledger of ranges; the staging table's name comes before it.
LEDGER_SUFFIX = "_r"


class UnfinishedLoad(Struct, frozen=True):
    """The tables of an unfinished load: its staging table, and its ledger of ranges."""

    staging: TableName
    #: Written by `key_text`.
    whose: str
    #: None: it cannot be resumed.
    shape: str | None = None
    moment: str | None = None

    @property
    def ledger(self) -> TableName:
        """The ledger of its ranges."""
        return TableName(self.staging.schema, self.staging.name + LEDGER_SUFFIX)

    def drop(self, session: Session, dialect: Dialect) -> None:
        """Drop both tables, and end connections of a frozen process that hold locks on them."""
        for suffix in ("", CONVERTED_SUFFIX, LEDGER_SUFFIX):
            name = TableName(self.staging.schema, self.staging.name + suffix)
            dialect.tables.free(session, name)
            session.execute(dialect.tables.drop(name))

    def rename(self, session: Session, dialect: Dialect, token: str) -> None:
        """Rename both tables for another load; the former load no longer finds them."""
        for name, suffix in ((self.staging, ""), (self.ledger, LEDGER_SUFFIX)):
            dialect.tables.free(session, name)
            renamed = dialect.naming.quote(staging_name(token) + suffix)
            session.execute(f"alter table {dialect.naming.table(name)} rename to {renamed}")


def unfinished_loads(session: Session, dialect: Dialect) -> Iterator[UnfinishedLoad]:
    """Yield the unfinished loads by ranges of all schemas, including loads that still run."""
    found = set(dialect.catalog.list_staging(session))
    ledgers = [name for name in sorted(found, key=str) if name.name.endswith(LEDGER_SUFFIX)]
    tables = dialect.catalog.reflect(session, ledgers) if ledgers else {}
    for name in ledgers:
        if name not in tables:
            continue  # its load has dropped it since
        staging = TableName(name.schema, name.name.removesuffix(LEDGER_SUFFIX))
        # An earlier version wrote neither range layout nor snapshot id.
        is_dated = tables[name].column("moment") is not None and staging in found
        for row in _read(session, dialect, name, ["stream", "shape", "moment"] if is_dated else ["stream"]):
            yield UnfinishedLoad(staging, *row)


def _read(session: Session, dialect: Dialect, ledger: TableName, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Read one row; None if the ledger was just dropped, or belongs to another role."""
    dialect.writes.savepoint(session)  # only systems with savepoints load by ranges
    try:
        rows = session.query(f"select {dialect.naming.names(columns)} from {dialect.naming.table(ledger)} limit 1")
    except FatalConnectorError:
        dialect.writes.rollback(session)
        return []
    dialect.writes.release(session)
    return rows


def key_text(key: LedgerKey) -> str:
    """Return a stream's key in the form of the ledger of ranges."""
    return json.dumps([key.pipeline, key.stream, key.destination_table], ensure_ascii=True)


def key_of(text: str) -> LedgerKey:
    """Read what `key_text` wrote."""
    pipeline, stream, destination_table = json.loads(text)
    return LedgerKey(pipeline=pipeline, stream=stream, destination_table=destination_table)


def drop_unfinished(lease: SessionLease, dialect: Dialect, is_chosen: Callable[[LedgerKey], bool]) -> None:
    """Drop the tables of unfinished loads of some streams."""
    for unfinished in listed(lease, dialect, is_chosen):
        drop(lease, dialect, unfinished)


def listed(lease: SessionLease, dialect: Dialect, is_chosen: Callable[[LedgerKey], bool]) -> list[UnfinishedLoad]:
    """Return the unfinished loads of some streams."""
    found: list[UnfinishedLoad] = []
    with suppress(ConnectorError):  # such as a deadlock with a load that drops its tables
        lease.begin()
        found = [
            unfinished for unfinished in unfinished_loads(lease.session, dialect) if is_chosen(key_of(unfinished.whose))
        ]
    with suppress(ConnectorError):
        lease.session.rollback()
    return found


def drop(lease: SessionLease, dialect: Dialect, unfinished: UnfinishedLoad) -> None:
    """Drop the tables of an unfinished load in a separate transaction, if this role is allowed to."""
    try:
        lease.begin()
        unfinished.drop(lease.session, dialect)
        commit(lease.session, dialect)
    except ConnectorError:  # such as a table of another role
        with suppress(ConnectorError):
            lease.session.rollback()


__all__ = [
    "LEDGER_SUFFIX",
    "UnfinishedLoad",
    "drop",
    "drop_unfinished",
    "key_of",
    "key_text",
    "listed",
    "unfinished_loads",
]
