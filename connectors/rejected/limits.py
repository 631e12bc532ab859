"""Count the rejected records of a load up to its limit; leave out those that an earlier load has kept."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fractions import Fraction

from ..errors import FatalConnectorError
from ..read_spec import ReplicationMethod
from ..stream import Load, RejectedRecord
from ..write_spec import WriteDisposition

#: A share of rejected records is judged from so many records of a commit on.
JUDGED_FROM = 100


class TooManyRejected(FatalConnectorError):
    """A load rejects more records than `max_rejected` allows."""


def too_many(limit: int, reason: str) -> TooManyRejected:
    """Return the error for more rejected records than `limit`; `reason`: of the last one."""
    what = f"more than {limit} rejected records (`max_rejected`)"
    message = f"{what}; only earlier commits were kept. The last rejected record: {reason}"
    return TooManyRejected(message, without_values=what)


def too_large_share(rejected: int, records: int, percent: float, reason: str) -> TooManyRejected:
    """Return the error for a larger share of rejected records than `percent`; `reason`: of the last one."""
    what = f"{rejected:,} of {records:,} records of a commit are rejected, more than {percent:g}% (`max_rejected`)"
    message = f"{what}; only earlier commits were kept. The last rejected record: {reason}"
    return TooManyRejected(message, without_values=what)


def may_come_again(load: Load, records: Iterable[RejectedRecord]) -> list[RejectedRecord]:
    """Return the rejected records that an earlier run may have kept: the destination must look for them.

    INCREMENTAL reads whole files, so each run finds the same rejected lines. Of a database it reads again the records
    at the bookmark, and rejected records past it, since no bookmark moves to a rejected record.
    """
    is_read_again = load.stream.read.method is ReplicationMethod.INCREMENTAL
    return list(records) if is_read_again and load.write.disposition is not WriteDisposition.REPLACE else []


class Rejections:
    """The rejected records of one load. The limit counts all its commits, and the share is judged for each commit."""

    def __init__(self, limit: int, percent: float | None = None) -> None:
        """Take the limit, and the largest share of a commit's records in percent, or `None` without such a share."""
        self._limit = limit
        self._percent = percent
        self._written = 0
        #: Those that the next commit writes.
        self.records: list[RejectedRecord] = []
        self._refused: list[RejectedRecord] = []

    def add(self, records: Iterable[RejectedRecord], *, is_of_source: bool = False) -> None:
        """Add rejected records, of the source or of the destination itself.

        Raises:
            TooManyRejected: the load has rejected more than `max_rejected`.
        """
        added = list(records)
        self.records += added
        if not is_of_source:
            self._refused += added
        if self._written + len(self.records) > self._limit:
            raise too_many(self._limit, self.records[-1].reason)

    def judge(self, records: int) -> None:
        """Compare the rejected records of a commit with its other records. Call it before the commit.

        Raises:
            TooManyRejected: the share of rejected records is larger than `WriteSpec.max_rejected_percent`.
        """
        rejected = len(self.records)
        total = records + rejected
        if self._percent is None or total < JUDGED_FROM:
            return
        if rejected * 100 > Fraction(str(self._percent)) * total:
            raise too_large_share(rejected, total, self._percent, self.records[-1].reason)

    def leave_out(self, known: Collection[tuple[str, str]]) -> None:
        """Drop the records that an earlier load has kept; `known`: place and record of each."""
        self.records = [each for each in self.records if (each.place, each.record) not in known]

    def forget(self) -> None:
        """Drop the records of a transaction that was rolled back."""
        self.records, self._refused = [], []

    def take_refused(self) -> tuple[RejectedRecord, ...]:
        """Return what the destination itself has rejected since the last commit (`Commit.refused`)."""
        refused, self._refused = tuple(self._refused), []
        return refused

    def written(self) -> int:
        """Count the records as committed; return how many there were."""
        number = len(self.records)
        self._written += number
        self.records = []
        return number


__all__ = ["Rejections", "TooManyRejected", "may_come_again", "too_many"]
