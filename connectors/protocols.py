"""Source, Destination and the optional capabilities: the order of calls, and what connector and engine promise.

A connector is a plain class made as `Class(config, folder)`: the `config` mapping of the pipeline file, and the folder
from which relative paths count (`settings.resolve_path`). Making one opens nothing. The class attribute `settings` is
the pydantic model of the config. Several threads may call every method at once, for different streams; any thread may
call `interrupt` and `close`.

An optional capability is a protocol of its own, and a connector has it by having all of its methods; or a `Capability`,
which needs no method, and a connector lists it in its class attribute `capabilities`. The engine asks once, when a
pipeline is opened (`capabilities.capabilities_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from .read_spec import Condition
from .stream import (
    Block,
    Bookmark,
    Commit,
    Event,
    FileRead,
    LedgerKey,
    LedgerRow,
    Load,
    Place,
    Stream,
    TableRecords,
    TableState,
)
from .write_spec import WriteDisposition

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa

    from .arrow.fidelity import Kept
    from .compared_values import Checksums, KeyRange, Side
    from .log_based import LogLook, LogMoment, OpenLog
    from .ranges import OpenRanges, RangeReads


class Capability(StrEnum):
    """What a connector can do beside what all must, where the engine needs no method to ask for it."""

    #: In a sentence, for people.
    meaning: str

    def __new__(cls, value: str, meaning: str) -> Capability:
        member = str.__new__(cls, value)
        member._value_, member.meaning = value, meaning
        return member

    # Of sources.
    HAS_ONE_NULL = "has_one_null", "Reads a form that cannot tell NULL from JSON's `null`."
    # Of destinations.
    KEEPS_FIRST = "keeps_first", "Leaves the columns of `WriteSpec.kept` as they are where it updates a record."
    #: A record that differs from the current version of its key (`VALID_TO` is NULL) closes it and becomes the current
    #: one. One that differs in `HistoryLoad.in_place` only, or in columns that came with this run, updates it in place;
    #: so does one of the same time. With `HistoryLoad.has_versions` an older one goes between its neighbours. Columns
    #: that do not arrive are not compared. A key that has none but ended versions (`MARKS_RECORDS`) gets the next one
    #: when the last one ended, if its time is not later.
    KEEPS_HISTORY = "keeps_history", "Writes by HISTORY: keeps every version of a record."
    REMOVES_RECORDS = "removes_records", "Removes the records of `Load.removed`."
    #: What it deletes and what it inserts are of one transaction (`WriteSpec.written_range`).
    REPLACES_RANGES = "replaces_ranges", "Writes by REPLACE_RANGE: deletes a range and inserts what arrived."
    #: Of HISTORY it ends versions, or begins them again.
    MARKS_RECORDS = "marks_records", "Marks the records of `Load.marked`, or takes the marks away."
    #: It makes them unique in a table that it makes, if it has such a thing.
    MERGES_BY_UNIQUE = "merges_by_unique", "Merges by `Stream.unique_properties`."
    UPDATES_ONLY = (
        "updates_only",
        "Applies `ConflictMethod.UPDATE_ONLY`: only known keys are written.",
    )
    #: In order: the last change of a key counts, and what a change leaves out stays as it is.
    APPLIES_CHANGES = "applies_changes", "Applies the changes of a log (`WriteSpec.changes`) to a merged table."
    FILLS_COLUMNS = "fills_columns", "Fills columns of records that are there (`Load.fills`)."


#: Methods by which a connector said once what a capability says now.
FORMER_METHODS = {
    "has_one_null": Capability.HAS_ONE_NULL,
    "keeps_first_value": Capability.KEEPS_FIRST,
    "keeps_history": Capability.KEEPS_HISTORY,
    "removes": Capability.REMOVES_RECORDS,
    "replaces_ranges": Capability.REPLACES_RANGES,
    "marks_deleted": Capability.MARKS_RECORDS,
    "merges_by_unique": Capability.MERGES_BY_UNIQUE,
    "updates_only": Capability.UPDATES_ONLY,
    "fills_columns": Capability.FILLS_COLUMNS,
}


class Source(Protocol):
    """The place that records come from.

    Errors: `ConnectorConfigError` for wrong settings, `RetriableError` where another try may help,
    `FatalConnectorError` otherwise. The engine retries `RetriableError` only.
    """

    def identity(self) -> str:
        """Connector and place without credentials (`postgres://db.example/crm`): kept in the ledger."""
        ...

    def check(self) -> None:
        """Prove that the source can be reached and read; raise otherwise."""
        ...

    def discover(self) -> Sequence[Stream]:
        """Return every stream of the source, names unique, in a stable order; tables before views."""
        ...

    def groups(self, streams: Sequence[Stream]) -> Sequence[Sequence[Stream]]:
        """Split the streams into groups that one read yields together; most sources read each stream alone."""
        ...

    def offers(self, stream: Stream) -> Sequence[str]:
        """Return transfer formats for this stream, best first; the last one is always "arrow"."""
        ...

    def count(self, stream: Stream) -> int:
        """Count the stream's records."""
        ...

    def read(
        self, group: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None], wire: str = "arrow"
    ) -> Iterator[tuple[str, Event | Block]]:
        """Yield `(stream name, event)`: the columns of each given `Stream.schema`, in its order.

        With a bookmark: records at or past the bookmark, without those that were committed already. A checkpoint
        follows the records that it covers; the engine adds the final one. Every batch has the schema of the given
        stream, or of the last `Stream` event. Of a group, a stream may end before the others (`Ended`). Closing the
        iterator early leaves nothing open.
        """
        ...

    def interrupt(self, stream: str) -> None:
        """End the calls under way for one stream soon (`Interrupted`); no effect where there are none."""
        ...

    def close(self) -> None:
        """Close every connection. Later calls open new ones."""
        ...


