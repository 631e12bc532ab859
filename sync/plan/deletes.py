"""Whether a run looks for records that the source no longer has, how, and why a stream cannot. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

import pyarrow as pa
from msgspec import Struct

from syncblocks.connectors.capabilities import Capabilities
from syncblocks.connectors.protocols import Capability, Destination, Source
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.settings import is_installed
from syncblocks.connectors.stream import DELETED_AT, VALID_TO, LedgerKey, LedgerRow, Stream, TableState
from syncblocks.connectors.write_spec import WriteDisposition

from ..config.deletes import Deletes
from .columns import ColumnMapping
from .reading import computing
from .selected_stream import SelectedStream

#: So many records are always deleted, whatever part of the table they are.
ALWAYS = 100


class PlannedDeletes(Struct, frozen=True, kw_only=True):
    """What a run does about records that the source no longer has."""

    setting: Deletes
    #: Whether this run compares the keys; else it is too early for `every`, or the table is replaced anyway.
    is_due: bool
    #: Why it is not due, or how the keys are compared.
    why: str
    #: The moment of the run, which marks get and the ledger keeps.
    moment: datetime
    #: Whether versions of a history end; else records are deleted or marked.
    is_of_history: bool = False
    #: Whether more may be deleted than the limit, also if the source is empty (`run --allow-deletes`).
    is_allowed: bool = False
    #: What a person should know, in sentences.
    notices: tuple[str, ...] = ()

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


class Ends(Protocol):
    """What `Connectors` says of source and destination."""

    @property
    def source(self) -> Source: ...
    @property
    def source_can(self) -> Capabilities: ...
    @property
    def destination(self) -> Destination: ...
    @property
    def destination_can(self) -> Capabilities: ...
    @property
    def read_back(self) -> str | None: ...


def plan_deletes(
    stream: SelectedStream,
    row: LedgerRow | None,
    ends: Ends,
    moment: datetime,
    *,
    full_refresh: bool,
    now: datetime,
) -> PlannedDeletes | None:
    """Decide whether a run compares the keys of a stream; None: the stream says no `deletes`.

    A last comparison that is later than now says nothing of when it was: the keys are compared.
    """
    setting = stream.policy.deletes
    if setting is None:
        return None
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


def _how(stream: SelectedStream, ends: Ends) -> str:
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
    declared: Stream,
    table: TableState,
    others: Sequence[str],
    ends: Ends,
) -> str:
    """Say why a stream cannot have `deletes`; empty: it can, or it says none.

    Args:
        stream: the selected stream.
        declared: as it arrives.
        table: its destination table.
        others: other streams that write the table.
        ends: source and destination.
    """
    setting, can = stream.policy.deletes, ends.destination_can
    if setting is None:
        return ""
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


def unordered_key(stream: SelectedStream, mapping: ColumnMapping, table: TableState, ends: Ends) -> str:
    """Say which column of the key both sides do not order alike, so that no `deletes` can be; empty: they do.

    Args:
        stream: the selected stream.
        mapping: its columns, and as what the destination gets them.
        table: its destination table.
        ends: source and destination.
    """
    if stream.policy.deletes is None:
        return ""
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


def other_writers(key: LedgerKey, table: TableState, sharing: Sequence[str]) -> list[str]:
    """Return the other streams that write a table: `sharing` of this run, and those with commits in its ledger."""
    own = (key.pipeline, key.stream)
    of_ledger = [
        f"stream {row.key.stream!r} of pipeline {row.key.pipeline!r}"
        for row in table.ledger
        if (row.key.pipeline, row.key.stream) != own and row.committed_at is not None and row.key.stream not in sharing
    ]
    return [*(f"stream {name!r}" for name in sharing), *of_ledger]
