"""How long a delivery waits before its next attempt."""

from __future__ import annotations

import random

#: Full jitter, below a bound that doubles from the first value to the last.
BACKOFF_FIRST_S, BACKOFF_LAST_S = 1.0, 300.0


def backoff_s(attempt: int) -> float:
    """Return the pause after a failed attempt, counted from 1.

    Source: "full jitter" in "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    return random.uniform(0.0, min(BACKOFF_LAST_S, BACKOFF_FIRST_S * 2.0 ** min(attempt - 1, 30)))
