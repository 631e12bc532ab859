"""Statements of `before`: a pipeline's before its first claim, a stream's before each attempt."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

from syncblocks.connectors.errors import ConnectorError, FatalConnectorError, Interrupted
from syncblocks.connectors.protocols import RunsStatements

from ..config import Pipeline
from ..config.before_statements import BeforeStatement
from ..session.statements import source_runner

if TYPE_CHECKING:
    from ..session.session import PipelineSession
    from .block_runs import StreamBlocks
    from .context import StreamContext

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
        values = _values(pipeline, statement, {})
        runner = (
            source_runner(pipeline) if statement.connection == "source" else session.destination_can.runs_statements
        )
        assert runner is not None, "`open_session` has refused it"
        try:
            with _watched(runner, _NAME, is_stopping):
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
def _watched(runner: RunsStatements, name: str, is_stopping: Callable[[], bool]) -> Iterator[None]:
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


def run_before_stream(
    context: StreamContext, blocks: StreamBlocks, token: str, stop_reason: Callable[[], str | None]
) -> None:
    """Run a stream's statements under its token, in order.

    A statement in the destination commits with an update of the ledger row `where token = mine`. A statement in the
    source runs right after the token was written: its database cannot lock that row.

    Args:
        context: the run's context.
        blocks: blocks of the stream.
        token: the token in the stream's ledger row.
        stop_reason: returns why the stream must stop; None: it must not.

    Raises:
        ConnectorError: a statement failed; the block of its side is marked as failed.
    """
    planned, pipeline = blocks.planned, context.pipeline
    names = {"stream": pipeline.called(planned.name), "destination_table": planned.key.destination_table}
    for place, statement in enumerate(planned.policy.before, 1):
        values = _values(pipeline, statement, names)
        try:
            if statement.connection == "source":
                with (
                    closing(source_runner(pipeline)) as runner,
                    _watched(runner, planned.name, lambda: stop_reason() is not None),
                ):
                    runner.execute(statement.sql, values, name=planned.name)
            else:
                fences = context.destination_can.fences_statements
                assert fences is not None, "`open_session` has refused it"
                fences.execute_fenced(planned.key, token, statement.sql, values)
        except ConnectorError as error:
            if statement.connection == "source":
                blocks.fail_in_source()
            error.extended(before=f"`before`, statement {place}, in the {statement.connection}: ")
            raise


def _values(pipeline: Pipeline, statement: BeforeStatement, more: Mapping[str, Any]) -> dict[str, Any]:
    known = {
        "pipeline_uuid": pipeline.pipeline,
        "ds": pipeline.ds,
        "hr": pipeline.hr,
        "execution_date": pipeline.execution_date.isoformat(),
        "execution_partition": pipeline.execution_partition,
        "env": pipeline.env,
    }
    return cast("dict[str, Any]", {**known, **more, **statement.parameters})


__all__ = ["StatementFailed", "run_before_pipeline", "run_before_stream"]
