"""Source and Destination: the order of calls, and what both sides promise.

Connectors are plain classes made as `Class(config, folder)`: the `config` mapping of the pipeline file and the folder
from which relative paths count (`settings.resolve_path`). Making one opens nothing. A class attribute `settings` is
the pydantic model of its config. Every method may be called from several threads at once, for different streams;
`interrupt` and `close` from any thread.

Below the two stand the optional abilities, a protocol each: a connector has one by having its methods. The engine asks
once, when a pipeline is opened (`abilities.abilities_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from .stream import Block, Bookmark, Commit, Event, LedgerKey, LedgerRow, Load, Stream, TableState, WriteDisposition

if TYPE_CHECKING:
    import pyarrow as pa

    from .arrow.fidelity import Kept
    from .ranges import OpenRanges, RangeReads
    from .sides import Checksums, KeyRange, Side


class Source(Protocol):
    """Where records come from.

    Errors: `ConnectorConfigError` for wrong settings, `RetriableError` where a repetition may help,
    `FatalConnectorError` otherwise. The engine retries only `RetriableError`.
    """

    def identity(self) -> str:
        """Connector and place without credentials (`postgres://db.example/crm`): kept in the ledger."""
        ...

    def check(self) -> None:
        """Prove that the source can be reached and read; raise otherwise."""
        ...

    def discover(self) -> Sequence[Stream]:
        """Return every stream it offers, names unique, in a stable order; tables before views."""
        ...

    def groups(self, streams: Sequence[Stream]) -> Sequence[Sequence[Stream]]:
        """Split into groups that one read yields together; most sources read each stream alone."""
        ...

    def offers(self, stream: Stream) -> Sequence[str]:
        """Wire formats for this stream, best first; the last one is always "arrow"."""
        ...

    def count(self, stream: Stream) -> int:
        """Count the stream's records."""
        ...

    def read(
        self, group: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None], wire: str = "arrow"
    ) -> Iterator[tuple[str, Event | Block]]:
        """Yield `(stream name, event)`; only the columns of each given `Stream.schema`, in its order.

        With a bookmark: records at or past it, less those at it that were committed already. Checkpoints follow
        the records they cover; no checkpoint is final (the engine adds that one). The schema of every batch
        equals the given stream's, or a `Stream` event came before. Closing the iterator early leaves nothing open.
        """
        ...

    def interrupt(self, stream: str) -> None:
        """End the calls under way for one stream soon (`Interrupted`); no effect where there are none."""
        ...

    def close(self) -> None:
        """Close every connection. Later calls open them anew."""
        ...


class Destination(Protocol):
    """Where records go. The ledger row is updated in the same transaction as the data, `where token = mine`."""

    #: False where no ledger can be kept (then: at least once, and the engine keeps the bookmark).
    has_ledger: bool
    #: How many loads may run at once; None: as many as the engine likes.
    max_loads: int | None

    def identity(self) -> str:
        """Connector and place without credentials."""
        ...

    def check(self) -> None:
        """Prove that it can be reached, creating nothing; a database file that is not there is fine."""
        ...

    def describe(self, tables: Sequence[str]) -> Mapping[str, TableState]:
        """Return the state of each table (one entry a given name); creates and changes nothing."""
        ...

    def accepts(self, stream: Stream, disposition: WriteDisposition) -> Sequence[str]:
        """Wire formats it takes for this stream, best first; the last one is always "arrow"."""
        ...

    def take_over(self, key: LedgerKey, *, token: str, owner: str, source: str | None = None) -> LedgerRow:
        """Write the token into the ledger row (made if missing, schema and ledger table too), then read it.

        Waits for a commit under way on that row. From its return on, no other token can commit.
        `source` None leaves the row's source as it is (recovery). Idempotent; retried safely.
        """
        ...

    def set_bookmark(self, key: LedgerKey, bookmark: Bookmark | None, *, forget: bool = False) -> None:
        """Change the bookmark by hand (`state set`, `state reset`), under a new token; forget: delete the row."""
        ...

    def load(self, load: Load, events: Iterator[Event | Block], wire: str = "arrow") -> Iterator[Commit]:
        """Write the events, yielding after each commit.

        Every `Checkpoint` is committed, data and ledger row together; the final one also writes `completed_by`.
        0 ledger rows with our token = roll back and raise `TakenOver`. An exception out of `events` rolls back
        and passes through unchanged. What was not committed is as if never sent; staging is dropped.
        REPLACE: the engine sends only the final checkpoint; readers see the old table until that commit.
        MERGE: last record of a key wins, within a batch as well. Missing columns are added; a column that no
        longer arrives stays and gets NULL. `load.announce` is called before a commit that changes columns; what it
        raises passes through, and nothing is committed.
        """
        ...

    def drop_staging(self, tokens: Sequence[str]) -> None:
        """Drop what dead runs with these tokens left behind (names carry them), but for ranges to be resumed."""
        ...

    def interrupt(self, stream: str) -> None:
        """End the calls under way for one stream soon (`Interrupted`); no effect where there are none."""
        ...

    def close(self) -> None:
        """Close every connection, so that others can open a file-locking database. Later calls open anew."""
        ...


