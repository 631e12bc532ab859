"""Which columns a run fills in records that are there already, and why a stream cannot. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from syncblocks.connectors.capabilities import Capabilities
from syncblocks.connectors.protocols import Capability
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.stream import LedgerRow
from syncblocks.connectors.write_spec import WriteDisposition

from ..columns import ColumnMapping
from ..policy import Configured
from ..selected_stream import SelectedStream
from ..start import Start
from ..steps import PlannedStep


class PlannedFill(PlannedStep, frozen=True, kw_only=True):
    """Columns that records get that are already in the table, before the load."""

    name: ClassVar[str] = "fills"
    #: By the source's names.
    columns: tuple[str, ...]

    def document(self) -> Any:
        """Return the columns."""
        return list(self.columns)

    def __str__(self) -> str:
        return f"fills {', '.join(self.columns)} in the records that are there"


def why_no_filling(stream: Configured, can: Capabilities, *, is_decided: bool) -> str:
    """Say why the columns of a stream cannot be filled; empty: they can.

    Args:
        stream: the selected stream.
        can: capabilities of the destination.
        is_decided: whether no transformer's function changes its columns.
    """
    offered = stream.stream
    if offered.read.method is not ReplicationMethod.INCREMENTAL:
        return f"needs `replication_method: INCREMENTAL`: {offered.read.method} reads all records in each run"
    if stream.write.disposition is not WriteDisposition.MERGE or not offered.key_properties:
        return f"needs `write_disposition: merge` and a key; this stream has `{stream.write.disposition}`"
    if offered.unique_properties:
        return "and `unique_constraints` exclude each other: the key of a record may change"
    if stream.write.latest_by:
        return "and `latest_by` exclude each other: a value could be written into a newer record"
    if offered.keeps_own_bookmark:
        return "needs bookmark_properties: this source keeps its own position"
    if not is_decided:
        return "needs a stream without a transformer's function: the function may change the column"
    if Capability.FILLS_COLUMNS not in can:
        return "needs a destination that can fill columns of existing records; this one cannot"
    return ""


def columns_to_fill(
    stream: SelectedStream, names: Mapping[str, str], mapping: ColumnMapping, row: LedgerRow | None, start: Start
) -> tuple[str, ...]:
    """Return the columns that a run fills before it loads, by the source's names.

    Args:
        stream: the selected stream, which can be filled.
        names: column of the source -> its name as it arrives.
        mapping: the columns as the destination keeps them.
        row: the ledger's row: a filling that was cut short begins again.
        start: from scratch every record is read anyway.
    """
    if start.bookmark is None:
        return ()
    added = {
        column.name
        for column in mapping.columns
        if stream.fills_new_columns and column.kept is not None and column.kept.held is None and not column.is_left_out
    }
    begun = () if row is None else row.filling
    never = {*stream.stream.key_properties}
    known = stream.stream.schema.names
    return tuple(own for own in known if own not in never and (own in begun or names.get(own) in added))
