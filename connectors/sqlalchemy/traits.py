"""How a system stores values where SQL leaves it open, tested with a few values.

Nobody knows all dialects: a timestamp of microseconds comes back from one system in tenths of milliseconds, an empty
text as NULL from another. One SELECT of casts tells; it creates nothing.
"""

from __future__ import annotations

import math
from datetime import datetime, time
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.engine import Connection

from ..arrow import compute as pc
from ..arrow.times import is_past_day
from ..errors import FatalConnectorError
from .types import SQLAlchemyKind, sqlalchemy_type

_MICROSECONDS = 123_457


class Traits(Struct, frozen=True, kw_only=True):
    """How a system stores values; a source uses the defaults."""

    #: Resolution of fractions of seconds, in microseconds.
    timestamp_step_us: int = 1
    time_step_us: int = 1
    #: Tells the empty text from NULL.
    keeps_empty_text: bool = True
    #: Keeps NaN and infinities in floats.
    keeps_special_floats: bool = True
    #: Accepts savepoints; the destination tests whether a rollback to one works.
    has_savepoints: bool = False

    def refuse(self, array: pa.Array, column: str) -> None:
        """Raise if the system would change one of the values.

        Raises:
            FatalConnectorError: naming the column, what would be lost and what can be done.
        """
        kind, types = array.type, pa.types
        if types.is_timestamp(kind) and self.timestamp_step_us > 1:
            _refuse_fractions(array, self.timestamp_step_us, column)
        elif is_past_day(array):
            raise FatalConnectorError(
                f"column {column!r} contains the time 24:00, but the latest time here is 23:59:59.999999: exclude "
                "the column with `columns`",
                connector="sqlalchemy",
            )
        elif types.is_time(kind) and self.time_step_us > 1:
            _refuse_fractions(array, self.time_step_us, column)
        elif types.is_floating(kind) and not self.keeps_special_floats:
            _refuse(array, pc.invert(pc.is_finite(array)), column, "NaN and infinities cannot be stored here")
        elif types.is_string(kind) and not self.keeps_empty_text:
            _refuse(array, pc.equal(array, ""), column, "an empty text is NULL here")


def find_out(connection: Connection) -> Traits:
    """Test a system with some values; leaves no transaction open."""
    moment = datetime(2024, 2, 29, 23, 59, 59, _MICROSECONDS)  # noqa: DTZ001 -- naive, as the column is
    return Traits(
        timestamp_step_us=_step(_sent(connection, "timestamp", moment)),
        time_step_us=_step(_sent(connection, "time", time(23, 59, 59, _MICROSECONDS))),
        keeps_empty_text=_sent(connection, "varchar(10)", "") == "",
        keeps_special_floats=all(_is_kept(_sent(connection, "double", each), each) for each in (math.nan, math.inf)),
        has_savepoints=_has_savepoints(connection),
    )


def _has_savepoints(connection: Connection) -> bool:
    try:
        for end in ("rollback", "commit"):
            savepoint = connection.begin_nested()
            connection.execute(sa.select(sa.literal_column("1")))
            getattr(savepoint, end)()
    except Exception:  # whatever a dialect or a driver raises
        return False
    finally:
        connection.rollback()
    return True


def _sent(connection: Connection, kind: str, value: Any) -> Any:
    """Return a value as it comes back; None if it is refused."""
    chosen = sqlalchemy_type(SQLAlchemyKind.parse(kind), connection.dialect)
    try:
        return connection.execute(sa.select(sa.cast(sa.bindparam("v", value, chosen), chosen))).scalar()
    except Exception:  # whatever a driver raises: then a load finds out
        return None
    finally:
        connection.rollback()


def _step(found: Any) -> int:
    if not isinstance(found, datetime | time):
        return 1  # what is refused is not changed silently
    for step in (1, 10, 100, 1000, 10_000, 100_000):
        low = _MICROSECONDS // step * step
        if found.microsecond in (low, low + step):
            return step
    return 1_000_000


def _is_kept(found: Any, sent: float) -> bool:
    # The system refuses such values with an error, so that no value is changed silently.
    return found is None or found == sent or (isinstance(found, float) and math.isnan(found) and math.isnan(sent))


def _refuse_fractions(array: pa.Array, step: int, column: str) -> None:
    plain = pc.cast(array, pa.time64("us") if pa.types.is_time(array.type) else pa.timestamp("us", array.type.tz))
    numbers = pc.cast(plain, pa.int64())
    rest = pc.subtract(numbers, pc.multiply(pc.divide(numbers, step), step))
    digits = 6 - int(math.log10(step))
    _refuse(array, pc.not_equal(rest, 0), column, f"seconds have {digits} decimal places here")


def _refuse(array: pa.Array, is_lost: Any, column: str, reason: str) -> None:
    if pc.any(is_lost).as_py():
        shown = array[pc.index(is_lost, True).as_py()]
        raise FatalConnectorError(
            f"column {column!r} contains {str(shown)!r}, which would be changed: {reason}; set `on_lossy: cast` or "
            "`text` in the stream, correct it in a transformer, or exclude the column with `columns`",
            connector="sqlalchemy",
        )


__all__ = ["Traits", "find_out"]
