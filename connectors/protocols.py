"""Source, Destination and the optional capabilities: the order of calls, and the duties of connector and engine.

A connector is a plain class created as `Class(config, folder)`. `config` is the mapping of the pipeline file, and
`folder` the base of relative paths (`settings.resolve_path`). The constructor opens nothing. The class attribute
`settings` is the pydantic model of the config. Several threads may call each method at once, for different streams; any
thread may call `interrupt` and `close`.

An optional capability is either a protocol or a `Capability`. A connector has a protocol by having all of its methods;
it lists a `Capability`, which needs no method, in its class attribute `capabilities`. The engine checks once, when a
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
    from .log_based import GivenUp, LogLook, LogMoment, OpenLog
    from .ranges import OpenRanges, RangeReads


class Capability(StrEnum):
    """Optional abilities of a connector for which the engine needs no method."""

    #: A sentence for users.
    meaning: str

    def __new__(cls, value: str, meaning: str) -> Capability:
        member = str.__new__(cls, value)
        member._value_, member.meaning = value, meaning
        return member

    # For sources.
    HAS_ONE_NULL = "has_one_null", "Reads a form that cannot tell NULL from JSON's `null`."
    # For destinations.
    KEEPS_FIRST = "keeps_first", "Leaves the columns in `WriteSpec.kept` unchanged when it updates a record."
    #: A record that differs from the current version of its key (`VALID_TO` is NULL) closes that version and becomes
    # the
    #: current one. A record that differs only in `HistoryLoad.in_place`, or in columns new in this run, updates it in
    # place;
    #: so does a record of the same time. With `HistoryLoad.has_versions` an older record goes between its neighbours.
    # Columns
    #: that do not arrive are not compared. If a key has only ended versions (`MARKS_RECORDS`), its next version begins
    #: when the last one ended, if its own time is not later.
    KEEPS_HISTORY = "keeps_history", "Writes by HISTORY: keeps every version of a record."
    REMOVES_RECORDS = "removes_records", "Removes the records of `Load.removed`."
    #: Deletes and inserts in one transaction (`WriteSpec.written_range`).
    REPLACES_RANGES = "replaces_ranges", "Writes by REPLACE_RANGE: deletes a range and inserts the arriving records."
    #: For HISTORY it ends versions, or reopens them.
    MARKS_RECORDS = "marks_records", "Marks the records of `Load.marked`, or removes their marks."
    #: It makes them unique in a table that it creates, if the system has unique constraints.
    MERGES_BY_UNIQUE = "merges_by_unique", "Merges by `Stream.unique_properties`."
    UPDATES_ONLY = (
        "updates_only",
        "Applies `ConflictMethod.UPDATE_ONLY`: only known keys are written.",
    )
    #: In order: the last change of a key counts, and columns that a change omits stay unchanged.
    APPLIES_CHANGES = "applies_changes", "Applies the changes of a log (`WriteSpec.changes`) to a merged table."
    FILLS_COLUMNS = "fills_columns", "Fills columns of existing records (`Load.fills`)."


#: Former methods of connectors that are capabilities now.
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
    """A place from which records come.

    Errors: `ConnectorConfigError` for wrong settings, `RetriableError` if a retry may help, else `FatalConnectorError`.
    The engine retries `RetriableError` only.
    """

    def identity(self) -> str:
        """Connector and address without credentials (`postgres://db.example/crm`); the ledger stores it."""
        ...

    def check(self) -> None:
        """Check that the source can be reached and read; raise otherwise."""
        ...

    def discover(self) -> Sequence[Stream]:
        """Return every stream of the source with unique names, in a stable order; tables before views."""
        ...

    def groups(self, streams: Sequence[Stream]) -> Sequence[Sequence[Stream]]:
        """Split the streams into groups that share one read; most sources read each stream alone."""
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
        """Soon end the running calls of one stream (`Interrupted`); no effect if there are none."""
        ...

    def close(self) -> None:
        """Close every connection. Later calls open new ones."""
        ...


class Destination(Protocol):
    """A place to which records go. One transaction writes the data and the ledger row, `where token = mine`."""

    #: False: the system cannot have a ledger. The engine keeps the bookmark, and records arrive at least once.
    has_ledger: bool
    #: Maximum of simultaneous loads; None: no limit.
    max_loads: int | None

    def identity(self) -> str:
        """Connector and address without credentials."""
        ...

    def check(self) -> None:
        """Check that the destination can be reached, and create nothing; a database file may be missing."""
        ...

    def describe(self, tables: Sequence[str]) -> Mapping[str, TableState]:
        """Return the state of each table, one entry for each given name; create and change nothing."""
        ...

    def accepts(self, stream: Stream, disposition: WriteDisposition) -> Sequence[str]:
        """Return the transfer formats that it accepts for this stream, best first; the last one is always "arrow".

        Called with all columns, for each stream whose columns are known when it is planned.

        Raises:
            ConnectorConfigError: its settings do not fit these columns, such as a folder for a column that the stream
                lacks.
        """
        ...

    def take_over(self, key: LedgerKey, *, token: str, owner: str, source: str | None = None) -> LedgerRow:
        """Write the token into the ledger row, then return the row. Create row, ledger table and schema if missing.

        Wait for a running commit on this row. After the return no other token can commit. `source` None leaves the
        row's source unchanged (recovery). Idempotent: the engine may call it again.
        """
        ...

    def set_bookmark(self, key: LedgerKey, bookmark: Bookmark | None, *, forget: bool = False) -> None:
        """Set the bookmark by hand (`state set`, `state reset`) under a new token; `forget`: delete the row.

        Without a bookmark, the row's `rows` become None as well: an append then reads from scratch.
        """
        ...

    def load(self, load: Load, events: Iterator[Event | Block], wire: str = "arrow") -> Iterator[Commit]:
        """Write the events, yielding after each commit.

        Each `Checkpoint` commits data and ledger row together; the final one also writes `completed_by`. If no ledger
        row has the load's token, roll back and raise `TakenOver`. An exception from `events` rolls back and passes
        through unchanged. Uncommitted records do not remain; staging tables are dropped. REPLACE: the engine sends the
        final checkpoint only; readers see the old table until that commit. MERGE: the last record of a key wins, also
        within a batch. Missing columns are added; a column that no longer arrives stays and gets NULL. Call
        `load.announce` before a commit that changes columns; if it raises, nothing is committed.
        """
        ...

    def drop_staging(self, tokens: Sequence[str]) -> None:
        """Drop the staging tables of dead runs, whose names contain these tokens; keep ranges that may be resumed."""
        ...

    def interrupt(self, stream: str) -> None:
        """Soon end the running calls of one stream (`Interrupted`); no effect if there are none."""
        ...

    def close(self) -> None:
        """Close every connection, so that other processes can open a database file. Later calls open new ones."""
        ...


# -- optional capabilities of both -----------------------------------------------------------------------------------


@runtime_checkable
class Prepares(Protocol):
    """Connects in the background, while the run is being planned."""

    def shortcut(self) -> str:
        """Return the preferred transfer format between a source and a destination of this system."""
        ...

    def prepare(self, wire: str, *, is_whole: bool) -> None:
        """Begin to open the connection of the first call. Raise nothing: the first call raises the error.

        Args:
            wire: the probable transfer format of most streams; a wrong guess only costs time.
            is_whole: some streams are read in full.
        """
        ...


@runtime_checkable
class KnowsPlace(Protocol):
    """Knows from where its address can be reached. Without it, the streams stay in the process of the run."""

    def place(self) -> Place:
        """Decide by the settings alone; open nothing. `host`: other machines would reach their own server by it."""
        ...


@runtime_checkable
class HoldsMemory(Protocol):
    """Uses more memory than the batch in progress."""

    def limit_memory(self, size_bytes: int, *, is_strict: bool) -> None:
        """Limit the connector's own buffers; called before anything is opened.

        Args:
            size_bytes: limit of all buffers together; a limit in the connector's config has priority.
            is_strict: the user asked for the limit; False: a default that an operation may exceed.
        """
        ...


# -- optional capabilities of sources --------------------------------------------------------------------------------


@runtime_checkable
class BoundsRecords(Protocol):
    """Knows the length of a record before the record is in a batch."""

    def limit_record(self, size_bytes: int) -> None:
        """Limit the size of a record; for a longer one, `discover` or `read` raises `arrow.record_size.too_wide`.

        Called before anything is opened. If it returns a longer record, the engine refuses the record once its batch is
        in memory.
        """
        ...


@runtime_checkable
class ListsStreams(Protocol):
    """Lists its streams without opening one. Without it, `discover` opens all streams, and a broken one stops it."""

    def list_streams(self) -> Sequence[str]:
        """Return the names that `discover` returns, in its order."""
        ...

    def open_streams(self, names: Collection[str]) -> Sequence[Stream]:
        """Return these streams like `discover`; a broken one has no columns and a reason (`unreadable`)."""
        ...


@runtime_checkable
class FindsStreams(Protocol):
    """Describes some of its streams without reading the others. Without it, each worker of a run reads all of them."""

    def find_streams(self, names: Collection[str]) -> Sequence[Stream]:
        """Return the streams of these names like `discover`; leave out missing ones."""
        ...


@runtime_checkable
class ListsUnreadable(Protocol):
    """Knows the tables that its user may not read and `discover` omits. Without it, they are not reported."""

    def unreadable_tables(self) -> Sequence[str]:
        """Return their names in the form of stream names, in order."""
        ...

    def read_grants(self, tables: Sequence[str]) -> Sequence[str]:
        """Return the statements that let the user read some of these tables."""
        ...


@runtime_checkable
class HasFormerNames(Protocol):
    """Gives some streams other names than earlier versions did. Needs `ListsStreams`."""

    def former_names(self) -> Mapping[str, str]:
        """Return present name -> former name, for streams that `list_streams` has returned."""
        ...

    def keep_former_names(self, names: Collection[str]) -> None:
        """Use the former names of these streams, given by their present names, from now on."""
        ...


@runtime_checkable
class FindsTypes(Protocol):
    """Finds column types in the data and keeps them with the bookmark."""

    def as_known(self, stream: Stream, bookmark: Bookmark | None) -> Stream:
        """Return the stream with the column types that earlier runs found."""
        ...


@runtime_checkable
class LooksAtTimes(Protocol):
    """Reads the values of columns of nanoseconds. Without it, a destination of microseconds refuses the columns."""

    def nanoseconds(self, stream: Stream, columns: Sequence[str]) -> frozenset[str]:
        """Return the columns that have a digit below the microsecond; reads all of their values.

        Other such columns are then read in microseconds: each value is exact, or refused.
        """
        ...


@runtime_checkable
class TracksFiles(Protocol):
    """Reads streams of files, and finds new or changed files. Needs `ListsStreams`."""

    def open_tracked(self, name: str, read: Sequence[FileRead], bookmark: Bookmark) -> Stream:
        """Return a stream like `open_streams`, with the columns in `bookmark` and in new and changed files.

        A later `read` of a stream that `tracks_files` only yields the records of new and changed files. Its checkpoints
        come between files and list them. If more files were read since, its bookmark has `FILES`: all files read.

        Args:
            name: a stream.
            read: result of `KeepsFiles.files_read`.
            bookmark: bookmark of the stream's last commit.
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
    """Splits streams that are read whole (FULL_TABLE) into ranges."""

    def plan_ranges(self, stream: Stream, readers: int) -> tuple[int | None, str]:
        """Return the expected number of ranges, and how or why not the stream is split; open nothing.

        None: the number is known only during the read. 1: the stream is read whole.
        """
        ...

    def open_ranges(self, stream: Stream, readers: int, wire: str) -> AbstractContextManager[OpenRanges]:
        """Take a snapshot and split it. After the context ends, running readers soon fail."""
        ...


