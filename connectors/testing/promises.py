"""What every contract asks an author to give: the connector, a place for the data, and the config."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from .values import Feature, Quirks


class Promises:
    """The hooks that a subclass fills in."""

    connector: ClassVar[type[Any]]
    quirks: ClassVar[Quirks] = Quirks()
    #: Names of the capabilities that the connector has (fields of `Capabilities`); None: the suite does not compare.
    capabilities: ClassVar[Collection[str] | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "abilities" in vars(cls):
            raise TypeError(f"{cls.__name__}: `abilities` is called `capabilities` now")

    @pytest.fixture
    def place(self) -> Any:
        """Where this test's data lives: fresh, and empty."""
        raise NotImplementedError

    def config(self, place: Any) -> Mapping[str, Any]:
        """Return the connector's `config` for that place."""
        raise NotImplementedError

    def secrets(self, place: Any) -> Sequence[str]:
        """Return the credentials in the config of `place`."""
        return ()

    def bad_configs(self, place: Any) -> Sequence[Mapping[str, Any]]:
        """Return configs with which `check` must raise: a file that is not there, a wrong password."""
        return ()

    # What the tests are made of

    def make(self, place: Any, config: Mapping[str, Any] | None = None) -> Any:
        """Make the connector for a place, with another config if one is given."""
        folder = place if isinstance(place, Path) else Path.cwd()
        return self.connector(self.config(place) if config is None else config, folder)

    def lacks(self, feature: Feature | None) -> bool:
        """Tell whether the connector declares that it lacks a feature."""
        return feature is not None and feature in self.quirks.lacks
