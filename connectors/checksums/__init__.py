"""Checksums of tables, computed where the records are, so that two copies can be compared without moving them."""

from __future__ import annotations

from ..sides import EVERYTHING, Checksums, Compared, Digest, Form, KeyRange, Row, Side
from .forms import compared_columns
from .records import is_in_lines, keeps_json, opened_checksums, read_within, system_of

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
    "is_in_lines",
    "keeps_json",
    "opened_checksums",
    "read_within",
    "system_of",
]