class Destination(Protocol):
    """The place that records go to. One transaction writes the data and the ledger row, `where token = mine`."""

    #: False: the system can keep no ledger. The engine keeps the bookmark, and records arrive at least once.
    has_ledger: bool
    #: How many loads may run at once; None: no limit.
    max_loads: int | None

    def identity(self) -> str:
        """Connector and place without credentials."""
        ...

    def check(self) -> None:
        """Prove that the destination can be reached, and create nothing; a database file may be missing."""
        ...

    def describe(self, tables: Sequence[str]) -> Mapping[str, TableState]:
        """Return the state of each table, one entry for each given name; create and change nothing."""
        ...

    def accepts(self, stream: Stream, disposition: WriteDisposition) -> Sequence[str]:
        """Return the transfer formats it accepts for this stream, best first; the last one is always "arrow".

        Asked of each stream whose columns are known when it is planned, with all of them.

        Raises:
            ConnectorConfigError: its settings ask for what these columns are not, such as a folder for a column that
                is none of them.
        """
        ...

    def take_over(self, key: LedgerKey, *, token: str, owner: str, source: str | None = None) -> LedgerRow:
        """Write the token into the ledger row, then return the row. Create row, ledger table and schema if missing.

        Wait for a commit under way on that row. After the return no other token can commit. `source` None leaves
        the row's source as it is (recovery). Idempotent: the engine may call it again.
        """
        ...

    def set_bookmark(self, key: LedgerKey, bookmark: Bookmark | None, *, forget: bool = False) -> None:
        """Set the bookmark by hand (`state set`, `state reset`), under a new token; `forget`: delete the row.

        Without a bookmark the row's `rows` become None as well: an append then reads from scratch.
        """
        ...

    def load(self, load: Load, events: Iterator[Event | Block], wire: str = "arrow") -> Iterator[Commit]:
        """Write the events, yielding after each commit.

        Each `Checkpoint` commits data and ledger row together; the final one also writes `completed_by`. Where no
        ledger row has the load's token, roll back and raise `TakenOver`. An exception out of `events` rolls back
        and passes through unchanged. Of what was not committed nothing remains; staging tables are dropped.
        REPLACE: the engine sends the final checkpoint only; readers see the old table until that commit.
        MERGE: the last record of a key wins, also within a batch. Missing columns are added; a column that no longer
        arrives stays and gets NULL. Call `load.announce` before a commit that changes columns; its exception
        passes through, and nothing is committed.
        """
        ...

    def drop_staging(self, tokens: Sequence[str]) -> None:
        """Drop the staging tables of dead runs, whose names carry these tokens; keep ranges that may be resumed."""
        ...

    def interrupt(self, stream: str) -> None:
        """End the calls under way for one stream soon (`Interrupted`); no effect where there are none."""
        ...

    def close(self) -> None:
        """Close every connection, so that others can open a database file. Later calls open new ones."""
        ...


