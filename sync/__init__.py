"""The engine: pipelines, runs, the run store and the command line.

`from syncblocks import load_pipeline, run_pipeline` does what the command line does. Names are imported when first used, so
that `syncblocks --help` starts without Arrow and SQLAlchemy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import Pipeline, load_pipeline
    from .errors import SyncError
    from .pipeline_run import run_pipeline
    from .progress import Progress
    from .results import RunResult, StreamResult

_HOMES = {
    "Pipeline": "config",
    "Progress": "progress",
    "RunResult": "results",
    "StreamResult": "results",
    "SyncError": "errors",
    "load_pipeline": "config",
    "run_pipeline": "pipeline_run",
}

__all__ = ["Pipeline", "Progress", "RunResult", "StreamResult", "SyncError", "load_pipeline", "run_pipeline"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
