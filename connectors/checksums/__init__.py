"""Checksums of tables, computed where the records are, so that two copies can be compared without moving them."""

from __future__ import annotations

from ..compared_values import EVERYTHING, Checksums, ComparedColumn, Digest, KeyRange, Row, Side, TextForm
from .forms import compared_columns, no_item

__all__ = [
    "EVERYTHING",
    "Checksums",
    "ComparedColumn",
    "Digest",
    "KeyRange",
    "Row",
    "Side",
    "TextForm",
    "compared_columns",
    "no_item",
]
