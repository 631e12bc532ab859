"""Whether a run looks for records that the source no longer has, how, and why a stream cannot. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar

import pyarrow as pa

from syncblocks.connectors.protocols import Capability
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.settings import is_installed
from syncblocks.connectors.stream import DELETED_AT, VALID_TO, LedgerRow, Stream, TableState
from syncblocks.connectors.write_spec import WriteDisposition

from ...config.deletes import Deletes
from ..columns import ColumnMapping
from ..plan import Connectors
from ..reading import computing
from ..selected_stream import SelectedStream
from ..steps import PlannedStep

#: So many records are always deleted, whatever part of the table they are.
ALWAYS = 100


class PlannedDeletes(PlannedStep, frozen=True, kw_only=True):
    """What a run does about records that the source no longer has."""

    name: ClassVar[str] = "deletes"
    setting: Deletes
    #: True if this run compares the keys. False if it is too early for `every`, or the table is replaced anyway.
    is_due: bool
    #: Why the comparison is not due, or how the keys are compared.
    why: str
    #: The moment of the run. Marks get it, and the ledger stores it.
    moment: datetime
    #: True if versions of a history end. Otherwise records are deleted or marked.
    is_of_history: bool = False
    #: True if the run may delete more records than the limit, even if the source is empty (`run --allow-deletes`).
    is_allowed: bool = False

    @property
    def completes(self) -> bool:
        """True if the keys are compared."""
        return self.is_due

    @property
    def may_remove_records(self) -> bool:
        """True unless records are only marked."""
        return self.is_due and not self.setting.is_soft

    def document(self) -> Any:
        """Return the setting, and whether the comparison is due."""
        return {
            "mode": self.setting.mode,
            "every_s": self.setting.every_s,
            "limit_percent": self.setting.limit_percent,
            "is_due": self.is_due,
            "why": self.why,
        }

    def __str__(self) -> str:
        becomes = f"are marked in {DELETED_AT}" if self.setting.is_soft else "are deleted"
        becomes = f"end in {VALID_TO}" if self.is_of_history else becomes
        limit = f"at most {self.setting.limit_percent:g} % of the table's"
        return f"records that the source no longer has {becomes}, {limit}; {self.why}"

    @property
    def word(self) -> str:
        """What has become of a record that is gone."""
        if self.is_of_history:
            return "ended"
        return "marked as deleted" if self.setting.is_soft else "deleted"

    def most(self, table_records: int) -> int:
        """Return how many of a table's records this run may delete."""
        if self.is_allowed:
            return table_records
        return max(ALWAYS, int(table_records * self.setting.limit_percent / 100))


def plan_deletes(
    stream: SelectedStream,
    setting: Deletes,
    row: LedgerRow | None,
    ends: Connectors,
    moment: datetime,
    *,
    full_refresh: bool,
    now: datetime,
) -> PlannedDeletes:
    """Decide whether a run compares the keys of a stream with `deletes`.

    A last comparison that is later than now says nothing of when it was: the keys are compared.
    """
    why, before, notices = "", None if row is None else row.compared_at, tuple[str, ...]()
    if full_refresh:
        why = "not in this run, which replaces the table"
    elif before is not None and setting.every_s is not None and before > max(moment, now):
        notices = (
            f"the last comparison of keys for `deletes` was at {before.isoformat()}, which is later than now "
            f"({now.isoformat()}): the clock of that run was ahead, or its --execution-date; keys are compared now",
        )
    elif before is not None and setting.every_s is not None:
        due = before + timedelta(seconds=setting.every_s)
        why = "" if moment >= due else f"not due before {due.isoformat(timespec='seconds')}"
    return PlannedDeletes(
        setting=setting,
        is_due=not why,
        why=why or _how(stream, ends),
        moment=moment,
        is_of_history=stream.write.disposition is WriteDisposition.HISTORY,
        notices=notices,
    )


