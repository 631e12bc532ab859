"""`history` of the pipeline file: which runs the run store keeps."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from .base import Defaulting, wrong
from .value_types import is_span, span_s

_SHORTEST_S, _LONGEST_S = 3600, 3650 * 86_400
#: Most runs that `keep_runs` may say.
MOST_RUNS = 10_000_000


def _keep(value: Any) -> str:
    if not is_span(value, _SHORTEST_S, _LONGEST_S):
        near = f"{value}d" if type(value) is int and 0 < value <= 3650 else None
        raise wrong("must be a span of time from 1h to 3650d, such as 90d", near)
    return str(value)


class HistorySettings(Defaulting):
    """A run goes when it is past either limit."""

    keep: Annotated[str, PlainValidator(_keep), WithJsonSchema({"type": "string"})] | None = Field(
        default=None, description="How long a run is kept after its end, such as 90d."
    )
    keep_runs: int | None = Field(default=None, ge=1, le=MOST_RUNS, description="How many of the newest runs are kept.")

    @model_validator(mode="after")
    def _has_one(self) -> HistorySettings:
        if self.keep is None and self.keep_runs is None:
            raise wrong("needs `keep`, `keep_runs` or both: {keep: 90d, keep_runs: 1000}")
        return self

    @property
    def kept_for(self) -> timedelta | None:
        """`keep` as a value."""
        return None if self.keep is None else timedelta(seconds=span_s(self.keep) or 0)
