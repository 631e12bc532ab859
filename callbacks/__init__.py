"""Callback blocks: mark, load, bind and call user functions.

A callback file needs no import: the loader puts the decorators into its namespace. `from syncblocks import callback`
gives the same decorators to editors and type checkers.
"""

if __name__ != "syncblocks.callbacks":  # otherwise its error classes would exist twice
    raise ImportError("import syncblocks.callbacks, not callbacks")

from .decorator import callback, on_cancelled, on_failure, on_success, transformer
from .kwargs import BlockRun, ParentError, PipelineRun

__all__ = [
    "BlockRun",
    "ParentError",
    "PipelineRun",
    "callback",
    "on_cancelled",
    "on_failure",
    "on_success",
    "transformer",
]