@runtime_checkable
class ReadsLog(Protocol):
    """Reads streams from its database's log (LOG_BASED): every change, in the log's order."""

    def why_not_logged(self, stream: Stream) -> str:
        """Return why a stream cannot be read from the log, as far as the catalog knows; empty: it can."""
        ...

    def look_at_log(self, name: str, streams: Sequence[Stream], rows: Sequence[LedgerRow]) -> LogLook:
        """Check the requirements of a log read, and how much log is kept for it; change nothing.

        Args:
            name: see `open_log`.
            streams: the streams to read.
            rows: the pipeline's ledger rows that have `LedgerRow.log`.
        """
        ...

    def overdue_log(
        self,
        name: str,
        streams: Sequence[Stream],
        rows: Callable[[], Sequence[LedgerRow]],
        is_stuck: Callable[[str], bool],
    ) -> GivenUp:
        """Return what a run gives up of a log that has grown past the source's settings; change nothing.

        Args:
            name: see `open_log`.
            streams: the streams that the run reads.
            rows: returns what `look_at_log` gets; asked only where there is a limit.
            is_stuck: tells whether runs read a stream in vain; asked only where that matters.
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
        reader: str = "",
    ) -> AbstractContextManager[OpenLog]:
        """Open one read of all these streams.

        Args:
            name: unique name for the pipeline and its destination, in lower case letters, digits and `_`.
            streams: streams of one pipeline.
            rows: as in `look_at_log`.
            note: writes `LedgerRow.log` of a stream; called before anything is created at the source.
            held: returns the committed positions of all streams of this log; the source may discard the log below the
                lowest one only. Any thread may call it.
            ended: state of other streams that this run has read to the end: this read ends at the same position.
            reader: run and host. Another run that waits for the log shows them.

        Raises:
            FatalConnectorError: a requirement is missing, or the log does not match the rows.
        """
        ...

    def open_moment(
        self, name: str, streams: Sequence[Stream], rows: Sequence[LedgerRow]
    ) -> AbstractContextManager[LogMoment]:
        """Hold a moment of these streams' tables, which cannot be emptied or altered meanwhile; see `open_log`."""
        ...

    def drop_log(self, rows: Sequence[LedgerRow], *, keeps_publication: bool = False) -> Sequence[str]:
        """Drop only what `open_log` has created for these rows; return the names.

        `keeps_publication`: only what makes the source keep its log.
        """
        ...


