"""Versions of the run store and the steps between them: forward only, in plain SQL for both databases."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import StateError
from .connection import StoreConnection
from .drivers import Driver
from .statements import update
from .table_names import ATTEMPT, VERSION_TABLE

# `SERIAL_KEY` is a key that counts up; the number of a run that was deleted is not given to another.
_FIRST = (
    # One row a pipeline run. Locking it is what serializes claim, close and stop; whoever owns it may write.
    """CREATE TABLE _syncblocks_pipeline_run (
        id SERIAL_KEY,
        run_key TEXT NOT NULL UNIQUE,
        pipeline TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        is_active BOOLEAN NOT NULL,
        owner TEXT NOT NULL,
        lease_until TIMESTAMP WITH TIME ZONE NOT NULL,
        cancel_requested_at TIMESTAMP WITH TIME ZONE,
        execution_date TIMESTAMP WITH TIME ZONE NOT NULL,
        trigger_id TEXT NOT NULL,
        event TEXT NOT NULL,
        variables TEXT NOT NULL,
        last_seq INTEGER NOT NULL
    )""",
    "CREATE UNIQUE INDEX _syncblocks_one_active_run ON _syncblocks_pipeline_run (pipeline) WHERE is_active = TRUE",
    "CREATE INDEX _syncblocks_runs_of_pipeline ON _syncblocks_pipeline_run (pipeline, id)",
    # One row an attempt: its plan without the streams, its result, and the counts that tell when it has ended.
    """CREATE TABLE _syncblocks_attempt (
        run_id INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        status TEXT NOT NULL,
        stop_status TEXT,
        plan TEXT,
        open_streams INTEGER NOT NULL,
        unclaimed_streams INTEGER NOT NULL,
        failed_streams INTEGER NOT NULL,
        cancelled_streams INTEGER NOT NULL,
        is_gate_released BOOLEAN NOT NULL,
        started_at TIMESTAMP WITH TIME ZONE NOT NULL,
        ended_at TIMESTAMP WITH TIME ZONE,
        error TEXT,
        PRIMARY KEY (run_id, attempt)
    )""",
    # One row a planned stream of an attempt.
    """CREATE TABLE _syncblocks_stream_run (
        run_id INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        stream TEXT NOT NULL,
        position INTEGER NOT NULL,
        destination_table TEXT NOT NULL,
        status TEXT NOT NULL,
        blocks TEXT NOT NULL,
        config TEXT NOT NULL,
        PRIMARY KEY (run_id, attempt, stream)
    )""",
    # The numbers that decide index and is_last_block_run: never counted from rows, which concurrent closes do not see.
    """CREATE TABLE _syncblocks_type_counter (
        run_id INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        block_type TEXT NOT NULL,
        open INTEGER NOT NULL,
        ended INTEGER NOT NULL,
        unclaimed INTEGER NOT NULL,
        undecided_block TEXT,
        undecided_stream TEXT,
        PRIMARY KEY (run_id, attempt, block_type)
    )""",
    # position: place in the pipeline's order of blocks. is_last: NULL while running, and until it is certain.
    """CREATE TABLE _syncblocks_block_run (
        run_id INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        block TEXT NOT NULL,
        stream TEXT NOT NULL,
        block_type TEXT NOT NULL,
        position INTEGER NOT NULL,
        destination_table TEXT NOT NULL,
        status TEXT NOT NULL,
        type_index INTEGER,
        is_last BOOLEAN,
        row_count BIGINT,
        size_bytes BIGINT,
        started_at TIMESTAMP WITH TIME ZONE NOT NULL,
        ended_at TIMESTAMP WITH TIME ZONE,
        bookmark_before TEXT,
        bookmark_after TEXT,
        schema_changes TEXT,
        error TEXT,
        PRIMARY KEY (run_id, attempt, block, stream)
    )""",
    "CREATE INDEX _syncblocks_block_runs_of_stream ON _syncblocks_block_run (run_id, attempt, stream)",
    # The end of a block run, a stream or an attempt, or an event of a running block run. seq counts within a run.
    # block: the block run that carries the event, NULL for `pipeline`. occurrence: number of the event among equals,
    # from 0, if the block run is still running; NULL for an end. details: what is not in the block run's row.
    """CREATE TABLE _syncblocks_event (
        run_id INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        parent TEXT NOT NULL,
        block TEXT,
        stream TEXT,
        status TEXT NOT NULL,
        occurrence INTEGER,
        details TEXT,
        created_at TIMESTAMP WITH TIME ZONE NOT NULL,
        PRIMARY KEY (run_id, seq)
    )""",
    # One row an event and function. The columns that order the queue are copied here: it is read by one index.
    # is_numbered: an event of a running block run, which waits for no flag. is_gated: only after every
    # connection to source and destination is closed. state: ready, leased, done or dead; is_open: ready or leased; the
    # partial index uses it. attempts: leases that count; tries: all leases; lost: leases whose owner died.
    """CREATE TABLE _syncblocks_delivery (
        idempotency_key TEXT NOT NULL,
        pipeline TEXT NOT NULL,
        callback_block TEXT NOT NULL,
        function TEXT NOT NULL,
        run_id INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        position INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        parent TEXT NOT NULL,
        block TEXT,
        stream TEXT,
        block_type TEXT,
        is_numbered BOOLEAN NOT NULL,
        is_gated BOOLEAN NOT NULL,
        data TEXT,
        state TEXT NOT NULL,
        is_open BOOLEAN NOT NULL,
        attempts INTEGER NOT NULL,
        tries INTEGER NOT NULL,
        lost INTEGER NOT NULL,
        not_before TIMESTAMP WITH TIME ZONE,
        lease_owner TEXT,
        lease_token TEXT,
        leased_at TIMESTAMP WITH TIME ZONE,
        lease_until TIMESTAMP WITH TIME ZONE,
        PRIMARY KEY (idempotency_key)
    )""",
    """CREATE INDEX _syncblocks_queue ON _syncblocks_delivery
        (pipeline, callback_block, run_id, seq, position) WHERE is_open = TRUE""",
    "CREATE INDEX _syncblocks_deliveries_of_run ON _syncblocks_delivery (run_id, seq, position)",
    # The outcome of each lease.
    """CREATE TABLE _syncblocks_delivery_try (
        idempotency_key TEXT NOT NULL,
        number INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        error TEXT,
        output TEXT NOT NULL,
        owner TEXT NOT NULL,
        started_at TIMESTAMP WITH TIME ZONE NOT NULL,
        ended_at TIMESTAMP WITH TIME ZONE NOT NULL,
        duration_s FLOAT,
        PRIMARY KEY (idempotency_key, number)
    )""",
    # Copy of the destination's ledger, to show; and each version it had, to undo.
    """CREATE TABLE _syncblocks_state (
        pipeline TEXT NOT NULL,
        stream TEXT NOT NULL,
        destination_table TEXT NOT NULL,
        version INTEGER NOT NULL,
        source TEXT NOT NULL,
        bookmark TEXT,
        row_count BIGINT,
        run_id INTEGER,
        saved_at TIMESTAMP WITH TIME ZONE NOT NULL,
        is_deleted BOOLEAN NOT NULL,
        PRIMARY KEY (pipeline, stream, destination_table)
    )""",
    """CREATE TABLE _syncblocks_state_version (
        pipeline TEXT NOT NULL,
        stream TEXT NOT NULL,
        destination_table TEXT NOT NULL,
        version INTEGER NOT NULL,
        source TEXT NOT NULL,
        bookmark TEXT,
        row_count BIGINT,
        run_id INTEGER,
        saved_at TIMESTAMP WITH TIME ZONE NOT NULL,
        is_deleted BOOLEAN NOT NULL,
        PRIMARY KEY (pipeline, stream, destination_table, version)
    )""",
)


def _forget_what_is_called(connection: StoreConnection) -> None:
    """Keep only the names of recorded callback blocks: files, commands, URLs and statements are never read again."""
    rows = connection.rows(f"SELECT run_id, attempt, plan FROM {ATTEMPT} WHERE plan IS NOT NULL")
    connection.run_many(
        update(ATTEMPT, "plan", "run_id = :run_id AND attempt = :number"),
        [
            {
                "run_id": row.run_id,
                "number": row.attempt,
                "plan": {**row.plan, "callbacks": [{"block": one["block"]} for one in row.plan["callbacks"]]},
            }
            for row in rows
            if row.plan.get("callbacks")
        ],
    )


#: A statement, or a function of the store's connection.
Step = str | Callable[[StoreConnection], None]

#: Version -> the steps from the version before. This program reads and writes the last version.
STEPS: dict[str, tuple[Step, ...]] = {
    "0001": _FIRST,
    # Rejected records of a block run; NULL for earlier runs.
    "0002": ("ALTER TABLE _syncblocks_block_run ADD COLUMN rows_rejected BIGINT",),
    # The shape of a stream at its source when it was last written, to find changes; of the current version only, and
    # NULL for streams that were written earlier.
    "0003": ("ALTER TABLE _syncblocks_state ADD COLUMN shape TEXT",),
    # Only the pipeline file says what a callback block calls; callback blocks recorded earlier have no digest.
    "0004": (_forget_what_is_called,),
    # The latest end of a stream in earlier runs. Of a queue: what is ready, in order; what waits for a retry; what is
    # leased. Each look finds its row at once, whatever the backlog.
    "0005": (
        "CREATE INDEX _syncblocks_runs_of_stream ON _syncblocks_stream_run (stream, run_id, attempt)",
        """CREATE INDEX _syncblocks_ready ON _syncblocks_delivery
            (pipeline, callback_block, run_id, seq, position) WHERE state = 'ready' AND not_before IS NULL""",
        """CREATE INDEX _syncblocks_retries ON _syncblocks_delivery
            (pipeline, callback_block, not_before) WHERE state = 'ready' AND not_before IS NOT NULL""",
        "CREATE INDEX _syncblocks_leased ON _syncblocks_delivery (pipeline, callback_block) WHERE state = 'leased'",
    ),
    # The interval that a run is for; NULL: none. What ordered a run: at most one run a tick.
    "0006": (
        "ALTER TABLE _syncblocks_pipeline_run ADD COLUMN interval_start TIMESTAMP WITH TIME ZONE",
        "ALTER TABLE _syncblocks_pipeline_run ADD COLUMN interval_end TIMESTAMP WITH TIME ZONE",
        """CREATE TABLE _syncblocks_tick (
            id SERIAL_KEY,
            pipeline TEXT NOT NULL,
            kind TEXT NOT NULL,
            tick_key TEXT NOT NULL,
            due_at TIMESTAMP WITH TIME ZONE NOT NULL,
            trigger_id TEXT NOT NULL,
            event TEXT NOT NULL,
            variables TEXT NOT NULL,
            causes TEXT NOT NULL,
            state TEXT NOT NULL,
            why TEXT,
            owner TEXT,
            lease_until TIMESTAMP WITH TIME ZONE,
            claims INTEGER NOT NULL,
            run_id INTEGER,
            UNIQUE (pipeline, kind, tick_key)
        )""",
        "CREATE INDEX _syncblocks_ticks_of_run ON _syncblocks_tick (run_id)",
    ),
    # What a person should know of a stream's columns; NULL for earlier runs.
    "0007": ("ALTER TABLE _syncblocks_block_run ADD COLUMN notices TEXT",),
    # Records that a block run has deleted or marked, since the source no longer has them; NULL where nobody has looked.
    "0008": ("ALTER TABLE _syncblocks_block_run ADD COLUMN rows_deleted BIGINT",),
    # Of a stream that another process runs: the nonce of its claim, the process that has taken it, the process's lease,
    # and why it is to stop. All NULL where the run's own process runs it.
    "0009": (
        "ALTER TABLE _syncblocks_stream_run ADD COLUMN claim TEXT",
        "ALTER TABLE _syncblocks_stream_run ADD COLUMN worker TEXT",
        "ALTER TABLE _syncblocks_stream_run ADD COLUMN lease_until TIMESTAMP WITH TIME ZONE",
        "ALTER TABLE _syncblocks_stream_run ADD COLUMN stop_reason TEXT",
    ),
    # For a mapped run: seconds that it stays open after the last sign of life of a task. NULL: its owner is a process.
    "0010": ("ALTER TABLE _syncblocks_pipeline_run ADD COLUMN hold_s BIGINT",),
    # Nothing reads or writes this table any more: earlier versions kept in it which worker loaded which range. Stores
    # that have it keep it, and new ones get it, so that all stores of a version are the same.
    "0011": (
        """CREATE TABLE _syncblocks_range_claim (
            nonce TEXT NOT NULL PRIMARY KEY,
            run_id INTEGER NOT NULL,
            attempt INTEGER NOT NULL,
            stream TEXT NOT NULL,
            range_order TEXT NOT NULL,
            worker TEXT,
            lease_until TIMESTAMP WITH TIME ZONE
        )""",
    ),
    # Of a tick: what its run is to do, until when it waits, and how often its process has given it back with a reason.
    "0012": (
        "ALTER TABLE _syncblocks_tick ADD COLUMN streams TEXT",
        "ALTER TABLE _syncblocks_tick ADD COLUMN full_refresh BOOLEAN NOT NULL DEFAULT FALSE",
        "ALTER TABLE _syncblocks_tick ADD COLUMN execution_date TIMESTAMP WITH TIME ZONE",
        "ALTER TABLE _syncblocks_tick ADD COLUMN interval_start TIMESTAMP WITH TIME ZONE",
        "ALTER TABLE _syncblocks_tick ADD COLUMN interval_end TIMESTAMP WITH TIME ZONE",
        "ALTER TABLE _syncblocks_tick ADD COLUMN not_before TIMESTAMP WITH TIME ZONE",
        "ALTER TABLE _syncblocks_tick ADD COLUMN delays INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX _syncblocks_open_ticks ON _syncblocks_tick (pipeline, state, kind)",
    ),
    # The earlier ends of a stream, the calls of a pipeline and its dead deliveries, without those of other pipelines.
    "0013": (
        "ALTER TABLE _syncblocks_stream_run ADD COLUMN pipeline TEXT",
        """UPDATE _syncblocks_stream_run SET pipeline = (SELECT r.pipeline FROM _syncblocks_pipeline_run r
            WHERE r.id = _syncblocks_stream_run.run_id)""",
        "DROP INDEX _syncblocks_runs_of_stream",
        "CREATE INDEX _syncblocks_runs_of_stream ON _syncblocks_stream_run (pipeline, stream, run_id, attempt)",
        "ALTER TABLE _syncblocks_delivery_try ADD COLUMN pipeline TEXT",
        """UPDATE _syncblocks_delivery_try SET pipeline = (SELECT d.pipeline FROM _syncblocks_delivery d
            WHERE d.idempotency_key = _syncblocks_delivery_try.idempotency_key)""",
        """CREATE INDEX _syncblocks_tries_of_pipeline ON _syncblocks_delivery_try
            (pipeline, started_at DESC, idempotency_key, number DESC)""",
        "CREATE INDEX _syncblocks_dead ON _syncblocks_delivery (pipeline, run_id) WHERE state = 'dead'",
    ),
    # Of a schedule tick: its role (`missed`, `waits` or NULL); which server alone starts its process, and until when;
    # of a skipped one, the last of its times (`due_at` is the first) and their number. The schedule in force of each
    # pipeline (NULL: none any more); its times up to `looked_at` are decided; `resumed_at`: when its last pause
    # ended, or it was changed. The servers, and what their files say.
    "0014": (
        "ALTER TABLE _syncblocks_tick ADD COLUMN role TEXT",
        "ALTER TABLE _syncblocks_tick ADD COLUMN offered_by TEXT",
        "ALTER TABLE _syncblocks_tick ADD COLUMN offered_until TIMESTAMP WITH TIME ZONE",
        "ALTER TABLE _syncblocks_tick ADD COLUMN skipped_to TIMESTAMP WITH TIME ZONE",
        "ALTER TABLE _syncblocks_tick ADD COLUMN skipped_count INTEGER",
        "CREATE INDEX _syncblocks_ticks_by_state ON _syncblocks_tick (state)",
        """CREATE TABLE _syncblocks_schedule (
            pipeline TEXT NOT NULL PRIMARY KEY,
            file TEXT NOT NULL,
            schedule TEXT,
            looked_at TIMESTAMP WITH TIME ZONE NOT NULL,
            is_paused BOOLEAN NOT NULL,
            paused_until TIMESTAMP WITH TIME ZONE,
            pause_reason TEXT,
            resumed_at TIMESTAMP WITH TIME ZONE
        )""",
        """CREATE TABLE _syncblocks_server (
            owner TEXT NOT NULL PRIMARY KEY,
            folder TEXT NOT NULL,
            pipelines TEXT NOT NULL,
            started_at TIMESTAMP WITH TIME ZONE NOT NULL,
            lease_until TIMESTAMP WITH TIME ZONE NOT NULL
        )""",
    ),
    # When each expectation was first seen; `stream` is empty for one of the whole pipeline. What was found to be wrong,
    # once for each time that it begins. told, over_told: numbers of the URLs that know of the beginning and the end.
    "0015": (
        """CREATE TABLE _syncblocks_expectation (
            pipeline TEXT NOT NULL,
            stream TEXT NOT NULL,
            kind TEXT NOT NULL,
            seen_at TIMESTAMP WITH TIME ZONE NOT NULL,
            PRIMARY KEY (pipeline, stream, kind)
        )""",
        """CREATE TABLE _syncblocks_alert (
            pipeline TEXT NOT NULL,
            stream TEXT NOT NULL,
            kind TEXT NOT NULL,
            occurrence INTEGER NOT NULL,
            file TEXT NOT NULL,
            what TEXT NOT NULL,
            since TIMESTAMP WITH TIME ZONE,
            last_success TIMESTAMP WITH TIME ZONE,
            begun_at TIMESTAMP WITH TIME ZONE NOT NULL,
            ended_at TIMESTAMP WITH TIME ZONE,
            told TEXT NOT NULL,
            over_told TEXT NOT NULL,
            is_closed BOOLEAN NOT NULL,
            owner TEXT,
            lease_until TIMESTAMP WITH TIME ZONE,
            PRIMARY KEY (pipeline, stream, kind, occurrence)
        )""",
        """CREATE UNIQUE INDEX _syncblocks_open_alerts ON _syncblocks_alert (pipeline, stream, kind)
            WHERE is_closed = FALSE""",
    ),
    # Of a tick: who ordered it, a hash of the order, and the run that it retries. Of a server: its address and version.
    # Until when somebody watches a run, what it has reached meanwhile, and the end of its log. Who may call the API
    # (digests of tokens), who is signed in, codes that sign in once, and who has done what. late_at: when
    # `run_timeout_s` of the run's latest attempt is over (NULL: never).
    "0016": (
        "ALTER TABLE _syncblocks_tick ADD COLUMN ordered_by TEXT",
        "ALTER TABLE _syncblocks_tick ADD COLUMN order_hash TEXT",
        "ALTER TABLE _syncblocks_tick ADD COLUMN retries INTEGER",
        "ALTER TABLE _syncblocks_server ADD COLUMN url TEXT",
        "ALTER TABLE _syncblocks_server ADD COLUMN version TEXT",
        "ALTER TABLE _syncblocks_pipeline_run ADD COLUMN watched_until TIMESTAMP WITH TIME ZONE",
        "ALTER TABLE _syncblocks_pipeline_run ADD COLUMN late_at TIMESTAMP WITH TIME ZONE",
        """CREATE TABLE _syncblocks_progress (
            run_id INTEGER NOT NULL PRIMARY KEY,
            progress TEXT NOT NULL,
            written_at TIMESTAMP WITH TIME ZONE NOT NULL
        )""",
        """CREATE TABLE _syncblocks_run_log (
            run_id INTEGER NOT NULL,
            attempt INTEGER NOT NULL,
            log TEXT NOT NULL,
            PRIMARY KEY (run_id, attempt)
        )""",
        """CREATE TABLE _syncblocks_token (
            name TEXT NOT NULL PRIMARY KEY,
            digest TEXT NOT NULL UNIQUE,
            scopes TEXT NOT NULL,
            created_at TIMESTAMP WITH TIME ZONE NOT NULL,
            expires_at TIMESTAMP WITH TIME ZONE,
            used_at TIMESTAMP WITH TIME ZONE
        )""",
        """CREATE TABLE _syncblocks_session (
            digest TEXT NOT NULL PRIMARY KEY,
            is_code BOOLEAN NOT NULL,
            created_at TIMESTAMP WITH TIME ZONE NOT NULL,
            expires_at TIMESTAMP WITH TIME ZONE NOT NULL
        )""",
        """CREATE TABLE _syncblocks_action (
            id SERIAL_KEY,
            pipeline TEXT NOT NULL,
            who TEXT NOT NULL,
            what TEXT NOT NULL,
            run_id INTEGER,
            stream TEXT,
            details TEXT,
            created_at TIMESTAMP WITH TIME ZONE NOT NULL
        )""",
        "CREATE INDEX _syncblocks_actions_of_pipeline ON _syncblocks_action (pipeline, id)",
    ),
    # Of a stream that is read out of a log: how far it was behind before and after.
    "0017": ("ALTER TABLE _syncblocks_block_run ADD COLUMN lag TEXT",),
    # Numbers of the WARN and ERROR lines in the source's log; NULL if it had none, and for earlier runs.
    "0018": ("ALTER TABLE _syncblocks_block_run ADD COLUMN warnings TEXT",),
    # Records that another record of the same commit replaced; NULL if they were not counted, and for earlier runs.
    "0019": ("ALTER TABLE _syncblocks_block_run ADD COLUMN rows_replaced BIGINT",),
}
REVISIONS = tuple(STEPS)


def version(connection: StoreConnection, driver: Driver) -> str | None:
    """Return the version of the store; None if there is none yet."""
    if not driver.has_table(connection, VERSION_TABLE):
        return None
    found: str | None = connection.value(f"SELECT version_num FROM {VERSION_TABLE}")
    return found


def is_outdated(found: str | None, url: str) -> bool:
    """Tell whether the store must be upgraded.

    Raises:
        StateError: it was written by a newer program, which may keep things that this one would break.
    """
    if found is not None and found not in REVISIONS:
        raise StateError(
            f"run store {url} has version {found}, this program knows up to {REVISIONS[-1]}: "
            "upgrade syncblocks (a store cannot be downgraded)"
        )
    return found != REVISIONS[-1]


def upgrade(connection: StoreConnection, found: str | None, driver: Driver) -> None:
    """Bring the store to the last version, within the caller's transaction and lock."""
    if found is None:
        connection.run(f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
        connection.run(f"INSERT INTO {VERSION_TABLE} VALUES (:version)", {"version": ""})
    for revision in REVISIONS[0 if found is None else REVISIONS.index(found) + 1 :]:
        for step in STEPS[revision]:
            if isinstance(step, str):
                connection.run(step.replace("SERIAL_KEY", driver.serial))
            else:
                step(connection)
    connection.run(f"UPDATE {VERSION_TABLE} SET version_num = :version", {"version": REVISIONS[-1]})
