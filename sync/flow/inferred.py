"""The Arrow column of Python values that a function returned without a type: what Arrow must not infer from them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import chain
from typing import Any

import pyarrow as pa

#: Most levels of lists and objects in a value. Arrow finds and walks such types by recursion: some thousands end
#: the process, and some hundreds are too many for what walks them in Python.
MOST_LEVELS = 100

_NESTED = (list, tuple, dict)


def check_levels(values: Iterable[Any]) -> None:
    """Refuse values that are nested too deeply for a type; to be called before Arrow sees them.

    Raises:
        pa.ArrowNotImplementedError: lists or objects stand in each other in more than `MOST_LEVELS` levels.
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
    """Refuse a type that Arrow has inferred from the first value and that silently changes another one.

    Raises:
        pa.ArrowInvalid: a time became a date, or some times have a time zone and others none.
    """
    types = pa.types
    if not (types.is_date(kind) or types.is_timestamp(kind)):
        return
    times = [value for value in values if isinstance(value, datetime) and value == value]  # NaT is a datetime, too
    if types.is_date(kind) and times:
        raise pa.ArrowInvalid(f"a date and {times[0]!r}")
    zoned = {value.utcoffset() is not None for value in times}
    if len(zoned) > 1:
        raise pa.ArrowInvalid("times with a time zone and times without one")