# -- optional abilities of both --------------------------------------------------------------------------------------


@runtime_checkable
class Prepares(Protocol):
    """Connects in the background, while the run is being planned."""

    def shortcut(self) -> str:
        """Return the wire format that two ends of this kind prefer."""
        ...

    def prepare(self, wire: str, *, is_whole: bool) -> None:
        """Begin to open the connection that the first call will want; its error is that call's.

        Args:
            wire: format that most streams will probably travel in; a wrong guess costs time, nothing else.
            is_whole: some streams are loaded as a whole.
        """
        ...


@runtime_checkable
class HoldsMemory(Protocol):
    """Holds more than the batch it works on."""

    def limit_memory(self, size_bytes: int, *, is_strict: bool) -> None:
        """Bound the connector's own buffers, before it opens anything.

        Args:
            size_bytes: of all of them together; what its config says of the same goes before.
            is_strict: somebody asked for it; False: a default, which an operation that needs more may pass.
        """
        ...


# -- optional abilities of sources -----------------------------------------------------------------------------------


@runtime_checkable
class BoundsRecords(Protocol):
    """Tells how long a record is before it has made a batch of it."""

    def limit_record(self, size_bytes: int) -> None:
        """Say what a record may have, before anything is opened; of a longer one `read` raises `too_wide`.

        The engine refuses it in any case, but with a batch of it in memory.
        """
        ...


@runtime_checkable
class FindsTypes(Protocol):
    """Finds types of columns in the data, and keeps them with the bookmark."""

    def as_known(self, stream: Stream, bookmark: Bookmark | None) -> Stream:
        """Return the stream with the types that earlier runs found."""
        ...


@runtime_checkable
class SkipsLate(Protocol):
    """May skip records of transactions that commit late, in an INCREMENTAL read."""

    def skips_late(self, stream: Stream) -> str:
        """Say why it may; empty: it skips none."""
        ...


@runtime_checkable
class ReadsRanges(Protocol):
    """Splits streams that are read as a whole (FULL_TABLE) into ranges."""

    def plan_ranges(self, stream: Stream, readers: int) -> tuple[int | None, str]:
        """Say into how many ranges a stream would be split, and by what or why not; opens nothing.

        The number is what statistics make expect; None: known only when it is read; 1: it is read as a whole.
        """
        ...

    def open_ranges(self, stream: Stream, readers: int, wire: str) -> AbstractContextManager[OpenRanges]:
        """Take the snapshot and split it. Readers that still run when it is left fail soon."""
        ...


