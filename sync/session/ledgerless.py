"""A destination that cannot hold a ledger (a Singer target): the run store keeps its ledger rows.

The destination confirms a commit first, then the store records it. A crash between the two repeats records, so the
destination gets them at least once. Only the owner of the run can move its bookmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from syncblocks.connectors.capabilities import Adaptation, Capabilities
from syncblocks.connectors.errors import ConnectorError, TakenOver
from syncblocks.connectors.protocols import Capability, Destination, LoadsRanges
from syncblocks.connectors.ranges import RangeReads
from syncblocks.connectors.stream import Block, Bookmark, Commit, Event, LedgerKey, LedgerRow, Load, Stream, TableState
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition

from ..store import Store
from ..store.model import LostRun, StateCopy

ADAPTATION = Adaptation(
    passed_on=frozenset(
        {
            "bounds_records",
            "computes_checksums",
            "drops_deleted",
            "filters_records",
            "finds_streams",
            "finds_types",
            "flattens_objects",
            "forgets_runs",
            "has_former_names",
            "holds_memory",
            "keeps_latest",
            "keeps_rejected",
            "knows_limits",
            "knows_place",
            "lists_leftovers",
            "lists_streams",
            "lists_unreadable",
            "looks_at_times",
            "names_columns",
            "names_tables",
            "prepares",
            "reads_limits",
            "reads_log",
            "reads_queries",
            "reads_ranges",
            "runs_statements",
            "shows_address",
            "skips_late",
            "states_types",
            "tracks_files",
            "verifies_server",
        }
    ),
    wrapped=frozenset({"listed", "loads_ranges"}),
    dropped=frozenset(
        {
            "examines_tables",
            "fences_statements",
            "keeps_files",
            "knows_privileges",
            "lists_ledger",
            "notes_log",
            "refuses_keys",
        }
    ),
)


class Ledgerless:
    """A destination without a ledger, whose ledger rows are in the run store."""

    has_ledger = False

    def __init__(self, destination: Destination, pipeline: str) -> None:
        self._destination = destination
        self.max_loads: int | None = destination.max_loads
        self._pipeline = pipeline
        self._store: Store | None = None
        self._run_id: int | None = None
        self._sources: dict[LedgerKey, str] = {}
        self._tokens: dict[LedgerKey, str] = {}
        #: Streams that this process completed. After a crash nobody knows, and the stream runs again.
        self._completed: dict[LedgerKey, str] = {}

    def use(self, store: Store | None, run_id: int | None = None) -> None:
        """Set the store of the ledger rows, and the run that may change them; None: changes by hand."""
        self._store, self._run_id = store, run_id

    def identity(self) -> str:
        """See `Destination`."""
        return self._destination.identity()

    def check(self) -> None:
        """See `Destination`."""
        self._destination.check()

    def describe(self, tables: Sequence[str]) -> Mapping[str, TableState]:
        """Return the destination's tables with the ledger rows of the store."""
        rows = self._rows()
        return {
            table: replace(state, ledger=tuple(row for row in rows if row.key.destination_table == table))
            for table, state in self._destination.describe(tables).items()
        }

    def accepts(self, stream: Stream, disposition: WriteDisposition) -> Sequence[str]:
        """See `Destination`."""
        return self._destination.accepts(stream, disposition)

    def take_over(self, key: LedgerKey, *, token: str, owner: str, source: str | None = None) -> LedgerRow:
        """Return the store's row; from now on, a load with another token cannot commit."""
        self._tokens[key] = token
        if source is not None:
            self._sources[key] = source
        known = next((row for row in self._rows() if row.key == key), LedgerRow(key=key, source="", token=""))
        return replace(
            known,
            token=token,
            owner=owner,
            source=known.source if source is None else source,
            completed_by=self._completed.get(key),
        )

    def set_bookmark(self, key: LedgerKey, bookmark: Bookmark | None, *, forget: bool = False) -> None:
        """Set the bookmark, or delete the row."""
        if self._store is None:
            return
        if forget:
            self._store.delete_state(self._pipeline, key.stream, key.destination_table)
            return
        row = self.take_over(key, token="", owner="")
        self._save(key, row.source, bookmark, None if bookmark is None else row.rows)

    def load(self, load: Load, events: Iterator[Event | Block], wire: str = "arrow") -> Iterator[Commit]:
        """Write the events; each confirmed commit is stored before it is yielded."""
        return self.kept(load, self._destination.load(load, events, wire))

    def adapted(self, inner: Capabilities) -> Capabilities:
        """Return the destination's capabilities, without those that need a ledger in the destination."""
        return ADAPTATION.of(
            inner,
            listed=lambda listed: listed - {Capability.KEEPS_HISTORY},
            loads_ranges=lambda ranges: _KeptRanges(self, ranges),
        )

    def kept(self, load: Load, commits: Iterator[Commit]) -> Iterator[Commit]:
        """Store each confirmed commit before yielding it."""
        key, records = load.key, 0
        for commit in commits:
            records += commit.records
            if self._tokens.get(key) != load.token:
                raise TakenOver(f"stream {key.stream!r} was taken over", stream=key.stream)
            if commit.is_confirmed:
                try:
                    self._save(key, self._sources.get(key, ""), commit.checkpoint.bookmark, records)
                except LostRun as error:
                    raise TakenOver(f"stream {key.stream!r} was taken over: {error}", stream=key.stream) from error
            yield commit
        self._completed[key] = load.run

    def drop_staging(self, tokens: Sequence[str]) -> None:
        """See `Destination`."""
        self._destination.drop_staging(tokens)

    def interrupt(self, stream: str) -> None:
        """See `Destination`."""
        self._destination.interrupt(stream)

    def close(self) -> None:
        """See `Destination`."""
        self._destination.close()

    def _save(self, key: LedgerKey, source: str, bookmark: Bookmark | None, rows: int | None) -> None:
        if self._store is None:
            raise ConnectorError("a destination without a ledger needs the run store to keep its state")
        copy = StateCopy(
            stream=key.stream,
            destination_table=key.destination_table,
            source=source,
            bookmark=None if bookmark is None else dict(bookmark),
            rows=rows,
        )
        self._store.save_state(self._pipeline, copy, run_id=self._run_id)

    def _rows(self) -> list[LedgerRow]:
        if self._store is None:
            return []
        return [
            LedgerRow(
                key=LedgerKey(pipeline=self._pipeline, stream=state.stream, destination_table=state.destination_table),
                source=state.source,
                token="",
                bookmark=state.bookmark,
                rows=state.rows,
                committed_at=state.saved_at,
            )
            for state in self._store.states(self._pipeline)
        ]


class _KeptRanges:
    """Loads by ranges; the store records their commit as it does for `load`."""

    def __init__(self, ledger: Ledgerless, inner: LoadsRanges) -> None:
        self._ledger = ledger
        self._inner = inner

    def load_ranges(self, load: Load, reads: RangeReads, loaders: int, wire: str) -> Iterator[Commit]:
        """See `LoadsRanges`."""
        return self._ledger.kept(load, self._inner.load_ranges(load, reads, loaders, wire))

    def drop_ranges(self, pipeline: str, is_wanted: Callable[[LedgerKey], bool]) -> None:
        """See `LoadsRanges`."""
        self._inner.drop_ranges(pipeline, is_wanted)
