"""The main loop of a load: transactions that each end in a checkpoint, with their ledger row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from ...errors import ConnectorError, FatalConnectorError, TakenOver
from ...failpoints import failpoint
from ...stream import Checkpoint, Commit, LedgerRow, Rejected, Stream
from ...write_spec import WriteDisposition
from ..ledger import commit
from ..tables import StagingTable, Table
from .context import LoadContext
from .events import LoadEvents
from .ingest import ingest
from .staging import planned_staging, refuse_altered
from .strategy import Strategy


class TableLoad:
    """Writes one load into its table over one leased connection."""

    def __init__(self, context: LoadContext) -> None:
        self._context = context
        self._strategy = _strategy(context)
        #: Records of all transactions.
        self._written = 0
        self._has_committed = False

    def run(self, events: LoadEvents) -> Iterator[Commit]:
        """Write the events up to the last checkpoint; data after the last checkpoint is not committed."""
        if self._context.rejected is not None:
            self._context.rejected.create_table()
        if self._context.files is not None:
            self._context.lease.begin()
            self._context.files.create(self._context.session)
            commit(self._context.session, self._context.dialect)
        while events.peek() is not None:
            done = self._transaction(events)
            if done is None:
                return
            yield done
            if done.checkpoint.is_final:
                return

    def _transaction(self, events: LoadEvents) -> Commit | None:
        """Write and commit the data up to the next checkpoint; None: there are no more checkpoints."""
        context, strategy = self._context, self._strategy
        context.lease.begin()
        context.target.forget_changes()
        if context.rejected is not None:
            context.rejected.begin()
        strategy.begin()
        events.reset()
        while True:
            if events.has_data():
                strategy.write(events)
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
        """Finish the target and commit; explain refusals of foreign keys for `Load.removed`."""
        try:
            return self._finish_all(checkpoint, size_bytes)
        except FatalConnectorError as error:
            if self._context.load.removed is not None:
                from .removal import explain_refusal

                explain_refusal(self._context, error)
            raise

    def _finish_all(self, checkpoint: Checkpoint, size_bytes: int) -> Commit:
        """Finish the target, write the ledger row and the rejected records, and commit all of it at once."""
        context, strategy = self._context, self._strategy
        dialect, load, session, target = context.dialect, context.load, context.session, context.target
        context.lease.check()
        dialect.writes.begin_commit(session, strategy.staged.name if strategy.staged is not None else None)
        failpoint(f"{dialect.name}.commit.before")
        strategy.files = checkpoint.files
        try:
            strategy.finish(is_final=checkpoint.is_final)
            self._written += strategy.records
            row = LedgerRow(
                key=load.key,
                source="",
                token=load.token,
                bookmark=checkpoint.bookmark,
                completed_by=load.run if checkpoint.is_final else None,
                rows=load.records_before + self._written,
                columns=context.columns.known,
                history=strategy.kept_history(is_final=checkpoint.is_final),
                compared_at=load.compared_at,
                filling=load.filling,
                log=load.log,
            )
            context.ledger.record(session, context.ledger.table(target.name), row)
        except TakenOver:
            raise self.taken_over() from None
        if context.files is not None:
            if load.forgets_files and not self._has_committed:
                context.files.forget(session, load.key)
            context.files.record(session, load.key, load.run, checkpoint.files)
        rejected = 0 if context.rejected is None else context.rejected.write()
        context.lease.check()
        if target.changes and not target.is_announced:
            load.announce(checkpoint, tuple(target.changes))
        commit(session, dialect)
        self._has_committed = True
        target.note_committed(strategy.records)
        return Commit(
            checkpoint=checkpoint,
            records=strategy.records,
            size_bytes=size_bytes,
            schema_changes=tuple(target.changes),
            rejected=rejected,
            refused=() if context.rejected is None else context.rejected.take_refused(),
            removed=strategy.removed,
        )

    def taken_over(self) -> TakenOver:
        """Roll back; return the error that names the new owner, if the ledger is readable."""
        context, owner = self._context, ""
        context.session.rollback()
        with suppress(ConnectorError):
            context.session.begin()
            rows = context.ledger.read(context.session, context.ledger.table(context.target.name), context.load.key)
            owner = rows[0].owner if rows else ""
            context.session.rollback()
        by = f" by {owner}" if owner else " by another run, or its ledger row was deleted"
        stream = context.load.stream.name
        return TakenOver(f"stream {stream!r} was taken over{by}", stream=stream)

    # ----------------------------------------------- parts of a load by ranges, see `ranges`
    def planned(self) -> StagingTable:
        """Return the staging table that `stage` would create for the target in the lease's transaction."""
        self._strategy.read_target()
        return planned_staging(self._context)

    def stage(self) -> StagingTable:
        """Create the staging table within the lease's transaction, for other connections too."""
        self._strategy.read_target()
        return self._strategy.stage(is_shared=True)

    def fill(self, staged: StagingTable, events: LoadEvents) -> int:
        """Put data into the staging table within the lease's transaction; return the records."""
        # The staging table's names were chosen when the target was read; the target may have changed since.
        table = Table(name=staged.name, columns=tuple(staged.columns.values()))
        self._context.columns.follow(self._context.columns.stream, table)
        return ingest(self._context, events, staged.name, staged.types)

    def refuse_altered(self, staged: StagingTable) -> None:
        """Lock the staging table's types until the end of the transaction; raise if they were altered."""
        refuse_altered(self._context, staged.name, staged.types)

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
