"""Arrow columns from a function's Python values without types: prevents wrong guesses of Arrow."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import chain
from typing import Any

import pyarrow as pa

#: Maximum nesting of lists and objects in a value. Arrow handles such types by recursion: thousands of levels end
#: the process, and hundreds are too many for Python code.
MOST_LEVELS = 100

_NESTED = (list, tuple, dict)


def check_levels(values: Iterable[Any]) -> None:
    """Refuse values nested too deeply for a type; call it before Arrow sees the values.

    Raises:
        pa.ArrowNotImplementedError: lists or objects are nested deeper than `MOST_LEVELS` levels.
    """
    level = [value for value in values if isinstance(value, _NESTED)]
    for _ in range(MOST_LEVELS):
        if not level:
            return
        inner = chain.from_iterable(value.values() if isinstance(value, dict) else value for value in level)
        level = [value for value in inner if isinstance(value, _NESTED)]
    if level:
        raise pa.ArrowNotImplementedError(f"lists or objects in more than {MOST_LEVELS} levels")


def check_inferred(values: Iterable[Any], kind: pa.DataType) -> None:
    """Refuse a type that Arrow guessed from the first value and that silently changes a later one.

    Raises:
        pa.ArrowInvalid: a time became a date, or only some of the times have a time zone.
    """
    types = pa.types
    if not (types.is_date(kind) or types.is_timestamp(kind)):
        return
    times = [value for value in values if isinstance(value, datetime) and value == value]  # NaT is also a datetime
    if types.is_date(kind) and times:
        raise pa.ArrowInvalid(f"a date and {times[0]!r}")
    zoned = {value.utcoffset() is not None for value in times}
    if len(zoned) > 1:
        raise pa.ArrowInvalid("times with a time zone and times without one")