# -- optional capabilities of both -----------------------------------------------------------------------------------


@runtime_checkable
class Prepares(Protocol):
    """Connects in the background, while the run is being planned."""

    def shortcut(self) -> str:
        """Return the transfer format that a source and a destination of this system prefer."""
        ...

    def prepare(self, wire: str, *, is_whole: bool) -> None:
        """Begin to open the connection of the first call. Raise nothing: an error is raised by that call.

        Args:
            wire: the probable transfer format of most streams; a wrong guess costs time only.
            is_whole: some streams are read in full.
        """
        ...


@runtime_checkable
class KnowsPlace(Protocol):
    """Knows from where its place can be reached. Without: its streams stay in the process of the run."""

    def place(self) -> Place:
        """Tell it by the settings alone; open nothing. `host`: the other machines have another of that name."""
        ...


@runtime_checkable
class HoldsMemory(Protocol):
    """Holds more in memory than the batch it works on."""

    def limit_memory(self, size_bytes: int, *, is_strict: bool) -> None:
        """Limit the connector's own buffers; called before it opens anything.

        Args:
            size_bytes: limit of all buffers together; a limit in the connector's config wins.
            is_strict: the user asked for the limit; False: a default that an operation may exceed.
        """
        ...


# -- optional capabilities of sources --------------------------------------------------------------------------------


@runtime_checkable
class BoundsRecords(Protocol):
    """Knows how long a record is before the record is in a batch."""

    def limit_record(self, size_bytes: int) -> None:
        """Limit the size of a record; for a longer one `discover` or `read` raises `arrow.record_size.too_wide`.

        Called before anything is opened. The engine refuses a record that passes, once its batch is in memory.
        """
        ...


@runtime_checkable
class ListsStreams(Protocol):
    """Lists its streams without opening one. Without: `discover` opens all, and one that is broken stops it."""

    def list_streams(self) -> Sequence[str]:
        """Return the names that `discover` returns, in its order."""
        ...

    def open_streams(self, names: Collection[str]) -> Sequence[Stream]:
        """Return these streams as `discover` does; one that is broken has no columns and says why (`unreadable`)."""
        ...


@runtime_checkable
class FindsStreams(Protocol):
    """Describes some of its streams without a look at the others. Without: each worker of a run reads all of them."""

    def find_streams(self, names: Collection[str]) -> Sequence[Stream]:
        """Return the streams of these names as `discover` does; one that is not there is left out."""
        ...


@runtime_checkable
class ListsUnreadable(Protocol):
    """Knows the tables that its user may not read, which `discover` leaves out. Without: nobody is told of them."""

    def unreadable_tables(self) -> Sequence[str]:
        """Return their names, as streams would have them, in order."""
        ...


@runtime_checkable
class HasFormerNames(Protocol):
    """Calls some streams by other names than earlier versions did. Needs `ListsStreams`."""

    def former_names(self) -> Mapping[str, str]:
        """Return present name -> former name, of streams that `list_streams` has returned."""
        ...

    def keep_former_names(self, names: Collection[str]) -> None:
        """Call the streams of these present names by their former names from now on."""
        ...


