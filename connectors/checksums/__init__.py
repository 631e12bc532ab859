"""Checksums of tables, computed where the records are, so that two copies can be compared without moving them."""

from __future__ import annotations

from .forms import compared_columns
from .records import canonical_keys, is_in_lines, keeps_json, opened_checksums, read_within, system_of
from .values import EVERYTHING, Checksums, Compared, Digest, Form, KeyRange, Row, Side

__all__ = [
    "EVERYTHING",
    "Checksums",
    "Compared",
    "Digest",
    "Form",
    "KeyRange",
    "Row",
    "Side",
    "canonical_keys",
    "compared_columns",
    "is_in_lines",
    "keeps_json",
    "opened_checksums",
    "read_within",
    "system_of",
]
