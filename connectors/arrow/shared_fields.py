"""Columns of many tables that are alike, as one object: a catalog of thousands of tables takes less memory."""

from __future__ import annotations

from functools import lru_cache

import pyarrow as pa

from ..field_facts import FieldFacts, with_facts


@lru_cache(maxsize=16_384)
def shared_field(name: str, kind: pa.DataType, is_nullable: bool, facts: FieldFacts) -> pa.Field:
    """Return the column with this name, type and facts."""
    return with_facts(pa.field(name, kind, is_nullable), facts)


__all__ = ["shared_field"]
