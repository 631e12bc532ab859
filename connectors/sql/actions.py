"""Actions of a load plan: values that say what a dialect wants to run.

SQL is text and runs unchanged. Each other action is a class of this file. `Writes.perform` matches on the type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from .tables import StagingTable

#: One statement, or several.
Sql = str


class Reread(Struct, frozen=True):
    """Read the catalog again: this transaction is now the only writer, but may have read the catalog earlier."""


class TakeNamedLock(Struct, frozen=True):
    """Take a named lock until the end of the transaction (MySQL)."""

    name: str  # at most 64 characters
    timeout_s: int


class LockByRow(Struct, frozen=True):
    """Lock out our other loads of a table until the commit, by a row lock (SQLAlchemy)."""

    table: str  # its quoted name


class SwapAfterCommit(Struct, frozen=True):
    """Write in this transaction that a staging table will replace the target after the commit (MySQL)."""

    schema: str
    staging: str
    target: str


class LiftMemoryLimit(Struct, frozen=True):
    """Raise the memory limit of a connection for a merge (DuckDB)."""


Action = Sql | Reread | TakeNamedLock | LockByRow | SwapAfterCommit | LiftMemoryLimit

#: Write the statements that bring staged records into the target, or that follow them.
Statements = Callable[[StagingTable], Sequence[Action]]


def round_trips(actions: Iterable[Action], *, joins_statements: bool) -> list[Action]:
    """Return the actions as run: one by one, or all statements in one round trip."""
    listed = list(actions)
    texts = [each for each in listed if isinstance(each, str)]
    return ["; ".join(texts)] if joins_statements and texts and len(texts) == len(listed) else listed