@runtime_checkable
class FindsTypes(Protocol):
    """Finds column types in the data and keeps them with the bookmark."""

    def as_known(self, stream: Stream, bookmark: Bookmark | None) -> Stream:
        """Return the stream with the types that earlier runs found."""
        ...


@runtime_checkable
class LooksAtTimes(Protocol):
    """Looks at the values of columns of nanoseconds. Without: a destination of microseconds refuses the columns."""

    def nanoseconds(self, stream: Stream, columns: Sequence[str]) -> frozenset[str]:
        """Return those of the columns that have a digit below the microsecond; reads all of their values.

        Such columns without one are then read in microseconds: each value is exact, or refused.
        """
        ...


@runtime_checkable
class TracksFiles(Protocol):
    """Reads streams of files, of which it finds those that are new or changed. Needs `ListsStreams`."""

    def open_tracked(self, name: str, read: Sequence[FileRead], bookmark: Bookmark) -> Stream:
        """Return a stream as `open_streams` does, with the columns in `bookmark` and of the new and changed files.

        A later `read` of a stream that `tracks_files` yields the records of new and changed files only. Its
        checkpoints come between files and name them. Where more was read since, its bookmark has `FILES`: all that
        was read.

        Args:
            name: a stream.
            read: what `KeepsFiles.files_read` has returned.
            bookmark: of the stream's last commit.
        """
        ...


@runtime_checkable
class SkipsLate(Protocol):
    """May skip records of transactions that commit late, in an INCREMENTAL read."""

    def skips_late(self, stream: Stream) -> str:
        """Return the reason; empty: no record is skipped."""
        ...


@runtime_checkable
class ReadsRanges(Protocol):
    """Splits streams that are read as a whole (FULL_TABLE) into ranges."""

    def plan_ranges(self, stream: Stream, readers: int) -> tuple[int | None, str]:
        """Return the expected number of ranges, and how the stream is split or why it is not; open nothing.

        None: the number is known when the stream is read. 1: the stream is read as a whole.
        """
        ...

    def open_ranges(self, stream: Stream, readers: int, wire: str) -> AbstractContextManager[OpenRanges]:
        """Take a snapshot and split it. After the context has ended, readers that still run fail soon."""
        ...


@runtime_checkable
class ReadsLog(Protocol):
    """Reads streams out of its database's log (LOG_BASED), every change of them, in the log's order."""

    def why_not_logged(self, stream: Stream) -> str:
        """Say why a stream cannot be read out of the log, by what the catalog knows of it; empty: it can."""
        ...

    def look_at_log(self, name: str, streams: Sequence[Stream], rows: Sequence[LedgerRow]) -> LogLook:
        """Look at what a read of the log needs, and how much log is kept for it; change nothing.

        Args:
            name: see `open_log`.
            streams: that are to be read.
            rows: of the pipeline's ledgers, those that have `LedgerRow.log`.
        """
        ...

    def open_log(
        self,
        name: str,
        streams: Sequence[Stream],
        rows: Sequence[LedgerRow],
        note: Callable[[str, Mapping[str, Any]], None],
        held: Callable[[], Sequence[Bookmark]],
        ended: Sequence[Bookmark] = (),
    ) -> AbstractContextManager[OpenLog]:
        """Open one read of all these streams.

        Args:
            name: of the pipeline and where it writes, in lower case letters, digits and `_`; nobody else has it.
            streams: of one pipeline.
            rows: as `look_at_log` gets them.
            note: writes `LedgerRow.log` of a stream; called before anything is made at the source.
            held: returns what is committed of everything that is read from the log; the source may forget what is
                below the lowest, and nothing else. Any thread may call it.
            ended: of other streams that the same run has read to their end: the read ends at that very place.

        Raises:
            FatalConnectorError: something is missing, or the log is not what the rows say.
        """
        ...

    def open_moment(
        self, name: str, streams: Sequence[Stream], rows: Sequence[LedgerRow]
    ) -> AbstractContextManager[LogMoment]:
        """Hold a moment of these streams' tables, which cannot be emptied or altered meanwhile; see `open_log`."""
        ...

    def drop_log(self, rows: Sequence[LedgerRow]) -> Sequence[str]:
        """Drop what `open_log` has made for these rows, and nothing else; return what was dropped."""
        ...


