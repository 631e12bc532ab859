"""Schema evolution: changed columns are added to the table, left out, or a reason to fail. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pyarrow as pa
from msgspec import Struct

from syncblocks.connectors.field_facts import with_facts
from syncblocks.connectors.stream import LedgerRow, Stream, TableState
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition

from ..config.naming import name_by
from ..store.documents import change_in_words
from .columns import ColumnMapping, Rules, start_over, table_changes, table_columns
from .schema_snapshots import Change, Shape, ceased

#: Write dispositions that find records of the table by their keys.
_KEYED = (WriteDisposition.MERGE, WriteDisposition.REPLACE_RANGE, WriteDisposition.HISTORY)


class Ignored(Struct, frozen=True, kw_only=True):
    """Columns that `on_schema_change: ignore` leaves out of a stream, by the source's names."""

    #: Columns that are not read.
    columns: frozenset[str] = frozenset()
    #: Columns that are read, since a transformer's function may use them; left out if it returns them.
    unsure: frozenset[str] = frozenset()


def ignored(stream: Stream, arriving: Stream, before: Shape | None, rules: Rules, *, is_decided: bool) -> Ignored:
    """Return the columns that are new at the source and not in the table.

    A change of the pipeline file (`columns`, a rename, a function) is no change of the source.

    Args:
        stream: the source's stream, without columns that the pipeline leaves out.
        arriving: the same stream, renamed by the transformers.
        before: its shape when it was last written; None if the run store does not know.
        rules: of the existing table.
        is_decided: whether no function decides the columns.
    """
    before = before or {"columns": {}, "left_out": []}
    existing = table_columns(arriving, rules)
    needed = {
        *arriving.key_properties,
        *arriving.unique_properties,
        *arriving.read.bookmark_properties,
        *rules.deciding,
    }
    found = dict(zip(stream.schema.names, arriving.schema.names, strict=True))
    new = {own for own, name in found.items() if name not in existing and name not in needed} - {*before["left_out"]}
    if "ignored" in before:
        return Ignored(columns=frozenset(new - ({*before["columns"]} - {*before["ignored"]})))
    # An earlier version did not record whether a column was left out or had another name in the table.
    new -= table_columns(stream, rules)
    unsure = frozenset() if is_decided else frozenset(new.intersection(before["columns"]) if before["columns"] else new)
    return Ignored(columns=frozenset(new - unsure), unsure=unsure)


def unless_left_out(change: Change, left_out: Collection[str]) -> Change:
    """Return a change; as "left out" if its column is left out."""
    return {**change, "change": "left out"} if change["column"] in left_out else change


def frozen(changes: Sequence[Change], before: Shape | None, mapping: ColumnMapping, rules: Rules) -> str:
    """Say why a frozen stream fails; empty if it does not."""
    if not rules.is_frozen:
        return ""
    found = [change_in_words(change) for change in changes]
    if before is None and rules.disposition is not WriteDisposition.REPLACE:
        # The store does not know the former columns of the stream; the table does.
        found = [f"the table would change: {each}" for each in table_changes(mapping, rules.table)]
    if not found:
        return ""
    return (
        f"the source has changed, and `on_schema_change: freeze` allows no change: {'; '.join(found)}. Say `evolve` "
        f"to apply it, `ignore` to leave new columns out, or run once with {start_over(rules.disposition)}"
    )


def former_key(
    before: Shape | None, after: Shape, renames: Sequence[Mapping[str, str]], naming: str
) -> tuple[str, ...] | None:
    """Return the keys by which a table was last written, as it calls them; None if they have not changed."""
    if before is None or before["keys"] == after["keys"]:
        return None
    keys = tuple(before["keys"])
    for names in renames:
        keys = tuple(names.get(key, key) for key in keys)
    return tuple(name_by(naming, key) for key in keys)


def rekeyed(changes: Sequence[Change], rules: Rules) -> str:
    """Say why a merge cannot continue with other keys; empty if it can."""
    keys = next((change for change in changes if change["change"] == "keys"), None)
    if keys is None or rules.disposition not in _KEYED:
        return ""
    if not keys["before"] and rules.disposition == WriteDisposition.MERGE:
        return (
            f"{change_in_words(keys)}, and records of one key may stand in the table more than once, since it was "
            "written without keys: `syncblocks state adopt` looks, and lets the merge go on if none does. Else run "
            "once with --full-refresh, or keep `write_disposition: append`"
        )
    return (
        f"{change_in_words(keys)}, and the table's records were merged by the old ones: run once with "
        f"{start_over(rules.disposition)}, or say `key_properties: [{keys['before']}]`"
    )


def lost_keys(arriving: Stream, row: LedgerRow | None, rules: Rules) -> str:
    """Say which columns of the key a table lacks, whose records the stream has written; empty: it has them all.

    A transformer has renamed them, or somebody has dropped them: the records have no value there, and each would stay
    beside the one that is to take its place.

    Args:
        arriving: the stream, renamed by the transformers.
        row: its ledger row.
        rules: of the table.
    """
    is_written = row is not None and row.committed_at is not None and rules.table.schema is not None
    if not is_written or rules.disposition not in _KEYED:
        return ""
    key = arriving.unique_properties or arriving.key_properties
    lost = [name for name in key if name not in table_columns(arriving, rules)]
    if not lost:
        return ""
    return (
        f"the table has no column {', '.join(map(repr, lost))}, by which its records are merged: those that are there "
        f"would stay beside the new ones. Run once with {start_over(rules.disposition)}, or let the column have the "
        "name that it had (`rename` of a transformer)"
    )


def left_out_text(stream: str, columns: Sequence[str]) -> str:
    """Return the log message about columns that are left out."""
    return f"{stream}: left out by on_schema_change: ignore: {', '.join(columns)}"


def relaxed(stream: Stream, before: Shape | None, required: Collection[str], *, full_refresh: bool) -> Stream:
    """Return a stream that says which columns may be NULL from now on; on a full refresh, all that may be."""
    found = set(stream.schema.names).difference(required) if full_refresh else {*ceased(before, stream, required)}
    fields = [with_facts(field, relaxed=True) if field.name in found else field for field in stream.schema]
    return replace(stream, schema=pa.schema(fields)) if found else stream


def without_columns(stream: Stream, left_out: frozenset[str]) -> Stream:
    """Return a stream without some of its columns; these are not read."""
    if left_out.isdisjoint(stream.schema.names):
        return stream
    return replace(stream, schema=pa.schema([field for field in stream.schema if field.name not in left_out]))


def of_source(changes: Sequence[Change]) -> list[str]:
    """Say which changes of the source change no column of the table."""
    return [
        f"source: {change_in_words(change)}"
        for change in changes
        if change["change"] in ("dropped", "keys", "nullable")
    ]


def planned_changes(
    mapping: ColumnMapping, table: TableState, disposition: WriteDisposition, *, is_decided: bool
) -> tuple[str, ...]:
    """Say what a run will do to the table, one phrase for each change."""
    left_out = tuple(f"leave out new column {column.name}" for column in mapping.columns if column.is_left_out)
    if not is_decided:
        return ("columns are decided by the transformer", *left_out)
    if not table.is_described:
        return ("decided by the target",)
    if table.schema is None:
        return ("create table",)
    is_replace = disposition is WriteDisposition.REPLACE
    changes = table_changes(mapping, table, is_replaced=is_replace and not table.stays)
    return (*(("replace table",) if is_replace else ()), *changes, *left_out)
