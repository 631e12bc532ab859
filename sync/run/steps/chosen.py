"""The steps that a stream has in this run."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from .protocol import Step, StepHost

#: Name of a planned step -> file and class of the step. A file is imported when the first stream needs it.
STEPS: Mapping[str, tuple[str, str]] = {
    "before": ("before", "BeforeStep"),
    "fills": ("fill_new_columns", "FillStep"),
    "deletes": ("deletes", "DeletesStep"),
}


def chosen_steps(host: StepHost) -> dict[str, Step]:
    """Return the steps of a stream by name, in order. A repair runs without steps."""
    if host.planned.repair is not None:
        return {}
    chosen = {}
    for planned in host.planned.steps:
        if planned.is_due:
            file, kind = STEPS[planned.name]
            chosen[planned.name] = getattr(import_module(f".{file}", __package__), kind)(host, planned)
    return chosen


__all__ = ["STEPS", "chosen_steps"]
