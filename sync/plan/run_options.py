"""The options of a run that decide its plan. Workers plan with the same options as the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class RunOptions(NamedTuple):
    """A run's options that decide its plan. Each value can be written as JSON."""

    #: Replace each table and ignore each bookmark.
    full_refresh: bool = False
    #: With `full_refresh`: replace histories too.
    drop_history: bool = False
    #: True if the execution date is not given, or is before the run's begin: a tick, or a further attempt.
    #: Then the run may take a later time as the time of its versions, see `timed`.
    is_late: bool = False
    #: Stream -> a value, as text, for each of its bookmark_properties.
    bookmarks: Mapping[str, Mapping[str, str]] = {}
    #: Delete missing records now.
    deletes: bool = False
    #: Streams that may delete more than their limit.
    allow_deletes: Sequence[str] = ()
    #: Stream -> columns to fill in existing records before the load.
    fills: Mapping[str, Sequence[str]] = {}

    def document(self) -> dict[str, Any]:
        """Return the form for the run store."""
        return self._asdict()


#: The options of a run for which nobody gave options.
NO_OPTIONS = RunOptions()


def options_of(document: Mapping[str, Any]) -> RunOptions:
    """Return the options that `RunOptions.document` wrote. Other keys are ignored."""
    return RunOptions(**{name: document[name] for name in RunOptions._fields if name in document})


__all__ = ["NO_OPTIONS", "RunOptions", "options_of"]
