"""The open run of a SQLite file that lost part of what was written: its rows are made to fit together again.

A disk that lies about writes, a copy of a file in use, or a lock that was dropped can leave half of a transaction. What
the store then says of a stream is not trusted: the stream has failed, and the destination's ledger has its bookmark.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from .attempts import set_streams
from .connection import Row, StoreConnection
from .drivers import Sqlite
from .event_rows import EventRow, write_events
from .last_block_run import TypeCounter, ask_counters
from .model import CANCELLED, DATA_EXPORTER, FAILURE, RUNNING, STREAM, SUCCESS, UNCLAIMED, ErrorInfo, encode_error
from .plans import Plans
from .runs import begin_attempt, set_run
from .statements import insert, update
from .table_names import ATTEMPT, BLOCK_RUN, DELIVERY, EVENT, PIPELINE_RUN, STREAM_RUN, TYPE_COUNTER
from .transactions import LockedRun, Transactions, save_attempt

_ACTIVE = f"""SELECT id, attempt, last_seq, owner, lease_until FROM {PIPELINE_RUN}
    WHERE pipeline = :pipeline AND is_active = TRUE"""
_OF_ATTEMPT = "WHERE run_id = :run_id AND attempt = :number"
_ATTEMPT = f"""SELECT status, stop_status, plan, open_streams, unclaimed_streams, failed_streams, cancelled_streams
    FROM {ATTEMPT} {_OF_ATTEMPT}"""
_STREAMS = f"SELECT stream, status, blocks FROM {STREAM_RUN} {_OF_ATTEMPT} ORDER BY position"
_BLOCKS = f"SELECT block, stream, block_type, status FROM {BLOCK_RUN} {_OF_ATTEMPT} ORDER BY position"
_LAST_SEQ = f"SELECT max(seq) AS seq FROM {EVENT} WHERE run_id = :run_id"
_TOLD = f"SELECT 1 FROM {EVENT} {_OF_ATTEMPT} AND stream = :stream AND parent = '{STREAM}'"
_LAST_RUN = f"SELECT max(id) AS id FROM {PIPELINE_RUN}"
_END_BLOCK = update(
    BLOCK_RUN,
    "status ended_at error type_index is_last",
    "run_id = :run_id AND attempt = :number AND stream = :stream AND block = :block",
)
_COUNTER = insert(TYPE_COUNTER, "run_id attempt block_type open ended unclaimed undecided_block undecided_stream")
#: Callbacks that can be told nothing: what they tell of is not there. The attempt of the open run is made anew.
_LOST = f"""FROM {DELIVERY} WHERE is_open = TRUE AND pipeline = :pipeline AND (
    NOT EXISTS (SELECT 1 FROM {EVENT} e WHERE e.run_id = {DELIVERY}.run_id AND e.seq = {DELIVERY}.seq)
    OR NOT EXISTS (SELECT 1 FROM {PIPELINE_RUN} r WHERE r.id = {DELIVERY}.run_id)
    OR (block IS NOT NULL AND NOT EXISTS (SELECT 1 FROM {BLOCK_RUN} b WHERE b.run_id = {DELIVERY}.run_id
        AND b.attempt = {DELIVERY}.attempt AND b.block = {DELIVERY}.block AND b.stream = {DELIVERY}.stream))
    OR (run_id <> :run_id AND NOT EXISTS (SELECT 1 FROM {ATTEMPT} a
        WHERE a.run_id = {DELIVERY}.run_id AND a.attempt = {DELIVERY}.attempt)))"""
_BURY = (
    f"UPDATE {DELIVERY} SET state = 'dead', is_open = FALSE WHERE idempotency_key IN (SELECT idempotency_key {_LOST})"
)
#: Only SQLite has this table; the number of a run whose row is lost is not given to another.
_SEQUENCES = (
    f"DELETE FROM sqlite_sequence WHERE name = '{PIPELINE_RUN}' AND seq < :last",
    f"""INSERT INTO sqlite_sequence (name, seq) SELECT '{PIPELINE_RUN}', :last
        WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = '{PIPELINE_RUN}')""",
)


class Found:
    """What the store holds of an open run, and what does not fit together."""

    def __init__(self, connection: StoreConnection, run: Row) -> None:
        """Read the rows of the run's latest attempt."""
        values = {"run_id": run.id, "number": run.attempt}
        self.run = run
        self.attempt = connection.row(_ATTEMPT, values)
        self.statuses = {row.stream: row.status for row in connection.rows(_STREAMS, values)}
        self.planned = {row.stream: dict(row.blocks) for row in connection.rows(_STREAMS, values)}
        self.blocks: dict[str, list[Row]] = defaultdict(list)
        for row in connection.rows(_BLOCKS, values):
            self.blocks[row.stream].append(row)
        self.counters = ask_counters(connection, run.id)()
        self.last_seq = connection.value(_LAST_SEQ, {"run_id": run.id}) or 0

    @property
    def has_plan(self) -> bool:
        return self.attempt is not None and self.attempt.plan is not None

    @property
    def torn(self) -> list[str]:
        """Streams that are neither open nor ended as a whole."""
        is_open = self.has_plan and self.attempt is not None and self.attempt.status == RUNNING
        return [stream for stream in {**self.statuses, **self.blocks} if self._is_torn(stream, is_open=is_open)]

    def _is_torn(self, stream: str, *, is_open: bool) -> bool:
        status, rows = self.statuses.get(stream), self.blocks.get(stream, [])
        running = {row.block for row in rows if row.status == RUNNING}
        if status == RUNNING:
            return not is_open or running != set(self.planned[stream]) or len(rows) != len(running)
        return bool(rows if status == UNCLAIMED else running)

    def streams(self, *statuses: str) -> int:
        """Return how many streams have one of these statuses."""
        return sum(status in statuses for status in self.statuses.values())

    def figures(self) -> dict[str, int]:
        """Return the counts that an attempt with these streams has."""
        counted = {"open": RUNNING, "unclaimed": UNCLAIMED, "failed": FAILURE, "cancelled": CANCELLED}
        return {f"{name}_streams": self.streams(status) for name, status in counted.items()}

    def types(self) -> dict[str, tuple[int, int, int]]:
        """Return open, ended and unclaimed block runs of each block type."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for rows in self.blocks.values():
            for row in rows:
                found[row.block_type]["open" if row.status == RUNNING else "ended"] += 1
        is_stopping = self.attempt is None or self.attempt.stop_status is not None
        for stream, blocks in self.planned.items():
            for block_type in blocks.values():
                found[block_type]["unclaimed"] += self.statuses[stream] == UNCLAIMED and not is_stopping
        return {kind: (each["open"], each["ended"], each["unclaimed"]) for kind, each in found.items()}

    def is_miscounted(self) -> bool:
        """Tell whether the counts are not those of the rows."""
        if self.attempt is None:
            return True
        counted = {kind: (one.open, one.ended, one.unclaimed) for kind, one in self.counters.items()}
        figures = self.figures()
        return {name: getattr(self.attempt, name) for name in figures} != figures or counted != self.types()


class Torn:
    """Finds a run that was torn, and mends it before it is recovered."""

    def __init__(self, transactions: Transactions, plans: Plans) -> None:
        self._transactions = transactions
        self._plans = plans

    def mend(self, pipeline: str) -> tuple[str, ...]:
        """Make the rows of a pipeline's open run fit together, if its process is dead; return what did not."""
        if not isinstance(self._transactions.database.driver, Sqlite):
            return ()
        with self._transactions.read() as connection:
            if not self._look(connection, pipeline)[1]:
                return ()
        with self._transactions.write("mend") as connection:
            found, wrong = self._look(connection, pipeline)  # under the lock: another process may have been faster
            if wrong:
                self._mend(connection, pipeline, found)
        return tuple(wrong)

    def _look(self, connection: StoreConnection, pipeline: str) -> tuple[Found | None, list[str]]:
        """Return the pipeline's open run, if its process is dead, and what does not fit together."""
        run = connection.row(_ACTIVE, {"pipeline": pipeline})
        if run is not None and self._transactions.is_alive(
            run.owner, run.lease_until, self._transactions.now(connection)
        ):
            return None, []
        last, known = _last_run(connection), connection.value(_LAST_RUN) or 0
        wrong = [] if last <= known else [f"only parts of runs {known + 1} to {last} are left"]
        values = {"pipeline": pipeline, "run_id": 0 if run is None else run.id}
        if lost := connection.value(f"SELECT count(*) AS n {_LOST}", values):
            wrong.append(f"due callbacks are dead, since their events are lost: {lost}")
        if run is None:
            return None, wrong
        found, name = Found(connection, run), f"run {run.id}"
        if found.attempt is None:
            wrong.append(f"{name}: the row of its attempt {run.attempt} is lost")
        wrong += [
            f"{name}: half of a write is missing for stream {stream!r}: it has failed, the ledger has its bookmark"
            for stream in found.torn
        ]
        if found.last_seq > run.last_seq:
            wrong.append(f"{name}: it has more events than its counter")
        if not wrong and found.is_miscounted():
            wrong.append(f"{name}: its counts differ from its streams")
        return found, wrong

    def _mend(self, connection: StoreConnection, pipeline: str, found: Found | None) -> None:
        last = _last_run(connection)
        for statement in _SEQUENCES:
            connection.run(statement, {"last": last})
        run_id = 0 if found is None else found.run.id
        connection.run(_BURY, {"pipeline": pipeline, "run_id": run_id})
        if found is None:
            return
        number, torn = found.run.attempt, found.torn
        if found.attempt is None:
            begin_attempt(connection, run_id, number, self._transactions.now(connection))
        set_run(connection, run_id, last_seq=max(found.last_seq, found.run.last_seq))
        run = self._transactions.lock(connection, run_id)
        set_streams(connection, run, torn, FAILURE)
        error = encode_error(ErrorInfo(type="TornStore", message="the run store lost a part of this stream's rows"))
        ended = {kind: counted[1] for kind, counted in found.types().items()}
        for row in (row for stream in torn for row in found.blocks[stream] if row.status == RUNNING):
            values = {"run_id": run_id, "number": number, "stream": row.stream, "block": row.block, "status": FAILURE}
            values |= {"ended_at": run.now, "error": error, "type_index": ended[row.block_type], "is_last": False}
            connection.run(_END_BLOCK, values)
            ended[row.block_type] += 1
        again = Found(connection, found.run)
        for name, count in again.figures().items():
            setattr(run, name, count)
        _save_counters(connection, run, again.types(), found.counters)
        self._plans.forget(run_id)
        self._tell(connection, run, found, torn)
        save_attempt(connection, run)

    def _tell(self, connection: StoreConnection, run: LockedRun, found: Found, torn: Sequence[str]) -> None:
        """Write the event of each torn stream that has none: its end is told once."""
        plan = self._plans.without_streams(connection, run.id, run.attempt)
        for stream in torn:
            values = {"run_id": run.id, "number": run.attempt, "stream": stream}
            if found.statuses.get(stream) in (SUCCESS, FAILURE, CANCELLED) or connection.value(_TOLD, values):
                continue
            rows = found.blocks.get(stream, [])
            if not rows:  # no block run is left that could carry it
                continue
            carrier = next((row for row in rows if row.block_type == DATA_EXPORTER), rows[-1])
            event = EventRow(
                parent=STREAM, status=FAILURE, block=carrier.block, block_type=carrier.block_type, stream=stream
            )
            write_events(connection, run, plan, [event])


def _last_run(connection: StoreConnection) -> int:
    """Return the highest number of a run of which anything is left."""
    asked = (f"SELECT max(run_id) AS id FROM {table}" for table in (ATTEMPT, STREAM_RUN, BLOCK_RUN, EVENT))
    return max(connection.value(one) or 0 for one in asked)


def _save_counters(
    connection: StoreConnection,
    run: LockedRun,
    types: Mapping[str, tuple[int, int, int]],
    former: Mapping[str, TypeCounter],
) -> None:
    connection.run(f"DELETE FROM {TYPE_COUNTER} {_OF_ATTEMPT}", {"run_id": run.id, "number": run.attempt})
    rows: list[dict[str, Any]] = []
    for kind, (open_, ended, unclaimed) in types.items():
        undecided = former[kind].undecided if kind in former else None
        block, stream = undecided or (None, None)
        row = {"run_id": run.id, "attempt": run.attempt, "block_type": kind, "open": open_, "ended": ended}
        rows.append({**row, "unclaimed": unclaimed, "undecided_block": block, "undecided_stream": stream})
    connection.run_many(_COUNTER, rows)


__all__ = ["Torn"]
