"""The ledger: one row for each pipeline, stream and destination table, written in the data's own transaction."""

from __future__ import annotations

import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from ..errors import FatalConnectorError, taken_over
from ..failpoints import failpoint
from ..stream import Bookmark, LedgerKey, LedgerRow
from ..struct_helpers import replace
from .dialect.dialect import Dialect
from .identifiers import LEDGER_TABLE, TableName
from .session import Session, SessionLease
from .tables import Column

T = TypeVar("T")

_KEY = ("pipeline", "stream", "destination_table")
#: In the JSON of `bookmark`: the rest are column names, beside the bookmark itself.
_NAMES = "_syncblocks_columns"
#: Beside it: `LedgerRow.history`, the time of the last comparison of keys, the columns to fill, `LedgerRow.log`, and
#: `LedgerRow.untyped`.
_HISTORY, _COMPARED, _FILLING, _LOG = "_syncblocks_history", "compared_at", "filling", "log"
_UNTYPED = "untyped"
_COLUMNS = (*_KEY, "source", "token", "owner", "bookmark", "completed_by", "rows", "committed_at")


class AbstractLedger(ABC):
    """Statements on `_syncblocks_ledger`; each runs in the session's transaction, and the caller ends it."""

    def table(self, target: TableName) -> TableName:
        """Return the ledger beside a destination table."""
        return TableName(target.schema, LEDGER_TABLE)

    @abstractmethod
    def create(self, session: Session, ledger: TableName) -> None:
        """Create the table if it is missing, with its schema if allowed; other processes may do so at the same time."""

    @abstractmethod
    def take_over(
        self, session: Session, ledger: TableName, key: LedgerKey, *, token: str, owner: str, source: str | None
    ) -> LedgerRow:
        """Write the token, after waiting for the row's lock; return the present row."""

    @abstractmethod
    def record(self, session: Session, ledger: TableName, row: LedgerRow) -> None:
        """Write the result of a commit into the row of this key and token.

        Source and owner stay as `take_over` wrote them. Without `completed_by`, `completed_by` and `rows` stay as well.

        Raises:
            TakenOver: the row has another token, or does not exist; the caller rolls back.
        """

    @abstractmethod
    def hold(self, session: Session, ledger: TableName, key: LedgerKey, token: str) -> None:
        """Lock the row with this token, so that no other process takes it over before the transaction ends.

        Raises:
            TakenOver: the row has another token, or does not exist; the caller rolls back.
        """

    @abstractmethod
    def set_bookmark(
        self, session: Session, ledger: TableName, key: LedgerKey, bookmark: Bookmark | None, *, forget: bool
    ) -> None:
        """Change the bookmark under a new token, or delete the row; without a bookmark `rows` becomes NULL."""

    @abstractmethod
    def write_state(self, session: Session, ledger: TableName, row: LedgerRow) -> None:
        """Write only the text of `state_text` into a row that this transaction has locked."""

    @abstractmethod
    def read(
        self,
        session: Session,
        ledger: TableName,
        key: LedgerKey | None = None,
        tables: Collection[str] = (),
        pipeline: str | None = None,
    ) -> list[LedgerRow]:
        """Return one row, or all rows, of a ledger that exists.

        Args:
            session: in its transaction.
            ledger: the table.
            key: of the one row.
            tables: values of `destination_table`, in any case; rows of other tables may be missing.
            pipeline: return only its rows; None: rows of all pipelines.
        """

    def check(self, session: Session, ledger: TableName, key: LedgerKey, token: str) -> None:
        """Check that the row is ours, before a commit that does not write it.

        Raises:
            TakenOver: it has another token, or does not exist; the caller rolls back.
        """
        rows = self.read(session, ledger, key)
        if [row.token for row in rows] != [token]:
            raise taken_over(key.stream, rows[0].owner if rows else "")


