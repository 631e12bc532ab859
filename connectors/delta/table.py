"""One Delta table: what it is, and how a commit carries a ledger row with it.

A commit is made on the version of the table that was looked at, or not at all: any other commit in between is a
conflict, after which the ledger is read again. So is a commit whose answer was lost: the ledger says whether it landed.
"""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from msgspec import Struct

from ..errors import RetriableError
from ..failpoints import failpoint
from ..field_facts import with_facts
from ..stream import LedgerKey, LedgerRow, TableState
from ..struct_helpers import replace
from ..write_spec import WriteDisposition
from .ledger import OURS, Held, app_id, decoded, encoded, is_app_id, next_number, row_file
from .storage import FULL, Root, TableFolder, is_refusal, said, translated
from .types import KNOWS_NAIVE, MAY_WIDEN, has_naive

if TYPE_CHECKING:
    from deltalake import DeltaTable

#: Times that a commit is tried, apart from the `retries` of a stream.
TRIES = 20

#: A table of so many bytes at most is written anew for a column that becomes wider.
WIDENED_BYTES = 1 << 30

#: Longest pause between two of them.
_LONGEST_PAUSE_S = 1.0

#: What the library says if somebody has removed the entry of the log that a commit is compared with.
_CLEANED_UP = "Invalid table version"

#: The only column of a table that a takeover has made, and into which no data was committed: it is not there yet.
PENDING = "_syncblocks_pending"

#: Features of a table that change nothing for us, or whose use shows elsewhere than in the protocol.
_HARMLESS = frozenset(
    [
        *("timestampNtz", "appendOnly", "invariants", "checkConstraints", "changeDataFeed", "generatedColumns"),
        *("identityColumns", "columnMapping", "vacuumProtocolCheck"),
    ]
)

#: What the metadata of a column begin with -> the feature that the table uses.
_OF_COLUMNS = {
    "delta.generationExpression": "generatedColumns",
    "delta.identity.": "identityColumns",
    "delta.invariants": "invariants",
}

#: Another try does not help.
_FINAL = FULL | {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}


class Snapshot(Struct, frozen=True, kw_only=True):
    """One version of a table, and what it says of one ledger row."""

    table: Any
    version: int
    #: None: no commit has had a row of this key.
    number: int | None
    held: Held | None

    @property
    def row(self) -> LedgerRow | None:
        """Return the ledger row."""
        return None if self.held is None else self.held.row


class Step(Struct, frozen=True, kw_only=True):
    """One commit of a table."""

    held: Held
    #: Whether the row's mark is this commit from now on.
    is_mark: bool = False
    #: Files that are added and removed.
    actions: Sequence[Any] = ()
    #: All files before are removed, and the table has the columns of `schema`.
    is_overwrite: bool = False
    schema: pa.Schema | None = None
    #: Columns that the table gets, and nothing else.
    columns: pa.Schema | None = None
    #: The table gets to know times without a zone, and nothing else.
    is_for_naive: bool = False
    #: All files are written anew in wider columns, and nothing else.
    is_widening: bool = False
    #: This column takes NULL from now on, and nothing else; empty: none.
    relaxed: str = ""

    @property
    def is_last(self) -> bool:
        """Whether nothing is left to do after it."""
        return self.columns is None and not (self.is_for_naive or self.is_widening or self.relaxed)


Decide = Callable[[Snapshot | None], Step]


