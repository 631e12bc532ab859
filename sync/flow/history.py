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
    """The two columns of a history, behind all others."""

    #: Time of every record of a run.
    at: datetime
    #: Column that has the time of each record; empty: all have the run's.
    bookmark: str = ""
    #: The stream's bookmark columns: a difference in them alone makes no new version.
    marks: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it for people to read."""
        return f"{VALID_FROM} from {self.bookmark}" if self.bookmark else f"{VALID_FROM} = {self.at.isoformat()}"

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return (VALID_FROM, VALID_TO)

    @property
    def keys(self) -> tuple[str, ...]:
        """What tells versions of a record apart."""
        return (VALID_FROM,)

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        """The columns; of the bookmark's times, a NULL is found where it can be told of."""
        return (pa.field(VALID_FROM, _TIME, nullable=bool(self.bookmark)), pa.field(VALID_TO, _TIME))

    def taken(self, names: Iterable[str]) -> str:
        """Return the one of these names that is theirs; empty: none."""
        return next((name for name in names if name.casefold() in self.names), "")

    def arrays(self, batch: pa.RecordBatch) -> list[pa.Array]:
        """Return their values for a batch; when a version ends, the destination finds out.

        Raises:
            SyncError: a transformer has dropped the bookmark, or made something else of it.
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
