"""How the values of the run store's columns are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct


class Codec(Struct, frozen=True):
    """How a value is written to a column, and read back. NULL is None everywhere."""

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


#: ASCII text: JSON escapes NUL and lone surrogates, which no database takes as text.
_AS_JSON = Codec(lambda value: json.dumps(value, separators=(",", ":")), json.loads)
#: SQLite keeps a flag as a number.
_AS_FLAG = Codec(bool, bool)
#: SQLite keeps a time as text: UTC, without the zone.
_AS_TEXT = Codec(
    lambda value: value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds"),
    lambda value: datetime.fromisoformat(value).replace(tzinfo=UTC),
)
#: PostgreSQL keeps an aware time, and returns it in the zone of the session.
_AS_TIME = Codec(lambda value: value, lambda value: value.astimezone(UTC))


#: Values of `statements.one_of`: PostgreSQL takes a list as an array, SQLite reads it from JSON.
_LISTS = "in_id in_run_id in_stream in_idempotency_key in_state in_pipeline"


def _codecs(times: Codec) -> dict[str, Codec]:
    """Return the codec of each name.

    The name of a column decides its codec, in every table; so does the name of a value that is no column (`now`,
    `earliest`). One exception: `error` of DELIVERY_TRY is plain text, so statements name its value `message`.
    """
    names = {
        _AS_JSON: (
            "event variables plan error blocks config details schema_changes bookmark bookmark_before bookmark_after "
            "shape causes notices streams schedule pipelines told over_told progress scopes lag warnings"
        ),
        times: (
            "now earliest lease_until cancel_requested_at execution_date created_at started_at ended_at not_before "
            "leased_at saved_at interval_start interval_end due_at looked_at paused_until resumed_at offered_until "
            "skipped_to seen_at since last_success begun_at watched_until late_at written_at expires_at used_at"
        ),
        _AS_FLAG: (
            "is_active is_gate_released is_last is_numbered is_gated is_open is_deleted is_paused is_closed "
            "full_refresh is_code"
        ),
    }
    return {name: codec for codec, of_codec in names.items() for name in of_codec.split()}


#: Name of a column or a value -> its codec; other names hold texts and numbers, and lists of them.
SQLITE_CODECS: Mapping[str, Codec] = _codecs(_AS_TEXT) | dict.fromkeys(_LISTS.split(), _AS_JSON)
POSTGRES_CODECS: Mapping[str, Codec] = _codecs(_AS_TIME)