@runtime_checkable
class ComputesChecksums(Protocol):
    """Computes checksums of its tables in its database. Without it, the engine reads the records into DuckDB."""

    def checksum_system(self) -> str:
        """Return the system whose SQL computes the checksums: `postgres`, `mysql` or `duckdb`."""
        ...

    def checksums(self, side: Side) -> AbstractContextManager[Checksums]:
        """Open the checksums of one side; the context closes them."""
        ...

    def narrowed(self, stream: Stream, side: Side, ranges: Sequence[KeyRange]) -> Stream:
        """Return the stream limited to some ranges of keys."""
        ...

    def keeps_json(self) -> bool:
        """Return whether its `json` keeps the text unchanged; call it after the source has connected."""
        ...

    def array_item(self, field: pa.Field) -> pa.Field | None:
        """Return the item field of an array that is read as text.

        None: it is no array, or its items cannot be compared.
        """
        ...


@runtime_checkable
class ReadsQueries(Protocol):
    """Reads the result of a query as a stream.

    If `Stream.is_query_bounded`, `:bookmark` outside of constants, quoted names and comments is replaced by a value.
    The value is the first bookmark property minus `lookback`; without a bookmark it is `ReadSpec.bookmark_start`.
    """

    def query_stream(
        self, name: str, query: str, values: Mapping[str, Any] | None = None, start: str | float | None = None
    ) -> Stream:
        """Describe a query without reading it: return a stream of that name, without keys.

        Args:
            name: name of the stream.
            query: without a final `;`.
            values: values of the query's parameters, see `Stream.query_values`.
            start: a possible value of `:bookmark`, as text of the pipeline file; its column's type is not known yet.

        Raises:
            FatalConnectorError: it is not one SELECT, two columns share a name, or a parameter is not in the place of a
                value.
        """
        ...

    def may_write(self) -> str:
        """Return a warning for the plan if a query may change data; empty: it runs in a read-only transaction."""
        ...


