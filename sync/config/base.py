"""What the models of the pipeline file share."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


def wrong(message: str) -> PydanticCustomError:
    """Make the error of a value; the message never holds the value, which may be a secret."""
    return PydanticCustomError("value", "{message}", {"message": message})


class Model(BaseModel):
    """Base of all: nothing unknown, nothing converted, nothing changed, and no value in an error."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        hide_input_in_errors=True,
        # All at once with the pipeline, when the first one is made: each by itself would cost a run as much again.
        defer_build=True,
    )


class Defaulting(Model):
    """Base of those whose keys may be left empty."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, values: Any) -> Any:
        """A key left empty is a key left out, unless it is required."""
        if not isinstance(values, dict):
            return values
        fields = cls.model_fields
        return {
            key: value
            for key, value in values.items()
            if value is not None or key not in fields or fields[key].is_required()
        }
