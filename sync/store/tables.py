"""Tables of the run store. Prefixed like the ledger, so that no glob over a shared database ever syncs them.

Rows are locked in the same order everywhere: run, attempt, counters, block runs, state, events, deliveries.
Indexes are in `indexes.py`: options for one database make SQLAlchemy import its dialect, and only new stores need them.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

PREFIX = "_syncblocks_"


class UtcTime(TypeDecorator[datetime]):
    """Aware UTC datetimes, on SQLite too (which keeps them without a zone)."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn into UTC; drop the zone where the database has none."""
        if value is None:
            return None
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Json(TypeDecorator[Any]):
    """JSON values as ASCII text: NUL and lone surrogates are escaped, which no database would take in the raw."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Encode; None is NULL."""
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Decode."""
        return None if value is None else json.loads(value)


metadata = sa.MetaData()

#: One row a pipeline run. Locking it is what serializes claim, close and stop; whoever owns it may write.
pipeline_run = sa.Table(
    f"{PREFIX}pipeline_run",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("run_key", sa.Text, nullable=False, unique=True),
    sa.Column("pipeline", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("is_active", sa.Boolean, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("lease_until", UtcTime, nullable=False),
    sa.Column("cancel_requested_at", UtcTime),
    sa.Column("execution_date", UtcTime, nullable=False),
    sa.Column("trigger_id", sa.Text, nullable=False),
    sa.Column("event", Json, nullable=False),
    sa.Column("variables", Json, nullable=False),
    sa.Column("last_seq", sa.Integer, nullable=False),
)

#: One row an attempt: its plan without the streams, its result, and the counts that tell when it has ended.
attempt = sa.Table(
    f"{PREFIX}attempt",
    metadata,
    sa.Column("run_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("stop_status", sa.Text),
    sa.Column("plan", Json),
    sa.Column("open_streams", sa.Integer, nullable=False),
    sa.Column("unclaimed_streams", sa.Integer, nullable=False),
    sa.Column("failed_streams", sa.Integer, nullable=False),
    sa.Column("cancelled_streams", sa.Integer, nullable=False),
    sa.Column("is_gate_released", sa.Boolean, nullable=False),
    sa.Column("started_at", UtcTime, nullable=False),
    sa.Column("ended_at", UtcTime),
    sa.Column("error", Json),
)

#: One row a planned stream of an attempt.
stream_run = sa.Table(
    f"{PREFIX}stream_run",
    metadata,
    sa.Column("run_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("stream", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("destination_table", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("blocks", Json, nullable=False),
    sa.Column("config", Json, nullable=False),
)

#: The numbers that decide index and is_last_block_run: never counted from rows, which concurrent closes do not see.
type_counter = sa.Table(
    f"{PREFIX}type_counter",
    metadata,
    sa.Column("run_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("block_type", sa.Text, primary_key=True),
    sa.Column("open", sa.Integer, nullable=False),
    sa.Column("ended", sa.Integer, nullable=False),
    sa.Column("unclaimed", sa.Integer, nullable=False),
    sa.Column("undecided_block", sa.Text),
    sa.Column("undecided_stream", sa.Text),
)

block_run = sa.Table(
    f"{PREFIX}block_run",
    metadata,
    sa.Column("run_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("block", sa.Text, primary_key=True),
    sa.Column("stream", sa.Text, primary_key=True),
    sa.Column("block_type", sa.Text, nullable=False),
    #: Place in the pipeline's order of blocks.
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("destination_table", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("type_index", sa.Integer),
    #: NULL while running, and after the end until it is certain.
    sa.Column("is_last", sa.Boolean),
    sa.Column("row_count", sa.BigInteger),
    sa.Column("size_bytes", sa.BigInteger),
    sa.Column("started_at", UtcTime, nullable=False),
    sa.Column("ended_at", UtcTime),
    sa.Column("bookmark_before", Json),
    sa.Column("bookmark_after", Json),
    sa.Column("schema_changes", Json),
    sa.Column("error", Json),
    sa.Column("rows_rejected", sa.BigInteger),
)

#: Something that callbacks are told: the end of a block run, a stream or an attempt. seq counts within a run.
event = sa.Table(
    f"{PREFIX}event",
    metadata,
    sa.Column("run_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("parent", sa.Text, nullable=False),
    #: The block run that carries it; NULL for `pipeline`.
    sa.Column("block", sa.Text),
    sa.Column("stream", sa.Text),
    sa.Column("status", sa.Text, nullable=False),
    #: Number of the event among its like, from 0, for what is told while the block run goes on; NULL for its end.
    sa.Column("occurrence", sa.Integer),
    #: What is not in the block run's row: error, schema_changes.
    sa.Column("details", Json),
    sa.Column("created_at", UtcTime, nullable=False),
)

#: One row an event and function. The columns that order the queue are copied here, so that it is read by one index.
delivery = sa.Table(
    f"{PREFIX}delivery",
    metadata,
    sa.Column("idempotency_key", sa.Text, primary_key=True),
    sa.Column("pipeline", sa.Text, nullable=False),
    sa.Column("callback_block", sa.Text, nullable=False),
    sa.Column("function", sa.Text, nullable=False),
    sa.Column("run_id", sa.Integer, nullable=False),
    sa.Column("seq", sa.Integer, nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("parent", sa.Text, nullable=False),
    sa.Column("block", sa.Text),
    sa.Column("stream", sa.Text),
    sa.Column("block_type", sa.Text),
    #: True: tells of a block run that goes on, so that it waits for no flag.
    sa.Column("is_numbered", sa.Boolean, nullable=False),
    #: True: only after every connection to source and destination is closed.
    sa.Column("is_gated", sa.Boolean, nullable=False),
    sa.Column("data", sa.Text),
    #: ready, leased, done or dead.
    sa.Column("state", sa.Text, nullable=False),
    #: Ready or leased: what the partial indexes look at.
    sa.Column("is_open", sa.Boolean, nullable=False),
    #: Leases that count, and all leases.
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    #: Leases cut short by the death of their owner.
    sa.Column("lost", sa.Integer, nullable=False),
    sa.Column("not_before", UtcTime),
    sa.Column("lease_owner", sa.Text),
    sa.Column("lease_token", sa.Text),
    sa.Column("leased_at", UtcTime),
    sa.Column("lease_until", UtcTime),
)

#: What became of each lease.
delivery_try = sa.Table(
    f"{PREFIX}delivery_try",
    metadata,
    sa.Column("idempotency_key", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("output", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("started_at", UtcTime, nullable=False),
    sa.Column("ended_at", UtcTime, nullable=False),
    sa.Column("duration_s", sa.Float),
)

#: Copy of the destination's ledger, to show; and each version it had, to undo.
state = sa.Table(
    f"{PREFIX}state",
    metadata,
    sa.Column("pipeline", sa.Text, primary_key=True),
    sa.Column("stream", sa.Text, primary_key=True),
    sa.Column("destination_table", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("bookmark", Json),
    sa.Column("row_count", sa.BigInteger),
    sa.Column("run_id", sa.Integer),
    sa.Column("saved_at", UtcTime, nullable=False),
    sa.Column("is_deleted", sa.Boolean, nullable=False),
    #: What the stream looked like at its source when it was last written; the current version's only.
    sa.Column("shape", Json),
)
state_version = sa.Table(
    f"{PREFIX}state_version",
    metadata,
    sa.Column("pipeline", sa.Text, primary_key=True),
    sa.Column("stream", sa.Text, primary_key=True),
    sa.Column("destination_table", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("bookmark", Json),
    sa.Column("row_count", sa.BigInteger),
    sa.Column("run_id", sa.Integer),
    sa.Column("saved_at", UtcTime, nullable=False),
    sa.Column("is_deleted", sa.Boolean, nullable=False),
)
