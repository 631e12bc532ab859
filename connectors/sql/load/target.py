"""The table that a load writes: locked, created, and fitted to the stream's columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...arrow.digits import MOST_EXACT
from ...errors import ConnectorError, FatalConnectorError, NoSuchTable, TableLost, UniqueViolated
from ...stream import Load, Trigger
from ...struct_helpers import replace
from ...write_spec import WriteDisposition
from ..actions import Action, round_trips
from ..dialect.dialect import Dialect
from ..identifiers import OWN_PREFIX, TableName, staging_name
from ..session import Session, SessionLease
from ..tables import Column, Table
from .nulls import Nulls


def limits(session: Session, dialect: Dialect, table: TableName, column: str) -> tuple[Any, Any] | None:
    """Return the least and the greatest value of a column. Return `None` if all its values are NULL."""
    name = dialect.naming.quote(column)
    ((least, greatest),) = session.query(f"select min({name}), max({name}) from {dialect.naming.table(table)}")
    return None if least is None else (least, greatest)


class TargetTable:
    """A load's table, over its lease; before each action it checks whether the load was interrupted."""

    def __init__(self, dialect: Dialect, name: TableName, lease: SessionLease, load: Load) -> None:
        self.name = name
        #: Changes since the last commit, in the form of `Commit.schema_changes`.
        self.changes: list[Mapping[str, Any]] = []
        #: Whether `Load.announce` was called with them.
        self.is_announced = False
        #: Columns that got a type with their first values.
        self.typed: set[str] = set()
        self.nulls = Nulls(name)
        self._dialect = dialect
        self._lease = lease
        self._load = load
        self._stream = load.stream.name
        #: The table as it was last read.
        self._seen: Table | None = None
        #: Identity of the table with the records of earlier commits (empty: unknown); None: no such commits.
        self._identity = load.begun_in

    @property
    def _session(self) -> Session:
        return self._lease.session

    def execute(self, actions: Iterable[Action]) -> None:
        """Run actions one by one, or all in one round trip."""
        for action in round_trips(actions, joins_statements=self._dialect.facts.joins_statements):
            self._lease.check()
            try:
                self._dialect.writes.perform(self._session, action)
            except FatalConnectorError as error:
                self._explain(error)
                raise

    def execute_counted(self, sql: str) -> int:
        """Run one statement that changes records; return how many, below 0 if the driver does not report it."""
        self._lease.check()
        try:
            return self._session.execute(sql)
        except FatalConnectorError as error:
            self._explain(error)
            raise

    def _explain(self, error: FatalConnectorError) -> None:
        """Name the trigger that failed; raise `TableLost` if the table no longer exists.

        Some systems lock a table only at the transaction's first statement on it.
        """
        if isinstance(error, NoSuchTable) and self._identity is not None and self._read() is None:
            raise self._lost("dropped") from error
        self.blame(error)

    def _lost(self, fate: str) -> TableLost:
        text = f"{self.name} was {fate} by another program since it was last written"
        return TableLost(text, stream=self._stream)

    def blame(self, error: ConnectorError) -> None:
        """Name the trigger that raised an error, or the record with a refused NULL, as far as known."""
        self.nulls.explain(error, staging_name(self._load.token))
        triggers = () if self._seen is None else self._seen.triggers
        raised_in = set(error.raised_in)
        found = [str(each) for each in triggers if raised_in.intersection(("*", each.function))]
        if found:
            word = "trigger" if len(found) == 1 else "one of the triggers"
            error.extended(after=f"; raised by {word} {', '.join(found)} of {self.name}")
            error.raised_in, error.is_of_trigger = (), True
        elif isinstance(error, UniqueViolated) and not error.is_of_trigger:
            self._blame_unique(error, triggers)

    def _blame_unique(self, error: UniqueViolated, triggers: Sequence[Trigger]) -> None:
        """Add that a trigger's table may have refused the record."""
        if error.table.casefold() == self.name.name.casefold() or error.table.startswith(OWN_PREFIX):
            return
        if error.table and triggers:
            said = f"it is of table {error.table}, written by a trigger of {self.name}: {', '.join(map(str, triggers))}"
        elif written := [each for each in triggers if each.writes]:
            found = [f"trigger {each} into {', '.join(each.writes)}" for each in written]
            said = f"the index belongs to {self.name}, or to a table that its triggers write: {'; '.join(found)}"
        else:
            return
        error.extended(after=f"; {said}")
        error.is_of_trigger = True

    def reflect(self) -> Table | None:
        """Read the catalog; None: there is no such table.

        Raises:
            FatalConnectorError: it is a view.
            TableLost: it is not the table of the earlier commits.
        """
        table = self._read()
        if self._identity is not None:
            identity = "" if table is None else self._dialect.catalog.identify(self._session, table)
            if table is None or self._identity not in ("", identity):
                raise self._lost("dropped" if table is None else "dropped and created again")
            self._identity = identity
        return table

    def _read(self) -> Table | None:
        table = self._seen = self._dialect.catalog.reflect(self._session, [self.name]).get(self.name)
        if table is not None and not table.is_table:
            raise FatalConnectorError(
                f"{self.name} is not a table, but a view or the like; choose another destination_table",
                stream=self._stream,
            )
        return table

    def lock(self, table: Table | None) -> Table | None:
        """Lock out other writers and read the catalog again; None: the table does not exist until the commit.

        Raises:
            FatalConnectorError: it cannot be written.
        """
        if table is None:
            self._dialect.tables.lock_creation(self._session, self.name)
            table = self.reflect()
            if table is None:
                return None
        if lock := self._dialect.tables.lock(self.name):
            self._dialect.writes.perform(self._session, lock)
            table = self.reflect()
        if table is not None and table.unfit:
            raise FatalConnectorError(f"{self.name} {table.unfit}", stream=self._stream)
        return table

    def create(self, columns: Sequence[Column], key: Sequence[str] = (), unique: Sequence[str] = ()) -> Table:
        """Create it where `lock` found none, with its primary key and any other unique columns.

        Raises:
            FatalConnectorError: the catalog does not show the new table.
        """
        self._session.execute(self._dialect.tables.create(self.name, columns, key))
        if unique and set(unique) != set(key) and (index := self._dialect.tables.unique_index(self.name, unique)):
            self._session.execute(index)
        table = self._read()
        if table is None:
            raise FatalConnectorError(f"{self.name} was created, but the catalog does not show it", stream=self._stream)
        return table

    def lock_late(self) -> None:
        """Lock out other merges just before the target is written, where `lock` did not."""
        if lock := self._dialect.tables.lock_late(self.name):
            self.execute([lock])

    def note_committed(self, records: int) -> None:
        """Expect this table in all further transactions."""
        if self._seen is not None:
            self._identity = self._seen.identity or self._identity or ""
        elif records:  # a staging table has become the target
            self._identity = ""

    def forget_changes(self) -> None:
        """Begin a transaction: former changes are committed or rolled back."""
        self.changes.clear()
        self.is_announced = False
        self.nulls.forget()

    def lacks(self, table: Table, columns: Sequence[Column]) -> bool:
        """Tell whether `evolve` would change anything."""
        for column in columns:
            held = table.column(column.name)
            if held is None or (not held.is_generated and self._wider(held.type, column) != held.type):
                return True
        return bool(self._relaxed(table, columns))

    @staticmethod
    def _relaxed(table: Table, columns: Sequence[Column]) -> list[Column]:
        """Return the NOT NULL columns of the table for which NULL, or no value, arrives."""
        arriving = {column.name: column for column in columns}
        return [
            held
            for held in table.needed()
            if held.name not in arriving or (arriving[held.name].is_relaxed and not arriving[held.name].is_key)
        ]

    def _wider(self, before: str, column: Column) -> str | None:
        """Return the type that holds the values of both.

        Not called for computed columns, which are never written.
        """
        if not column.is_key:
            types = self._dialect.types
            if self._gets_type(before, column):
                return column.type
            is_kept = self._load.write.disposition is not WriteDisposition.REPLACE
            wider = types.widen(before, column.type)  # in SQLite the empty text is a type
            if wider is None and column.becomes_text and types.text_of(before, "") is not None:
                return column.type
            return types.to_double(before, column.type) if wider is None and is_kept else wider
        return self._dialect.types.widen_key(before, column.type, len(self._load.stream.key_properties))

    def conflicts(self, table: Table, columns: Sequence[Column], key: Sequence[str]) -> bool:
        """Return whether `evolve` would fail: a column has an incompatible type, or the key differs.

        A primary key with columns that the stream does not have stays unchanged.
        """
        if set(table.key) != set(key) and table.key and set(table.key) <= {column.name for column in columns}:
            return True
        held = ((table.column(column.name), column) for column in columns)
        return any(
            found and not found.is_generated and self._wider(found.type, column) is None for found, column in held
        )

    def evolve(self, table: Table, columns: Sequence[Column]) -> Table:
        """Add missing columns, widen narrow columns, and drop NOT NULL where NULL arrives."""
        statements = []
        for column in columns:
            held = table.column(column.name)
            if held is None:
                # The existing records have no value for it.
                added = column if column.is_key else replace(column, is_nullable=True)
                statements.append(self._dialect.tables.add_column(table.name, added))
                self._note(column.name, "added", None, column.type)
                continue
            if held.is_generated:
                continue
            wider = self.widened(held.type, column)
            if wider != held.type:
                if self._gets_type(held.type, column):
                    self._demand_empty(table, held)
                    self.typed.add(held.name)
                    statements += self._dialect.tables.alter_type(table.name, replace(held, type=wider), "null")
                else:
                    self._demand_kept(table, held, wider)
                    statements += self.altered(table.name, held, wider)
                self._note(column.name, "widened", held.type, wider)
        freed = self._relaxed(table, columns)
        # Some systems refuse all further statements after a failed one.
        kept = ", ".join(self._dialect.catalog.dependents(self._session, table)) if freed else ""
        for held in freed:
            arriving = next((column for column in columns if column.name == held.name), None)
            kind = held.type if arriving is None else self.widened(held.type, arriving)
            statements += self._dialect.tables.relax(table.name, replace(held, type=kind))
            self._note(held.name, "nullable", f"{held.type} not null", kind)
        if statements and self._dialect.facts.alters_at_once:
            self.announce()
        self._alter(statements, kept)
        # Some systems give an altered table a new identity.
        return (self._read() or table) if statements else table

    def altered(self, name: TableName, held: Column, wider: str) -> Sequence[str]:
        """Return the statements that give a column of a table its wider type."""
        types, column = self._dialect.types, self._dialect.naming.quote(held.name)
        values = types.values_as(held.type, wider, column)
        if types.widen(held.type, wider) is None and types.to_double(held.type, wider) is None:
            values = types.text_of(held.type, column) or ""
        return self._dialect.tables.alter_type(name, replace(held, type=wider), values)

    def _gets_type(self, before: str, column: Column) -> bool:
        """Return true if a text column without a value gets the type of its first values."""
        types = self._dialect.types
        return column.first_values and types.is_text(before) and not types.is_text(column.type)

    def _demand_empty(self, table: Table, held: Column) -> None:
        """Refuse to change the type of a column that has values by now."""
        if limits(self._session, self._dialect, table.name, held.name) is not None:
            raise FatalConnectorError(
                f"column {held.name!r} of {self.name} got values from another program since the run was planned; run "
                "the stream again, which then writes texts",
                stream=self._stream,
            )

    def _demand_kept(self, table: Table, held: Column, wider: str) -> None:
        """Refuse a wider type that would change values or fire triggers.

        Doubles cannot hold large integers exactly. A system that cannot alter a type copies the column, which fires
        triggers.

        Raises:
            FatalConnectorError: a double cannot hold one of the integers, or the table has triggers.
        """
        is_held, past = self._dialect.types.widen(held.type, wider) is not None, None
        if is_held and self._dialect.facts.alters_types:
            return
        is_double = not is_held and self._dialect.types.to_double(held.type, wider) is not None
        if is_double:
            found = limits(self._session, self._dialect, table.name, held.name) or ()
            past = next((each for each in found if abs(int(each)) > MOST_EXACT), None)
        if past is not None:
            reason = f"contains {past}, which a double cannot hold exactly"
        elif table.triggers and not self._dialect.facts.alters_types:
            reason = "would be copied, which fires the table's triggers"
        else:
            return
        what = "numbers with fractions" if is_double else wider if is_held else "texts"
        raise FatalConnectorError(
            f"column {held.name!r} of {self.name} is {held.type} and gets {what}, but {reason}: {self._ways_out()}",
            stream=self._stream,
        )

    def announce(self) -> None:
        """Report changes that are committed before the checkpoint."""
        self._load.announce(None, tuple(self.changes))
        self.is_announced = True

    def _note(self, column: str, change: str, before: str | None, after: str | None) -> None:
        self.changes.append({"column": column, "change": change, "before": before, "after": after})

    def widened(self, before: str, column: Column) -> str:
        """Return the type that holds both the table's and the stream's values.

        Raises:
            FatalConnectorError: there is no such type.
        """
        wider = self._wider(before, column)
        if wider is None:
            raise FatalConnectorError(
                f"column {column.name!r} of {self.name} is {before}, but the stream now has {column.type}, and "
                f"neither type holds the other: {self._ways_out()}",
                stream=self._stream,
            )
        return wider

    def _ways_out(self) -> str:
        # For a replace into a table that stays; --full-refresh is a replace too, and would not help.
        disposition = self._load.write.disposition
        over = "--full-refresh" + (" --drop-history" if disposition is WriteDisposition.HISTORY else "")
        last = f"run once with `{over}`"
        if disposition is WriteDisposition.REPLACE:
            last = "drop what depends on the table, or the table"
        return f"change the column's type by hand, exclude it with `columns`, or {last}"

    def _alter(self, statements: Sequence[str], kept: str = "") -> None:
        """Run the statements of `evolve`; `kept`: objects that depend on the table, for messages.

        Raises:
            FatalConnectorError: an index, a view or the like refuses the change; names the columns.
        """
        try:
            self.execute(statements)
        except FatalConnectorError as error:
            changed = ", ".join(
                f"column {change['column']!r} from {change['before']} to {change['after']}"
                for change in self.changes
                if change["change"] == "widened"
            )
            freed = [change["column"] for change in self.changes if change["change"] == "nullable"]
            if not changed and freed:
                raise type(error)(
                    f"column {freed[0]!r} of {self.name} stays NOT NULL, but the stream's column may now be NULL: "
                    f"{error}. Drop {kept or 'the dependent objects'} (and create them again after the run), or "
                    "change the column by hand",
                    stream=self._stream,
                ) from error
            if not changed:
                raise
            raise type(error)(
                f"{self.name} does not allow wider types for {changed}: {error}; {self._ways_out()}",
                stream=self._stream,
            ) from error

    def note_replaced(self, table: Table, columns: Sequence[Column]) -> None:
        """Note how the new columns differ from those of the replaced table."""
        for column in columns:
            held = table.column(column.name)
            if held is None:
                self._note(column.name, "added", None, column.type)
            elif held.type != column.type:
                self._note(column.name, "retyped", held.type, column.type)
        arrived = {column.name for column in columns}
        for held in table.columns:
            if held.name not in arrived:
                self._note(held.name, "dropped", held.type, None)


__all__ = ["TargetTable"]
