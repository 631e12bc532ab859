"""The first version."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table; written out, so that later changes to `tables.py` do not reach back."""
    op.create_table(
        "_syncblocks_pipeline_run",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("run_key", sa.Text, nullable=False, unique=True),
        sa.Column("pipeline", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("is_active", sa.Boolean, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True)),
        sa.Column("execution_date", sa.DateTime(timezone=True), nullable=False),
        sa.Column("trigger_id", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("variables", sa.Text, nullable=False),
        sa.Column("last_seq", sa.Integer, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "_syncblocks_one_active_run",
        "_syncblocks_pipeline_run",
        ["pipeline"],
        unique=True,
        sqlite_where=sa.text("is_active = 1"),
        postgresql_where=sa.text("is_active"),
    )
    op.create_index("_syncblocks_runs_of_pipeline", "_syncblocks_pipeline_run", ["pipeline", "id"])
    op.create_table(
        "_syncblocks_attempt",
        sa.Column("run_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("stop_status", sa.Text),
        sa.Column("plan", sa.Text),
        sa.Column("open_streams", sa.Integer, nullable=False),
        sa.Column("unclaimed_streams", sa.Integer, nullable=False),
        sa.Column("failed_streams", sa.Integer, nullable=False),
        sa.Column("cancelled_streams", sa.Integer, nullable=False),
        sa.Column("is_gate_released", sa.Boolean, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("error", sa.Text),
    )
    op.create_table(
        "_syncblocks_stream_run",
        sa.Column("run_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("stream", sa.Text, primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("destination_table", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("blocks", sa.Text, nullable=False),
        sa.Column("config", sa.Text, nullable=False),
    )
    op.create_table(
        "_syncblocks_type_counter",
        sa.Column("run_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("block_type", sa.Text, primary_key=True),
        sa.Column("open", sa.Integer, nullable=False),
        sa.Column("ended", sa.Integer, nullable=False),
        sa.Column("unclaimed", sa.Integer, nullable=False),
        sa.Column("undecided_block", sa.Text),
        sa.Column("undecided_stream", sa.Text),
    )
    op.create_table(
        "_syncblocks_block_run",
        sa.Column("run_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("block", sa.Text, primary_key=True),
        sa.Column("stream", sa.Text, primary_key=True),
        sa.Column("block_type", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("destination_table", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("type_index", sa.Integer),
        sa.Column("is_last", sa.Boolean),
        sa.Column("row_count", sa.BigInteger),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("bookmark_before", sa.Text),
        sa.Column("bookmark_after", sa.Text),
        sa.Column("schema_changes", sa.Text),
        sa.Column("error", sa.Text),
    )
    op.create_index("_syncblocks_block_runs_of_stream", "_syncblocks_block_run", ["run_id", "attempt", "stream"])
    op.create_table(
        "_syncblocks_event",
        sa.Column("run_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("parent", sa.Text, nullable=False),
        sa.Column("block", sa.Text),
        sa.Column("stream", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("occurrence", sa.Integer),
        sa.Column("details", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "_syncblocks_delivery",
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
        sa.Column("is_numbered", sa.Boolean, nullable=False),
        sa.Column("is_gated", sa.Boolean, nullable=False),
        sa.Column("data", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("is_open", sa.Boolean, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("lost", sa.Integer, nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True)),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_token", sa.Text),
        sa.Column("leased_at", sa.DateTime(timezone=True)),
        sa.Column("lease_until", sa.DateTime(timezone=True)),
        postgresql_with={"fillfactor": 50},
    )
    op.create_index(
        "_syncblocks_queue",
        "_syncblocks_delivery",
        ["pipeline", "callback_block", "run_id", "seq", "position"],
        sqlite_where=sa.text("is_open = 1"),
        postgresql_where=sa.text("is_open"),
    )
    op.create_index("_syncblocks_deliveries_of_run", "_syncblocks_delivery", ["run_id", "seq", "position"])
    op.create_table(
        "_syncblocks_delivery_try",
        sa.Column("idempotency_key", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("output", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("duration_s", sa.Float),
    )
    op.create_table(
        "_syncblocks_state",
        sa.Column("pipeline", sa.Text, primary_key=True),
        sa.Column("stream", sa.Text, primary_key=True),
        sa.Column("destination_table", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("bookmark", sa.Text),
        sa.Column("row_count", sa.BigInteger),
        sa.Column("run_id", sa.Integer),
        sa.Column("saved_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_deleted", sa.Boolean, nullable=False),
    )
    op.create_table(
        "_syncblocks_state_version",
        sa.Column("pipeline", sa.Text, primary_key=True),
        sa.Column("stream", sa.Text, primary_key=True),
        sa.Column("destination_table", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("bookmark", sa.Text),
        sa.Column("row_count", sa.BigInteger),
        sa.Column("run_id", sa.Integer),
        sa.Column("saved_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_deleted", sa.Boolean, nullable=False),
    )
