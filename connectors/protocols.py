"""Source and Destination: the order of calls, and what both sides promise.

Connectors are plain classes made as `Class(config, folder)`: the `config` mapping of the pipeline file and the folder
from which relative paths count (`settings.resolve_path`). Making one opens nothing. A class attribute `settings` is
the pydantic model of its config. Every method may be called from several threads at once, for different streams;
`interrupt` and `close` from any thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from .arrow.fidelity import Kept
from .stream import Bookmark, Commit, Event, LedgerKey, LedgerRow, Load, Stream, TableState, WriteDisposition

#: One block of a wire format other than "arrow".
Block = bytes | bytearray | memoryview


class Source(Protocol):
    """Where records come from.

    Errors: `ConnectorConfigError` for wrong settings, `RetriableError` where a repetition may help,
    `FatalConnectorError` otherwise. The engine retries only `RetriableError`.

    Optional: `as_known(stream, bookmark) -> Stream`, the stream with the types that earlier runs found in its data;
    `skips_late(stream) -> str`, why an INCREMENTAL read may skip records of a transaction that commits late (empty:
    it skips none).
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


class RunsStatements(Protocol):
    """What a destination may offer beside `Destination`: statements of the user's, for `sql` callbacks."""

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


class Prepares(Protocol):
    """What a source or destination may offer: to connect in the background, while the run is being planned."""

    #: The wire format that two ends of this kind prefer.
    shortcut: str

    def prepare(self, wire: str, *, is_whole: bool) -> None:
        """Begin to open the connection that the first call will want; its error is that call's.

        Args:
            wire: format that most streams will probably travel in; a wrong guess costs time, nothing else.
            is_whole: some streams are loaded as a whole.
        """
        ...


class HoldsMemory(Protocol):
    """What a source or destination may offer that holds more than the batch it works on."""

    def limit_memory(self, size_bytes: int, *, is_strict: bool) -> None:
        """Bound the connector's own buffers, before it opens anything.

        Args:
            size_bytes: of all of them together; what its config says of the same goes before.
            is_strict: somebody asked for it; False: a default, which an operation that needs more may pass.
        """
        ...


class BoundsRecords(Protocol):
    """What a source may offer that can tell how long a record is before it has made a batch of it."""

    def limit_record(self, size_bytes: int) -> None:
        """Say what a record may have, before anything is opened; of a longer one `read` raises `wide.too_wide`.

        The engine refuses it in any case, but with a batch of it in memory.
        """
        ...


class StatesTypes(Protocol):
    """What a destination may offer beside `Destination`: how exactly it keeps columns. Without: nobody knows."""

    def keeps(self, stream: Stream, table: TableState, disposition: WriteDisposition) -> Sequence[Kept]:
        """Say for each column of the stream, in order, as what it is kept. Pure: opens nothing.

        Args:
            stream: as it arrives.
            table: what `describe` says of the table it goes to.
            disposition: REPLACE makes the table anew, whatever types it has.
        """
        ...


class NamesTables(Protocol):
    """What a destination may offer beside `Destination`: which names mean one table. Without: only equal ones do."""

    def one_name(self, destination_table: str) -> str:
        """Return what all names of the same table have in common (`users` and `public.users`, `Id` and `ID`)."""
        ...


class Destination(Protocol):
    """Where records go. The ledger row is updated in the same transaction as the data, `where token = mine`."""

    #: False where no ledger can be kept (then: at least once, and the engine keeps the bookmark).
    has_ledger: bool
    #: `quarantines: bool`, optional: True where it takes `Rejected` events, see `rejected/records.py`.
    #: How many loads may run at once; None: as many as the engine likes.
    max_loads: int | None
    # `refusal(key: LedgerKey) -> str`, optional, asked when a run is planned: why the ledger can have no row for a key
    # (a name that is too long); else empty.
    # `unquarantined() -> str`, optional, asked when a run is planned: what of bad records it cannot set aside, in
    # words; empty: nothing.
    # One that heeds `Load.removed` says so by an attribute `can_remove = True`.

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
