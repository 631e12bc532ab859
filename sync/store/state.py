"""Copies of the destinations' ledger rows, to show and to undo; the ledger decides."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

from .connection import Row, StoreConnection, value_of
from .model import StateCopy, StateVersion
from .statements import insert, one_of, update
from .table_names import PIPELINE_RUN, STATE, STATE_VERSION
from .transactions import Transactions

#: Versions kept of each stream's state.
VERSIONS_KEPT = 50

_KEY = "pipeline = :pipeline AND stream = :stream AND destination_table = :destination_table"
_VERSION = f"SELECT version FROM {STATE} WHERE {_KEY} FOR UPDATE"
_VERSION_OF_RUN = _VERSION.replace(":pipeline", f"(SELECT r.pipeline FROM {PIPELINE_RUN} r WHERE r.id = :run_id)")
_STATE = f"SELECT * FROM {STATE} WHERE {_KEY} AND is_deleted = FALSE"


class States:
    """One state for each pipeline, stream and destination table."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def save_state(self, pipeline: str, copy: StateCopy, *, run_id: int | None = None) -> None:
        """Keep a copy of a ledger row; the former copy becomes a previous version.

        Args:
            pipeline: The pipeline's name.
            copy: The ledger row.
            run_id: The run that wrote it, which this process must own; None: changed by hand.

        Raises:
            LostRun: this process does not own the run.
        """
        with self._transactions.write("save_state") as connection:
            now = self._transactions.now(connection)
            if run_id is not None:
                self._transactions.lock_owned(connection, run_id)
            version = ask_version(connection, copy, pipeline=pipeline)
            write_state(connection, pipeline, copy, version(), run_id=run_id, now=now)

    def delete_state(self, pipeline: str, stream: str, destination_table: str) -> None:
        """Forget a stream's state; its versions stay, to undo it."""
        with self._transactions.write("delete_state") as connection:
            row = connection.row(_STATE, _key(pipeline, stream, destination_table))
            if row is not None:
                copy = StateCopy(stream=stream, destination_table=destination_table, source=row.source)
                now = self._transactions.now(connection)
                version = ask_version(connection, copy, pipeline=pipeline)()
                write_state(connection, pipeline, copy, version, run_id=None, now=now, is_deleted=True)

    def states(self, pipeline: str, streams: Collection[str] | None = None) -> list[StateVersion]:
        """Return the state of each stream of a pipeline; `streams`: only of these."""
        is_one, values = ("1 = 1", {}) if streams is None else one_of("stream", streams)
        with self._transactions.read() as connection:
            rows = connection.rows(
                f"""SELECT * FROM {STATE} WHERE pipeline = :pipeline AND is_deleted = FALSE AND {is_one}
                ORDER BY stream, destination_table""",
                {"pipeline": pipeline, **values},
            )
            return [_decode(row, row.shape) for row in rows]

    def state(self, pipeline: str, stream: str, destination_table: str) -> StateVersion | None:
        """Return the state of one stream."""
        with self._transactions.read() as connection:
            row = connection.row(_STATE, _key(pipeline, stream, destination_table))
            return None if row is None else _decode(row, row.shape)

    def state_versions(self, pipeline: str, stream: str, destination_table: str) -> list[StateVersion]:
        """Return every version kept of a stream's state, the latest first; the first one is the current state."""
        with self._transactions.read() as connection:
            rows = connection.rows(
                f"SELECT * FROM {STATE_VERSION} WHERE {_KEY} ORDER BY version DESC",
                _key(pipeline, stream, destination_table),
            )
            return [_decode(row) for row in rows]


def ask_version(
    connection: StoreConnection, copy: StateCopy, *, run_id: int | None = None, pipeline: str | None = None
) -> Callable[[], int | None]:
    """Lock a stream's state, of a pipeline or of a run's; return what reads its version, None if there is no state."""
    values = {"stream": copy.stream, "destination_table": copy.destination_table}
    answer = connection.ask(
        _VERSION if run_id is None else _VERSION_OF_RUN,
        values | ({"pipeline": pipeline} if run_id is None else {"run_id": run_id}),
    )
    return lambda: next((row.version for row in answer()), None)


def write_state(
    connection: StoreConnection,
    pipeline: str,
    copy: StateCopy,
    found: int | None,
    *,
    run_id: int | None,
    now: datetime,
    is_deleted: bool = False,
) -> None:
    """Write the current state and its version; `found` is the former one."""
    key = _key(pipeline, copy.stream, copy.destination_table)
    version = 1 if found is None else found + 1
    row: dict[str, Any] = {
        **key,
        "version": version,
        "source": copy.source,
        "bookmark": copy.bookmark,
        "row_count": copy.rows,
        "run_id": run_id,
        "saved_at": now,
        "is_deleted": is_deleted,
    }
    # A change by hand has no shape: the known shape stays.
    shape = {} if copy.shape is None and not is_deleted else {"shape": copy.shape}
    current = row | shape
    connection.run(
        insert(STATE, current) if found is None else update(STATE, sorted(current.keys() - key), _KEY), current
    )
    connection.run(insert(STATE_VERSION, row), row)
    if version > VERSIONS_KEPT:
        connection.run(
            f"DELETE FROM {STATE_VERSION} WHERE {_KEY} AND version <= :last", {**key, "last": version - VERSIONS_KEPT}
        )


def _key(pipeline: str, stream: str, destination_table: str) -> dict[str, str]:
    return {"pipeline": pipeline, "stream": stream, "destination_table": destination_table}


def _decode(row: Row, shape: Any = None) -> StateVersion:
    return value_of(StateVersion, row, rows=row.row_count, shape=shape)
