"""`schedule` of the pipeline file. What reads a schedule is imported when a file has one: most runs need it not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema, model_validator

from ..errors import nearest_match
from .base import Defaulting, wrong
from .value_types import Name, is_span, span_s

if TYPE_CHECKING:
    from ..schedules import Schedule

#: Of an expectation, and of the time between two runs, whose processes take a second to start.
_SHORTEST_S, _SHORTEST_EVERY_S = 60, 1
_LONGEST_S = 366 * 86_400


def _cron(value: str) -> str:
    from ..schedules import CronMistake, parse_cron

    try:
        parse_cron(value)
    except CronMistake as mistake:
        raise wrong(str(mistake), mistake.nearest) from None
    return value


def _span(value: Any, shortest_s: int = _SHORTEST_S) -> str:
    if not is_span(value, shortest_s, _LONGEST_S):
        near = None
        if isinstance(value, int) and 0 < value <= _LONGEST_S:
            near = f"{value}s" if value >= _SHORTEST_S else f"{value}m"
        shortest = "1m" if shortest_s == _SHORTEST_S else f"{shortest_s}s"
        raise wrong(f"must be a span of time from {shortest} to 366d, such as 15m, 6h or 1d12h", near)
    return str(value)


def _every(value: Any) -> str:
    return _span(value, _SHORTEST_EVERY_S)


#: A span of time in whole seconds.
Span = Annotated[str, PlainValidator(_span), WithJsonSchema({"type": "string"})]
Every = Annotated[str, PlainValidator(_every), WithJsonSchema({"type": "string"})]


def seconds(span: str | None) -> int | None:
    """Return the length of a `Span`."""
    return None if span is None else int(span_s(span) or 0)


def _timezone(value: str) -> str:
    from zoneinfo import ZoneInfo, available_timezones

    try:
        ZoneInfo(value)
    except (OSError, ValueError, LookupError):  # a folder, a path, no such file
        near = nearest_match(value, available_timezones())
        raise wrong(f"there is no time zone {value[:100]!r}: write one such as Europe/Berlin, or UTC", near) from None
    return value


class ScheduleSettings(Defaulting):
    """When the pipeline is due: `cron` or `every`."""

    cron: Annotated[Name, AfterValidator(_cron)] | None = Field(
        default=None,
        description="Five fields (minute hour day month weekday), or @hourly, @daily, @weekly, @monthly.",
    )
    every: Every | None = Field(
        default=None, description="In place of `cron`: a span such as 15m, counted from 1970-01-01 UTC."
    )
    timezone: Annotated[Name, AfterValidator(_timezone)] = Field(
        default="UTC", description="Zone in which `cron` counts and times are shown, such as Europe/Berlin."
    )
    missed: Literal["latest", "all", "skip"] = Field(
        default="latest",
        description="Of the times when no server looked or the run store did not answer: latest (one run), all (each, "
        "the oldest first, whatever run is open; at most the newest 100), skip.",
    )
    overlap: Literal["skip", "wait"] = Field(
        default="skip",
        description="While the former run goes: skip the time, or wait (one waits; a newer one takes its place). Does "
        "not apply to missed times with `missed: all`.",
    )

    @model_validator(mode="after")
    def _has_one(self) -> ScheduleSettings:
        if (self.cron is None) == (self.every is None):
            raise wrong('needs `cron` or `every`, one of them: {cron: "*/15 * * * *"} or {every: 15m}')
        return self

    @property
    def value(self) -> Schedule:
        """The schedule that these settings describe."""
        from ..schedules import Schedule

        every_s = seconds(self.every)
        return Schedule(
            cron=self.cron, every_s=every_s, timezone=self.timezone, missed=self.missed, overlap=self.overlap
        )
