"""Count the records that a block run has set aside."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column; of runs before nobody has counted."""
    op.add_column("_syncblocks_block_run", sa.Column("rows_rejected", sa.BigInteger))