@runtime_checkable
class FiltersRecords(Protocol):
    """Reads, counts and compares only the records that meet `ReadSpec.where`. Without it, the engine filters."""

    def filters(self, stream: Stream, condition: Condition) -> bool:
        """Return whether it applies a stream's condition exactly like `filters.matches`; opens nothing."""
        ...


@runtime_checkable
class FlattensObjects(Protocol):
    """Yields the fields of objects (structs, JSON objects) as columns."""

    def flatten(self, levels: Callable[[str], int]) -> None:
        """Start to flatten, with the names and marks of `arrow.flatten`; called before streams are discovered.

        Two columns with one name are a `ConnectorConfigError` if found before records are read, else a
        `FatalConnectorError`. A scalar in place of an object stays in the column with the object's name.

        Args:
            levels: returns the number of levels at which a stream's objects are flattened; 0: none.
        """
        ...


# -- optional capabilities of destinations ---------------------------------------------------------------------------


@runtime_checkable
class StatesTypes(Protocol):
    """Declares how exactly it stores each column. Without it, the engine checks no column in advance."""

    def keeps(self, stream: Stream, table: TableState, disposition: WriteDisposition) -> Sequence[Kept]:
        """Return the stored type of each column of the stream, in order.

        Open nothing; the result depends only on the arguments.

        Args:
            stream: the arriving stream.
            table: its table's state, from `describe`.
            disposition: REPLACE creates a new table, whatever the old types are.
        """
        ...


