"""The transformers of one stream, their functions bound to the stream's keyword arguments."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from ..config import Pipeline
from ..delivery.subscriptions import UserCode
from ..flow.transform import Transformer


def make_transformers(
    pipeline: Pipeline, code: UserCode, blocks: Collection[str], kwargs: Mapping[str, Any]
) -> list[Transformer]:
    """Return the transformers of these blocks, in pipeline order.

    Args:
        pipeline: the pipeline file.
        code: its user code.
        blocks: names of the transformer blocks that apply to the stream.
        kwargs: the recorded keyword arguments, with variables resolved and without `block_uuid`.
    """
    from syncblocks.callbacks.kwargs import hydrate  # a pipeline without transformers spares the import

    made = []
    for block in pipeline.transformers:
        if block.block in blocks:
            values = hydrate({**kwargs, "block_uuid": block.block})
            functions = [_bind(function, values) for function in code.transformers[block.block]]
            made.append(Transformer(block.block, functions, code.renames[block.block]))
    return made


def _bind(function: Any, kwargs: Mapping[str, Any]) -> Callable[[Any], Any]:
    def call(frame: Any) -> Any:
        positional, named = function.binding.arguments(kwargs, frame)
        return function.function(*positional, **named)

    return call
