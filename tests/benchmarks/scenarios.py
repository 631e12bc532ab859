"""What is measured: a module a family. Each scenario checks what it wrote, and returns its figures."""

from __future__ import annotations

from collections.abc import Callable

from tests.benchmarks.bench import Bench, Figure
from tests.benchmarks.callbacks import callbacks
from tests.benchmarks.child_end import child_end
from tests.benchmarks.deletes import deletes
from tests.benchmarks.delta import delta_append, delta_merge
from tests.benchmarks.full_refresh import csv_to_postgres, parquet_to_parquet, postgres_to_duckdb, postgres_to_postgres
from tests.benchmarks.growth import growth
from tests.benchmarks.incremental import changed, first_load, nothing_new
from tests.benchmarks.latency import latency
from tests.benchmarks.log_based import memory as log_memory
from tests.benchmarks.log_based import merge as log_merge
from tests.benchmarks.log_based import to_arrow as log_to_arrow
from tests.benchmarks.mariadb import mariadb_to_postgres
from tests.benchmarks.memory import memory
from tests.benchmarks.pairs import pairs
from tests.benchmarks.parallel import csv_by_ranges, postgres_by_ranges
from tests.benchmarks.small import many_tables, start

#: Name on the command line -> scenario; in this order.
SCENARIOS: dict[str, Callable[[Bench], list[Figure]]] = {
    "start": start,
    "postgres": postgres_to_postgres,
    "duckdb": postgres_to_duckdb,
    "csv": csv_to_postgres,
    "parquet": parquet_to_parquet,
    "delta": delta_append,
    "delta-merge": delta_merge,
    "mariadb": mariadb_to_postgres,
    "pairs": pairs,
    "many": many_tables,
    "growth": growth,
    "first": first_load,
    "nothing": nothing_new,
    "changed": changed,
    "deletes": deletes,
    "parallel": postgres_by_ranges,
    "parallel-csv": csv_by_ranges,
    "callbacks": callbacks,
    "latency": latency,
    "child-end": child_end,
    "memory": memory,
    "log-arrow": log_to_arrow,
    "log-merge": log_merge,
    "log-memory": log_memory,
}
