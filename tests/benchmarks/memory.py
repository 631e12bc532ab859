"""How much memory a sync takes, and that it does not grow with the table."""

from __future__ import annotations

from tests.benchmarks.bench import DUCKDB_FILE, Bench, Figure, duckdb, postgres, single_figure

#: What is asked: megabytes at most, and how much more a larger table may take.
_MOST_MB = {"postgres": 250, "duckdb": 400}
_GROWTH = 1.10


def memory(bench: Bench) -> list[Figure]:
    """A table, and one of `bench.large_rows` records, in a process each."""
    source, destination = bench.database(), bench.database()
    made = []
    for name, records in {"once": bench.rows, "larger": bench.large_rows}.items():
        bench.orders(source, name, records)
    for kind, most_mb in _MOST_MB.items():
        peaks: list[int] = []
        for name, records in {"once": bench.rows, "larger": bench.large_rows}.items():
            to = duckdb() if kind == "duckdb" else postgres(destination)
            pipeline = bench.pipeline(f"{kind}_{name}", postgres(source), to, [{"stream": f"public.{name}"}])
            usage = bench.sync(pipeline)()
            if kind == "duckdb":
                bench.check_duckdb(source, name, pipeline.with_name(DUCKDB_FILE))
            else:
                bench.check_equal(source, destination, name)
            peaks.append(usage.peak_rss_bytes)
            growth = peaks[-1] / peaks[0]
            target = f"<= {most_mb} MB" + (f", <= 10 % more: {100 * (growth - 1):+.0f} %" if len(peaks) > 1 else "")
            is_met = peaks[-1] <= most_mb * 1e6 and growth <= _GROWTH
            made.append(
                single_figure(f"memory, {kind}", f"{records:,}", records, [usage], target=target, is_met=is_met)
            )
    return made


__all__ = ["memory"]