class LakeTable:
    """A table for one call; several calls have one each."""

    def __init__(self, root: Root, name: str, partition_by: Sequence[str] = ()) -> None:
        self.name = name
        self.folder = TableFolder(root, name)
        self._options = dict(root.options)
        self._partition_by = tuple(partition_by)
        self._table: DeltaTable | None = None
        #: Version on which a commit was tried whose outcome is unknown; None: all outcomes are known.
        self._tried_on: int | None = None

    def open(self) -> DeltaTable | None:
        """Return the newest version of the table; None: there is no Delta table."""
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        if self.folder.local is not None and not (self.folder.local / "_delta_log").is_dir():
            return None
        try:
            return DeltaTable(self.folder.uri, storage_options=self._options)
        except TableNotFoundError:
            return None

    # What is there

    def state(self) -> TableState:
        """Return the state of the table; create and change nothing."""
        with translated(self.folder.label):
            table = self.open()
            if table is None:
                return TableState(is_table=not set(self.folder.names()) - {OURS})
            held = list(self.all_held(table))
            rows = tuple(each.row for each in held if each.row is not None)
            if is_pending(table):
                return TableState(ledger=rows)
            facts = {MAY_WIDEN: b"true"} if may_widen(table) else {}
            if "timestampNtz" in (table.protocol().writer_features or ()):
                facts |= {KNOWS_NAIVE: b"true"}
            schema = schema_of(table).with_metadata(facts or None)
            records = pa.table(table.get_add_actions()).column("num_records")
            return TableState(
                schema=schema,
                ledger=rows,
                refuses=self._refuses(table),
                rolled_back=frozenset(
                    each.row.key
                    for each in held
                    if each.row is not None and each.row.committed_at is not None and is_rolled_back(table, each)
                ),
                is_empty=not records.null_count and not sum(records.to_pylist()),
                stream_name=self.name,
                identity=identity_of(table),
            )

    def all_held(self, table: DeltaTable) -> Iterator[Held]:
        """Yield what the ledger says of each row."""
        for app in filter(is_app_id, self.folder.names(OURS)):
            held = self._held(table, app)[1]
            if held is not None:
                yield held

    def _held(self, table: DeltaTable, app: str) -> tuple[int | None, Held | None]:
        """Return the number of the row's last commit, and what that says."""
        number = table.transaction_version(app)
        if number is None:
            return None, None
        data = self.folder.read(row_file(app, number))
        if data is None:  # a later commit has removed it, or somebody else has
            table.update_incremental()
            number = table.transaction_version(app)
            data = None if number is None else self.folder.read(row_file(app, number))
        if data is None:
            return number, None
        assert number is not None
        return number, decoded(data, f"{self.folder.label}/{row_file(app, number)}")

    def _refuses(self, table: DeltaTable) -> Mapping[WriteDisposition, str]:
        """Return which write dispositions cannot write the table, and why."""
        others = [each for each in WriteDisposition if each is not WriteDisposition.REPLACE]
        partitions = table.metadata().partition_columns
        if features := features_of(table):
            why = f"uses {', '.join(features)}, which cannot be written here: turn that off, or give another table"
            return dict.fromkeys(WriteDisposition, why)
        if self._partition_by and list(self._partition_by) != partitions:
            now = f"by {', '.join(partitions)}" if partitions else "by nothing"
            why = f"is partitioned {now}, and `partition_by` says otherwise: put it back, or drop the table"
            return dict.fromkeys(WriteDisposition, why)
        if is_for_appends(table):
            why = "has the property delta.appendOnly: only `write_disposition: append` writes it"
            return {each: why for each in WriteDisposition if each is not WriteDisposition.APPEND}
        columns = pa.schema(table.schema().to_arrow())
        if strict := next((field.name for field in columns if is_strict(field.type)), ""):
            why = f"refuses NULL within column {strict!r}, which is not kept here: drop that, or replace the table"
            return dict.fromkeys(others, why)
        return {}

    # Commits

    def commit(self, key: LedgerKey, decide: Decide, check: Callable[[], None] = lambda: None) -> Held:
        """Commit what `decide` says, asked again after each conflict and each step; return what the row says then.

        Args:
            key: key of the row that the commit carries.
            decide: returns a step for a version of the table; None: there is no table.
            check: raises if the call was interrupted.

        Raises:
            RetriableError: other commits came in between each time, or the storage does not answer.
        """
        from deltalake.exceptions import CommitFailedError, DeltaError

        app, tried, failures = app_id(key), dict[int, tuple[Step, Held]](), 0
        while True:
            check()
            try:
                snapshot = self._look(app)
                landed = None if snapshot is None or snapshot.number is None else tried.get(snapshot.number)
                if landed is None:
                    step = decide(snapshot)
                    number = next_number(None if snapshot is None else snapshot.number)
                    landed = (step, self._numbered(step, snapshot, number))
                    tried[number] = landed
                    self.folder.write(row_file(app, number), encoded(landed[1]))
                    failpoint("delta.commit.before")
                    self._tried_on = -1 if snapshot is None else snapshot.version
                    self._apply(step, snapshot, app, number)
                    failpoint("delta.commit.after")
                    self.folder.make_durable(0 if snapshot is None else snapshot.version + 1)
                    self._clean(app, number, {*tried, *([] if snapshot is None else [snapshot.number])})
                    failpoint("delta.commit.cleaned")
                failures, self._tried_on = 0, None
                if landed[0].is_last:
                    return landed[1]
                tried.clear()
            except (CommitFailedError, OSError) as error:
                failures = self._failed(failures, error)
            except DeltaError as error:
                if self._table is not None and not str(error).startswith(_CLEANED_UP):
                    raise
                failures = self._failed(failures, error)  # another writer may have made the table

    def is_decided(self, table: DeltaTable) -> bool:
        """Tell whether no commit of this table may still land: another one stands where it would.

        A store may take a request whose sender has given up long ago.
        """
        return self._tried_on is None or table.version() > self._tried_on

    def _failed(self, failures: int, error: Exception) -> int:
        """Wait before the next try; raise after the last one."""
        if (isinstance(error, OSError) and error.errno in _FINAL) or is_refusal(error):
            raise error
        if failures + 1 >= TRIES:
            raise RetriableError(f"{self.folder.label}: no commit in {TRIES} tries; the last: {said(error)}") from error
        time.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.01 * 2**failures)))
        return failures + 1

    def _look(self, app: str) -> Snapshot | None:
        if self._table is not None:
            if not self.folder.is_there(f"_delta_log/{self._table.version():020}.json"):
                self._table = None  # the table was dropped
            else:
                self._table.update_incremental()
        self._table = self._table or self.open()
        if self._table is None:
            return None
        number, held = self._held(self._table, app)
        return Snapshot(table=self._table, version=self._table.version(), number=number, held=held)

    def _numbered(self, step: Step, snapshot: Snapshot | None, number: int) -> Held:
        if not step.is_mark:
            return step.held
        return replace(step.held, mark=number, mark_base=-1 if snapshot is None else snapshot.version)

    def _apply(self, step: Step, snapshot: Snapshot | None, app: str, number: int) -> None:
        from deltalake import CommitProperties, DeltaTable, Schema, TableFeatures, Transaction

        properties = CommitProperties(
            custom_metadata={OURS: str(number)},
            max_commit_retries=0,
            app_transactions=[Transaction(app, number)],
        )
        if snapshot is None:
            columns = pa.schema([(name, pa.string()) for name in (PENDING, *self._partition_by)])
            DeltaTable.create(
                self.folder.uri,
                columns,
                partition_by=list(self._partition_by),
                storage_options=self._options,
                commit_properties=properties,
            )
        elif step.is_for_naive:
            snapshot.table.alter.add_feature(
                TableFeatures.TimestampWithoutTimezone,
                allow_protocol_versions_increase=True,
                commit_properties=properties,
            )
        elif step.relaxed:
            snapshot.table.alter.drop_column_not_null(step.relaxed, commit_properties=properties)
        elif step.columns is not None:
            fields = Schema.from_arrow(step.columns).fields
            snapshot.table.alter.add_columns(fields, commit_properties=properties)
        else:
            snapshot.table.create_write_transaction(
                list(step.actions),
                "overwrite" if step.is_overwrite else "append",
                snapshot.table.schema() if step.schema is None else step.schema,
                partition_by=snapshot.table.metadata().partition_columns,
                commit_properties=properties,
            )

    def _clean(self, app: str, number: int, known: set[int | None]) -> None:
        """Remove the files of rows that this commit has overtaken; what remains is removed by a takeover."""
        for other in known:
            if other is not None and other < number:
                self.folder.delete(row_file(app, other))

    def clean(self, app: str, number: int) -> None:
        """Remove all files of a row that are older than its last commit."""
        for name in self.folder.names(f"{OURS}/{app}"):
            stem = name.removesuffix(".json")
            if stem.isdigit() and int(stem) < number:
                self.folder.delete(f"{OURS}/{app}/{name}")


