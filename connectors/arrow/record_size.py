"""Records that are larger than the memory budget of a run: refused before they take more than the machine has."""

from __future__ import annotations

from ..errors import FatalConnectorError

#: What a record may hold beside a value that has all of `memory`.
SLACK_BYTES = 1 << 20


class RecordTooWide(FatalConnectorError):
    """A record is larger than `memory` in the pipeline file."""


def too_wide(what: str, most_bytes: int, *ways: str, stream: str = "") -> RecordTooWide:
    """Return the error for a record.

    Args:
        what: which, and where.
        most_bytes: what it may have.
        ways: how it can be mended but for more memory, a clause each.
        stream: that it is of, where the engine does not know.
    """
    mend = ", or ".join(("raise `memory` in the pipeline file", *ways))
    return RecordTooWide(f"{what} is larger than all of `memory`, {megabytes(most_bytes)}: {mend}", stream=stream)


def megabytes(size_bytes: int) -> str:
    """Write a size as `memory` is written."""
    return f"{size_bytes / 1e6:,.0f} MB"


__all__ = ["SLACK_BYTES", "RecordTooWide", "megabytes", "too_wide"]
