"""Chooses the executor of a run: threads, a Dask cluster, or one given in Python."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...config import Pipeline
from ...config.executor import LOCAL, ExecutorSettings, as_executor
from ...errors import ConfigError
from ...plan.placement import place_of
from ...session.session import PipelineSession
from .threads import in_thread

if TYPE_CHECKING:
    from .engine import OpenedEngine

#: Used as address of an executor given in Python.
GIVEN = "given"


#: Same as `executor` in the pipeline file, or only an address; or a `distributed.Client`, or a concurrent Executor.
ExecutorOption = Any


def with_executor(pipeline: Pipeline, given: ExecutorOption) -> Pipeline:
    """Return a pipeline with another executor than in its file; None: the file's.

    Raises:
        ConfigError: the value is not an executor.
    """
    if given is None:
        return pipeline
    spool = pipeline.executor.spool
    if isinstance(given, str) and given != "threads":
        is_address = given == LOCAL or "://" in given
        if not is_address:
            raise ConfigError(
                f"{given!r} is no executor", key="executor", allowed=("threads", LOCAL, "tcp://HOST:PORT")
            )
        security = pipeline.executor.security if given.startswith("tls") else None
        settings = ExecutorSettings(dask=given, security=security, spool=spool)
    elif isinstance(given, str | Mapping):
        from pydantic import ValidationError

        try:
            settings = ExecutorSettings.model_validate(as_executor(given if isinstance(given, str) else dict(given)))
        except (ValidationError, ValueError) as error:
            raise ConfigError(f"is no executor: {error}", key="executor") from error
    else:
        _kind_of(given)
        settings = ExecutorSettings(dask=GIVEN, spool=spool)
    return pipeline.model_copy(update={"executor": settings})


def is_object(given: ExecutorOption) -> bool:
    """Whether an executor was given as an object, not as text."""
    return given is not None and not isinstance(given, str | Mapping)


def _kind_of(given: Any) -> str:
    """Return `executor` or `client`.

    Raises:
        ConfigError: the value is neither.
    """
    if isinstance(given, concurrent.futures.Executor):
        return "executor"
    if type(given).__module__.partition(".")[0] == "distributed":
        import distributed

        if isinstance(given, distributed.Client):
            return "client"
    raise ConfigError(
        f"a {type(given).__name__} is no executor", key="executor", allowed=("distributed.Client", "Executor")
    )


def import_ahead(pipeline: Pipeline, given: ExecutorOption) -> None:
    """Import the modules for `open_engine` while the plan waits for databases; it reports failed imports."""
    if pipeline.executor.is_elsewhere and not is_object(given):
        in_thread(lambda: import_module("distributed"), "import")


def open_engine(session: PipelineSession, given: ExecutorOption) -> OpenedEngine | None:
    """Open the engine of a pipeline's executor; None: threads of this process.

    Raises:
        ConfigError: a required package is not installed, or no worker can run the pipeline.
        ExecutorError: it cannot be reached.
    """
    pipeline = session.pipeline
    if not pipeline.executor.is_elsewhere:
        return None
    if is_object(given) and _kind_of(given) == "executor":
        from .futures import FuturesEngine

        return FuturesEngine(given, pipeline)
    _demand_installed(pipeline)
    from .dask import open_dask

    is_bound = place_of(session.source_can, session.destination_can) != "anywhere"
    return open_dask(pipeline, given if is_object(given) else None, is_bound=is_bound)


def check_engine(session: PipelineSession) -> None:
    """Check that a run would find its cluster, with workers that can run it; a local cluster is not started.

    Raises:
        ConfigError: as `open_engine`.
        ExecutorError: it cannot be reached.
    """
    if session.pipeline.executor.is_local:
        _demand_installed(session.pipeline)
    elif engine := open_engine(session, None):
        engine.close()


def _demand_installed(pipeline: Pipeline) -> None:
    try:
        if pipeline.executor.is_local:
            import cryptography  # noqa: F401 (without TLS every user of this machine could give the workers code)
        import distributed  # noqa: F401 (few runs need it, and it takes a second)
    except ModuleNotFoundError as error:
        message = f"executor `{pipeline.executor}` needs {error.name}: pip install 'syncblocks[dask]'"
        raise ConfigError(message, key="executor") from error
