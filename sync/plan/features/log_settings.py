"""What the settings of a LOG_BASED stream may say. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from syncblocks.connectors.log_based import LOG_FIELDS
from syncblocks.connectors.stream import DELETED_AT, Stream

from ...config.deletes import Deletes
from ..selected_stream import Failer

#: Settings that are not built for it.
_REFUSED = (
    "limit",
    "deletes",
    "unique_constraints",
    "bookmark_properties",
    "bookmark_start",
    "lookback",
    "null_bookmarks",
    "latest_by",
    "deleted_when",
    "fill_new_columns",
    "before",
)


def check_settings(stream: Stream, settings: Mapping[str, Any], disposition: str, fail: Failer) -> None:
    """Refuse settings that are not built for LOG_BASED.

    Raises:
        ConfigError: see above.
    """
    if disposition not in ("append", "merge"):
        text = f"`write_disposition: {disposition}` is not built for LOG_BASED: say merge, or append"
        raise fail("write_disposition", text, ["append", "merge"])
    if disposition == "merge" and settings.get("unique_conflict_method") not in (None, "UPDATE"):
        raise fail("unique_conflict_method", "LOG_BASED writes every change: leave it out")
    refused = [key for key in _REFUSED if settings.get(key)]
    deletes: Deletes | None = settings.get("deletes")
    if deletes is not None and disposition == "merge":
        if deletes != Deletes(mode=deletes.mode):
            raise fail("deletes", "the log says at once what is deleted: leave out `every` and `limit`")
        refused.remove("deletes")
    if refused:
        raise fail(refused[0], f"`{refused[0]}` is not built for LOG_BASED yet: leave it out")
    if settings.get("where") and deletes is not None and deletes.is_soft:
        raise fail("where", "`where` is not built for LOG_BASED with `deletes: soft`: leave it out")
    ours = {*(field.name for field in LOG_FIELDS), *(f"_old_{name}".casefold() for name in stream.key_properties)}
    ours |= {DELETED_AT} if deletes is not None and deletes.is_soft else set()
    taken = ours.intersection(name.casefold() for name in stream.schema.names)
    if taken:
        raise fail("columns", f"{sorted(taken)[0]!r} is a name that LOG_BASED gives a column: exclude the source's")


__all__ = ["check_settings"]