@runtime_checkable
class ReadsLimits(Protocol):
    """Reads the least and greatest values of columns. Without it, guessed types do not depend on the table's values."""

    def limits(self, destination_table: str, columns: Sequence[str]) -> Mapping[str, tuple[Any, Any]]:
        """Return the least and the greatest value of some columns of an existing table, without columns of only NULL.

        The columns are integers or texts.
        """
        ...


@runtime_checkable
class NamesTables(Protocol):
    """Knows which names mean one table. Without it, only equal names do."""

    def one_name(self, destination_table: str) -> str:
        """Return one name for all spellings of a table (`users` and `public.users`, `Id` and `ID`)."""
        ...


@runtime_checkable
class NamesColumns(Protocol):
    """May rename a stream's columns. Without it, columns have the stream's names."""

    def column_names(self, names: Sequence[str], table: TableState) -> Mapping[str, str]:
        """Return the present name in the table for each column of a stream."""
        ...


@runtime_checkable
class VerifiesServer(Protocol):
    """Knows whether its connections prove who the server is. A capability of sources and destinations."""

    def unverified_server(self) -> str:
        """Return a warning for the plan; empty: the server is verified, or on this machine. Opens nothing."""
        ...


@runtime_checkable
class ShowsAddress(Protocol):
    """Shows its address as the file writes it. A capability of sources and destinations."""

    def shown_address(self) -> str:
        """Return `identity()` for output, with the host as the settings write it, and without credentials."""
        ...


@runtime_checkable
class KnowsLimits(Protocol):
    """Knows its user's limits on the server; for sources and destinations. Without it, a run meets them."""

    def limit_warnings(self, connections: int) -> Sequence[str]:
        """Return the limits that can end a run with this many connections, and their remedies."""
        ...


@runtime_checkable
class ForgetsRuns(Protocol):
    """Knows whether each run replaces the records of earlier runs, despite another disposition."""

    def forgets_runs(self) -> str:
        """Return a warning for the plan of streams that only read new records; empty: earlier records stay."""
        ...


@runtime_checkable
class KeepsRejected(Protocol):
    """Accepts `Rejected` events and keeps their records beside the table; see `connectors/rejected`.

    It also keeps records that it rejects itself, and names them in `Commit.refused`. It fails a load with more of them
    than `WriteSpec.max_rejected`, or with a larger share of a commit than `WriteSpec.max_rejected_percent`.
    """

    def keeps_rejected(self) -> str:
        """Describe the rejected records that it cannot keep, for a warning in the plan; empty: it keeps all."""
        ...


@runtime_checkable
class ListsLedger(Protocol):
    """Lists the ledger rows of a pipeline.

    Without it, the engine cannot find a stream that the run store has forgotten.
    """

    def rows_of(self, pipeline: str, tables: Sequence[str]) -> Sequence[LedgerRow]:
        """Return all rows of a pipeline in the ledgers beside these tables."""
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
    """Writes into its ledger from which log a stream is read. Without it, it accepts no LOG_BASED stream."""

    def note_log(self, key: LedgerKey, token: str, log: Mapping[str, Any]) -> None:
        """Write only `LedgerRow.log` into the row of a key, and commit.

        Raises:
            TakenOver: the row has another token, or does not exist.
        """
        ...


@runtime_checkable
class RefusesKeys(Protocol):
    """Cannot store some rows in its ledger (a long name). Without it, the ledger stores every row."""

    def refusal(self, key: LedgerKey) -> str:
        """Return why the ledger cannot store a row for a key, for the plan; empty: it can."""
        ...


