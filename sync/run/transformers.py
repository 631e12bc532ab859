"""The transformers of one stream, their functions bound to the stream's keyword arguments."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import count
from typing import Any

from ..config import Pipeline
from ..delivery.subscriptions import UserCode
from ..flow.transform import Transformer


def make_transformers(
    pipeline: Pipeline,
    code: UserCode,
    blocks: Collection[str],
    kwargs: Mapping[str, Any],
    *,
    must_keep_keys: bool = False,
) -> list[Transformer]:
    """Return the transformers of these blocks, in pipeline order.

    Args:
        pipeline: the pipeline file.
        code: its user code.
        blocks: names of the transformer blocks of the stream.
        kwargs: the recorded keyword arguments, with variables resolved and without the block's own.
        must_keep_keys: whether functions must return the keys that they got (`deletes`).
    """
    from syncblocks.callbacks.kwargs import hydrate  # a pipeline without transformers spares the import

    query = {name: pipeline.variables.get(name) for name in ("_start_date", "_end_date")}
    query["_execution_date"] = kwargs["execution_date"]
    made = []
    for block in pipeline.transformers:
        if block.block in blocks:
            values = hydrate(
                {
                    **kwargs,
                    "block_uuid": block.block,
                    "env": pipeline.env,
                    "configuration": block.configuration,
                    "query": query,
                }
            )
            functions = [bound(function, values) for function in code.transformers[block.block]]
            made.append(
                Transformer(
                    block.block, functions, code.renames[block.block], block.frames, must_keep_keys=must_keep_keys
                )
            )
    return made


def bound(function: Any, kwargs: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Return a transformer's function of a DataFrame alone; it counts its calls for `index`."""
    from syncblocks.callbacks.mage import mage_modules

    calls = count()

    def call(frame: Any) -> Any:
        positional, named = function.binding.arguments({**kwargs, "index": next(calls)}, frame)
        with mage_modules():
            return function.function(*positional, **named)

    return call
