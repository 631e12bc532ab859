"""Which function or hook is called for a recorded event. The pipeline file decides, never the run store.

Anyone who can write to the run store can forge events: they must not decide what is executed, opened or sent. So file,
command, URL, statement, condition, limits and data folder come from the pipeline file.
"""

from __future__ import annotations

import logging
from pathlib import Path

from syncblocks.callbacks.kwargs import with_variables
from syncblocks.callbacks.protocols import Delivery
from syncblocks.connectors.struct_helpers import replace

from ..config import Pipeline
from ..config.hooks import HOOKS
from .subscriptions import PIPELINE, CallbackSpec, UserCode, applies

log = logging.getLogger("syncblocks.callbacks")


class CurrentCallbacks:
    """The callback blocks of a pipeline file; implements `syncblocks.callbacks.protocols.Callbacks`. Thread-safe."""

    def __init__(self, pipeline: Pipeline, code: UserCode) -> None:
        """Use a loaded pipeline file and its user code."""
        self._pipeline = pipeline
        self._specs = {spec.block: spec for spec in code.callbacks}
        self._subscriptions = code.subscriptions
        #: Blocks with a logged change.
        self._reported: set[str] = set()

    def complete(self, delivery: Delivery, digest: str | None) -> Delivery:
        """See `Callbacks.complete`."""
        spec = self._specs.get(delivery.callback_block)
        if spec is None or (why := self._refusal(delivery, spec)):
            path = self._pipeline.path
            where = "the pipeline" if path is None else path.name
            gone = f"callback block {delivery.callback_block!r} is not in {where} any more"
            return replace(delivery, missing=gone if spec is None else why, attempts=delivery.attempt, data=None)
        if digest is not None and digest != spec.digest:
            self._warn_of_change(spec)
            if delivery.data is None and self._needs_data(delivery):
                log.warning(
                    "callback block %s, function %r for %s: the parent's data was not kept when the event was "
                    "recorded, so it is None",
                    spec.block,
                    delivery.function,
                    delivery.label,
                )
        return replace(
            delivery,
            function=delivery.function if spec.hook is None else str(spec.hook["kind"]),
            file=spec.file,
            attempts=spec.attempts,
            timeout_s=float(spec.timeout_s),
            when=spec.when,
            hook=spec.hook,
            data=self._data(delivery),
            kwargs={
                **with_variables(delivery.kwargs, self._pipeline.variable_references),
                **({"stream": self._pipeline.called(stream)} if (stream := delivery.kwargs.get("stream")) else {}),
                "env": self._pipeline.env,
                "configuration": self._pipeline.configuration(delivery.kwargs["parent_block_uuid"]),
            },
        )

    def _refusal(self, delivery: Delivery, spec: CallbackSpec) -> str | None:
        """Return why the file does not call the block for an event; None if it does."""
        own = [one for one in self._subscriptions if one.callback_block == spec.block]
        if spec.hook is None or delivery.function not in HOOKS:
            own = [one for one in own if one.function == delivery.function]
            if not own:
                return f"callback block {spec.block!r} has no function {delivery.function!r} any more"
        stream = delivery.kwargs.get("stream")
        for one in own:
            is_of = delivery.parent == PIPELINE or applies(one.streams, str(stream))
            if (one.parent, one.status) == (delivery.parent, delivery.status) and is_of:
                return None
        of = "" if delivery.parent == PIPELINE else f" (stream {stream!r})"
        return (
            f"callback block {spec.block!r} does not call {delivery.function!r} for {delivery.status!r} of "
            f"{delivery.parent!r}{of} any more"
        )

    def _needs_data(self, delivery: Delivery) -> bool:
        """Return whether the present function receives the data of such an event."""
        return any(
            one.needs_data
            for one in self._subscriptions
            if (one.callback_block, one.function, one.parent, one.status)
            == (delivery.callback_block, delivery.function, delivery.parent, delivery.status)
        )

    def _warn_of_change(self, spec: CallbackSpec) -> None:
        if spec.block in self._reported:
            return
        self._reported.add(spec.block)
        log.warning(
            "callback block %s has changed since its events were recorded: the changed block gets them",
            spec.block,
        )

    def _data(self, delivery: Delivery) -> str | None:
        """Return the path of the parent's data only if it is in the spool folder: the file is read, then removed."""
        if delivery.data is None:
            return None
        folder, url = self._pipeline.spool_folder, self._pipeline.spool_url
        if url is not None and delivery.data.rpartition("/")[0] == url:
            return delivery.data
        try:
            is_ours = Path(delivery.data).resolve().parent == folder.resolve()
        except (OSError, ValueError):
            is_ours = False
        if is_ours:
            return delivery.data
        log.warning("%s: the parent's data is not in %s, so it is None", delivery.label, folder)
        return None
