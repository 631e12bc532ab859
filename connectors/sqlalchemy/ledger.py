"""The ledger in standard SQL only: its key is a hash, its times are texts, a row is updated or else inserted."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, cast

import sqlalchemy as sa

from ..errors import ConnectorError, FatalConnectorError, RetriableError, TakenOver, taken_over
from ..sql.dialect.dialect import Dialect
from ..sql.identifiers import TableName
from ..sql.ledger import AbstractLedger, row_of, state_text
from ..sql.session import Session
from ..sql.tables import Column
from ..stream import Bookmark, LedgerKey, LedgerRow
from ..struct_helpers import replace
from .naming import SQLAlchemyNaming
from .session import AlchemySession

_ATTEMPTS = 5

_TEXTS = ("pipeline", "stream", "destination_table", "source", "owner", "bookmark")
_SHORT = {"id": 64, "token": 255, "completed_by": 255, "committed_at": 40}
#: In the order in which a row is read.
_COLUMNS = (
    "pipeline", "stream", "destination_table", "source", "token", "owner", "bookmark", "completed_by", "rows",
    "committed_at",
)  # fmt: skip


class SQLAlchemyLedger(AbstractLedger):
    """A ledger of its own: no upsert and no key of several texts is known to all systems."""

    def __init__(self, dialect: Dialect, naming: SQLAlchemyNaming) -> None:
        self._dialect = dialect
        self._naming = naming

    def create(self, session: Session, ledger: TableName) -> None:
        """Create the table; its schema must exist."""
        types = dict.fromkeys(_TEXTS, "text") | {name: f"varchar({size})" for name, size in _SHORT.items()}
        types["rows"] = "bigint"
        columns = [Column(name=name, type=types[name], is_nullable=name != "id") for name in ("id", *_COLUMNS)]
        try:
            session.execute(self._dialect.tables.create(ledger, columns, ["id"]))
        except (FatalConnectorError, RetriableError):
            # Another process may have created it.
            session.rollback()
            session.begin()
            if not self._dialect.catalog.exists(session, ledger):
                raise

    def refuse_without_rollback(self, session: Session, ledger: TableName) -> None:
        """Raise if a rollback has no effect: data and ledger row could not be committed together.

        Raises:
            FatalConnectorError: the system, or its driver, has no transactions.
        """
        own, row = _own(session), self._row(ledger)
        probe = "probe " + secrets.token_hex(8)
        own.change(sa.insert(row["id"].table).values({row["id"]: probe}))
        session.rollback()
        session.begin()
        left = own.rows(sa.select(row["id"]).where(row["id"] == probe))
        if left:
            own.change(sa.delete(row["id"].table).where(row["id"] == probe))
            session.commit()
            raise FatalConnectorError(
                f"{self._naming.engine.dialect.name} cannot roll back (no transactions): it can be a source, but "
                "not a destination",
                connector="sqlalchemy",
            )

    def goes_back(self, session: Session, ledger: TableName) -> bool:
        """Tell whether a rollback to a savepoint undoes what was written since, and nothing else; leaves no trace."""
        own, row = _own(session), self._row(ledger)
        probes = ["probe " + secrets.token_hex(8) for _ in range(2)]
        insert = sa.insert(row["id"].table)
        try:
            own.change(insert.values({row["id"]: probes[0]}))
            own.mark()
            own.change(insert.values({row["id"]: probes[1]}))
            own.take_back()
            return own.rows(sa.select(row["id"]).where(row["id"].in_(probes))) == [(probes[0],)]
        except (FatalConnectorError, RetriableError):
            return False
        finally:
            session.rollback()
            session.begin()

    def lock(self, session: AlchemySession, ledger: TableName, table: str) -> None:
        """Shut out our other loads of a table until the commit: each load updates the row of the table's name."""
        row = self._row(ledger)
        name = f"lock {hashlib.sha256(table.encode()).hexdigest()[:40]}"
        update = sa.update(row["id"].table).where(row["id"] == name).values({row["token"]: "lock"})
        there = sa.select(row["id"]).where(row["id"] == name)

        if session.is_dirty:
            # Records were deleted before: on a conflict now, this load begins again.
            session.change(update)
            return

        def take() -> None:
            if not session.rows(there):
                with suppress(FatalConnectorError, RetriableError):  # another one made it
                    session.change(sa.insert(row["id"].table).values({row["id"]: name}))
                    session.commit_alone()
                session.restart()
            session.change(update)

        session.wait(take)

    def take_over(
        self, session: Session, ledger: TableName, key: LedgerKey, *, token: str, owner: str, source: str | None
    ) -> LedgerRow:
        """Update the row, or insert it."""
        own, row = _own(session), self._row(ledger)
        values: dict[str, Any] = {"token": token, "owner": owner}
        if source is not None:
            values["source"] = source
        update = (
            sa.update(row["id"].table)
            .where(row["id"] == _id(key))
            .values({row[name]: value for name, value in values.items()})
        )
        names = {"pipeline": key.pipeline, "stream": key.stream, "destination_table": key.destination_table}
        made = {"id": _id(key), **names, "source": "", **values}
        insert = sa.insert(row["id"].table).values({row[name]: value for name, value in made.items()})
        for attempt in range(_ATTEMPTS):
            try:
                own.change(update)
                if not self.read(session, ledger, key):
                    own.change(insert)
                return self.read(session, ledger, key)[0]
            except (FatalConnectorError, RetriableError):
                # Another run inserted the row meanwhile, or wrote it after this transaction's snapshot was taken.
                if attempt == _ATTEMPTS - 1:
                    raise
                session.rollback()
                session.begin()
        raise AssertionError("the last attempt returns or raises")

    def record(self, session: Session, ledger: TableName, row: LedgerRow) -> None:
        """Update the row where it carries the token."""
        own, columns = _own(session), self._row(ledger)
        # The token too: some systems see a conflict only where two write the same columns.
        values: dict[str, Any] = {
            "token": row.token,
            "committed_at": datetime.now(UTC).isoformat(),
            "bookmark": state_text(row),
        }
        if row.completed_by is not None:
            values |= {"completed_by": row.completed_by, "rows": row.rows}
        mine = sa.and_(columns["id"] == _id(row.key), columns["token"] == row.token)
        try:
            changed = own.change(
                sa.update(columns["id"].table)
                .where(mine)
                .values({columns[name]: value for name, value in values.items()})
            )
            if changed < 0:
                changed = len(own.rows(sa.select(columns["id"]).where(mine)))
        except ConnectorError:
            session.rollback()
            session.begin()
            if not self._dialect.catalog.exists(session, ledger):
                raise TakenOver("the ledger is gone", stream=row.key.stream) from None
            raise
        if changed != 1:
            raise taken_over(row.key.stream)

    def hold(self, session: Session, ledger: TableName, key: LedgerKey, token: str) -> None:
        """Write the token again."""
        row = self._row(ledger)
        mine = sa.and_(row["id"] == _id(key), row["token"] == token)
        _own(session).change(sa.update(row["id"].table).where(mine).values({row["token"]: token}))
        self.check(session, ledger, key, token)

    def write_state(self, session: Session, ledger: TableName, row: LedgerRow) -> None:
        """Update one column."""
        columns = self._row(ledger)
        update = sa.update(columns["id"].table).where(columns["id"] == _id(row.key))
        _own(session).change(update.values({columns["bookmark"]: state_text(row)}))

    def set_bookmark(
        self, session: Session, ledger: TableName, key: LedgerKey, bookmark: Bookmark | None, *, forget: bool
    ) -> None:
        """Change the bookmark under a new token, or delete the row."""
        own, row = _own(session), self._row(ledger)
        if forget:
            own.change(sa.delete(row["id"].table).where(row["id"] == _id(key)))
            return
        found = self.take_over(session, ledger, key, token=secrets.token_hex(16), owner="set by hand", source=None)
        text = state_text(replace(found, bookmark=bookmark))
        changes = {row["bookmark"]: text} | ({row["rows"]: None} if bookmark is None else {})
        own.change(sa.update(row["id"].table).where(row["id"] == _id(key)).values(changes))

    def read(
        self,
        session: Session,
        ledger: TableName,
        key: LedgerKey | None = None,
        tables: Collection[str] = (),
        pipeline: str | None = None,
    ) -> list[LedgerRow]:
        """Return one row, or all rows, of a ledger that exists."""
        row = self._row(ledger)
        query = sa.select(*(row[name] for name in _COLUMNS))
        # Without a key all but the rows of locks.
        query = query.where(row["pipeline"].is_not(None) if key is None else row["id"] == _id(key))
        found = [row_of([_read(value) for value in row]) for row in _own(session).rows(query)]
        if pipeline is not None:  # not every system compares its texts
            found = [row for row in found if row.key.pipeline == pipeline]
        return sorted(found, key=lambda row: (row.key.pipeline, row.key.stream, row.key.destination_table))

    def _row(self, ledger: TableName) -> dict[str, Any]:
        kinds: Mapping[str, Any] = {name: sa.Text() for name in _TEXTS} | {"rows": sa.BigInteger()}
        names = self._naming.spelling
        columns: list[Any] = [
            sa.column(names.spell(name), kinds.get(name, sa.String(_SHORT.get(name)))) for name in ("id", *_COLUMNS)
        ]
        names.table(ledger, columns)
        return dict(zip(("id", *_COLUMNS), columns, strict=True))


def _id(key: LedgerKey) -> str:
    parts = json.dumps([key.pipeline, key.stream, key.destination_table])
    return hashlib.sha256(parts.encode()).hexdigest()


def _read(value: Any) -> Any:
    return value.read() if hasattr(value, "read") else value


def _own(session: Session) -> AlchemySession:
    return cast("AlchemySession", session)


__all__ = ["SQLAlchemyLedger"]
