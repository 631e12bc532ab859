"""A prune down to one run in transactions of few rows, as a process of its own that is killed on the way."""

from __future__ import annotations

import sys

from syncblocks.sync.store import Store, prune

#: Rows that a transaction may delete.
ROWS = 9


def main(url: str) -> None:
    prune.MOST_ROWS = ROWS
    with Store.open(url) as store:
        store.remove_runs(store.past_runs("p", keep=None, keep_runs=1).runs)


if __name__ == "__main__":
    main(*sys.argv[1:])
