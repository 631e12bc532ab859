"""Conditional blocks of a Mage pipeline as `when` of its streams."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from syncblocks.callbacks.kwargs import RESERVED

from .blocks import block_file
from .functions import condition_of
from .project import Project, entries_of, names_of

#: Keyword arguments of Mage that the language of `when` has too, with the same values.
_SAME = frozenset(("stream", "ds", "hr", "env"))


def when_of(
    project: Project,
    pipeline: Mapping[str, Any],
    loader: str,
    variables: Collection[str],
    *,
    has_bare_names: bool,
    notes: list[str],
) -> dict[str, str]:
    """Return `when` for each stream, with the conditions of the data loader. Return `{}` without conditions.

    Mage loads nothing for a stream if the condition of its data loader is false. A false condition of another block
    does not stop the blocks after it.

    Args:
        project: the project.
        pipeline: the pipeline's metadata.yaml.
        loader: uuid of the data loader.
        variables: names of the pipeline's variables.
        has_bare_names: true if streams have the same names here as in Mage.
        notes: gets the conditionals that are not brought over.
    """
    names = ({*variables} - RESERVED | _SAME) - (set() if has_bare_names else {"stream"})
    found = list[str]()
    for entry in entries_of(pipeline.get("conditionals")):
        uuid = str(entry.get("uuid"))
        path = project.path(block_file({"type": "conditional", **entry}))
        text = "" if path is None else path.read_text(encoding="utf-8", errors="replace")
        condition = condition_of(text, names)
        if condition == "true":  # Mage's template
            continue
        if condition is None or names_of(entry.get("upstream_blocks")) != [loader]:
            notes.append(
                f"conditional {uuid!r} is not brought over: write it as `when` of streams, of a transformer or of a "
                "callback block"
            )
        else:
            found.append(condition)
    return {"when": _joined(found)} if found else {}


def _joined(conditions: Sequence[str]) -> str:
    return conditions[0] if len(conditions) == 1 else " and ".join(f"({each})" for each in conditions)
