"""A host that nobody knows cannot be reached: it is no mistake of the settings."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from syncblocks.connectors.errors import ConnectorConfigError, ConnectorError
from syncblocks.connectors.registry import connector_class


@pytest.mark.parametrize("role", ["source", "destination"])
@pytest.mark.parametrize("name", ["postgres", "mysql"])
def test_an_unknown_host_fails_as_one_that_refuses(name: str, role: str, tmp_path: Path) -> None:
    config = {"url": f"{name}://u@nowhere.invalid/d"}
    with closing(connector_class(name, role)(config, tmp_path)) as connector, pytest.raises(ConnectorError) as raised:
        connector.check()
    assert not isinstance(raised.value, ConnectorConfigError)
    assert "nowhere.invalid" in str(raised.value)
