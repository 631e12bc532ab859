"""Publishes staged loads: runs each phase for all of them, writes their ledger rows, and commits once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from msgspec import Struct

from ...errors import ConnectorError, TakenOver, taken_over
from ...failpoints import failpoint
from ...stream import Checkpoint, Commit, LedgerKey, Load, committed_row
from ..ledger import commit
from .context import LoadContext
from .strategy import Strategy


class StagedLoad(Struct, kw_only=True):
    """A load with the staged records of its open transaction."""

    context: LoadContext
    strategy: Strategy
    #: Records of the load's transactions so far.
    written: int = 0
    #: Bytes of the events of this transaction.
    size_bytes: int = 0
    has_committed: bool = False


def publish(orders: Sequence[tuple[Load, Checkpoint]], staged: Mapping[LedgerKey, StagedLoad]) -> Sequence[Commit]:
    """Write the staged records of loads into their targets, in one transaction, and commit it.

    Args:
        orders: loads with the checkpoints that the commit reaches. Loads of parents come before those of children.
        staged: key of each of these loads -> its staged records. They share one lease, whose transaction is open.

    Raises:
        TakenOver: another run has written its token. The transaction was rolled back.
    """
    loads = [(staged[load.key], checkpoint) for load, checkpoint in orders]
    for each, checkpoint in loads:
        _begin(each, checkpoint)
    for each, checkpoint in loads:
        with named_owner(each.context):
            each.strategy.lock(is_final=checkpoint.is_final)
    for each, _ in loads:
        with named_owner(each.context):
            each.strategy.write()
    for each, _ in reversed(loads):
        each.strategy.remove()
    for each, _ in loads:
        each.strategy.swap()
    rejected = [_record(each, checkpoint) for each, checkpoint in loads]
    commit(loads[0][0].context.session, loads[0][0].context.dialect)
    return [_committed(each, checkpoint, count) for (each, checkpoint), count in zip(loads, rejected, strict=True)]


@contextmanager
def named_owner(context: LoadContext) -> Iterator[None]:
    """If another run took the stream over, roll back and raise the error that names its owner."""
    try:
        yield
    except TakenOver:
        raise owner_error(context) from None


def owner_error(context: LoadContext) -> TakenOver:
    """Roll back. Return the error that names the stream's new owner, if the ledger can be read."""
    owner = ""
    context.session.rollback()
    with suppress(ConnectorError):
        context.session.begin()
        rows = context.ledger.read(context.session, context.ledger.table(context.target.name), context.load.key)
        owner = rows[0].owner if rows else ""
        context.session.rollback()
    return taken_over(context.load.stream.name, owner)


def _begin(staged: StagedLoad, checkpoint: Checkpoint) -> None:
    context, strategy = staged.context, staged.strategy
    context.lease.check()
    name = strategy.staged.name if strategy.staged is not None else None
    context.dialect.writes.begin_commit(context.session, name)
    failpoint(f"{context.dialect.name}.commit.before")
    strategy.files = checkpoint.files


def _record(staged: StagedLoad, checkpoint: Checkpoint) -> int:
    """Write the ledger row, the read files and the rejected records. Return the number of rejected records."""
    context, strategy = staged.context, staged.strategy
    load, session, target = context.load, context.session, context.target
    if context.rejected is not None:
        context.rejected.judge(strategy.records)
    staged.written += strategy.records
    row = committed_row(
        None,
        load,
        checkpoint,
        written=staged.written,
        history=strategy.kept_history(is_final=checkpoint.is_final),
        columns=context.columns.known,
        typed=target.typed,
    )
    with named_owner(context):
        context.ledger.record(session, context.ledger.table(target.name), row)
    if context.files is not None:
        if load.forgets_files and not staged.has_committed:
            context.files.forget(session, load.key)
        context.files.record(session, load.key, load.run, checkpoint.files)
    rejected = 0 if context.rejected is None else context.rejected.write()
    context.lease.check()
    if target.changes and not target.is_announced:
        load.announce(checkpoint, tuple(target.changes))
    return rejected


def _committed(staged: StagedLoad, checkpoint: Checkpoint, rejected: int) -> Commit:
    context, strategy = staged.context, staged.strategy
    staged.has_committed = True
    context.target.note_committed(strategy.records)
    return Commit(
        checkpoint=checkpoint,
        records=strategy.records,
        size_bytes=staged.size_bytes,
        schema_changes=tuple(context.target.changes),
        rejected=rejected,
        refused=() if context.rejected is None else context.rejected.take_refused(),
        removed=strategy.removed,
        replaced=strategy.replaced,
    )


__all__ = ["StagedLoad", "named_owner", "owner_error", "publish"]