@runtime_checkable
class ComputesChecksums(Protocol):
    """Computes checksums of its tables in its database. Without: DuckDB does, through which the records go."""

    def checksum_system(self) -> str:
        """Return whose SQL they are computed in: `postgres`, `mysql` or `duckdb`."""
        ...

    def checksums(self, side: Side) -> AbstractContextManager[Checksums]:
        """Open one side's checksums; they end with the context."""
        ...

    def narrowed(self, stream: Stream, side: Side, ranges: Sequence[KeyRange]) -> Stream:
        """Return a stream of the records of some ranges of keys only."""
        ...

    def keeps_json(self) -> bool:
        """Tell whether its `json` is the text as it was written; known once it has been connected to."""
        ...

    def array_item(self, field: pa.Field) -> pa.Field | None:
        """Return the items of an array that is read as text; None: it is none, or they cannot be compared."""
        ...


@runtime_checkable
class HasOneNull(Protocol):
    """Reads a form in which NULL and JSON's `null` are one."""

    def has_one_null(self) -> bool:
        """Tell whether they are."""
        ...


# -- optional abilities of destinations ------------------------------------------------------------------------------


@runtime_checkable
class StatesTypes(Protocol):
    """States how exactly it keeps columns. Without: nobody knows."""

    def keeps(self, stream: Stream, table: TableState, disposition: WriteDisposition) -> Sequence[Kept]:
        """Say for each column of the stream, in order, as what it is kept. Pure: opens nothing.

        Args:
            stream: as it arrives.
            table: what `describe` says of the table it goes to.
            disposition: REPLACE makes the table anew, whatever types it has.
        """
        ...


@runtime_checkable
class NamesTables(Protocol):
    """Knows which names mean one table. Without: only equal ones do."""

    def one_name(self, destination_table: str) -> str:
        """Return what all names of the same table have in common (`users` and `public.users`, `Id` and `ID`)."""
        ...


@runtime_checkable
class NamesColumns(Protocol):
    """Calls columns otherwise than the stream does. Without: by the stream's names."""

    def column_names(self, names: Sequence[str], table: TableState) -> Mapping[str, str]:
        """Return for each of a stream's columns what it is called in a table, as that is now."""
        ...


@runtime_checkable
class KeepsRejected(Protocol):
    """Takes `Rejected` events and keeps their records beside the table, see `connectors/rejected`."""

    def keeps_rejected(self) -> str:
        """Say which rejected records it cannot keep, in words, when a run is planned; empty: it keeps all."""
        ...


@runtime_checkable
class RefusesKeys(Protocol):
    """Has no room for some rows in its ledger (a name that is too long)."""

    def refusal(self, key: LedgerKey) -> str:
        """Say why the ledger can have no row for a key, when a run is planned; else return an empty text."""
        ...


@runtime_checkable
class RemovesRecords(Protocol):
    """Heeds `Load.removed`."""

    def removes(self) -> bool:
        """Tell whether it does."""
        ...


@runtime_checkable
class LoadsRanges(Protocol):
    """Loads by ranges: REPLACE, and MERGE of streams that repeat no key."""

    def load_ranges(self, load: Load, reads: RangeReads, loaders: int, wire: str) -> Iterator[Commit]:
        """Load every range once, `loaders` at a time, and commit the stream once, as `Destination.load` does.

        Ranges lie in staging until then, each with its row in a ledger of ranges in one transaction; a range that
        failed is loaded again if `may_repeat` says so, the others stay. What a load that was cut short has left is
        resumed, if it has the same shape and `resume` agrees, or else dropped. An exception leaves nothing behind,
        unless `is_kept`.
        """
        ...

    def drop_ranges(self, pipeline: str, is_wanted: Callable[[LedgerKey], bool]) -> None:
        """Drop what loads of a pipeline have left to be resumed, where it is not wanted."""
        ...


@runtime_checkable
class RunsStatements(Protocol):
    """Runs statements of the user's, for `sql` callbacks."""

    def execute(self, statement: str, parameters: Mapping[str, Any], *, name: str = "") -> int:
        """Run one statement, committed when it returns; return the records it changed.

        Args:
            statement: `:name` stands for a parameter, except in constants, quoted names, comments and casts.
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
