"""`expect` of the pipeline file and of a stream: how late a success may come, and how few records are too few."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from .base import Defaulting, wrong
from .schedule import Span, seconds
from .value_types import RecordCount

if TYPE_CHECKING:
    from ..schedules.expect import Expect

NEEDS_SCHEDULE = "needs `schedule`: it counts from each of its times; without one, `every` says how long is too long"


class RowsSettings(Defaulting):
    """The fewest records."""

    min: RecordCount = Field(description="Fewer records than so many are too few.")
    in_: Span | None = Field(
        default=None,
        alias="in",
        description="Of all runs in a span of time that ends now, such as 1d. Without it: of each run.",
    )


class ExpectSettings(Defaulting):
    """When a pipeline or a stream is late, and when it has moved too little."""

    within: Span | None = Field(
        default=None,
        description="Longest time from each time of `schedule` to its success, retries included, such as 30m.",
    )
    every: Span | None = Field(
        default=None, description="Longest time without a success, such as 1h; needs no `schedule`."
    )
    rows: RowsSettings | None = Field(default=None, description="Fewest records: {min: 1, in: 1d}.")

    @model_validator(mode="after")
    def _has_one(self) -> ExpectSettings:
        if self.within is None and self.every is None and self.rows is None:
            raise wrong("is empty: write `within`, `every` or `rows`, such as {every: 1h}")
        return self

    @property
    def value(self) -> Expect:
        """The expectations that these settings describe."""
        from ..schedules.expect import Expect, Volume

        rows = None if self.rows is None else Volume(self.rows.min, seconds(self.rows.in_))
        return Expect(within_s=seconds(self.within), every_s=seconds(self.every), rows=rows)