@runtime_checkable
class KeepsLatest(Protocol):
    """Keeps the latest record of a key, as `WriteSpec` says: by a column's values, also against the table's record."""

    def keeps_latest(self, field: pa.Field) -> bool:
        """Return whether it orders a column's values as required.

        Numbers, dates and times are ordered by value, texts by their bytes.
        """
        ...


@runtime_checkable
class DropsDeleted(Protocol):
    """Drops a record that is marked as deleted, as `WriteSpec` says, and the table's record of its key."""

    def drops_deleted(self, condition: Condition) -> bool:
        """Return whether it finds the condition's values by their exact spelling."""
        ...


@runtime_checkable
class LoadsRanges(Protocol):
    """Loads ranges: REPLACE, and MERGE of streams without repeated keys."""

    def load_ranges(self, load: Load, reads: RangeReads, loaders: int, wire: str) -> Iterator[Commit]:
        """Load every range once, `loaders` at a time, and commit the stream once, like `Destination.load`.

        Until then ranges are in staging tables. One transaction writes a range and its row in a ledger of ranges. A
        failed range is loaded again if `may_repeat` agrees; the others stay. The ranges of an interrupted load are
        resumed if they have the same layout and `resume` agrees, else dropped. After an exception the ranges are
        dropped, unless `is_kept`.
        """
        ...

    def drop_ranges(self, pipeline: str, is_wanted: Callable[[LedgerKey], bool]) -> None:
        """Drop the ranges of a pipeline's interrupted loads, except where `is_wanted`."""
        ...


@runtime_checkable
class ExaminesTables(Protocol):
    """Reads tables that another program has written. Without it, such a table cannot be adopted."""

    def examine(self, table: str, key: Sequence[str], bookmark: Sequence[str]) -> TableRecords:
        """Read keys and bookmark of an existing table's records; change nothing.

        Args:
            table: a `destination_table`.
            key: columns by their names in the table; empty: no key is wanted.
            bookmark: columns by their names in the table, most significant first; empty: no bookmark is wanted.
        """
        ...


@runtime_checkable
class KnowsPrivileges(Protocol):
    """Knows the privileges that its user lacks for a run. Without it, the run meets the refusal."""

    def missing_privileges(self, tables: Mapping[str, WriteDisposition]) -> Sequence[str]:
        """Return the GRANT statements that are missing to write these tables and the ledger; change nothing."""
        ...


@runtime_checkable
class KeepsFiles(Protocol):
    """Keeps which files were read. Without it, a stream cannot be INCREMENTAL by `_file_modified`.

    `load` writes `Checkpoint.files` in the data's transaction; a known file replaces its row. `set_bookmark` with None,
    and `Load.forgets_files`, forget all files of the key.
    """

    def files_read(self, key: LedgerKey) -> Sequence[FileRead]:
        """Return the files that loads of this key have committed."""
        ...

    def forget_files(self, key: LedgerKey, paths: Collection[str]) -> None:
        """Forget some files, under a new token: the next run reads them again."""
        ...


@runtime_checkable
class RunsStatements(Protocol):
    """Runs a user's statements, for `sql` callbacks."""

    def execute(self, statement: str, parameters: Mapping[str, Any], *, name: str = "") -> int:
        """Run and commit one statement; return how many records it changed.

        Args:
            statement: `:name` is a parameter, except in constants, quoted names, comments and casts.
            parameters: texts, numbers, booleans or None; bound, never part of the statement's text.
            name: for `interrupt`.
        """
        ...

    def interrupt(self, stream: str) -> None:
        """Soon end the call with this name (`Interrupted`)."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...


@runtime_checkable
class FencesStatements(Protocol):
    """Runs a user's statements in the transaction of a ledger row.

    Without it, a stream's `before` runs no statement in the destination.
    """

    def execute_fenced(self, key: LedgerKey, token: str, statement: str, parameters: Mapping[str, Any]) -> int:
        """Run one statement on a separate connection; commit it with an update of the row `where token = mine`.

        If a system commits such a statement implicitly (MySQL: ALTER TABLE), the row is checked just before.
        `interrupt` of the key's stream ends it. Returns how many records it changed.

        Args:
            key: key of the row.
            token: written by `take_over`.
            statement: see `RunsStatements`.
            parameters: see `RunsStatements`.

        Raises:
            TakenOver: the row has another token, or does not exist; the statement did not run.
        """
        ...
