"""Warnings of settings that a later entry of `streams` replaces as a whole, where a reader may expect a sum. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from ..config import Pipeline, StreamEntry, glob_matches


def replaced_warnings(pipeline: Pipeline, streams: Sequence[str]) -> list[str]:
    """Return a warning for each setting of which a later entry leaves out columns that an earlier entry names."""
    if len(pipeline.streams) == 1:
        return []
    found: dict[tuple[str, int, int], list[str]] = {}
    for stream in streams:
        matching = [n for n, entry in enumerate(pipeline.streams) if _matches(entry, stream)]
        for setting, named in _NAMED.items():
            saying = [n for n in matching if setting in pipeline.streams[n].model_fields_set]
            for earlier, later in pairwise(saying):
                is_partial = not _says_all(pipeline.streams[later], setting)
                if is_partial and named(pipeline.streams[earlier]) - named(pipeline.streams[later]):
                    found.setdefault((setting, earlier, later), []).append(stream)
    return [
        f"streams[{later}]: its `{setting}` replaces that of streams[{earlier}] for {_listed(names)}: repeat there "
        "what should still hold"
        for (setting, earlier, later), names in found.items()
    ]


def _matches(entry: StreamEntry, stream: str) -> bool:
    return entry.stream == stream or glob_matches(entry.stream, stream)


def _says_all(entry: StreamEntry, setting: str) -> bool:
    """Tell whether an entry plainly means to replace: by null, or by the list of all columns to read."""
    return getattr(entry, setting) is None or (setting == "columns" and bool(entry.columns and entry.columns.include))


#: Setting -> the columns that an entry names in it. Masks, types and `decode` are not among them: they add up.
_NAMED: dict[str, Callable[[StreamEntry], set[str]]] = {
    "where": lambda entry: {each.column for each in entry.where or ()},
    "checks": lambda entry: {each.column for each in entry.checks or ()},
    "warn_checks": lambda entry: {each.column for each in entry.warn_checks or ()},
    "add_columns": lambda entry: {each.column for each in entry.add_columns or ()},
    "columns": lambda entry: set((entry.columns and entry.columns.exclude) or ()),
}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
