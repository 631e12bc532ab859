"""What a pipeline or a stream is expected to do, as its file says it."""

from __future__ import annotations

from msgspec import Struct


class Volume(Struct, frozen=True):
    """The fewest records of a run, or of all runs of a span of time."""

    min: int
    #: None: of each run.
    in_s: int | None = None


class Expect(Struct, frozen=True, kw_only=True):
    """Expectations of one pipeline or stream; at least one."""

    #: How long after each time of the schedule a success may come.
    within_s: int | None = None
    #: The longest time without a success.
    every_s: int | None = None
    rows: Volume | None = None
