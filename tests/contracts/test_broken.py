"""The contracts have teeth: each connector broken on purpose fails the tests that name its fault, and only those."""

from __future__ import annotations

import inspect
import itertools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from syncblocks.connectors.memory import MemoryDestination, MemorySource, databases
from syncblocks.connectors.testing import Feature, Quirks
from tests.contracts import able, broken_capabilities, broken_destinations, broken_sources, test_contracts


class SourceChecks(test_contracts.TestMemorySource):
    """Not named `Test...`: run from here only."""

    def secrets(self, place: str) -> Sequence[str]:
        return ("s3cret-canary",)

    def bad_configs(self, place: str) -> Sequence[Mapping[str, Any]]:
        return [{"database": able.NOBODY}] if issubclass(self.connector, able.AbleSource) else []

    def range_config(self, place: str) -> Mapping[str, Any]:
        return {"database": place}


class DestinationChecks(test_contracts.TestMemoryDestination):
    """Not named `Test...`: run from here only."""


def failing_tests(contract: type[Any], connector: type[Any]) -> set[str]:
    """Run every test of a contract on a connector, each in a database of its own."""
    checks = type(contract.__name__, (contract,), {"connector": connector})()
    failed = set()
    for name, test in inspect.getmembers(checks, inspect.ismethod):
        if not name.startswith("test_"):
            continue
        for parameters in each_case(test):
            place = uuid.uuid4().hex
            wanted = inspect.signature(test).parameters
            fixtures: dict[str, Any] = {"place": place}
            fixtures |= {role: checks.make(place) for role in ("source", "destination") if role in wanted}
            try:
                test(**{key: value for key, value in {**fixtures, **parameters}.items() if key in wanted})
            except (Exception, pytest.fail.Exception):
                failed.add(name)
            except pytest.skip.Exception:
                pass
            finally:
                databases.pop(place, None)
    return failed


def each_case(test: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the arguments that `parametrize` would give."""
    marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    for values in itertools.product(*(mark.args[1] for mark in marks)):
        case: dict[str, Any] = {}
        for mark, value in zip(marks, values, strict=True):
            said = mark.args[0]
            names = [name.strip() for name in said.split(",")] if isinstance(said, str) else list(said)
            case |= dict(zip(names, [value] if len(names) == 1 else value, strict=True))
        yield case


@pytest.mark.full
def test_the_honest_connectors_fail_nothing() -> None:
    assert failing_tests(SourceChecks, MemorySource) == set()
    assert failing_tests(DestinationChecks, MemoryDestination) == set()
    assert failing_tests(SourceChecks, able.AbleSource) == set()
    assert failing_tests(DestinationChecks, able.AbleDestination) == set()


@pytest.mark.full
@pytest.mark.parametrize(
    "connector", [*broken_sources.SOURCES, *broken_capabilities.SOURCES], ids=lambda each: each.__name__
)
def test_a_broken_source_is_caught_by_name(connector: type[Any]) -> None:
    assert failing_tests(SourceChecks, connector) == connector.caught_by
    for opened in broken_sources.StaysOpen.leaked:
        opened.close()


@pytest.mark.full
@pytest.mark.parametrize(
    "connector", [*broken_destinations.DESTINATIONS, *broken_capabilities.DESTINATIONS], ids=lambda each: each.__name__
)
def test_a_broken_destination_is_caught_by_name(connector: type[Any]) -> None:
    assert failing_tests(DestinationChecks, connector) == connector.caught_by


@pytest.mark.full
def test_a_quirk_is_checked_the_other_way_round() -> None:
    """A connector that declares a lack which it does not have must be told so."""
    lacks = dict.fromkeys((Feature.MERGE, Feature.EMPTY_TEXT, Feature.CASE_PAIRS), "says so for this test")
    modest = type("Modest", (DestinationChecks,), {"quirks": Quirks(lacks)})
    assert failing_tests(modest, MemoryDestination) == {
        "test_merge_updates_by_key",
        "test_values_arrive_unchanged",
        "test_columns_that_differ_in_case_only",
    }
    unsure = type(
        "Unsure", (SourceChecks,), {"quirks": Quirks({Feature.KEYS: "says so", Feature.EMPTY_STREAMS: "too"})}
    )
    assert failing_tests(unsure, MemorySource) == {
        "test_keys_are_found_and_not_nullable",
        "test_an_empty_stream_ends_without_records",
    }


def test_a_quirk_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="needs a reason"):
        Quirks({Feature.MERGE: " "})
