"""Tables of the run store, and which of their columns hold more than the databases' own values.

Prefixed like the ledger, so that no glob over a shared database ever syncs them. `migrations` makes them.
Rows are locked in the same order everywhere: run, attempt, counters, block runs, state, events, deliveries.
"""

from __future__ import annotations

PREFIX = "_syncblocks_"

VERSION_TABLE = f"{PREFIX}version"
PIPELINE_RUN = f"{PREFIX}pipeline_run"
ATTEMPT = f"{PREFIX}attempt"
STREAM_RUN = f"{PREFIX}stream_run"
TYPE_COUNTER = f"{PREFIX}type_counter"
BLOCK_RUN = f"{PREFIX}block_run"
EVENT = f"{PREFIX}event"
DELIVERY = f"{PREFIX}delivery"
DELIVERY_TRY = f"{PREFIX}delivery_try"
STATE = f"{PREFIX}state"
STATE_VERSION = f"{PREFIX}state_version"

# A column's name says what it holds, in whatever table and as the name of a value, too: so a statement is plain text.

#: JSON, as ASCII text: NUL and lone surrogates are escaped, which no database would take in the raw.
JSON = frozenset(
    {
        "event",
        "variables",
        "plan",
        "error",
        "blocks",
        "config",
        "details",
        "schema_changes",
        "bookmark",
        "bookmark_before",
        "bookmark_after",
        "shape",
    }
)
#: Aware datetimes in UTC.
TIMES = frozenset(
    {
        "now",
        "lease_until",
        "cancel_requested_at",
        "execution_date",
        "created_at",
        "started_at",
        "ended_at",
        "not_before",
        "earliest",
        "leased_at",
        "saved_at",
    }
)
#: Booleans, which SQLite keeps as numbers.
FLAGS = frozenset(("is_active", "is_gate_released", "is_last", "is_numbered", "is_gated", "is_open", "is_deleted"))
