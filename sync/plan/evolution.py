"""What a plan says of columns that changed: taken over, left out, or a reason to fail. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from syncblocks.connectors.stream import TableState, WriteDisposition

from .columns import Fit, Rules, table_changes
from .selection import SelectedStream
from .shapes import Change, Shape, in_words


def unless_left_out(change: Change, fitted: Fit) -> Change:
    """Return a change, as one that is left out if `on_schema_change: ignore` does that."""
    is_left_out = any(column.is_left_out and column.name == change["column"] for column in fitted.columns)
    return {**change, "change": "left out"} if is_left_out else change


def frozen(changes: Sequence[Change], fitted: Fit, rules: Rules) -> str:
    """Say why a frozen stream fails; empty: it does not."""
    if not rules.is_frozen:
        return ""
    found = [in_words(change) for change in changes]
    if not found and rules.disposition is not WriteDisposition.REPLACE:
        # The store may not know what the stream looked like; the table does.
        found = [f"the table would change: {each}" for each in table_changes(fitted, rules.table)]
    if not found:
        return ""
    return (
        f"the source has changed, and `on_schema_change: freeze` lets nothing pass: {'; '.join(found)}. Say `evolve` "
        "to take it over, `ignore` to leave new columns out, or run once with --full-refresh"
    )


def former_key(before: Shape | None, after: Shape, renames: Sequence[Mapping[str, str]]) -> tuple[str, ...] | None:
    """Return the keys that a table was last written by, as transformers name them, if the stream has others now."""
    if before is None or before["keys"] == after["keys"]:
        return None
    keys = tuple(before["keys"])
    for names in renames:
        keys = tuple(names.get(key, key) for key in keys)
    return keys


def rekeyed(changes: Sequence[Change], stream: SelectedStream, rules: Rules) -> str:
    """Say why a merge cannot go on by other keys; empty: it can."""
    keys = next((change for change in changes if change["change"] == "keys"), None)
    if keys is None or rules.disposition is not WriteDisposition.MERGE:
        return ""
    return (
        f"{in_words(keys)}, and the table's records were merged by the old ones: run once with --full-refresh, or say "
        f"`key_properties: [{keys['before']}]`"
    )


def without_left_out(stream: SelectedStream, fitted: Fit) -> SelectedStream:
    """Do not even read columns that are left out."""
    kept = [not column.is_left_out for column in fitted.columns]
    if all(kept):
        return stream
    fields = [field for field, is_kept in zip(stream.stream.schema, kept, strict=True) if is_kept]
    return replace(stream, stream=replace(stream.stream, schema=pa.schema(fields)))


def of_source(changes: Sequence[Change]) -> list[str]:
    """Say what has changed at the source and changes no column of the table."""
    return [f"source: {in_words(change)}" for change in changes if change["change"] in ("dropped", "keys")]


def planned_changes(
    fitted: Fit, table: TableState, disposition: WriteDisposition, *, is_decided: bool
) -> tuple[str, ...]:
    """Say what a run will do to the table, a phrase each."""
    if not is_decided:
        return ("columns are decided by the transformer",)
    if not table.is_described:
        return ("decided by the target",)
    if table.schema is None:
        return ("create table",)
    left_out = tuple(f"leave out new column {column.name}" for column in fitted.columns if column.is_left_out)
    is_replace = disposition is WriteDisposition.REPLACE
    return (*(("replace table",) if is_replace else ()), *table_changes(fitted, table), *left_out)


__all__ = ["former_key", "frozen", "of_source", "planned_changes", "rekeyed", "unless_left_out", "without_left_out"]
