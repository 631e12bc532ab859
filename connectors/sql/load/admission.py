"""How staged records get into a load's target: all, or those that it takes where bad ones are set aside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...errors import FatalConnectorError
from ...stream import ConflictMethod, Load, WriteDisposition
from ..dialect.dialect import Dialect
from ..identifiers import TableName
from ..ledger import Ledger
from ..session import Lease
from ..tables import Column, Table
from .ascending import Ascent
from .moving import Moving
from .refused import Statements, attempt
from .rejected import SqlRejections
from .target import Target


class Admission:
    """Brings one load's staged records in; its methods return how many were set aside instead."""

    def __init__(
        self, dialect: Dialect, load: Load, target: Target, lease: Lease, rejections: SqlRejections | None
    ) -> None:
        self._dialect = dialect
        self._load = load
        self._target = target
        self._lease = lease
        self._rejections = rejections
        self._is_merge = load.write_disposition is WriteDisposition.MERGE
        self._is_replace = load.write_disposition is WriteDisposition.REPLACE
        is_watched = self._is_replace and not dialect.facts.keys_replacements
        #: Watches the keys of what is staged, where no index will; None: one does.
        self.ascent = Ascent(load.stream.key_properties) if is_watched else None

    def bring_in(
        self,
        table: Table,
        staging: TableName,
        types: Mapping[str, str],
        names: Mapping[str, str],
        into: Sequence[Column],
        statements: Statements,
        *,
        key: Sequence[str],
        is_numbered: bool,
        before: Sequence[str] = (),
    ) -> int:
        """Bring the staged records into a table that is there, and drop the staging table.

        Args:
            table: the target as it stands now.
            staging: table that holds the records.
            types: its columns.
            names: column of the stream -> column of the table.
            into: the target's columns that are staged.
            statements: bring the records of a staging table in.
            key: of a merge, or of a replacement in place.
            is_numbered: the staging table has `SEQUENCE`.
            before: what is done first.
        """
        dialect, rejections, drop = self._dialect, self._rejections, self._dialect.tables.drop(staging)
        if key and (lock := dialect.tables.lock_late(table.name)):
            self._target.run([lock])
        if self._is_merge:
            dialect.writes.refuse_equal_keys(self._lease.session, table, staging, into, key)
        if rejections is None or not dialect.facts.has_savepoints:
            refused = 0
            if rejections is not None:
                method, is_emptied = self._load.conflict_method, self._is_replace and not key
                misfits = dialect.writes.violations(
                    self._lease.session,
                    table,
                    staging,
                    into,
                    types,
                    key,
                    method,
                    is_emptied=is_emptied,
                    is_numbered=is_numbered,
                )
                refused = rejections.reject(staging, types, names, misfits)
            # Where some were set aside, the others stand where they stood only if they have numbers.
            if self._is_replace or (refused and not is_numbered):
                is_moved = False
            else:
                is_moved = self._move(table, staging, types, into, statements, key)
            self._target.run([drop] if is_moved else [*before, *statements(staging), drop])
            return refused
        self._target.run(before)
        is_downwards = self._is_merge and self._load.conflict_method is ConflictMethod.IGNORE
        refused = rejections.admit(
            staging, types, names, statements, key=key, is_numbered=is_numbered, is_downwards=is_downwards
        )
        self._target.run([drop])
        return refused

    def _move(
        self,
        table: Table,
        staging: TableName,
        types: Mapping[str, str],
        into: Sequence[Column],
        statements: Statements,
        key: Sequence[str],
    ) -> bool:
        """Bring in what is too much for one transaction; False: it is not. Nobody else writes until the commit."""
        session, load = self._lease.session, self._load
        if not isinstance(self._dialect.writes, Moving) or not self._dialect.writes.moves(session, table, staging, key):
            return False
        ledger = Ledger(self._dialect)
        ledger.check(session, ledger.table(self._target.name), load.key, load.token)
        if self._target.changes and not self._target.is_announced:
            self._target.announce()
        self._dialect.writes.move(session, table, staging, into, types, key, statements, self._target.run)
        return True

    def swap(
        self,
        statements: Sequence[str],
        staging: TableName,
        types: Mapping[str, str],
        names: Mapping[str, str],
        key: Sequence[str],
    ) -> int:
        """Let a staging table take the target's place, with a key that no two of its records have."""
        if not self._dialect.facts.keys_replacements:
            refused = self.refuse_repeated(staging, types, names, key)
            self._target.run(statements)
            return refused
        if self._rejections is None or not self._dialect.facts.arrival:
            self._target.run(statements)
            return 0
        if attempt(self._dialect, self._lease, lambda: self._target.run(statements)) is None:
            return 0
        refused = self.refuse_repeated(staging, types, names, key)
        self._target.run(statements)
        return refused

    def refuse_repeated(
        self, staging: TableName, types: Mapping[str, str], names: Mapping[str, str], key: Sequence[str]
    ) -> int:
        """Leave no two staged records of one key where no index sees to it.

        Raises:
            FatalConnectorError: there are such records, and the stream does not set them aside.
        """
        if not key or (self.ascent is not None and self.ascent.is_strict):
            return 0
        if self._rejections is not None and self._dialect.facts.arrival:
            reason = f"another record has the same key ({', '.join(key)})"
            return self._rejections.reject(
                staging, types, names, [(self._dialect.writes.repeated(staging, key), reason)]
            )
        found = self._lease.session.query(self._dialect.writes.repeated_key(staging, key))
        if found:
            shown = ", ".join(f"{name} = {value!r}" for name, value in zip(key, found[0], strict=True))
            raise FatalConnectorError(
                f"several records have the same key ({shown}): choose other key_properties, or write_disposition merge",
                stream=self._load.stream.name,
            )
        return 0


__all__ = ["Admission"]
