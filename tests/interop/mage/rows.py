"""Which check shows which rows."""

from __future__ import annotations

from collections.abc import Callable

from .stage import Stage

Check = Callable[[Stage], None]
#: Each check, and the rows that it shows; of `TOUR` those that look at the one run of `tour`.
CHECKS: dict[Check, tuple[str, ...]] = {}
TOUR: dict[Check, tuple[str, ...]] = {}


def shows(*rows: str, tour: bool = False) -> Callable[[Check], Check]:
    """Mark the check of rows of the table."""

    def mark(check: Check) -> Check:
        (TOUR if tour else CHECKS)[check] = rows
        return check

    return mark
