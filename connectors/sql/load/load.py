"""The main loop of a load: transactions that each end in a checkpoint, with their ledger row."""

from __future__ import annotations

from collections.abc import Iterator

from ...errors import FatalConnectorError
from ...stream import Checkpoint, Commit, Rejected, Stream
from ...write_spec import WriteDisposition
from ..ledger import commit
from ..tables import StagingTable, Table
from .context import LoadContext
from .events import LoadEvents
from .ingest import ingest
from .publish import StagedLoad, publish
from .staging import planned_staging, refuse_altered
from .strategy import Strategy


class TableLoad:
    """Writes one load into its table over one leased connection."""

    def __init__(self, context: LoadContext) -> None:
        self.context = context
        self._strategy = _strategy(context)
        self._staged = StagedLoad(context=context, strategy=self._strategy)

    def run(self, events: LoadEvents) -> Iterator[Commit]:
        """Write the events up to the last checkpoint; data after the last checkpoint is not committed."""
        if self.context.rejected is not None:
            self.context.rejected.create_table()
        if self.context.files is not None:
            self.context.lease.begin()
            self.context.files.create(self.context.session)
            commit(self.context.session, self.context.dialect)
        while events.peek() is not None:
            done = self._transaction(events)
            if done is None:
                return
            yield done
            if done.checkpoint.is_final:
                return

    def _transaction(self, events: LoadEvents) -> Commit | None:
        """Write and commit the data up to the next checkpoint; None: there are no more checkpoints."""
        context, strategy = self.context, self._strategy
        context.lease.begin()
        context.target.forget_changes()
        if context.rejected is not None:
            context.rejected.begin()
        strategy.begin()
        events.reset()
        while True:
            if events.has_data():
                strategy.receive(events)
                continue
            marker = events.marker()
            if marker is None:
                context.session.rollback()
                return None
            if isinstance(marker, Rejected):
                assert context.rejected is not None, "only a stream with `max_rejected` sends them"
                context.rejected.add(marker.records)
            elif isinstance(marker, Stream):
                context.columns.follow(marker, strategy.table)
            elif marker.is_final or strategy.commits_at_checkpoints:
                return self._commit(marker, events.size_bytes)

    def _commit(self, checkpoint: Checkpoint, size_bytes: int) -> Commit:
        """Publish the staged records. Explain refusals of foreign keys for `Load.removed`."""
        load, self._staged.size_bytes = self.context.load, size_bytes
        try:
            (done,) = publish([(load, checkpoint)], {load.key: self._staged})
            return done
        except FatalConnectorError as error:
            if load.removed is not None:
                from .deletes import explain_refusal

                explain_refusal(self.context, error)
            raise

    # ----------------------------------------------- parts of a load by ranges, see `ranges`
    def planned(self) -> StagingTable:
        """Return the staging table that `stage` would create for the target in the lease's transaction."""
        self._strategy.read_target()
        return planned_staging(self.context)

    def stage(self) -> StagingTable:
        """Create the staging table within the lease's transaction, for other connections too."""
        self._strategy.read_target()
        return self._strategy.stage(is_shared=True)

    def fill(self, staged: StagingTable, events: LoadEvents) -> int:
        """Put data into the staging table within the lease's transaction; return the records."""
        # The staging table's names were chosen when the target was read; the target may have changed since.
        table = Table(name=staged.name, columns=tuple(staged.columns.values()))
        self.context.columns.follow(self.context.columns.stream, table)
        return ingest(self.context, events, staged.name, staged.types)

    def refuse_altered(self, staged: StagingTable) -> None:
        """Lock the staging table's types until the end of the transaction; raise if they were altered."""
        refuse_altered(self.context, staged.name, staged.types)

    def finish(self, staged: StagingTable, checkpoint: Checkpoint, *, records: int, size_bytes: int) -> Commit:
        """Write the records of all connections from staging into the target, in the lease's transaction, and commit."""
        self._strategy.read_target()
        self._strategy.staged, self._strategy.records = staged, records
        return self._commit(checkpoint, size_bytes)


def _strategy(context: LoadContext) -> Strategy:
    """Create the strategy for a load; imported by the first load that needs it."""
    if context.load.fills:
        from .fill import Fill

        return Fill(context)
    match context.load.write.disposition:
        case WriteDisposition.APPEND:
            from .append import Append

            return Append(context)
        case WriteDisposition.MERGE if context.load.write.changes:
            from .changes import Changes

            return Changes(context)
        case WriteDisposition.MERGE:
            from .merge import Merge

            return Merge(context)
        case WriteDisposition.REPLACE:
            from .replace import Replace

            return Replace(context)
        case WriteDisposition.REPLACE_RANGE:
            from .replace_range import ReplaceRange

            return ReplaceRange(context)
        case WriteDisposition.HISTORY:
            from .history import History

            return History(context)


__all__ = ["TableLoad"]
