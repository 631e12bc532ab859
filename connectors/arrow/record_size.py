"""The error for records larger than a run's memory budget, which are refused before memory runs out."""

from __future__ import annotations

from ..errors import FatalConnectorError

#: Bytes that a record may have besides a value as large as `memory`.
SLACK_BYTES = 1 << 20


class RecordTooWide(FatalConnectorError):
    """A record is larger than `memory` in the pipeline file."""


def too_wide(what: str, most_bytes: int, *ways: str, stream: str = "", has_no_values: bool = True) -> RecordTooWide:
    """Return the error for a record.

    Args:
        what: the record and its place.
        most_bytes: the limit.
        ways: ways out besides more memory, a clause each.
        stream: the record's stream, if the engine does not know it.
        has_no_values: `what` and `ways` hold no value of a record.
    """
    mend = ", or ".join(("raise `memory` in the pipeline file", *ways))
    message = f"{what} is larger than `memory`, {megabytes(most_bytes)}: {mend}"
    return RecordTooWide(message, stream=stream, has_no_values=has_no_values)


def megabytes(size_bytes: int) -> str:
    """Write a size as in the setting `memory`."""
    return f"{size_bytes / 1e6:,.0f} MB"


__all__ = ["SLACK_BYTES", "RecordTooWide", "megabytes", "too_wide"]
