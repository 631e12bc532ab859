"""Groups of what the plan of one stream says."""

from __future__ import annotations

from msgspec import Struct

from syncblocks.connectors.read_spec import Condition

from .columns import Rules
from .schema_snapshots import Change, Shape


class Verdict(Struct, frozen=True, kw_only=True):
    """Whether the stream can run."""

    #: Why the stream will fail before anything is written. Empty if it can run.
    refusal: str = ""
    #: True if the destination is the reason. Otherwise a change at the source is, and the loader's block fails.
    is_refused_by_destination: bool = True
    #: True if the file must change first. Without `allow_blocks_to_fail` nothing runs.
    needs_decision: bool = False


class Texts(Struct, frozen=True, kw_only=True):
    """What a person should know."""

    #: What the run will do to the destination's table.
    changes: tuple[str, ...] = ()
    #: Facts about the columns, in sentences. A run shows them too.
    notices: tuple[str, ...] = ()
    #: Columns that are not what a person may expect, in sentences. Only `plan` shows them.
    warnings: tuple[str, ...] = ()


class SchemaPlan(Struct, frozen=True, kw_only=True):
    """The stream's columns at its source, and how they may change."""

    #: Columns and keys at the source.
    shape: Shape
    #: Their changes since the stream was last written.
    source_changes: tuple[Change, ...] = ()
    #: Columns that `on_schema_change: ignore` leaves out. `None` for other values of the setting.
    ignored: tuple[str, ...] | None = None
    #: Columns of the table without a value, as the load writes them into the ledger (`LedgerRow.untyped`).
    untyped: tuple[str, ...] = ()
    #: Rules by which columns that arrive later become columns of the destination.
    rules: Rules


class Placement(Struct, frozen=True, kw_only=True):
    """The stream's place among the other streams."""

    #: Streams that come first, because the stream's table refers to their tables by foreign keys.
    parents: tuple[str, ...] = ()
    #: Name of a chain of streams whose tables foreign keys connect. They run one after another. Empty for no chain.
    chain: str = ""
    #: True if the stream completes together with the other streams of its group.
    is_joined: bool = False


class RecordChecks(Struct, frozen=True, kw_only=True):
    """What is done with each record between source and destination."""

    #: Conditions that records must meet to be written.
    checks: tuple[Condition, ...] = ()
    #: Conditions that are counted. Records that fail them are written.
    warn_checks: tuple[Condition, ...] = ()
    #: Columns whose values together may occur only once in a commit. Empty if the stream has no such check.
    unique: tuple[str, ...] = ()
    #: Blocks whose output is stored for callbacks.
    data_blocks: frozenset[str] = frozenset()


class Replacing(Struct, frozen=True, kw_only=True):
    """What becomes of records that are already in the table."""

    #: True for a full refresh of a stream that otherwise appends.
    is_appended_anew: bool = False
    #: True if the history in the table is dropped (`--drop-history`).
    drops_history: bool = False
    #: Keys by which the table was last written, if they have changed.
    former_key: tuple[str, ...] | None = None


__all__ = ["Placement", "RecordChecks", "Replacing", "SchemaPlan", "Texts", "Verdict"]
