"""The Arrow column of Python values that a function returned without a type."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import pyarrow as pa


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
