"""Schedules: when a pipeline is due, and which of its times become ticks. Pure: no store, no clock, no file."""

from .cron import CronMistake, parse_cron
from .due import Schedule, due, next_times, previous_time
from .looks import LATE_S, MOST_MISSED, NEWER, TOO_MANY, Look, NewTick, Skipped, look, skip_all

__all__ = [
    "LATE_S",
    "MOST_MISSED",
    "NEWER",
    "TOO_MANY",
    "CronMistake",
    "Look",
    "NewTick",
    "Schedule",
    "Skipped",
    "due",
    "look",
    "next_times",
    "parse_cron",
    "previous_time",
    "skip_all",
]
