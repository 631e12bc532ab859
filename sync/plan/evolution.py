"""What a plan says of columns that changed: taken over, left out, or a reason to fail. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from syncblocks.connectors.stream import Stream, TableState, WriteDisposition

from .columns import ColumnMapping, Rules, columns_held, table_changes
from .selection import SelectedStream
from .shapes import Change, Shape, in_words


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """What `on_schema_change: ignore` leaves out of a stream, by the source's names."""

    #: Not read at all.
    columns: frozenset[str] = frozenset()
    #: Left out only if they come out of the transformer's function as they are: nobody knows what it makes of them.
    unsure: frozenset[str] = frozenset()


def ignored(stream: Stream, arriving: Stream, before: Shape | None, rules: Rules, *, is_decided: bool) -> Ignored:
    """Say which columns are new at the source and not in the table.

    What the pipeline file changes (`columns`, a rename, a function) is no change of the source.

    Args:
        stream: as the source offers it, without what the pipeline leaves out.
        arriving: the same, renamed by the transformers.
        before: its shape when it was last written; None: the run store does not know.
        rules: of the table, which is there.
        is_decided: no function has a say in the columns.
    """
    before = before or {"columns": {}, "left_out": []}
    held, needed = columns_held(arriving, rules), {*arriving.key_properties, *arriving.bookmark_properties}
    found = dict(zip(stream.schema.names, arriving.schema.names, strict=True))
    new = {own for own, name in found.items() if name not in held and name not in needed} - {*before["left_out"]}
    if "ignored" in before:
        return Ignored(columns=frozenset(new - ({*before["columns"]} - {*before["ignored"]})))
    # Nobody knows whether a column was left out before, or had another name in the table.
    new -= columns_held(stream, rules)
    unsure = frozenset() if is_decided else frozenset(new.intersection(before["columns"]) if before["columns"] else new)
    return Ignored(columns=frozenset(new - unsure), unsure=unsure)


def unless_left_out(change: Change, left_out: Collection[str]) -> Change:
    """Return a change, as one that is left out if `on_schema_change: ignore` does that."""
    return {**change, "change": "left out"} if change["column"] in left_out else change


def frozen(changes: Sequence[Change], mapping: ColumnMapping, rules: Rules) -> str:
    """Say why a frozen stream fails; empty: it does not."""
    if not rules.is_frozen:
        return ""
    found = [in_words(change) for change in changes]
    if not found and rules.disposition is not WriteDisposition.REPLACE:
        # The store may not know what the stream looked like; the table does.
        found = [f"the table would change: {each}" for each in table_changes(mapping, rules.table)]
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


def left_out_text(stream: str, columns: Sequence[str]) -> str:
    """Say in a run's log which columns are left out."""
    return f"{stream}: left out by on_schema_change: ignore: {', '.join(columns)}"


def without_columns(stream: Stream, left_out: frozenset[str]) -> Stream:
    """Return a stream without some of its columns, which are not even read."""
    if left_out.isdisjoint(stream.schema.names):
        return stream
    return replace(stream, schema=pa.schema([field for field in stream.schema if field.name not in left_out]))


def of_source(changes: Sequence[Change]) -> list[str]:
    """Say what has changed at the source and changes no column of the table."""
    return [f"source: {in_words(change)}" for change in changes if change["change"] in ("dropped", "keys")]


def planned_changes(
    mapping: ColumnMapping, table: TableState, disposition: WriteDisposition, *, is_decided: bool
) -> tuple[str, ...]:
    """Say what a run will do to the table, a phrase each."""
    left_out = tuple(f"leave out new column {column.name}" for column in mapping.columns if column.is_left_out)
    if not is_decided:
        return ("columns are decided by the transformer", *left_out)
    if not table.is_described:
        return ("decided by the target",)
    if table.schema is None:
        return ("create table",)
    is_replace = disposition is WriteDisposition.REPLACE
    return (*(("replace table",) if is_replace else ()), *table_changes(mapping, table), *left_out)


__all__ = [
    "Ignored", "former_key", "frozen", "ignored", "left_out_text", "of_source", "planned_changes", "rekeyed",
    "unless_left_out", "without_columns",
]  # fmt: skip