def _how(stream: SelectedStream, ends: Connectors) -> str:
    """Say where keys are read, and where databases compare them."""
    if stream.stream.read.masks is not None:
        return "every key is read once on both sides, since the source's keys must be masked"
    reads = [] if ends.source_can.computes_checksums is not None else ["the source"]
    reads += [] if ends.read_back else ["the destination"]
    if not reads:
        return "keys are compared by checksums in both databases, and read only where they differ"
    who = f"{reads[0]} computes no" if len(reads) == 1 else "neither computes"
    return f"every key is read once on both sides, since {who} checksums"


def why_no_deletes(
    stream: SelectedStream,
    setting: Deletes,
    declared: Stream,
    table: TableState,
    others: Sequence[str],
    ends: Connectors,
) -> str:
    """Say why a stream cannot have `deletes`; empty: it can.

    Args:
        stream: the selected stream.
        setting: its `deletes`.
        declared: as it arrives.
        table: its destination table.
        others: other streams that write the table.
        ends: source and destination.
    """
    can = ends.destination_can
    is_history = stream.write.disposition is WriteDisposition.HISTORY
    if stream.write.disposition is not WriteDisposition.MERGE and not is_history:
        return f"needs `write_disposition: merge` or `history`; this stream has `{stream.write.disposition}`"
    if any(each.of_interval for each in stream.stream.read.where):
        return "and a `where` of an interval exclude each other: all records outside of the interval would be deleted"
    if stream.stream.read.tracks_files:
        return "and `bookmark_properties: [_file_modified]` exclude each other: records of deleted files stay"
    if stream.stream.keeps_own_bookmark and stream.stream.read.method is ReplicationMethod.INCREMENTAL:
        return "needs `replication_method: FULL_TABLE` here: otherwise this source may return only some of its records"
    if others:
        return f"needs a table that this stream alone writes; {', '.join(others)} writes it too"
    if not ends.destination.has_ledger or (Capability.REMOVES_RECORDS not in can and not is_history):
        return "needs a destination that can remove records and keeps a ledger; this one does not"
    if is_history and Capability.MARKS_RECORDS not in can:
        return "needs a destination that can end versions of a history, and this one cannot"
    is_marked = setting.is_soft and not is_history
    if is_marked and Capability.MARKS_RECORDS not in can:
        return "of mode `soft` needs a destination that can mark records, and this one cannot: use `hard`"
    if is_marked and any(name.casefold() == DELETED_AT for name in stream.policy.added.schema(declared.schema).names):
        return f"of mode `soft` sets a column {DELETED_AT}, which the stream has: rename or exclude it, or use `hard`"
    if ends.read_back is None:
        return "needs a destination that can be read back; this one can only be written"
    if not is_installed("duckdb"):
        return "compares keys in duckdb: pip install 'syncblocks[duckdb]'"
    return ""


def unordered_key(stream: SelectedStream, mapping: ColumnMapping, table: TableState, ends: Connectors) -> str:
    """Say which column of the key both sides do not order alike, so that no `deletes` can be; empty: they do.

    Args:
        stream: the selected stream.
        mapping: its columns, and as what the destination gets them.
        table: its destination table.
        ends: source and destination.
    """
    from syncblocks.connectors.checksums import compared_columns  # a pipeline without `deletes` spares the import

    own = computing(ends.source_can, stream.stream)
    systems = ("duckdb" if own is None else own.checksum_system(), ends.read_back or "duckdb")
    own_names = (name for name in mapping.declared.schema.names if name not in stream.policy.added.names)
    names = dict(zip(stream.stream.schema.names, own_names, strict=True))
    planned = {column.name: column for column in mapping.columns}
    held = {} if table.schema is None else {field.name.casefold(): field for field in table.schema}
    for key in stream.stream.key_properties:
        field, name = stream.stream.schema.field(key), names[key]
        column = planned[name]
        if column.is_left_out:  # which is refused in another place
            continue
        there = held.get(name.casefold(), pa.field(name, mapping.arriving.schema.field(name).type))
        found: Any = compared_columns(field, there, systems=systems, is_key=True, is_text=column.is_text)
        if column.conversion == "cast":
            found = f"{stream.policy.ways.lossy_cast} changes its values"
        if isinstance(found, str):
            return f"needs a key that both sides order alike; column {key!r}: {found}"
    return ""
