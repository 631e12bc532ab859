"""The step of `before`: statements that run before each attempt reads the stream."""

from __future__ import annotations

from contextlib import closing

from syncblocks.connectors.errors import ConnectorError

from ...plan.features.before import PlannedBefore
from ...session.statements import source_runner
from ..before_statements import statement_values, watched
from .protocol import Step, StepHost


class BeforeStep(Step):
    """The statements of a stream, run under its token."""

    def __init__(self, host: StepHost, planned: PlannedBefore) -> None:
        self._host = host
        self._statements = planned.statements

    def begin(self) -> None:
        """Run the statements in order.

        A statement in the destination commits with an update of the ledger row `where token = mine`. A statement in
        the source runs right after the token was written, because its database cannot lock that row.

        Raises:
            ConnectorError: a statement failed. The block of its side is marked as failed.
        """
        host, context, key = self._host, self._host.context, self._host.planned.key
        pipeline = context.pipeline
        names = {"stream": pipeline.called(host.planned.name), "destination_table": key.destination_table}
        for place, statement in enumerate(self._statements, 1):
            values = statement_values(pipeline, statement, names)
            try:
                if statement.connection == "source":
                    with (
                        closing(source_runner(pipeline)) as runner,
                        watched(runner, host.planned.name, lambda: host.stop_reason is not None),
                    ):
                        runner.execute(statement.sql, values, name=host.planned.name)
                else:
                    fences = context.destination_can.fences_statements
                    assert fences is not None, "`open_session` has refused it"
                    fences.execute_fenced(key, host.position.token, statement.sql, values)
            except ConnectorError as error:
                if statement.connection == "source":
                    host.blocks.fail_in_source()
                error.extended(before=f"`before`, statement {place}, in the {statement.connection}: ")
                raise


__all__ = ["BeforeStep"]
