"""The order of a callback block's queue, as SQL statements.

Deliveries are taken in the order in which block runs ended, functions in firing order. A delivery is skipped while it
waits for its retry, while its flag is not certain, or while its gate is closed. Two events wait for others: the event
with is_last_block_run True for all others of its block type, the event of `pipeline` for all others of its attempt.
"""

from __future__ import annotations

from .model import PIPELINE
from .table_names import ATTEMPT, BLOCK_RUN, DELIVERY

_IN_QUEUE = "pipeline = :pipeline AND {0}.callback_block = :callback_block AND {0}.is_open = TRUE"
_OTHERS = f"""SELECT 1 FROM {DELIVERY} o WHERE o.{_IN_QUEUE.format("o")}
    AND o.run_id = d.run_id AND o.attempt = d.attempt"""
# The last block run may have two events in a queue, its own and the stream's: they do not wait for each other.
_OTHERS_OF_TYPE = f"""{_OTHERS} AND o.block_type = d.block_type
    AND (o.block <> d.block OR o.stream <> d.stream OR o.is_numbered = TRUE)"""
_OTHERS_OF_ATTEMPT = f"{_OTHERS} AND o.parent <> '{PIPELINE}'"

# Subqueries, evaluated row by row in queue order until one row is due. With a join, PostgreSQL without statistics of a
# new table joins the whole backlog before it takes the first row.
_IS_RELEASED = f"(SELECT a.is_gate_released FROM {ATTEMPT} a WHERE a.run_id = d.run_id AND a.attempt = d.attempt)"
_IS_LAST = f"""(SELECT b.is_last FROM {BLOCK_RUN} b
    WHERE b.run_id = d.run_id AND b.attempt = d.attempt AND b.block = d.block AND b.stream = d.stream)"""

_IN_ORDER = "ORDER BY d.run_id, d.seq, d.position"

# Each of these has a partial index: a look at a queue costs the same for any number of waiting deliveries.
_OF_QUEUE = "d.pipeline = :pipeline AND d.callback_block = :callback_block"
_READY = f"{_OF_QUEUE} AND d.state = 'ready' AND d.not_before IS NULL AND d.lost <= :most_lost"
_RETRIES = f"{_OF_QUEUE} AND d.state = 'ready' AND d.not_before IS NOT NULL AND d.lost <= :most_lost"
_LEASED = f"{_OF_QUEUE} AND d.state = 'leased'"

_NEXT = f"""SELECT d.* FROM {DELIVERY} d WHERE {_READY}
    AND (d.is_gated = FALSE OR {_IS_RELEASED} = TRUE)
    AND CASE
        WHEN d.is_numbered = TRUE THEN TRUE
        WHEN d.parent = '{PIPELINE}' THEN NOT EXISTS ({_OTHERS_OF_ATTEMPT})
        WHEN {_IS_LAST} = TRUE THEN {_IS_RELEASED} = TRUE AND NOT EXISTS ({_OTHERS_OF_TYPE})
        ELSE {_IS_LAST} = FALSE
    END
    {_IN_ORDER} LIMIT 1"""

#: The next due delivery of a queue, and one whose retry is due (`RIPEN`). Parameters: pipeline, callback_block, now,
#: most_lost.
DUE = f"""SELECT * FROM ({_NEXT}) ready
    UNION ALL SELECT * FROM (SELECT d.* FROM {DELIVERY} d WHERE {_RETRIES} AND d.not_before <= :now LIMIT 1) ripe"""

#: Puts the deliveries whose retry is due back into the order of their queue.
RIPEN = f"""UPDATE {DELIVERY} SET not_before = NULL WHERE pipeline = :pipeline AND callback_block = :callback_block
    AND state = 'ready' AND not_before IS NOT NULL AND not_before <= :now"""

#: The same for deliveries that wait until after `earliest`. No retry waits that long: the clock was set back.
RIPEN_STRAYED = f"""UPDATE {DELIVERY} SET not_before = NULL
    WHERE pipeline = :pipeline AND callback_block = :callback_block AND state = 'ready' AND not_before > :earliest"""

#: Leased deliveries of a queue.
LEASED = f"SELECT d.* FROM {DELIVERY} d WHERE {_LEASED} {_IN_ORDER}"

#: State of a queue (parameter most_lost): whether a delivery is leased, whether one is due, the earliest time of a
#: retry, and whether one is open without waiting for a retry.
LOOK = f"""SELECT l.is_leased, EXISTS (SELECT 1 FROM ({_NEXT}) d) AS is_ready,
    (SELECT min(d.not_before) FROM {DELIVERY} d WHERE {_RETRIES}) AS earliest,
    l.is_leased OR EXISTS (SELECT 1 FROM {DELIVERY} d WHERE {_READY}) AS has_others
    FROM (SELECT EXISTS (SELECT 1 FROM {DELIVERY} d WHERE {_LEASED}) AS is_leased) l"""
