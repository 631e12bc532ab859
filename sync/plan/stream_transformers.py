"""Which transformers change a stream. Pure."""

from __future__ import annotations

from ..config import Pipeline
from ..config.blocks import TransformerBlock
from ..config.conditions import is_met
from ..delivery.subscriptions import applies
from .selected_stream import SelectedStream


def transformers_of(pipeline: Pipeline, selected: SelectedStream) -> list[TransformerBlock]:
    """Return the transformers whose `streams` have a stream and whose `when` is true for it, in order.

    Raises:
        ConfigError: a condition compares what cannot be compared.
    """
    return [
        block
        for place, block in enumerate(pipeline.transformers)
        if applies(block.streams, selected.name)
        and (
            block.when is None
            or is_met(pipeline, ("transformers", place, "when"), block.when, selected.name, selected.destination_table)
        )
    ]
