"""Names of the run store's tables. `migrations` creates them; `codecs` says how values are kept.

The prefix is the ledger's: no glob over a shared database ever syncs these tables. Rows are locked in the same order
everywhere: server, schedule, tick, run, attempt, counters, block runs, state, events, deliveries.
"""

from __future__ import annotations

PREFIX = "_syncblocks_"

VERSION_TABLE = f"{PREFIX}version"
PIPELINE_RUN = f"{PREFIX}pipeline_run"
ATTEMPT = f"{PREFIX}attempt"
STREAM_RUN = f"{PREFIX}stream_run"
RANGE_CLAIM = f"{PREFIX}range_claim"
TYPE_COUNTER = f"{PREFIX}type_counter"
BLOCK_RUN = f"{PREFIX}block_run"
EVENT = f"{PREFIX}event"
DELIVERY = f"{PREFIX}delivery"
DELIVERY_TRY = f"{PREFIX}delivery_try"
STATE = f"{PREFIX}state"
STATE_VERSION = f"{PREFIX}state_version"
TICK = f"{PREFIX}tick"
SCHEDULE = f"{PREFIX}schedule"
SERVER = f"{PREFIX}server"
EXPECTATION = f"{PREFIX}expectation"
ALERT = f"{PREFIX}alert"
PROGRESS = f"{PREFIX}progress"
RUN_LOG = f"{PREFIX}run_log"
TOKEN = f"{PREFIX}token"
SESSION = f"{PREFIX}session"
ACTION = f"{PREFIX}action"

TABLES = (
    *(VERSION_TABLE, PIPELINE_RUN, ATTEMPT, STREAM_RUN, RANGE_CLAIM, TYPE_COUNTER, BLOCK_RUN, EVENT, DELIVERY),
    *(DELIVERY_TRY, STATE, STATE_VERSION, TICK, SCHEDULE, SERVER, EXPECTATION, ALERT, PROGRESS, RUN_LOG),
    *(TOKEN, SESSION, ACTION),
)
