"""Base classes of the models of the pipeline file."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


def wrong(message: str, nearest: str | None = None) -> PydanticCustomError:
    """Return the error of a value; no text contains the value if it may be a secret. `nearest`: a right value."""
    return PydanticCustomError("value", "{message}", {"message": message, "nearest": nearest})


class Model(BaseModel):
    """Base of all models: unknown keys are errors, values are not converted, errors show no value."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        hide_input_in_errors=True,
        # All models are built together with the pipeline's: building each by itself takes twice as long.
        defer_build=True,
    )


class Defaulting(Model):
    """Base of models whose keys may be left empty."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, values: Any) -> Any:
        """Drop empty keys, unless they are required."""
        if not isinstance(values, dict):
            return values
        fields = cls.model_fields
        return {
            key: value
            for key, value in values.items()
            if value is not None or key not in fields or fields[key].is_required()
        }
