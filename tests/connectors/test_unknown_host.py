"""Hosts that cannot be reached, and ports on which another kind of server listens."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

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


@pytest.mark.parametrize(("name", "spoken"), [("postgres", "MySQL"), ("mysql", "PostgreSQL")])
def test_the_port_of_another_kind_of_server_is_told(
    postgres_url: str, mariadb_url: str, name: str, spoken: str, tmp_path: Path
) -> None:
    """MySQL's driver waited half a minute, three times, for the greeting that PostgreSQL never sends."""
    other = urlsplit(mariadb_url if name == "postgres" else postgres_url)
    if other.port is None:
        pytest.skip("the server listens on a socket in the file system only")
    config = {"url": f"{name}://u@127.0.0.1:{other.port}/d"}
    with (
        closing(connector_class(name, "source")(config, tmp_path)) as connector,
        pytest.raises(ConnectorConfigError, match=f"this port speaks {spoken}, not") as raised,
    ):
        connector.check()
    assert raised.value.key == "url"
