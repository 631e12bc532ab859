"""The optional capabilities of a connector, asked for once and handed on as values.

No other code asks whether a connector has a method: a wrapper around a connector would lose capabilities in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from inspect import isfunction
from typing import Any

from msgspec import Struct

from . import protocols
from .errors import ConnectorConfigError
from .protocols import (
    FORMER_METHODS,
    BoundsRecords,
    Capability,
    ComputesChecksums,
    Destination,
    DropsDeleted,
    ExaminesTables,
    FencesStatements,
    FiltersRecords,
    FindsStreams,
    FindsTypes,
    FlattensObjects,
    ForgetsRuns,
    HasFormerNames,
    HoldsMemory,
    KeepsFiles,
    KeepsLatest,
    KeepsRejected,
    KnowsLimits,
    KnowsPlace,
    KnowsPrivileges,
    ListsLedger,
    ListsLeftovers,
    ListsStreams,
    ListsUnreadable,
    LoadsRanges,
    LooksAtTimes,
    NamesColumns,
    NamesTables,
    NotesLog,
    Prepares,
    ReadsLimits,
    ReadsLog,
    ReadsQueries,
    ReadsRanges,
    RefusesKeys,
    RunsStatements,
    ShowsAddress,
    SkipsLate,
    Source,
    StatesTypes,
    TracksFiles,
    VerifiesServer,
)
from .struct_helpers import names_of


class Capabilities(Struct, frozen=True, kw_only=True):
    """One field for each optional protocol: the connector where it has the protocol's methods, else None."""

    prepares: Prepares | None = None
    verifies_server: VerifiesServer | None = None
    shows_address: ShowsAddress | None = None
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
    reads_log: ReadsLog | None = None
    filters_records: FiltersRecords | None = None
    computes_checksums: ComputesChecksums | None = None
    flattens_objects: FlattensObjects | None = None
    states_types: StatesTypes | None = None
    reads_limits: ReadsLimits | None = None
    names_tables: NamesTables | None = None
    names_columns: NamesColumns | None = None
    forgets_runs: ForgetsRuns | None = None
    keeps_rejected: KeepsRejected | None = None
    keeps_files: KeepsFiles | None = None
    lists_ledger: ListsLedger | None = None
    lists_leftovers: ListsLeftovers | None = None
    notes_log: NotesLog | None = None
    refuses_keys: RefusesKeys | None = None
    keeps_latest: KeepsLatest | None = None
    drops_deleted: DropsDeleted | None = None
    loads_ranges: LoadsRanges | None = None
    examines_tables: ExaminesTables | None = None
    knows_privileges: KnowsPrivileges | None = None
    runs_statements: RunsStatements | None = None
    fences_statements: FencesStatements | None = None
    #: Those that need no method, as the connector lists them.
    listed: frozenset[Capability] = frozenset()

    def __contains__(self, capability: Capability) -> bool:
        """Tell whether the connector lists a capability."""
        return capability in self.listed


#: Capabilities that only destinations have. A wrapper around a source drops them.
OF_DESTINATIONS = frozenset(
    {
        "drops_deleted",
        "examines_tables",
        "fences_statements",
        "forgets_runs",
        "keeps_files",
        "keeps_latest",
        "keeps_rejected",
        "knows_privileges",
        "lists_ledger",
        "lists_leftovers",
        "loads_ranges",
        "names_columns",
        "names_tables",
        "notes_log",
        "reads_limits",
        "refuses_keys",
        "states_types",
    }
)


class Adaptation(Struct, frozen=True, kw_only=True):
    """What a wrapper around a connector does with each capability. It names every one, and `listed`."""

    passed_on: frozenset[str]
    wrapped: frozenset[str]
    dropped: frozenset[str]

    def of(self, can: Capabilities, **wrappers: Callable[[Any], Any]) -> Capabilities:
        """Return the capabilities of the wrapper.

        Args:
            can: capabilities of the connector.
            wrappers: name of each wrapped capability -> function that wraps the connector's own.
        """
        assert wrappers.keys() == self.wrapped, "each wrapped capability has a wrapper"
        found = {name: getattr(can, name) for name in (*self.passed_on, *self.wrapped)}
        for name, wrapper in wrappers.items():
            if found[name] is not None:
                found[name] = wrapper(found[name])
        return Capabilities(**found)


#: Names of those that are protocols.
PROTOCOLS = tuple(name for name in names_of(Capabilities) if name != "listed")


def protocol_of(name: str) -> Any:
    """Return the protocol of a capability: `states_types` is `StatesTypes`."""
    return getattr(protocols, "".join(word.capitalize() for word in name.split("_")))


@cache
def methods_of(protocol: type[Any]) -> frozenset[str]:
    """Return the public methods that a protocol names itself; `isinstance` would look for them anew each time."""
    return frozenset(name for name, value in vars(protocol).items() if isfunction(value) and not name.startswith("_"))


def capabilities_of(connector: Source | Destination) -> Capabilities:
    """Return the capabilities of a connector; open nothing.

    Raises:
        ConnectorConfigError: see `listed_by`.
    """
    found: dict[str, Any] = dict.fromkeys(_names(connector), connector)
    return Capabilities(**found, listed=listed_by(type(connector)))


def shown_address(connector: Source | Destination, can: Capabilities) -> str:
    """Return the address of a connector for output, and never to compare or store it in a ledger."""
    return connector.identity() if can.shows_address is None else can.shows_address.shown_address()


def capabilities_of_class(connector: type[Any]) -> dict[str, str]:
    """Return the capabilities of a connector's class, each with what it means."""
    found = {name: str(protocol_of(name).__doc__).partition("\n")[0] for name in _names(connector)}
    return found | {str(each): each.meaning for each in sorted(listed_by(connector))}


def listed_by(connector: type[Any]) -> frozenset[Capability]:
    """Return what a connector's class lists in `capabilities`.

    Raises:
        ConnectorConfigError: it lists what does not exist, or has a method that a capability has taken the place of.
    """
    for method, capability in FORMER_METHODS.items():
        if callable(getattr(connector, method, None)):
            text = f"class {connector.__name__}: instead of the method `{method}`, list Capability.{capability.name} in"
            raise ConnectorConfigError(f"{text} `capabilities`, see docs/connectors.md")
    given = getattr(connector, "capabilities", ())
    if isinstance(given, str) or (unknown := [str(each) for each in given if each not in list(Capability)]):
        wrong = repr(given) if isinstance(given, str) else ", ".join(map(repr, unknown))
        text = f"class {connector.__name__}: `capabilities` contains {wrong}; allowed: {', '.join(Capability)}"
        raise ConnectorConfigError(text)
    return frozenset(each for each in Capability if each in given)


def _names(connector: Any) -> list[str]:
    """Return the protocols of a connector, or of its class: it has all methods of each."""
    return [name for name in PROTOCOLS if all(hasattr(connector, it) for it in methods_of(protocol_of(name)))]


__all__ = [
    "PROTOCOLS",
    "Adaptation",
    "Capabilities",
    "capabilities_of",
    "capabilities_of_class",
    "listed_by",
    "methods_of",
    "protocol_of",
    "shown_address",
]
