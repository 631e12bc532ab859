"""Dispatchers of a pipeline's callbacks: prepare each call, and handle its outcome."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from syncblocks.callbacks.dispatcher import Dispatcher
from syncblocks.callbacks.protocols import Delivery, Outcome

from ..config import Pipeline, resolve_references
from ..delivery.hook_settings import Hooks
from ..secrets import Redactor
from ..store import Store
from ..store.outbox import StoreOutbox
from .progress import Progress
from .triggers import Triggers

log = logging.getLogger("syncblocks")


def call_settings(pipeline: Pipeline, redactor: Redactor, store: Store | None = None) -> dict[str, Any]:
    """Return the preparation of each call: resolves variables, prepares hooks, answers questions, masks secrets."""
    asking = {} if store is None else {"ask": Triggers(pipeline, store, redactor).ask}  # a hook sends no questions
    return {
        **asking,
        "resolve": lambda kwargs: resolve_references(kwargs, pipeline),
        "prepare": Hooks(pipeline, redactor).prepare,
        "redact": redactor.redact,
    }


def make_dispatcher(
    pipeline: Pipeline,
    outbox: StoreOutbox,
    store: Store,
    blocks: Sequence[str],
    redactor: Redactor,
    progress: Progress,
    *,
    inline: bool = False,
) -> Dispatcher:
    """Return a dispatcher for these callback blocks; it removes data that no pending delivery needs."""

    def on_outcome(delivery: Delivery, outcome: Outcome, mark: str) -> None:
        if delivery.data is not None and mark != "retry" and delivery.data not in outbox.deliveries.open_data():
            _remove(pipeline, delivery.data)
        progress.delivered(delivery, outcome, mark)

    return Dispatcher(outbox, blocks, on_outcome=on_outcome, inline=inline, **call_settings(pipeline, redactor, store))


def _remove(pipeline: Pipeline, data: str) -> None:
    """Remove delivered data; `CurrentCallbacks` has checked that it is in our spool folder."""
    if pipeline.spool_url is None or not data.startswith(pipeline.spool_url):
        Path(data).unlink(missing_ok=True)
        return
    from ..flow.shared_spool import SharedSpool  # imported here: few runs have one

    try:
        SharedSpool(pipeline.spool_url).remove(data)
    except Exception as error:  # drivers raise any kind of error
        log.warning("data for callbacks stays in executor.spool: %s", type(error).__name__)
