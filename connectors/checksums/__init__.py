"""Checksums of tables, computed where the records are, so that two copies can be compared without moving them."""

from __future__ import annotations

from ..sides import EVERYTHING, Checksums, Compared, Digest, Form, KeyRange, Row, Side
from .forms import compared_columns, no_item

__all__ = [
    "EVERYTHING",
    "Checksums",
    "Compared",
    "Digest",
    "Form",
    "KeyRange",
    "Row",
    "Side",
    "compared_columns",
    "no_item",
]
