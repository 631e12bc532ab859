"""Copies of the destinations' ledger rows, to show and to undo; the ledger itself is the truth."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from .model import StateCopy, StateVersion
from .room import Room
from .tables import state, state_version

#: Versions kept of each stream's state.
VERSIONS_KEPT = 50


def _of(table: sa.Table) -> sa.ColumnElement[bool]:
    return sa.and_(
        table.c.pipeline == sa.bindparam("of_pipeline"),
        table.c.stream == sa.bindparam("of_stream"),
        table.c.destination_table == sa.bindparam("of_table"),
    )


# Made once: every stream that ends writes its state.
_VERSION = sa.select(state.c.version).where(_of(state)).with_for_update()
_INSERT, _INSERT_VERSION = state.insert(), state_version.insert()
_UPDATE = state.update().where(_of(state))
_DELETE_OLD = state_version.delete().where(_of(state_version), state_version.c.version <= sa.bindparam("last"))


class States(Room):
    """One row a pipeline, stream and destination table."""

    def save_state(self, pipeline: str, copy: StateCopy, *, run_id: int | None = None) -> None:
        """Keep a copy of a ledger row; the one before becomes a previous version.

        Args:
            pipeline: The pipeline's name.
            copy: The ledger row.
            run_id: The run that wrote it, which this process must own; None: changed by hand.

        Raises:
            LostRun: this process does not own the run.
        """
        with self._database.write("save_state") as connection:
            now = self._database.now(connection)
            if run_id is not None:
                self._lock_mine(connection, run_id)
            write_state(connection, pipeline, copy, run_id=run_id, now=now)

    def delete_state(self, pipeline: str, stream: str, destination_table: str) -> None:
        """Forget a stream's state; its versions stay, to undo it."""
        with self._database.write("delete_state") as connection:
            where = _key(pipeline, stream, destination_table)
            row = connection.execute(sa.select(state).where(where, state.c.is_deleted.is_(False))).one_or_none()
            if row is not None:
                copy = StateCopy(stream=stream, destination_table=destination_table, source=row.source)
                now = self._database.now(connection)
                write_state(connection, pipeline, copy, run_id=None, now=now, is_deleted=True)

    def states(self, pipeline: str) -> list[StateVersion]:
        """Return the state of each stream of a pipeline."""
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(state)
                .where(state.c.pipeline == pipeline, state.c.is_deleted.is_(False))
                .order_by(state.c.stream, state.c.destination_table)
            )
            return [_decode(row, row.shape) for row in rows]

    def state(self, pipeline: str, stream: str, destination_table: str) -> StateVersion | None:
        """Return the state of one stream."""
        with self._database.read() as connection:
            where = _key(pipeline, stream, destination_table)
            row = connection.execute(sa.select(state).where(where, state.c.is_deleted.is_(False))).one_or_none()
            return None if row is None else _decode(row, row.shape)

    def state_versions(self, pipeline: str, stream: str, destination_table: str) -> list[StateVersion]:
        """Return every version kept of a stream's state, the latest first; the first one is the current state."""
        version = state_version.c
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(state_version)
                .where(
                    version.pipeline == pipeline,
                    version.stream == stream,
                    version.destination_table == destination_table,
                )
                .order_by(version.version.desc())
            )
            return [_decode(row) for row in rows]


def write_state(
    connection: Connection,
    pipeline: str,
    copy: StateCopy,
    *,
    run_id: int | None,
    now: datetime,
    is_deleted: bool = False,
) -> None:
    """Write the current state and its version."""
    key = {"of_pipeline": pipeline, "of_stream": copy.stream, "of_table": copy.destination_table}
    found = connection.execute(_VERSION, key).scalar()
    version = 1 if found is None else found + 1
    row: dict[str, Any] = {
        "pipeline": pipeline,
        "stream": copy.stream,
        "destination_table": copy.destination_table,
        "version": version,
        "source": copy.source,
        "bookmark": copy.bookmark,
        "row_count": copy.rows,
        "run_id": run_id,
        "saved_at": now,
        "is_deleted": is_deleted,
    }
    # Whoever changes a bookmark by hand says nothing of the stream's shape.
    shape = {} if copy.shape is None and not is_deleted else {"shape": copy.shape}
    if found is None:
        connection.execute(_INSERT, row | shape)
    else:
        connection.execute(_UPDATE, row | shape | key)
    connection.execute(_INSERT_VERSION, row)
    if version > VERSIONS_KEPT:
        connection.execute(_DELETE_OLD, {**key, "last": version - VERSIONS_KEPT})


def _key(pipeline: str, stream: str, destination_table: str) -> sa.ColumnElement[bool]:
    return sa.and_(
        state.c.pipeline == pipeline, state.c.stream == stream, state.c.destination_table == destination_table
    )


def _decode(row: Row[Any], shape: Any = None) -> StateVersion:
    return StateVersion(
        pipeline=row.pipeline,
        stream=row.stream,
        destination_table=row.destination_table,
        version=row.version,
        source=row.source,
        bookmark=row.bookmark,
        rows=row.row_count,
        run_id=row.run_id,
        saved_at=row.saved_at,
        is_deleted=row.is_deleted,
        shape=shape,
    )