def is_rolled_back(table: DeltaTable, held: Held) -> bool:
    """Tell whether a RESTORE came after the commit that decided what is in the table, as far as the log goes back."""
    behind = table.version() - held.mark_base
    for commit in table.history(behind) if behind > 0 else ():
        if str(commit.get(OURS)) == str(held.mark):
            return False
        if commit.get("operation") == "RESTORE":
            return True
    return False


def is_pending(table: DeltaTable) -> bool:
    """Tell whether no data was ever committed."""
    return any(field.name == PENDING for field in table.schema().fields)


def schema_of(table: DeltaTable) -> pa.Schema:
    """Return the columns of a table."""
    found = [pa.field(each.name, _plain(each.type), each.nullable) for each in pa.schema(table.schema().to_arrow())]
    return pa.schema([each if each.nullable else with_facts(each, needed=True) for each in found])


@cache
def _plain(kind: Any) -> pa.DataType:
    """Return a type without the metadata of its parts, which are not equal to ours."""
    types = pa.types
    if types.is_struct(kind):
        return pa.struct([pa.field(field.name, _plain(field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(_plain(kind.key_type), _plain(kind.item_type))
    if types.is_list(kind) or types.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    return kind


def identity_of(table: DeltaTable) -> str:
    """Return what differs for another table that is made under the same name."""
    return str(table.metadata().id)


def is_for_appends(table: DeltaTable) -> bool:
    """Tell whether a table takes nothing but appends."""
    return bool(table.metadata().configuration.get("delta.appendOnly") == "true")


def may_widen(table: DeltaTable) -> bool:
    """Tell whether a table may be written anew for a column that becomes wider."""
    sizes = pa.table(table.get_add_actions()).column("size_bytes").to_pylist()
    return not is_for_appends(table) and sum(sizes) <= WIDENED_BYTES


def is_strict(kind: Any) -> bool:
    """Tell whether a type refuses NULL somewhere within, which the types of our columns do not know."""
    types = pa.types
    if types.is_struct(kind):
        return any(not field.nullable or is_strict(field.type) for field in kind)
    if types.is_map(kind):
        return not kind.item_field.nullable or is_strict(kind.key_type) or is_strict(kind.item_type)
    if types.is_list(kind) or types.is_large_list(kind):
        return not kind.value_field.nullable or is_strict(kind.value_type)
    return False


def lacks_naive(table: DeltaTable, schema: pa.Schema) -> bool:
    """Tell whether columns have times without a zone, which the table's protocol does not know."""
    if not any(has_naive(field.type) for field in schema):
        return False
    return "timestampNtz" not in (table.protocol().writer_features or ())


def features_of(table: DeltaTable) -> list[str]:
    """Return the features in use that the library lacks, or that a writer of files alone would break."""
    protocol, said_of = table.protocol(), table.metadata().configuration
    found = {*(protocol.writer_features or ()), *(protocol.reader_features or ())} - _HARMLESS
    if said_of.get("delta.enableChangeDataFeed") == "true":
        found.add("changeDataFeed")
    if said_of.get("delta.columnMapping.mode", "none") != "none":
        found.add("columnMapping")
    if any(name.startswith("delta.constraints.") for name in said_of):
        found.add("checkConstraints")
    for field in table.schema().fields:
        keys = list(field.metadata or {})
        found |= {name for start, name in _OF_COLUMNS.items() if any(key.startswith(start) for key in keys)}
    return sorted(found)
