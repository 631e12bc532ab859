"""The statements of a pipeline's `before`, which run before its first claim, and helpers for those of streams."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

from syncblocks.connectors.errors import ConnectorError, FatalConnectorError, Interrupted
from syncblocks.connectors.protocols import RunsStatements

from ..config import Pipeline
from ..config.before_statements import BeforeStatement
from ..session.statements import source_runner

if TYPE_CHECKING:
    from ..session.session import PipelineSession

#: Name of the calls for a pipeline's statements, for interrupts.
_NAME = "before the pipeline"

#: Seconds between two checks whether the run must stop.
_POLL_S = 0.2


class StatementFailed(FatalConnectorError):
    """A statement in a pipeline's `before` failed; the message names it."""


def run_before_pipeline(session: PipelineSession, is_stopping: Callable[[], bool]) -> None:
    """Run a pipeline's statements in order, each on a separate connection.

    Args:
        session: the opened pipeline.
        is_stopping: whether the run must stop; this interrupts the running statement.

    Raises:
        ConnectorError: a statement failed, or was interrupted; later ones do not run.
    """
    pipeline = session.pipeline
    for place, statement in enumerate(pipeline.before, 1):
        values = statement_values(pipeline, statement, {})
        runner = (
            source_runner(pipeline) if statement.connection == "source" else session.destination_can.runs_statements
        )
        assert runner is not None, "`open_session` has refused it"
        try:
            with watched(runner, _NAME, is_stopping):
                runner.execute(statement.sql, values, name=_NAME)
        except Interrupted:
            raise
        except ConnectorError as error:
            text = f"`before`, statement {place}, in the {statement.connection}: {error}"
            failed = StatementFailed(text, connector=error.connector)
            failed.is_from_source = statement.connection == "source"
            raise failed from error
        finally:
            if statement.connection == "source":
                runner.close()


@contextmanager
def watched(runner: RunsStatements, name: str, is_stopping: Callable[[], bool]) -> Iterator[None]:
    """Interrupt a call once the run must stop."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(_POLL_S):
            if is_stopping():
                with suppress(ConnectorError):
                    runner.interrupt(name)

    thread = threading.Thread(target=watch, name="before", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def statement_values(pipeline: Pipeline, statement: BeforeStatement, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a statement. `more` has the values that only a stream knows."""
    known = {
        "pipeline_uuid": pipeline.pipeline,
        "ds": pipeline.ds,
        "hr": pipeline.hr,
        "execution_date": pipeline.execution_date.isoformat(),
        "execution_partition": pipeline.execution_partition,
        "env": pipeline.env,
    }
    return cast("dict[str, Any]", {**known, **more, **statement.parameters})


__all__ = ["StatementFailed", "run_before_pipeline", "statement_values", "watched"]
