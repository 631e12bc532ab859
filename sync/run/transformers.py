"""The transformers of one stream, their functions bound to the stream's keyword arguments."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import count
from typing import Any

from syncblocks.connectors.stream import Stream

from ..config import Pipeline
from ..delivery.subscriptions import UserCode
from ..flow.transform import Transformer
from ..plan.features.log_based import is_logged
from ..plan.policy import Policy


def make_transformers(
    pipeline: Pipeline,
    code: UserCode,
    blocks: Collection[str],
    kwargs: Mapping[str, Any],
    *,
    kept_keys: str = "",
) -> list[Transformer]:
    """Return the transformers of these blocks, in pipeline order.

    Args:
        pipeline: the pipeline file.
        code: its user code.
        blocks: names of the transformer blocks of the stream.
        kwargs: the recorded keyword arguments, with variables resolved and without the block's own.
        kept_keys: why functions must return the keys that they got, see `why_keys_are_kept`.
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
                Transformer(block.block, functions, code.renames[block.block], block.frames, kept_keys=kept_keys)
            )
    return made


def why_keys_are_kept(stream: Stream, policy: Policy) -> str:
    """Say why functions must return the keys that they got; empty: they need not."""
    if policy.deletes is not None:
        return (
            "`deletes` compares the keys of the source with those of the table, so the function must leave them as "
            "they are. Make the key in a query of the source, or leave out `deletes`"
        )
    if is_logged(stream):
        return "the log says by key what is changed and deleted, so the function must leave keys as they are"
    return ""


def bound(function: Any, kwargs: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Return a transformer's function of a DataFrame alone; it counts its calls for `index`."""
    from syncblocks.callbacks.mage import mage_modules

    calls = count()

    def call(frame: Any) -> Any:
        positional, named = function.binding.arguments({**kwargs, "index": next(calls)}, frame)
        with mage_modules():
            return function.function(*positional, **named)

    return call
