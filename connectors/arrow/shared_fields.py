"""Columns of many tables that are alike, as one object: a catalog of thousands of tables takes less memory."""

from __future__ import annotations

from functools import lru_cache

import pyarrow as pa


@lru_cache(maxsize=16_384)
def shared_field(
    name: str, kind: pa.DataType, is_nullable: bool, metadata: tuple[tuple[bytes, bytes], ...] = ()
) -> pa.Field:
    """Return the column with this name, type and metadata."""
    return pa.field(name, kind, is_nullable, dict(metadata) or None)


__all__ = ["shared_field"]
