"""HISTORY in SQL: finds staged records that are new versions, and rows that they close.

Each statement reads a working table once: some systems cannot open a temporary table twice in one statement.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from ..actions import Action
from ..dialect.dialect import Dialect
from ..identifiers import HISTORY_SUFFIX, RANK, SEQUENCE, TableName
from ..tables import Column, StagingTable, Table

#: Meaning of the column `RANK` of a working table: the record may follow the current version, comes
#: before it, shares key and time with a row of the table, or is the current row itself.
_NEXT, _LATE, _SAME, _CURRENT = 0, 1, 2, 3

#: Number of the working table in which records are found by `SEQUENCE`.
_BY_NUMBER = 3

#: Columns of derived tables only.
_RUN, _CLOSED, _SAID = "_syncblocks_run", "_syncblocks_closed", "_syncblocks_said"


class HistoryTypes(Struct, frozen=True, kw_only=True):
    """The columns of a history, with the types of its table."""

    #: The key; the table has several versions of each record.
    key: Sequence[Column]
    valid_from: Column
    valid_to: Column
    #: Columns whose difference starts a new version, and columns that are updated in place.
    compared: Sequence[Column]
    in_place: Sequence[Column]
    #: Columns of `in_place` that keep the value of the first record.
    kept: Sequence[Column]
    #: Columns of the bookmark, if records below the current row's bookmark are skipped.
    bookmark: Sequence[Column]
    #: Column that gives each record its time.
    time: Column | None = None
    #: Whether a version may have ended without a successor.
    has_ends: bool = False

    @property
    def all(self) -> list[Column]:
        """Every column to write."""
        return [*self.key, *self.compared, *self.in_place, self.valid_from, self.valid_to]

    @property
    def updated(self) -> list[Column]:
        """The columns that an update in place writes."""
        return [*self.compared, *self.renewed]

    @property
    def respelled(self) -> list[Column]:
        """Key columns whose equal values can be spelled differently: the current row gets the latest spelling."""
        return [column for column in self.key if column.is_folded]

    @property
    def renewed(self) -> list[Column]:
        """The columns that are updated within a version, without starting a new one."""
        return [column for column in self.in_place if column not in self.kept]


class HistoryStatements:
    """Writes the statements that bring staged records into a history."""

    def __init__(self, dialect: Dialect, target: Table, staged: StagingTable, versions: HistoryTypes) -> None:
        self._dialect = dialect
        self._target = target
        self._staged = staged
        self._versions = versions
        self._quote, self._table = dialect.naming.quote, dialect.naming.table
        self._into_target = self._table(target.name)
        self._same = dialect.writes.same_key(versions.key)
        self._from, self._to = self._quote(versions.valid_from.name), self._quote(versions.valid_to.name)
        self._number, self._rank = self._quote(SEQUENCE), self._quote(RANK)
        self._first_key = self._quote(versions.key[0].name)

    # ------------------------------------------------------------------ one time for each run
    def prepared(self, *, is_of_records: bool) -> list[str]:
        """Write CREATE for the working tables, for systems that must create them before the load."""
        if self._dialect.facts.makes_in_transaction:
            return []
        numbers = (1, 9, 2, 3, 4, 5) if is_of_records else (1,)
        numbers = (*numbers, 6) if self._versions.has_ends else numbers
        tables = [self._working(number) for number in numbers]
        indexes = [self._dialect.tables.index_staging(name, self._versions.key) for name in tables]
        return [*map(self._create, tables), *filter(None, indexes)]

    def of_run(self, source: TableName) -> list[Action]:
        """Write the statements for records that share the run's time; the last record of a key counts."""
        versions, writes = self._versions, self._dialect.writes
        found = self._working(1)
        is_new, differs = f"t.{self._first_key} is null", writes.changed(versions.compared)
        is_other = f"{is_new} or {differs} or {writes.changed([*versions.renewed, *versions.respelled])}"
        kind = (
            f"case when {is_new} then {_NEXT} when ({differs}) and t.{self._from} < s.{self._from} then {_NEXT} "
            f"else {_SAME} end"
        )
        current = f"{self._same} and t.{self._to} is null"
        follows = f"s.{self._rank} = {_NEXT}"
        return [
            *writes.before_merge(),
            *self._reopened(source),
            *self._made(found),
            f"{self._insert(found)} select {self._listed('s.')}, s.{self._number}, {kind} "
            f"from {self._last(source, [*versions.key])} s left join {self._into_target} t on {current} "
            f"where {is_other}",
            *self._carried(found),
            *self._updated([*versions.respelled, *versions.updated], found, f"{current} and s.{self._rank} = {_SAME}"),
            writes.update_from(
                self._target, found, {versions.valid_to.name: f"s.{self._from}"}, f"{current} and {follows}"
            ),
            f"{self._insert_target()} select {self._listed('s.')} from {self._table(found)} s where {follows}",
            self._dialect.tables.drop(found),
        ]

    def of_first_run(self, source: TableName) -> list[Action]:
        """Write the statements for records that share the run's time, into an empty table."""
        last = self._last(source, [*self._versions.key], is_first=True)
        return [
            *self._dialect.writes.before_merge(),
            f"{self._insert_target()} select {self._listed('s.')} from {last} s",
        ]

    # --------------------------------------------------------------- one time for each record
    def of_records(self, source: TableName) -> list[Action]:
        """Write the statements for records that each have their own time; each record is a version."""
        versions, writes = self._versions, self._dialect.writes
        found, chain, one, two, heads, ends = map(self._working, (1, 9, 2, 3, 4, 5))
        current = f"{self._same} and t.{self._to} is null"
        at_once = f"{self._same} and t.{self._from} = s.{self._from}"
        is_new = f"t.{self._first_key} is null"
        is_next = f"s.{self._rank} = {_NEXT}"
        return [
            *writes.before_merge(),
            *self._reopened(source, is_kept=True),
            *self._made(found, chain, one, two, heads, ends),
            # Of equal times the last record wins; a row of the table with that time is not compared.
            f"{self._insert(found)} select {self._listed('s.')}, s.{self._number}, "
            f"case when {is_new} then {_NEXT} else {_SAME} end "
            f"from {self._last(source, [*versions.key, versions.valid_from], has_times=True)} s "
            f"left join {self._into_target} t on {at_once} where {is_new} or {writes.changed(versions.updated)}",
            *self._updated(versions.updated, found, f"{at_once} and s.{self._rank} = {_SAME}"),
            *self._carried(found),
            writes.update_staged(
                found, self._target, {RANK: str(_LATE)}, f"{current} and {is_next} and s.{self._from} < t.{self._from}"
            ),
            *self._chain(chain, found),
            *(self._placed(each, chain) for each in (one, two)),
            self._heads(heads, one, two),
            *self._updated(
                versions.renewed,
                heads,
                f"{current} and s.{self._rank} = {_CURRENT}",
            ),
            f"{self._insert(heads)} select {self._listed('s.')}, s.{self._number}, s.{self._rank} "
            f"from {self._table(found)} s where s.{self._rank} = {_LATE}",
            self._ends(ends, heads),
            self._insert_versions(heads),
            writes.update_from(
                self._target,
                ends,
                {versions.valid_to.name: f"s.{self._from}"},
                f"{self._same} and t.{self._from} = s.{self._to}",
            ),
            *map(
                self._dialect.tables.drop,
                (found, chain, one, two, heads, ends, *([self._raised] if versions.has_ends else [])),
            ),
        ]

    def _chain(self, chain: TableName, found: TableName) -> list[str]:
        """Write the statement that collects the current row and the versions that may follow it."""
        source, is_next = self._table(found), f"s.{self._rank} = {_NEXT}"
        # A join starts from the few keys and uses the table's index; some systems run `exists` the other way round.
        keys = f"(select distinct {self._names(self._versions.key, 's.')} from {source} s where {is_next})"
        return [
            f"{self._insert(chain)} select {self._listed('s.')}, 0, {_NEXT} from {source} s where {is_next}",
            f"{self._insert(chain)} select {self._listed('t.')}, 0, {_CURRENT} "
            f"from {keys} s join {self._into_target} t on {self._same} and t.{self._to} is null",
        ]

    def _placed(self, placed: TableName, chain: TableName) -> str:
        """Write the statement that numbers the versions within each key."""
        order = f"row_number() over (order by {self._names(self._versions.key)}, {self._from})"
        return f"{self._insert(placed)} select {self._listed()}, {order}, {self._rank} from {self._table(chain)}"

    def _heads(self, heads: TableName, one: TableName, two: TableName) -> str:
        """Write the statement that keeps versions that differ from their predecessor.

        Updates in place use the last equal one.
        """
        versions, keys = self._versions, self._names(self._versions.key)
        differs = self._dialect.writes.changed(versions.compared)
        is_head = f"case when t.{self._first_key} is null or {differs} then 1 else 0 end as {self._quote(_CLOSED)}"
        marked = (
            f"(select {self._listed('s.')}, s.{self._number}, s.{self._rank}, {is_head} "
            f"from {self._table(one)} s left join {self._table(two)} t "
            f"on t.{self._number} = s.{self._number} - 1 and {self._same})"
        )
        run, closed = self._quote(_RUN), self._quote(_CLOSED)
        heads_so_far = f"sum({closed}) over (partition by {keys} order by {self._number})"
        counted = f"(select m.*, {heads_so_far} as {run} from {marked} m)"
        window = f"over (partition by {keys}, {run} order by {self._number} desc)"
        last = {column.name for column in versions.renewed}
        listed = ", ".join(
            f"first_value({self._quote(column.name)}) {window} as {self._quote(column.name)}"
            if column.name in last
            else self._quote(column.name)
            for column in versions.all
        )
        whole = f"(select {listed}, {self._number}, {self._rank}, {closed} from {counted} c)"
        return (
            f"{self._insert(heads)} select {self._listed('s.')}, s.{self._number}, s.{self._rank} from {whole} s "
            f"where s.{closed} = 1"
        )

    def _ends(self, ends: TableName, heads: TableName) -> str:
        """Write the statement that finds the rows that new versions close; `valid_to` holds the new begin."""
        keys = self._names(self._versions.key, "s.")
        names = ", ".join([self._names(self._versions.key), self._from, self._to])
        return (
            f"insert into {self._table(ends)} ({names}) select {keys}, min(s.{self._from}), t.{self._from} "
            f"from {self._table(heads)} s join {self._into_target} t on {self._same} "
            f"and t.{self._from} < s.{self._from} and (t.{self._to} is null or t.{self._to} > s.{self._from}) "
            f"where s.{self._rank} <> {_CURRENT} group by {keys}, t.{self._from}"
        )

    def _insert_versions(self, heads: TableName) -> str:
        """Write INSERT of new versions; each ends where the next begins, or where the row that it splits ended."""
        versions, run = self._versions, self._quote(_RUN)
        begun = [column for column in versions.all if column is not versions.valid_to]
        following = f"lead({self._from}) over (partition by {self._names(versions.key)} order by {self._from})"
        new = (
            f"(select {self._names(begun)}, {following} as {self._to} from {self._table(heads)} "
            f"where {self._rank} <> {_CURRENT})"
        )
        held = (
            f"(select min(case when t.{self._from} > s.{self._from} then t.{self._from} "
            f"when t.{self._to} > s.{self._from} then t.{self._to} end) "
            f"from {self._into_target} t where {self._same})"
        )
        bounded = f"(select {self._listed('s.')}, {held} as {run} from {new} s)"
        end = f"case when b.{self._to} is null or b.{run} < b.{self._to} then b.{run} else b.{self._to} end"
        return f"{self._insert_target(begun)} select {self._names(begun, 'b.')}, {end} from {bounded} b"

    # --------------------------------------------------------------- after versions that have ended
    def _reopened(self, source: TableName, *, is_kept: bool = False) -> list[Action]:
        """Write the statement that finds records to begin later than their own time, and reopens empty versions.

        A key without a current version is back: its version begins when the last one ended, if that is later. A newer
        record with a time before that begin replaces the version that began there.
        """
        versions, raised = self._versions, self._raised
        if not versions.has_ends:
            return []
        keys, begun, ended = self._names(versions.key, "s."), f"s.{self._from}", f"max(t.{self._to})"
        is_gone = f"count(*) = count(t.{self._to})"
        newer = ""
        if versions.time is not None:
            time = self._quote(versions.time.name)
            newer = f"max(case when t.{self._from} > {begun} and t.{time} <= s.{time} then t.{self._from} end)"
        otherwise, or_newer = (f" else {newer}", f" or {newer} is not null") if newer else ("", "")
        names = ", ".join([self._names(versions.key), self._from, self._to, self._number, self._rank])
        return [
            *self._made(raised),
            f"insert into {self._table(raised)} ({names}) select {keys}, {begun}, "
            f"case when {is_gone} then {ended}{otherwise} end, 0, case when {is_gone} then {_SAME} else {_LATE} end "
            f"from {self._cast(source)} s join {self._into_target} t on {self._same} group by {keys}, {begun} "
            f"having ({is_gone} and {ended} >= {begun}){or_newer}",
            self._dialect.writes.update_from(
                self._target,
                raised,
                {versions.valid_to.name: "null"},
                f"{self._same} and s.{self._rank} = {_SAME} and t.{self._from} = s.{self._to} "
                f"and t.{self._to} = s.{self._to}",
            ),
            *([] if is_kept else [self._dialect.tables.drop(raised)]),
        ]

    # ---------------------------------------------------------------------------- parts
    @property
    def _raised(self) -> TableName:
        return self._working(6)

    def _cast(self, source: TableName) -> str:
        """Write a derived table of all staged records, numbered, with the table's types."""
        return f"(select {self._cast_values()}, s.{self._number} from {self._table(source)} s)"

    def _cast_values(self) -> str:
        staged, cast = self._staged.types, self._dialect.writes.cast
        return ", ".join(
            f"{cast(f's.{self._quote(column.name)}', column.type, staged[column.name])} as {self._quote(column.name)}"
            for column in self._versions.all
        )

    def _working(self, number: int) -> TableName:
        name = self._staged.name
        return TableName(name.schema, f"{name.name}{HISTORY_SUFFIX}{number}")

    def _made(self, *tables: TableName) -> list[str]:
        """Write the statements that create working tables, or that empty the tables of `prepared`.

        A rolled back attempt may have left them.
        """
        if not self._dialect.facts.makes_in_transaction:
            return [f"delete from {self._table(name)}" for name in tables]
        return [statement for name in tables for statement in (self._dialect.tables.drop(name), self._create(name))]

    def _create(self, name: TableName) -> str:
        numbers = [Column(name=name, type=self._dialect.facts.bigint_type) for name in (SEQUENCE, RANK)]
        columns = [Column(name=column.name, type=column.type) for column in self._versions.all]
        return self._dialect.tables.create_working(
            name, [*columns, *numbers], SEQUENCE if name == self._working(_BY_NUMBER) else ""
        )

    def _last(
        self, source: TableName, key: Sequence[Column], *, is_first: bool = False, has_times: bool = False
    ) -> str:
        """Write a derived table of the last staged record of each key, with the table's types.

        Outdated records are left out.
        """
        names, types, number = [column.name for column in key], self._staged.types, self._number
        below = "" if is_first else self._is_below_bookmark()
        is_raised = has_times and self._versions.has_ends
        if not below and not is_raised and all(types[column.name] == column.type for column in key):
            latest = self._dialect.writes.latest(source, names)
            return f"(select {self._cast_values()}, s.{number} from {latest} s)"
        # '1.0' and '1' are one number: keys that came as texts are compared in the table's types.
        order, whole = f"{number} desc", self._cast(source)
        if below:
            whole = (
                f"(select {self._listed('s.')}, s.{number} from {whole} s left join {self._into_target} t "
                f"on {self._same} and t.{self._to} is null where t.{self._first_key} is null or not ({below}))"
            )
        if is_raised:  # of records with the same begin the newest counts
            said = self._quote(_SAID)
            later = f"case when t.{self._to} is null then s.{self._from} else t.{self._to} end as {self._from}"
            others = self._names(
                [column for column in self._versions.all if column is not self._versions.valid_from], "s."
            )
            order = f"{said} desc, {order}"
            whole = (
                f"(select {others}, {later}, s.{self._from} as {said}, s.{number} from {whole} s "
                f"left join {self._table(self._raised)} t on {self._same} and t.{self._from} = s.{self._from})"
            )
        place = f"row_number() over (partition by {self._names(key)} order by {order}) as {self._rank}"
        ranked = f"(select {self._listed()}, {number}, {place} from {whole} w)"
        return f"(select {self._listed()}, {number} from {ranked} r where {self._rank} = 1)"

    def _is_below_bookmark(self) -> str:
        """Write the condition that a record's bookmark is below the current row's; empty: no record is outdated."""
        condition = ""
        for column in reversed(self._versions.bookmark):
            held, arriving = f"t.{self._quote(column.name)}", f"s.{self._quote(column.name)}"
            further = f" or ({arriving} = {held} and ({condition}))" if condition else ""
            condition = f"{arriving} < {held}{further}"
        return f"case when {condition} then 1 else 0 end = 1" if condition else ""

    def _carried(self, found: TableName) -> list[str]:
        """Write the statement that gives new versions the values that never change after the first record."""
        values = {column.name: f"t.{self._quote(column.name)}" for column in self._versions.kept}
        current = f"{self._same} and t.{self._to} is null"
        return [self._dialect.writes.update_staged(found, self._target, values, current)] if values else []

    def _updated(self, columns: Sequence[Column], found: TableName, condition: str) -> list[str]:
        values = {column.name: f"s.{self._quote(column.name)}" for column in columns}
        return [self._dialect.writes.update_from(self._target, found, values, condition)] if values else []

    def _names(self, columns: Sequence[Column], prefix: str = "") -> str:
        return self._dialect.naming.names([column.name for column in columns], prefix)

    def _listed(self, prefix: str = "") -> str:
        return self._names(self._versions.all, prefix)

    def _insert(self, table: TableName) -> str:
        return f"insert into {self._table(table)} ({self._listed()}, {self._number}, {self._rank})"

    def _insert_target(self, begun: Sequence[Column] = ()) -> str:
        """Write INSERT into the history; `begun`: its columns, with the version's end last."""
        columns = [*begun, self._versions.valid_to] if begun else self._versions.all
        return f"insert into {self._into_target} ({self._names(columns)})"


__all__ = ["HistoryStatements", "HistoryTypes"]