@runtime_checkable
class ComputesChecksums(Protocol):
    """Computes checksums of its tables in its database. Without: the engine reads the records into DuckDB."""

    def checksum_system(self) -> str:
        """Return the system whose SQL computes them: `postgres`, `mysql` or `duckdb`."""
        ...

    def checksums(self, side: Side) -> AbstractContextManager[Checksums]:
        """Open the checksums of one side; the context closes them."""
        ...

    def narrowed(self, stream: Stream, side: Side, ranges: Sequence[KeyRange]) -> Stream:
        """Return the stream limited to some ranges of keys."""
        ...

    def keeps_json(self) -> bool:
        """Tell whether its `json` keeps the text as it was written; call it once the source is connected."""
        ...

    def array_item(self, field: pa.Field) -> pa.Field | None:
        """Return the item field of an array that is read as text; None: no array, or its items cannot be compared."""
        ...


@runtime_checkable
class ReadsQueries(Protocol):
    """Reads the result of a query as a stream.

    Where `Stream.is_query_bounded`, each `:bookmark` that is not in a constant, a quoted name or a comment stands for a
    value: of the first bookmark property, less the `lookback`; without a bookmark that of `ReadSpec.bookmark_start`.
    """

    def query_stream(
        self, name: str, query: str, values: Mapping[str, Any] | None = None, start: str | float | None = None
    ) -> Stream:
        """Ask the system what a query yields, and read nothing: a stream of that name, without keys.

        Args:
            name: of the stream.
            query: without a `;` at its end.
            values: of parameters of the query, see `Stream.query_values`.
            start: what `:bookmark` may stand for, as the pipeline file has it; the type of its column is not known yet.

        Raises:
            FatalConnectorError: it is not one SELECT, two of its columns have one name, or a parameter is not where
                a value can be.
        """
        ...

    def may_write(self) -> str:
        """Say why a query may change something, as a warning for the plan; empty: it is read where nothing can be."""
        ...


@runtime_checkable
class FiltersRecords(Protocol):
    """Reads, counts and compares only the records that meet `ReadSpec.where`. Without: the engine filters."""

    def filters(self, stream: Stream, condition: Condition) -> bool:
        """Tell whether it applies a condition of a stream exactly as `filters.matches` does; opens nothing."""
        ...


@runtime_checkable
class FlattensObjects(Protocol):
    """Yields the values of objects (structs, objects of JSON) as columns of their own."""

    def flatten(self, levels: Callable[[str], int]) -> None:
        """Do so from now on, as `arrow.flatten` names and marks the columns; called before streams are looked for.

        Two columns of one name are a `ConnectorConfigError` where they are found before records are read, else a
        `FatalConnectorError`. A scalar where others have an object stays in the column of the object's name.

        Args:
            levels: returns down to how many levels the objects of a stream are flattened; 0: they are not.
        """
        ...


# -- optional capabilities of destinations ---------------------------------------------------------------------------


@runtime_checkable
class StatesTypes(Protocol):
    """States how exactly it keeps each column. Without: the engine checks no column in advance."""

    def keeps(self, stream: Stream, table: TableState, disposition: WriteDisposition) -> Sequence[Kept]:
        """Return for each column of the stream, in order, the type it is kept as. Pure: open nothing.

        Args:
            stream: the stream as it arrives.
            table: the state of its table, from `describe`.
            disposition: REPLACE makes a new table, whatever types the old one has.
        """
        ...


