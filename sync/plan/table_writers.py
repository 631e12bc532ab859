"""The streams that write a table."""

from __future__ import annotations

from collections.abc import Sequence

from syncblocks.connectors.stream import LedgerKey, TableState


def other_writers(key: LedgerKey, table: TableState, sharing: Sequence[str]) -> list[str]:
    """Return the other streams that write a table.

    Args:
        key: ledger key of the stream.
        table: the table.
        sharing: names of the other streams of this run that write the table. Streams with commits in the table's
            ledger are added.
    """
    own = (key.pipeline, key.stream)
    of_ledger = [
        f"stream {row.key.stream!r} of pipeline {row.key.pipeline!r}"
        for row in table.ledger
        if (row.key.pipeline, row.key.stream) != own and row.committed_at is not None and row.key.stream not in sharing
    ]
    return [*(f"stream {name!r}" for name in sharing), *of_ledger]


__all__ = ["other_writers"]
