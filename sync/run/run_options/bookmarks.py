"""`run --bookmark`: streams start at a given bookmark instead of the ledger's, which never moves back for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from syncblocks.connectors.incremental.bookmarks import bookmark_values, is_ahead
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition

from ...errors import ConfigError, nearest_match
from ...plan.features.log_based import is_logged
from ...plan.plan import Plan, PlannedStream
from ...plan.start import Start, ledger_row
from ...state.stream_state import bookmark_of_texts


def starting_at(plan: Plan, given: Mapping[str, Mapping[str, str]]) -> Plan:
    """Return a plan in which some streams start at given bookmarks.

    Args:
        plan: the plan of the run.
        given: stream -> a value, as text, for each of its bookmark_properties.

    Raises:
        ConfigError: no such stream, not INCREMENTAL, a value of another type, or an append would repeat records.
    """
    names = [planned.name for planned in plan.streams]
    for name in given:
        if name not in names:
            text = f"stream {name!r} is not a stream of this run"
            raise ConfigError(text, key="--bookmark", allowed=tuple(names[:20]), nearest=nearest_match(name, names))
    return replace(
        plan, streams=tuple(_started(each, given[each.name]) if each.name in given else each for each in plan.streams)
    )


def _started(planned: PlannedStream, texts: Mapping[str, str]) -> PlannedStream:
    stream, row = planned.stream, ledger_row(planned.table, planned.key)
    if is_logged(stream):
        text = "is LOG_BASED: the ledger alone says where it goes on; `syncblocks state set` sets it"
        raise ConfigError(f"stream {planned.name!r} {text}", key="--bookmark")
    if stream.keeps_own_bookmark:
        raise ConfigError(
            f"stream {planned.name!r}: the source writes the bookmark in a form of its own, which cannot be set here",
            key="--bookmark",
        )
    bookmark = _given(planned, texts)
    held = None if row is None else row.bookmark
    if planned.write.disposition is WriteDisposition.REPLACE:
        raise ConfigError(f"stream {planned.name!r} is read from scratch in this run", key="--bookmark")
    new, old = bookmark_values(stream, bookmark), bookmark_values(stream, held)
    if planned.write.disposition is WriteDisposition.APPEND and new is not None and old is not None:
        if is_ahead(stream, old, new):
            shown = ", ".join(f"{name}={held[name]}" for name in stream.read.bookmark_properties if held)
            raise ConfigError(
                f"stream {planned.name!r} is appended and has been read up to {shown}: records below would be there "
                f"twice; merge it by keys, or begin at or past that value",
                key="--bookmark",
            )
        if not is_ahead(stream, new, old):
            bookmark = dict(held or bookmark)  # it has hashes of the records at the bookmark
    return replace(planned, start=Start(bookmark=bookmark, reason="--bookmark", is_given=True))


def _given(planned: PlannedStream, texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the bookmark of given values.

    Raises:
        ConfigError: they do not fit the stream's columns. Without a cause: a connector error as cause would count as a
            failed run.
    """
    try:
        return bookmark_of_texts(planned, texts)
    except ConfigError as error:
        key = f"--bookmark {planned.name}"
        raise ConfigError(error.message, key=key, allowed=error.allowed, nearest=error.nearest) from None