@runtime_checkable
class NamesTables(Protocol):
    """Knows which names mean one table. Without: only equal names do."""

    def one_name(self, destination_table: str) -> str:
        """Return one name for all names of a table (`users` and `public.users`, `Id` and `ID`)."""
        ...


@runtime_checkable
class NamesColumns(Protocol):
    """May give columns other names than the stream's. Without: columns have the stream's names."""

    def column_names(self, names: Sequence[str], table: TableState) -> Mapping[str, str]:
        """Return the name in the table, as it is now, for each column of a stream."""
        ...


@runtime_checkable
class VerifiesServer(Protocol):
    """Knows whether its connections prove who the server is. Both a source's and a destination's capability."""

    def unverified_server(self) -> str:
        """Return a warning for the plan; empty: the server is verified, or on this machine. Opens nothing."""
        ...


@runtime_checkable
class KnowsLimits(Protocol):
    """Knows what its server allows its user; for sources and destinations. Without: a run finds out."""

    def limit_warnings(self, connections: int) -> Sequence[str]:
        """Return the limits that may end a run which opens so many connections, and how they are lifted."""
        ...


@runtime_checkable
class ForgetsRuns(Protocol):
    """Knows whether each run replaces what earlier runs have written, whatever the disposition says."""

    def forgets_runs(self) -> str:
        """Return a warning for the plan of streams that read only what is new; empty: it keeps them."""
        ...


@runtime_checkable
class KeepsRejected(Protocol):
    """Takes `Rejected` events and keeps their records beside the table; see `connectors/rejected`.

    A record that it rejects itself is kept as well, and named by `Commit.refused`.
    """

    def keeps_rejected(self) -> str:
        """Describe the rejected records that it cannot keep, for a warning in the plan; empty: it keeps all."""
        ...


@runtime_checkable
class ListsLedger(Protocol):
    """Lists the ledger rows of a pipeline. Without: a stream that the run store has forgotten is not missed."""

    def rows_of(self, pipeline: str, tables: Sequence[str]) -> Sequence[LedgerRow]:
        """Return the rows of a pipeline, of whatever table, in the ledgers that stand beside these tables."""
        ...


@runtime_checkable
class ListsLeftovers(Protocol):
    """Lists the files of its own that no commit names. Without: only recovery drops what was staged."""

    def leftovers(self, before: datetime, *, is_removing: bool = False) -> Mapping[str, int]:
        """Return path -> bytes of the files that loads have written before a time, and that no commit names.

        Args:
            before: an aware time; newer files may be of a load under way.
            is_removing: delete the files. A load that has written some of them can commit no more.
        """
        ...


@runtime_checkable
class NotesLog(Protocol):
    """Notes in its ledger from which log a stream is read. Without: it takes no LOG_BASED stream."""

    def note_log(self, key: LedgerKey, token: str, log: Mapping[str, Any]) -> None:
        """Write `LedgerRow.log` into the row of a key, and nothing else of it, and commit.

        Raises:
            TakenOver: the row has another token, or is gone.
        """
        ...


@runtime_checkable
class RefusesKeys(Protocol):
    """Cannot hold some rows in its ledger (a name that is too long). Without: the ledger holds every row."""

    def refusal(self, key: LedgerKey) -> str:
        """Return why the ledger cannot hold a row for a key, for the plan; empty: it can."""
        ...


@runtime_checkable
class KeepsLatest(Protocol):
    """Keeps the latest record of a key, as `WriteSpec` says: by a column's values, the table's record included."""

    def keeps_latest(self, field: pa.Field) -> bool:
        """Tell whether it orders a column's values: numbers, dates and times as ever, texts by their bytes."""
        ...


