"""Secrets in texts: which values are masked, and where in a text."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Replaces a secret.
MASK = "***"

#: Shorter values are not masked: they occur in most texts.
MIN_LENGTH = 4

#: Shorter values without punctuation are masked as whole words only: `main` must not mask `domain`.
WORD_LENGTH = 8

#: Values that are never secrets.
NOT_SECRET = frozenset({"true", "false", "none", "null", "http", "https", "localhost"})


def is_maskable(value: str) -> bool:
    """Tell whether a text may be masked where it occurs."""
    return len(value.strip()) >= MIN_LENGTH and value.lower() not in NOT_SECRET


def pattern(value: str) -> str:
    """Return the regular expression of the places where a secret is masked."""
    if len(value) < WORD_LENGTH and value.isalnum():
        return rf"(?<![A-Za-z0-9]){re.escape(value)}(?![A-Za-z0-9])"
    return re.escape(value)


def masked(text: str, secrets: Iterable[str]) -> str:
    """Return a text with these secrets masked as they are, longer ones first."""
    known = sorted({secret for secret in secrets if is_maskable(secret)}, key=lambda secret: (-len(secret), secret))
    return re.sub("|".join(map(pattern, known)), MASK, text) if known else text


__all__ = ["MASK", "MIN_LENGTH", "NOT_SECRET", "WORD_LENGTH", "is_maskable", "masked", "pattern"]
