"""Keep what a stream looked like when it was last written, to tell what has changed since."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column; of streams written before nobody knows."""
    op.add_column("_syncblocks_state", sa.Column("shape", sa.Text))
