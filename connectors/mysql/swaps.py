"""Swap a table for its staging table together with the ledger row, though RENAME TABLE is in no transaction.

The transaction that records a load's end in the ledger also writes a note here: the staging table takes the target's
place. After the commit, one statement renames the tables, and the note is deleted. The commit decides: from then on the
staged records are the table's. Every takeover of a stream carries out the notes that it finds.

Several processes may do so at once, and late:
- Only the commit of a valid token writes a note. `take_over` waits for a running commit by the ledger row's lock,
  writes its token, and then reads the notes. So it finds the notes of every commit before it.
- The name of a staging table is used once. One process renames it; for any other process the table is not there, and
  nothing changes, however late that process is.
- After a crash the note is still there (the next takeover carries it out), or it is deleted (all is done).
- The server may refuse to drop the replaced table: a table that the user may not see has a foreign key to it. Then the
  replaced table stays under another name; the note is deleted, so that no load waits for it.
"""

from __future__ import annotations

import logging
from typing import Protocol

from ..errors import ConnectorError, RetriableError
from ..failpoints import failpoint
from ..sql.identifiers import TableName, literal, quote
from .failures import REFERENCED, errno

log = logging.getLogger("syncblocks")

#: Notes, beside the ledger.
SWAPS_TABLE = "_syncblocks_swaps"

#: What a table of ours is made of, whatever the server's defaults: it takes part in transactions; its key may be long.
OPTIONS = "engine InnoDB row_format dynamic character set utf8mb4"

#: Behind a staging table's name, for the table that it replaced, until that is dropped.
_ASIDE = "_o"

_ATTEMPTS = 20

_KEPT = (
    "%(table)s is replaced, but its former table is kept as %(kept)s: a table that this user may not see has a foreign "
    "key to it (%(error)s). The key went with the former table, and checks against the records in there. Let somebody "
    "who sees it drop the key, drop %(kept)s, and add the key again to %(table)s; grant this user SELECT on the table "
    "of the key, and from then on a replace leaves %(table)s where it is and changes its records"
)


class Renamer(Protocol):
    """The part of a session that this takes."""

    def query(self, sql: str) -> list[tuple[object, ...]]:
        """Return all rows."""
        ...

    def run_alone(self, sql: str) -> None:
        """Run a statement that commits by itself."""
        ...


def table(schema: str) -> TableName:
    """Return the table of notes of a schema."""
    return TableName(schema, SWAPS_TABLE)


def create(schema: str) -> str:
    """Write CREATE for the table of notes."""
    columns = "staging varchar(64) not null primary key, target varchar(64) not null"
    return f"create table if not exists {_name(schema, SWAPS_TABLE)} ({columns}) {OPTIONS} collate utf8mb4_bin"


def note(schema: str, staging: str, target: str) -> str:
    """Write the statement that makes the note."""
    return f"insert into {_name(schema, SWAPS_TABLE)} values ({literal(staging)}, {literal(target)})"


def pending(session: Renamer, schema: str) -> list[tuple[str, str]]:
    """Return the notes of a schema: staging table and target."""
    if not _exists(session, schema, SWAPS_TABLE):
        return []
    rows = session.query(f"select staging, target from {_name(schema, SWAPS_TABLE)} order by staging")
    return [(str(staging), str(target)) for staging, target in rows]


def finish(session: Renamer, schema: str, staging: str, target: str) -> None:
    """Carry out a note; no effect where others did."""
    aside = staging + _ASIDE
    failpoint("mysql.swap.before")
    for _ in range(_ATTEMPTS):
        if not _exists(session, schema, staging):
            break
        pairs = [(staging, target)]
        if _exists(session, schema, target):
            pairs.insert(0, (target, aside))
        renamed = ", ".join(f"{_name(schema, before)} to {_name(schema, after)}" for before, after in pairs)
        try:
            session.run_alone(f"rename table {renamed}")
        except RetriableError:
            raise
        except ConnectorError:
            # Somebody else was faster, or made or dropped the target: look again.
            if _exists(session, schema, staging) and _exists(session, schema, target) == (len(pairs) == 2):
                raise
    else:
        raise RetriableError(
            f"{schema}.{target} could not be replaced: other sessions keep renaming it", connector="mysql"
        )
    failpoint("mysql.swap.inside")
    _drop(session, schema, aside, target)
    session.run_alone(f"delete from {_name(schema, SWAPS_TABLE)} where staging = {literal(staging)}")
    failpoint("mysql.swap.after")


def _drop(session: Renamer, schema: str, aside: str, target: str) -> None:
    """Drop a table that was replaced, or say why it stays and what becomes of the foreign keys that point at it."""
    try:
        session.run_alone(f"drop table if exists {_name(schema, aside)}")
    except ConnectorError as error:
        if errno(error.__cause__ or error) not in REFERENCED:
            raise
        log.warning(_KEPT, {"table": f"{schema}.{target}", "kept": f"{schema}.{aside}", "error": error})


def _exists(session: Renamer, schema: str, name: str) -> bool:
    sql = (
        "select 1 from information_schema.tables "
        f"where table_schema = {literal(schema)} and table_name = {literal(name)}"
    )
    return bool(session.query(sql))


def _name(schema: str, name: str) -> str:
    return f"{quote(schema, 'mysql')}.{quote(name, 'mysql')}"


__all__ = ["SWAPS_TABLE", "create", "finish", "note", "pending", "table"]
