"""Optional capabilities: which connector has which, and what becomes of each in a destination without a ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from syncblocks.connectors import protocols
from syncblocks.connectors.capabilities import PROTOCOLS, Capabilities, capabilities_of, listed_by, protocol_of
from syncblocks.connectors.errors import ConnectorConfigError
from syncblocks.connectors.registry import CONNECTORS, connector_class
from syncblocks.sync.flow import filtered, masked
from syncblocks.sync.session import ledgerless

ROLES = ("source", "destination")
CAPABILITIES = (*PROTOCOLS, *protocols.Capability)

_FILE_SOURCE = {
    "verifies_server",
    "knows_place",
    "lists_streams",
    "has_former_names",
    "tracks_files",
    "reads_ranges",
}
_FILES = {
    "knows_place",
    "states_types",
    "keeps_rejected",
    "keeps_files",
    "lists_ledger",
    "notes_log",
    "removes_records",
    "replaces_ranges",
    "keeps_first",
    "keeps_latest",
    "drops_deleted",
    "updates_only",
}
_FILE_DESTINATION = {*_FILES, "reads_limits", "verifies_server", "keeps_history", "marks_records"}
_SERVER_SOURCE = {
    "knows_place",
    "shows_address",
    "verifies_server",
    "skips_late",
    "reads_ranges",
    "reads_queries",
    "filters_records",
    "computes_checksums",
}
_DUCKDB_SOURCE = {
    "knows_place",
    "holds_memory",
    "skips_late",
    "reads_queries",
    "filters_records",
    "computes_checksums",
    "flattens_objects",
}
_SQL = {
    "knows_place",
    "states_types",
    "reads_limits",
    "names_tables",
    "names_columns",
    "keeps_rejected",
    "keeps_files",
    "lists_ledger",
    "notes_log",
    "removes_records",
    "replaces_ranges",
    "marks_records",
    "merges_by_unique",
    "fills_columns",
    "keeps_first",
    "keeps_latest",
    "drops_deleted",
    "updates_only",
    "examines_tables",
    "runs_statements",
    "fences_statements",
}
_HISTORY = {*_SQL, "keeps_history"}

#: Connector -> capabilities of its source, and of its destination.
EXPECTED: Mapping[str, tuple[set[str], set[str]]] = {
    "airbyte": ({"finds_types"}, set()),
    "arrow": ({"looks_at_times", "flattens_objects", *_FILE_SOURCE}, set()),
    "csv": ({"bounds_records", *_FILE_SOURCE}, _FILE_DESTINATION),
    "delta": (
        set(),
        {
            "knows_place",
            "holds_memory",
            "states_types",
            "lists_ledger",
            "lists_leftovers",
            "notes_log",
            "removes_records",
            "marks_records",
            "keeps_first",
            "keeps_latest",
            "drops_deleted",
            "updates_only",
            "examines_tables",
        },
    ),
    "duckdb": (_DUCKDB_SOURCE, {"holds_memory", "applies_changes", *_HISTORY}),
    "json": ({"bounds_records", "has_one_null", "flattens_objects", *_FILE_SOURCE}, set()),
    "jsonl": ({"bounds_records", "has_one_null", "flattens_objects", *_FILE_SOURCE}, _FILE_DESTINATION),
    "mariadb": (_SERVER_SOURCE, {"verifies_server", "shows_address", "refuses_keys", "knows_privileges", *_HISTORY}),
    "memory": ({"knows_place"}, {*_FILES, "marks_records", "merges_by_unique", "fills_columns"}),
    "mysql": (_SERVER_SOURCE, {"verifies_server", "shows_address", "refuses_keys", "knows_privileges", *_HISTORY}),
    "parquet": (
        {"holds_memory", "looks_at_times", "flattens_objects", *_FILE_SOURCE},
        {"holds_memory", *_FILE_DESTINATION},
    ),
    "postgres": (
        {
            "knows_limits",
            "knows_place",
            "lists_unreadable",
            "verifies_server",
            "shows_address",
            "prepares",
            "finds_streams",
            "skips_late",
            "reads_ranges",
            "reads_log",
            "reads_queries",
            "filters_records",
            "computes_checksums",
        },
        {
            "knows_limits",
            "verifies_server",
            "shows_address",
            "prepares",
            "loads_ranges",
            "knows_privileges",
            "applies_changes",
            *_HISTORY,
        },
    ),
    "singer": ({"finds_types"}, {"forgets_runs"}),
    "sqlalchemy": (
        {"knows_place", "shows_address", "skips_late", "reads_queries", "filters_records"},
        {"shows_address", *_HISTORY},
    ),
    "sqlite": ({"knows_place", "skips_late", "reads_queries", "filters_records"}, _HISTORY),
}

CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "airbyte": {"executable": "source-x"},
    "duckdb": {"path": "x.duckdb"},
    "mariadb": {"url": "mysql://root@127.0.0.1/x"},
    "memory": {"database": "x"},
    "mysql": {"url": "mysql://root@127.0.0.1/x"},
    "postgres": {"url": "postgresql://127.0.0.1/x"},
    "singer": {"executable": "plugin"},
    "sqlalchemy": {"url": "sqlite:///{folder}/x.db"},
    "sqlite": {"path": "x.db"},
}


def test_each_shipped_connector_has_a_row() -> None:
    assert EXPECTED.keys() == CONNECTORS.keys()


@pytest.mark.parametrize(
    ("name", "role"),
    [(name, role) for name, classes in CONNECTORS.items() for role, path in zip(ROLES, classes, strict=True) if path],
)
def test_a_shipped_connector_has_the_capabilities_of_its_row(name: str, role: str, tmp_path: Path) -> None:
    given = CONFIGS.get(name, {"path": "data"})
    config = {key: str(value).replace("{folder}", str(tmp_path)) for key, value in given.items()}
    connector = connector_class(name, role)(config, tmp_path)
    found = capabilities_of(connector)
    expected = EXPECTED[name][0 if role == "source" else 1]
    has = {capability for capability in PROTOCOLS if getattr(found, capability) is not None}
    assert {*has, *found.listed} == expected
    assert {id(getattr(found, capability)) for capability in has} <= {id(connector)}, "a capability is the connector"


def test_each_capability_is_a_protocol_of_the_one_file() -> None:
    for capability in PROTOCOLS:
        protocol = protocol_of(capability)
        assert protocol.__module__ == protocols.__name__
        assert isinstance(object(), protocol) is False, "raises where the protocol is not runtime_checkable"
    named = {value for value in vars(protocols).values() if getattr(value, "_is_runtime_protocol", False)}
    ours = {value for value in named if value.__module__ == protocols.__name__}
    assert ours == {protocol_of(capability) for capability in PROTOCOLS}


class Anything:
    has_ledger = False
    max_loads = None


EVERY = Capabilities(
    **{capability: object() for capability in PROTOCOLS},  # type: ignore[arg-type]
    listed=frozenset(protocols.Capability),
)

#: Module of a wrapper -> the wrapper around a connector with some capabilities, and its adapted capabilities.
WRAPPERS: Mapping[Any, Callable[[Capabilities], tuple[Any, Capabilities]]] = {
    ledgerless: lambda can: (wrapper := ledgerless.Ledgerless(Anything(), "p"), wrapper.adapted(can)),  # type: ignore[arg-type]
    masked: lambda can: (wrapper := masked.MaskedSource(Anything(), can), wrapper.adapted()),  # type: ignore[arg-type]
    filtered: lambda can: (wrapper := filtered.FilteredSource(Anything(), can), wrapper.adapted()),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("module", WRAPPERS)
def test_a_wrapper_names_every_capability_and_does_what_it_says(module: Any) -> None:
    says = module.ADAPTATION
    assert sorted([*says.passed_on, *says.wrapped, *says.dropped]) == sorted([*PROTOCOLS, "listed"]), "each once"
    wrapper, wrapped = WRAPPERS[module](EVERY)
    for capability in PROTOCOLS:
        before, after = getattr(EVERY, capability), getattr(wrapped, capability)
        if capability in says.passed_on:
            assert after is before
        assert (after is None) == (capability in says.dropped)
    assert EVERY.listed - wrapped.listed == ({protocols.Capability.KEEPS_HISTORY} if module is ledgerless else set())
    assert WRAPPERS[module](Capabilities())[1] == Capabilities(), "the wrapper adds no capability"
    assert capabilities_of(wrapper) == Capabilities(), "capabilities come from `adapted` only"


@pytest.mark.parametrize(
    ("listed", "told"),
    [({"remove_records"}, "'remove_records'; allowed: has_one"), ("removes_records", "contains 'removes")],
)
def test_what_a_connector_lists_is_known(listed: Any, told: str) -> None:
    with pytest.raises(ConnectorConfigError, match=told):
        listed_by(type("Mine", (), {"capabilities": listed}))
    assert listed_by(type("Mine", (), {"capabilities": {"removes_records"}})) == {protocols.Capability.REMOVES_RECORDS}


def test_a_connector_with_a_method_of_before_is_told_the_capability(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "class Mine:\n    def describe(self): ...\n    def load(self): ...\n    def close(self): ...\n"
        "    def marks_deleted(self): return True\n"
    )
    with pytest.raises(ConnectorConfigError, match=r"`marks_deleted`, list Capability\.MARKS_RECORDS in"):
        connector_class("mine.py:Mine", "destination", tmp_path)