class Ledger(AbstractLedger):
    """A ledger whose primary key is three texts; an upsert takes over its rows."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._selected = dialect.naming.names(_COLUMNS)

    def create(self, session: Session, ledger: TableName) -> None:
        """Create missing schema and table; concurrent callers wait for each other."""
        dialect = self._dialect
        dialect.tables.lock_creation(session, ledger)
        dialect.tables.create_schema(session, ledger.schema)
        types = {"rows": dialect.facts.bigint_type, "committed_at": dialect.facts.timestamp_type}
        is_required = {*_KEY, "source", "token", "owner"}
        columns = [
            Column(name=name, type=types.get(name, dialect.facts.text_type), is_nullable=name not in is_required)
            for name in _COLUMNS
        ]
        session.execute(dialect.tables.create(ledger, columns, _KEY, if_not_exists=True))

    def take_over(
        self, session: Session, ledger: TableName, key: LedgerKey, *, token: str, owner: str, source: str | None
    ) -> LedgerRow:
        """Upsert the row."""
        # One statement: another process could act between an insert and an update. `source` None is passed as an empty
        # text, since not every driver can send an untyped NULL.
        table = self._dialect.naming.table(ledger)
        keeps = "excluded.source" if source is not None else f"{LEDGER_TABLE}.source"
        rows = session.query(
            f"insert into {table} ({self._dialect.naming.names((*_KEY, 'source', 'token', 'owner'))}) "
            f"values ($1, $2, $3, $4, $5, $6) on conflict ({self._dialect.naming.names(_KEY)}) do update set "
            f"source = {keeps}, token = excluded.token, owner = excluded.owner returning {self._selected}",
            (key.pipeline, key.stream, key.destination_table, source or "", token, owner),
        )
        return row_of(rows[0])

    def record(self, session: Session, ledger: TableName, row: LedgerRow) -> None:
        """Update the row where it carries the token."""
        quote = self._dialect.naming.quote
        values: list[Any] = [*_key(row.key), row.token]
        changes: dict[str, Any] = {"bookmark": state_text(row)}
        if row.completed_by is not None:
            changes |= {"completed_by": row.completed_by, "rows": row.rows}
        assignments = [f"{quote('committed_at')} = {self._dialect.facts.now}"]
        assignments += [f"{quote(name)} = {self._parameter(values, value)}" for name, value in changes.items()]
        changed = session.execute(
            f"update {self._dialect.naming.table(ledger)} set {', '.join(assignments)} "
            f"where {self._where()} and {quote('token')} = $4",
            values,
        )
        if changed != 1:
            raise taken_over(row.key.stream)

    def hold(self, session: Session, ledger: TableName, key: LedgerKey, token: str) -> None:
        """Write the owner again; some systems report such an update as no change."""
        owner, own_token = map(self._dialect.naming.quote, ("owner", "token"))
        session.execute(
            f"update {self._dialect.naming.table(ledger)} set {owner} = {owner} "
            f"where {self._where()} and {own_token} = $4",
            [*_key(key), token],
        )
        self.check(session, ledger, key, token)

    def write_state(self, session: Session, ledger: TableName, row: LedgerRow) -> None:
        """Update one column."""
        values: list[Any] = [*_key(row.key)]
        named, text = self._dialect.naming.quote("bookmark"), self._parameter(values, state_text(row))
        table = self._dialect.naming.table(ledger)
        session.execute(f"update {table} set {named} = {text} where {self._where()}", values)

    def set_bookmark(
        self, session: Session, ledger: TableName, key: LedgerKey, bookmark: Bookmark | None, *, forget: bool
    ) -> None:
        """Change the bookmark under a new token, or delete the row."""
        if forget:
            session.execute(f"delete from {self._dialect.naming.table(ledger)} where {self._where()}", _key(key))
            return
        token = secrets.token_hex(16)
        row = self.take_over(session, ledger, key, token=token, owner="set by hand", source=None)
        values: list[Any] = [*_key(key)]
        text = state_text(replace(row, bookmark=bookmark))
        named, number = map(self._dialect.naming.quote, ("bookmark", "rows"))
        forgets_rows = f", {number} = null" if bookmark is None else ""
        session.execute(
            f"update {self._dialect.naming.table(ledger)} "
            f"set {named} = {self._parameter(values, text)}{forgets_rows} where {self._where()}",
            values,
        )

    def read(
        self,
        session: Session,
        ledger: TableName,
        key: LedgerKey | None = None,
        tables: Collection[str] = (),
        pipeline: str | None = None,
    ) -> list[LedgerRow]:
        """Return one row, all rows, or rows of some tables or of a pipeline."""
        values: list[Any] = [*_key(key)] if key else []
        where = f" where {self._where()}" if key else ""
        if tables:
            column = self._dialect.naming.quote("destination_table")
            # Also the exact names: systems disagree about lower case beyond ASCII.
            exact = ", ".join(self._parameter(values, text) for text in sorted(tables))
            folded = ", ".join(self._parameter(values, text) for text in sorted({text.lower() for text in tables}))
            where = f" where ({column} in ({exact}) or lower({column}) in ({folded}))"
        if pipeline is not None:
            values, where = [pipeline], f" where {self._dialect.naming.quote('pipeline')} = $1"
        order = f" order by {self._dialect.naming.names(_KEY)}"
        sql = f"select {self._selected} from {self._dialect.naming.table(ledger)}{where}{order}"
        return [row_of(row) for row in session.query(sql, values)]

    def _where(self) -> str:
        return " and ".join(
            f"{self._dialect.naming.quote(name)} = ${place}" for place, name in enumerate(_KEY, start=1)
        )

    @staticmethod
    def _parameter(values: list[Any], value: Any) -> str:
        if value is None:
            return "null"
        values.append(value)
        return f"${len(values)}"


def commit(session: Session, dialect: Dialect) -> None:
    """Commit, with the failpoints before and after the commit."""
    failpoint(f"{dialect.name}.commit.inside")
    session.commit()
    failpoint(f"{dialect.name}.commit.after")


def alone(lease: SessionLease, dialect: Dialect, action: Callable[[Session], T]) -> T:
    """Run a repeatable action as one transaction, with the failpoints of a commit."""
    failpoint(f"{dialect.name}.commit.inside")
    done = lease.first(action)
    failpoint(f"{dialect.name}.commit.after")
    return done


def _key(key: LedgerKey) -> tuple[str, str, str]:
    return (key.pipeline, key.stream, key.destination_table)


def state_text(row: LedgerRow) -> str | None:
    """Return the text of the column `bookmark` of a row.

    The same JSON also has column names, the state of a history, the time of the last key comparison, columns to fill,
    the log, and the columns without a type. Ledgers of earlier versions have no columns for them, and the user may lack
    the privilege to add some.
    """
    more: dict[str, Any] = {_HISTORY: dict(row.history)} if row.history else {}
    if row.compared_at is not None:
        more[_COMPARED] = row.compared_at.isoformat()
    more |= {_FILLING: list(row.filling)} if row.filling else {}
    more |= {_LOG: dict(row.log)} if row.log else {}
    more |= {_UNTYPED: list(row.untyped)} if row.untyped else {}
    has_more = bool(row.columns or more)
    state = {_NAMES: dict(row.columns), **more, "bookmark": row.bookmark} if has_more else row.bookmark
    return None if state is None else json.dumps(state, ensure_ascii=False)


def row_of(row: Sequence[Any]) -> LedgerRow:
    """Create a ledger row from its columns, in order."""
    values = dict(zip(_COLUMNS, row, strict=True))
    bookmark = values["bookmark"]
    try:
        decoded = None if bookmark is None else json.loads(bookmark)
        columns, history, compared_at, filling, log, untyped = {}, {}, None, (), {}, ()
        if isinstance(decoded, dict) and _NAMES in decoded:
            history, filling = decoded.get(_HISTORY, {}), tuple(decoded.get(_FILLING, ()))
            untyped = tuple(decoded.get(_UNTYPED, ()))
            compared_at, log = _moment(decoded.get(_COMPARED)), decoded.get(_LOG, {})
            columns, decoded = decoded[_NAMES], decoded["bookmark"]
    except (ValueError, KeyError) as error:
        raise FatalConnectorError(
            f"the ledger's bookmark of stream {values['stream']!r} is damaged; replace it with `syncblocks state "
            "set` or `state reset`",
            stream=values["stream"],
        ) from error
    return LedgerRow(
        key=LedgerKey(
            pipeline=values["pipeline"], stream=values["stream"], destination_table=values["destination_table"]
        ),
        source=values["source"],
        token=values["token"],
        bookmark=decoded,
        completed_by=values["completed_by"],
        owner=values["owner"],
        rows=values["rows"],
        committed_at=_moment(values["committed_at"]),
        columns=columns,
        history=history,
        compared_at=compared_at,
        filling=filling,
        untyped=untyped,
        log=log,
    )


def _moment(value: Any) -> datetime | None:
    if value is None:
        return None
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


__all__ = ["AbstractLedger", "Ledger", "alone", "commit", "row_of", "state_text"]
