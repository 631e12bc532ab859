"""Actions of a load plan: what a dialect wants done, as values.

SQL is text and runs as it stands. Each other action is a class of this file. `Writes.perform` matches on the type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from .tables import StagingTable

#: One statement, or several.
Sql = str


class Reread(Struct, frozen=True):
    """Read the catalog again: this transaction is the only writer by now, but may have read the catalog before."""


class TakeNamedLock(Struct, frozen=True):
    """Take a named lock until the end of the transaction (MySQL)."""

    name: str  # at most 64 characters
    timeout_s: int


class LockByRow(Struct, frozen=True):
    """Shut out our other loads of a table until the commit, by the lock on a row (SQLAlchemy)."""

    table: str  # its quoted name


class SwapAfterCommit(Struct, frozen=True):
    """Write a note in this transaction that a staging table replaces the target after the commit (MySQL)."""

    schema: str
    staging: str
    target: str


class LiftMemoryLimit(Struct, frozen=True):
    """Allow a merge more memory than a connection has at first (DuckDB)."""


Action = Sql | Reread | TakeNamedLock | LockByRow | SwapAfterCommit | LiftMemoryLimit

#: Write what brings the records of a staging table into the target, or what follows it there.
Statements = Callable[[StagingTable], Sequence[Action]]


def round_trips(actions: Iterable[Action], *, joins_statements: bool) -> list[Action]:
    """Return the actions as they are run: one by one, or all statements in one round trip."""
    listed = list(actions)
    texts = [each for each in listed if isinstance(each, str)]
    return ["; ".join(texts)] if joins_statements and texts and len(texts) == len(listed) else listed