@runtime_checkable
class DropsDeleted(Protocol):
    """Drops a record that says it is deleted, as `WriteSpec` says, with the table's record of its key."""

    def drops_deleted(self, condition: Condition) -> bool:
        """Tell whether it finds the condition's values exactly as they are written."""
        ...


@runtime_checkable
class LoadsRanges(Protocol):
    """Loads ranges: REPLACE, and MERGE of streams that repeat no key."""

    def load_ranges(self, load: Load, reads: RangeReads, loaders: int, wire: str) -> Iterator[Commit]:
        """Load every range once, `loaders` at a time, and commit the stream once, as `Destination.load` does.

        Until then ranges are in staging tables. One transaction writes a range and its row in a ledger of ranges. A
        range that failed is loaded again if `may_repeat` agrees; the others stay. The ranges of an interrupted load
        are resumed if they have the same shape and `resume` agrees, else dropped. An exception leaves nothing behind
        unless `is_kept`.
        """
        ...

    def drop_ranges(self, pipeline: str, is_wanted: Callable[[LedgerKey], bool]) -> None:
        """Drop the ranges that interrupted loads of a pipeline have left, except where `is_wanted`."""
        ...


@runtime_checkable
class ExaminesTables(Protocol):
    """Looks into tables that another program has written. Without: such a table cannot be adopted."""

    def examine(self, table: str, key: Sequence[str], bookmark: Sequence[str]) -> TableRecords:
        """Look up keys and bookmark of an existing table's records; change nothing.

        Args:
            table: a `destination_table`.
            key: columns of the table, as the table calls them; empty: no key is wanted.
            bookmark: the same, most significant first; empty: no bookmark is wanted.
        """
        ...


@runtime_checkable
class KnowsPrivileges(Protocol):
    """Knows what its user lacks for a run. Without: the run finds out."""

    def missing_privileges(self, tables: Mapping[str, WriteDisposition]) -> Sequence[str]:
        """Return the statements that grant what is missing to write these tables and the ledger; change nothing."""
        ...


@runtime_checkable
class KeepsFiles(Protocol):
    """Keeps which files were read. Without: a stream cannot be INCREMENTAL by `_file_modified`.

    `load` writes `Checkpoint.files` in the transaction of the data; a file that is known already takes its row.
    `set_bookmark` with None, and `Load.forgets_files`, forget all files of the key.
    """

    def files_read(self, key: LedgerKey) -> Sequence[FileRead]:
        """Return the files that loads of this key have committed."""
        ...

    def forget_files(self, key: LedgerKey, paths: Collection[str]) -> None:
        """Forget some files, under a new token: the next run reads them again."""
        ...


@runtime_checkable
class RunsStatements(Protocol):
    """Runs the user's statements, for `sql` callbacks."""

    def execute(self, statement: str, parameters: Mapping[str, Any], *, name: str = "") -> int:
        """Run and commit one statement; return the number of records it changed.

        Args:
            statement: `:name` is a parameter, except in constants, quoted names, comments and casts.
            parameters: texts, numbers, booleans or None; bound, never written into the statement.
            name: for `interrupt`.
        """
        ...

    def interrupt(self, stream: str) -> None:
        """End the call of that name soon (`Interrupted`)."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...


@runtime_checkable
class FencesStatements(Protocol):
    """Runs the user's statements in the transaction of a ledger row. Without: `before` of a stream runs none there."""

    def execute_fenced(self, key: LedgerKey, token: str, statement: str, parameters: Mapping[str, Any]) -> int:
        """Run one statement on a connection of its own, and commit it with an update of the row `where token = mine`.

        Where a system commits such a statement by itself (MySQL: a change of a table), the row is checked just before.
        `interrupt` of the key's stream ends it. Returns the number of records that it changed.

        Args:
            key: of the row.
            token: which `take_over` has written.
            statement: see `RunsStatements`.
            parameters: see `RunsStatements`.

        Raises:
            TakenOver: the row has another token, or is gone; the statement was not run.
        """
        ...
