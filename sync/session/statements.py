"""Which side of a pipeline runs the user's statements, and what runs them at the source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from syncblocks.connectors.capabilities import Capabilities, capabilities_of
from syncblocks.connectors.errors import ConnectorConfigError
from syncblocks.connectors.protocols import RunsStatements
from syncblocks.connectors.registry import make_destination, names, settings_model
from syncblocks.connectors.settings import known_settings

from ..config import Pipeline
from ..config.before_statements import BeforeStatement
from ..config.yaml_document import Loc

#: Sources that open their file for reading only: no other connection of this process can write it then.
_READ_ONLY = frozenset({"duckdb"})


def source_runner(pipeline: Pipeline) -> RunsStatements:
    """Make the connector that runs statements in the source's database; the caller closes it.

    Raises:
        ConnectorConfigError: the source is no database that runs statements.
    """
    block = pipeline.source
    if block.connector not in names("destination") or block.connector in _READ_ONLY:
        raise ConnectorConfigError(
            f"source connector {block.connector!r} runs no statements", connector=block.connector
        )
    kept = settings_model(block.connector, "destination", pipeline.folder)
    config = block.config if kept is None else known_settings(kept, block.config)
    made = make_destination(block.connector, config, pipeline.folder)
    if capabilities_of(made).runs_statements is None:
        made.close()
        raise ConnectorConfigError(
            f"source connector {block.connector!r} runs no statements", connector=block.connector
        )
    return cast("RunsStatements", made)


def check_statements(pipeline: Pipeline, can: Capabilities) -> None:
    """Refuse statements where their side runs none.

    Args:
        pipeline: the pipeline file.
        can: capabilities of the destination, as the engine uses it.

    Raises:
        ConfigError: see above.
    """
    connector = pipeline.destination.connector
    for number, block in enumerate(pipeline.callbacks):
        if block.sql is not None and can.runs_statements is None:
            raise pipeline.error(
                ("callbacks", number, "sql"),
                f"destination connector {connector!r} runs no statements: it is not a SQL database",
            )
    for loc, statement in _before(pipeline):
        is_able = can.runs_statements if loc[0] == "before" else can.fences_statements
        if statement.connection == "destination" and is_able is None:
            text = f"destination connector {connector!r} runs no statements: it is not a SQL database"
            raise pipeline.error((*loc, "connection"), text)
        if statement.connection == "source":
            try:
                source_runner(pipeline).close()
            except ConnectorConfigError as error:
                raise pipeline.error((*loc, "connection"), str(error)) from error


def _before(pipeline: Pipeline) -> Iterator[tuple[Loc, BeforeStatement]]:
    """Yield all statements of `before`, with their places."""
    yield from ((("before", place), each) for place, each in enumerate(pipeline.before))
    for number, entry in enumerate(pipeline.streams):
        yield from ((("streams", number, "before", place), each) for place, each in enumerate(entry.before or ()))


__all__ = ["check_statements", "source_runner"]
