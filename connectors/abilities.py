"""The optional abilities of a connector, asked for once and handed on as values.

No other code asks whether a connector has a method: a wrapper around a connector would lose abilities in silence.
"""

from __future__ import annotations

from functools import cache
from inspect import isfunction
from typing import Any

from msgspec import Struct

from . import protocols
from .protocols import (
    BoundsRecords,
    ComputesChecksums,
    Destination,
    DropsDeleted,
    ExaminesTables,
    FencesStatements,
    FillsColumns,
    FiltersRecords,
    FindsStreams,
    FindsTypes,
    FlattensObjects,
    ForgetsRuns,
    HasFormerNames,
    HasOneNull,
    HoldsMemory,
    KeepsFiles,
    KeepsFirst,
    KeepsHistory,
    KeepsLatest,
    KeepsRejected,
    KnowsLimits,
    KnowsPlace,
    KnowsPrivileges,
    ListsLedger,
    ListsStreams,
    ListsUnreadable,
    LoadsRanges,
    LooksAtTimes,
    MarksRecords,
    MergesByUnique,
    NamesColumns,
    NamesTables,
    Prepares,
    ReadsQueries,
    ReadsRanges,
    RefusesKeys,
    RemovesRecords,
    ReplacesRanges,
    RunsStatements,
    SkipsLate,
    Source,
    StatesTypes,
    TracksFiles,
    UpdatesOnly,
    VerifiesServer,
)
from .values import names_of


class Abilities(Struct, frozen=True, kw_only=True):
    """One field for each optional protocol: the connector where it has the protocol's methods, else None."""

    prepares: Prepares | None = None
    verifies_server: VerifiesServer | None = None
    knows_limits: KnowsLimits | None = None
    knows_place: KnowsPlace | None = None
    holds_memory: HoldsMemory | None = None
    bounds_records: BoundsRecords | None = None
    lists_streams: ListsStreams | None = None
    finds_streams: FindsStreams | None = None
    lists_unreadable: ListsUnreadable | None = None
    has_former_names: HasFormerNames | None = None
    tracks_files: TracksFiles | None = None
    finds_types: FindsTypes | None = None
    looks_at_times: LooksAtTimes | None = None
    skips_late: SkipsLate | None = None
    reads_ranges: ReadsRanges | None = None
    reads_queries: ReadsQueries | None = None
    filters_records: FiltersRecords | None = None
    computes_checksums: ComputesChecksums | None = None
    flattens_objects: FlattensObjects | None = None
    has_one_null: HasOneNull | None = None
    states_types: StatesTypes | None = None
    names_tables: NamesTables | None = None
    names_columns: NamesColumns | None = None
    forgets_runs: ForgetsRuns | None = None
    keeps_rejected: KeepsRejected | None = None
    keeps_files: KeepsFiles | None = None
    lists_ledger: ListsLedger | None = None
    refuses_keys: RefusesKeys | None = None
    removes_records: RemovesRecords | None = None
    replaces_ranges: ReplacesRanges | None = None
    marks_records: MarksRecords | None = None
    merges_by_unique: MergesByUnique | None = None
    keeps_latest: KeepsLatest | None = None
    drops_deleted: DropsDeleted | None = None
    updates_only: UpdatesOnly | None = None
    fills_columns: FillsColumns | None = None
    keeps_first: KeepsFirst | None = None
    keeps_history: KeepsHistory | None = None
    loads_ranges: LoadsRanges | None = None
    examines_tables: ExaminesTables | None = None
    knows_privileges: KnowsPrivileges | None = None
    runs_statements: RunsStatements | None = None
    fences_statements: FencesStatements | None = None


def protocol_of(name: str) -> Any:
    """Return the protocol of an ability: `states_types` is `StatesTypes`."""
    return getattr(protocols, "".join(word.capitalize() for word in name.split("_")))


@cache
def methods_of(protocol: type[Any]) -> frozenset[str]:
    """Return the public methods that a protocol names itself; `isinstance` would look for them anew each time."""
    return frozenset(name for name, value in vars(protocol).items() if isfunction(value) and not name.startswith("_"))


def abilities_of(connector: Source | Destination) -> Abilities:
    """Return the abilities of a connector; open nothing."""
    found: dict[str, Any] = dict.fromkeys(_names(connector), connector)
    return Abilities(**found)


def abilities_of_class(connector: type[Any]) -> dict[str, str]:
    """Return the abilities of a connector's class, each with what it means."""
    return {name: str(protocol_of(name).__doc__).partition("\n")[0] for name in _names(connector)}


def _names(connector: Any) -> list[str]:
    """Return the abilities of a connector, or of its class: it has all methods of each."""
    return [name for name in names_of(Abilities) if all(hasattr(connector, it) for it in methods_of(protocol_of(name)))]


__all__ = ["Abilities", "abilities_of", "abilities_of_class", "methods_of", "protocol_of"]
