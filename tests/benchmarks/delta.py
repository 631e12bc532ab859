"""Delta tables: a large append, and a merge of one record of a hundred, beside the library's own calls."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.benchmarks.bench import Bench, Figure, figures, postgres, single_figure
from tests.benchmarks.measure import Usage, alternate

#: Megabytes that an append takes at most, whatever the table's size.
_MOST_MB = 400

_OWN_APPEND, _OWN_MERGE = "write_deltalake", "DeltaTable.merge"


def delta_append(bench: Bench) -> list[Figure]:
    """A table into a new Delta table; the limit gives the same batches to the library's own call."""
    source = bench.database()
    bench.orders(source, "orders", bench.rows)
    stream = {"stream": "public.orders", "destination_table": "orders", "write_disposition": "append"}
    pipeline = bench.pipeline("append", postgres(source), _lake(), [stream])
    lake, bare = pipeline.with_name("lake"), bench.folder / "bare"

    def own() -> Usage:
        shutil.rmtree(bare, ignore_errors=True)
        return bench.run(bench.program("delta_append", source, "public.orders", bare))

    def sync() -> Usage:
        shutil.rmtree(lake, ignore_errors=True)
        return bench.sync(pipeline)()

    taken = alternate({_OWN_APPEND: own, "syncblocks": sync}, bench.repeat)
    bench.run(bench.program("delta_check", bare, lake / "orders", bench.rows))
    peak_mb = max(usage.peak_rss_bytes for usage in taken["syncblocks"]) / 1e6
    memory = single_figure(
        "memory, delta",
        f"{bench.rows:,}",
        bench.rows,
        taken["syncblocks"],
        target=f"<= {_MOST_MB} MB",
        is_met=peak_mb <= _MOST_MB,
    )
    return [*figures("postgres to delta", bench.rows, taken, limit=_OWN_APPEND, least=0.9), memory]


def delta_merge(bench: Bench) -> list[Figure]:
    """One record of a hundred has changed, all over the table; the limit is the library's own merge of them."""
    source = bench.database()
    bench.orders(source, "orders", bench.rows)
    stream = {
        "stream": "public.orders",
        "destination_table": "orders",
        "write_disposition": "merge",
        "replication_method": "INCREMENTAL",
        "bookmark_properties": ["created_at"],
    }
    pipeline = bench.pipeline("merge", postgres(source), _lake(), [stream])
    bench.sync(pipeline)()
    lake, kept, bare = pipeline.with_name("lake"), bench.folder / "kept", bench.folder / "bare"
    shutil.copytree(lake, kept)
    bench.execute(
        source,
        "update orders set amount_cents = amount_cents + 1, "
        "created_at = timestamptz '2030-01-01 00:00:00+00' + id * interval '1 ms' where id % 100 = 7",
    )
    bench.execute(source, "create table changed as select * from orders where id % 100 = 7")

    def restore(folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(kept, folder)

    def own() -> Usage:
        restore(bare)
        return bench.run(bench.program("delta_merge", source, "public.changed", bare / "orders"))

    def sync() -> Usage:
        restore(lake)
        return bench.sync(pipeline)()

    taken = alternate({_OWN_MERGE: own, "syncblocks": sync}, bench.repeat)
    bench.run(bench.program("delta_check", bare / "orders", lake / "orders", bench.rows))
    changed = bench.rows // 100
    return figures(f"delta, merge of {changed:,}", changed, taken, limit=_OWN_MERGE, least=round(1 / 1.1, 2))


def _lake() -> dict[str, Any]:
    return {"connector": "delta", "config": {"path": "lake"}}


__all__ = ["delta_append", "delta_merge"]
