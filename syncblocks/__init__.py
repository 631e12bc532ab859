"""Sync streams from a source to a destination: every row once, every callback delivered.

`from syncblocks import load_pipeline, run_pipeline` does what the command line does; `preview`, `verify` and others
return what its commands show. `from syncblocks import callback, transformer` gives editors the marks that a callback
file finds in its namespace anyway. A name is imported when it is first used, so that `import syncblocks` costs neither
Arrow nor a driver.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from syncblocks.callbacks import (
        BlockRun,
        ParentError,
        PipelineRun,
        callback,
        on_cancelled,
        on_failure,
        on_success,
        transformer,
    )
    from syncblocks.sync.api import cancel, count, discover, list_streams, preview, state, verify
    from syncblocks.sync.config import Pipeline, load_pipeline
    from syncblocks.sync.errors import PipelineFailed, SyncError, TryLater
    from syncblocks.sync.run.mapped.finishing import finish_run
    from syncblocks.sync.run.mapped.opening import HeldRun, open_run
    from syncblocks.sync.run.mapped.task import sync_stream
    from syncblocks.sync.run.pipeline import run_pipeline
    from syncblocks.sync.run.progress import Progress
    from syncblocks.sync.run.recover_run import recover
    from syncblocks.sync.run.results import RunResult, StreamResult

#: Public name -> the module that it comes from.
_HOMES = {
    "BlockRun": "callbacks",
    "HeldRun": "sync.run.mapped.opening",
    "ParentError": "callbacks",
    "Pipeline": "sync.config",
    "PipelineFailed": "sync.errors",
    "PipelineRun": "callbacks",
    "Progress": "sync.run.progress",
    "RunResult": "sync.run.results",
    "StreamResult": "sync.run.results",
    "SyncError": "sync.errors",
    "TryLater": "sync.errors",
    "callback": "callbacks",
    "cancel": "sync.api",
    "count": "sync.api",
    "discover": "sync.api",
    "finish_run": "sync.run.mapped.finishing",
    "list_streams": "sync.api",
    "load_pipeline": "sync.config",
    "on_cancelled": "callbacks",
    "on_failure": "callbacks",
    "on_success": "callbacks",
    "open_run": "sync.run.mapped.opening",
    "preview": "sync.api",
    "recover": "sync.run.recover_run",
    "run_pipeline": "sync.run.pipeline",
    "state": "sync.api",
    "sync_stream": "sync.run.mapped.task",
    "transformer": "callbacks",
    "verify": "sync.api",
}

__all__ = [
    "BlockRun",
    "HeldRun",
    "ParentError",
    "Pipeline",
    "PipelineFailed",
    "PipelineRun",
    "Progress",
    "RunResult",
    "StreamResult",
    "SyncError",
    "TryLater",
    "callback",
    "cancel",
    "count",
    "discover",
    "finish_run",
    "list_streams",
    "load_pipeline",
    "on_cancelled",
    "on_failure",
    "on_success",
    "open_run",
    "preview",
    "recover",
    "run_pipeline",
    "state",
    "sync_stream",
    "transformer",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name what is not imported yet, too: a notebook completes names by it."""
    return sorted({*globals(), *__all__})
