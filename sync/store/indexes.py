"""What only a new store needs to know of its tables: importing this adds it to `tables.metadata`."""

from __future__ import annotations

import sqlalchemy as sa

from .tables import PREFIX, block_run, delivery, pipeline_run

# SQLite takes a partial index only for the very words of its condition, and `is_open = 1` is what queries say there.
sa.Index(
    f"{PREFIX}one_active_run",
    pipeline_run.c.pipeline,
    unique=True,
    sqlite_where=sa.text("is_active = 1"),
    postgresql_where=pipeline_run.c.is_active,
)
sa.Index(f"{PREFIX}runs_of_pipeline", pipeline_run.c.pipeline, pipeline_run.c.id)
sa.Index(f"{PREFIX}block_runs_of_stream", block_run.c.run_id, block_run.c.attempt, block_run.c.stream)
sa.Index(
    f"{PREFIX}queue",
    delivery.c.pipeline,
    delivery.c.callback_block,
    delivery.c.run_id,
    delivery.c.seq,
    delivery.c.position,
    sqlite_where=sa.text("is_open = 1"),
    postgresql_where=delivery.c.is_open,
)
sa.Index(f"{PREFIX}deliveries_of_run", delivery.c.run_id, delivery.c.seq, delivery.c.position)

#: The number of a run that was deleted is not given to another.
pipeline_run.dialect_options["sqlite"]["autoincrement"] = True
