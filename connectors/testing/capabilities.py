"""Tests of every optional capability: a connector has all of its methods or none, with the protocol's arguments."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ..capabilities import PROTOCOLS, capabilities_of, methods_of, protocol_of
from ..protocols import Capability, Destination, Source
from .promises import Promises


def _signature(method: Callable[..., Any]) -> inspect.Signature:
    """Read a signature without a look at its annotations, which may name what exists for type checkers only."""
    if sys.version_info >= (3, 14):  # they are evaluated when they are asked for
        from annotationlib import Format

        return inspect.signature(method, annotation_format=Format.FORWARDREF)
    return inspect.signature(method)


class CapabilityPromises(Promises):
    """Tests of how a connector declares its capabilities; the tests of each capability ask `can`."""

    def can(self, connector: Source | Destination, name: str) -> Any:
        """Return the connector as the protocol of a capability; skip the test where the connector lacks it."""
        found = getattr(capabilities_of(connector), name)
        if found is None:
            pytest.skip(f"lacks the capability {name}")
        return found

    def needs(self, connector: Source | Destination, *capabilities: Capability) -> None:
        """Skip the test where the connector does not list all of some capabilities."""
        lacking = [each for each in capabilities if each not in capabilities_of(connector)]
        if lacking:
            pytest.skip(f"lacks the capability {', '.join(lacking)}")

    def _methods(self, connector: Any) -> Iterator[tuple[str, Any, frozenset[str]]]:
        """Yield the name of each capability, its protocol, and the methods that no other protocol asks for."""
        for name in PROTOCOLS:
            protocol = protocol_of(name)
            yield name, protocol, methods_of(protocol) - methods_of(Source) - methods_of(Destination)

    def test_the_connector_has_the_capabilities_that_it_declares(self, place: Any) -> None:
        found = capabilities_of(self.make(place))
        has = {*found.listed, *(name for name in PROTOCOLS if getattr(found, name) is not None)}
        assert self.capabilities is None or has == set(self.capabilities)

    def test_a_capability_has_all_of_its_methods(self, place: Any) -> None:
        connector = self.make(place)
        for name, _, methods in self._methods(connector):
            found = {method for method in methods if hasattr(connector, method)}
            lacking = {method for method in methods if not callable(getattr(connector, method, None))}
            assert not found or not lacking, f"{name}: {', '.join(sorted(lacking))} is lacking, or no method"

    def test_the_methods_of_a_capability_take_the_arguments_of_the_protocol(self, place: Any) -> None:
        connector = self.make(place)
        for name, protocol, methods in self._methods(connector):
            for method in methods if getattr(capabilities_of(connector), name) is not None else ():
                asked = list(inspect.signature(getattr(protocol, method)).parameters.values())[1:]
                by_keyword = {each.name: None for each in asked if each.kind is each.KEYWORD_ONLY}
                try:
                    _signature(getattr(connector, method)).bind(
                        *(None for each in asked if each.kind is not each.KEYWORD_ONLY), **by_keyword
                    )
                except TypeError as error:
                    raise AssertionError(f"{name}: {method}: {error}") from error
