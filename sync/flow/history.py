"""The times of versions (`write_disposition: history`): from the run, or from each record's bookmark."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from msgspec import Struct

from syncblocks.connectors.arrow import compute as pc
from syncblocks.connectors.arrow.type_names import type_text
from syncblocks.connectors.stream import VALID_FROM, VALID_TO

from ..errors import SyncError

_TIME = pa.timestamp("us", "UTC")
_EPOCH = datetime.fromtimestamp(0, UTC)


class HistoryColumns(Struct, frozen=True, kw_only=True):
    """The two columns of a history, after all others."""

    #: Time of every record of a run.
    at: datetime
    #: Column with the time of each record; empty: all have the run's time.
    bookmark: str = ""
    #: The stream's bookmark columns: a difference only there starts no new version.
    marks: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it as text for users."""
        return f"{VALID_FROM} from {self.bookmark}" if self.bookmark else f"{VALID_FROM} = {self.at.isoformat()}"

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return (VALID_FROM, VALID_TO)

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that distinguish versions of a record."""
        return (VALID_FROM,)

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        """The columns; for times from the bookmark, a NULL is detected where it can be reported."""
        return (pa.field(VALID_FROM, _TIME, nullable=bool(self.bookmark)), pa.field(VALID_TO, _TIME))

    def taken(self, names: Iterable[str]) -> str:
        """Return the first of these names that the history uses; empty: none."""
        return next((name for name in names if name.casefold() in self.names), "")

    def arrays(self, batch: pa.RecordBatch) -> list[pa.Array]:
        """Return their values for a batch; the destination finds out when a version ends.

        Raises:
            SyncError: a transformer has dropped or changed the bookmark.
        """
        return [self._begun(batch), pa.nulls(batch.num_rows, _TIME)]

    def _begun(self, batch: pa.RecordBatch) -> pa.Array:
        if not self.bookmark:
            return pa.repeat(pc.constant((self.at - _EPOCH) // timedelta(microseconds=1), _TIME), batch.num_rows)
        if self.bookmark not in batch.schema.names:
            raise SyncError(f"column {self.bookmark!r} is gone, and `valid_from: bookmark` needs it")
        column = batch.column(self.bookmark)
        if not pa.types.is_timestamp(column.type):
            kind = type_text(column.type)
            raise SyncError(f"column {self.bookmark!r} is {kind}, and `valid_from: bookmark` needs a time")
        # A time without a zone is in UTC.
        return pc.cast(pc.cast(column, pa.timestamp("us", column.type.tz), safe=False), _TIME)


__all__ = ["HistoryColumns"]
