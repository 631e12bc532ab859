"""A password in a URL that is not percent-encoded is refused before anybody connects, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncblocks.connectors.errors import ConnectorConfigError
from syncblocks.connectors.registry import make_destination, make_source
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.store import Store

PASSWORDS = ("p@ss#w/rd", "can/ary", "can?ary", "can?ary=x", "can@ary", "can&ary", "can#ary", "123/can@ary")
SERVERS = {"postgres": "postgresql", "mysql": "mysql", "mariadb": "mariadb", "sqlalchemy": "postgresql+psycopg"}


def make(connector: str, password: str, folder: Path) -> None:
    if connector == "store":
        Store.open(f"postgresql://ann:{password}@db.example:5432/crm")
    elif connector == "csv":
        make_source("csv", {"path": f"sftp://ann:{password}@db.example/a.csv"}, folder)
    else:
        make_source(connector, {"url": f"{SERVERS[connector]}://ann:{password}@db.example:5432/crm"}, folder)


@pytest.mark.parametrize("connector", [*SERVERS, "csv", "store"])
def test_it_is_refused_with_the_ways_out(tmp_path: Path, connector: str) -> None:
    for password in PASSWORDS:
        if connector == "csv" and password.startswith("123/"):
            continue  # a port, and a path with an @
        with pytest.raises((ConnectorConfigError, ConfigError), match="percent-encode the password") as refused:
            make(connector, password, tmp_path)
        assert "or give it by" in str(refused.value)
        assert not any(part in str(refused.value) for part in ("ss#w", "can", password))
        assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("connector", "url"),
    [
        ("postgres", "postgresql://ann:p%40ss%23w%2Frd@db.example:5432/crm"),
        ("postgres", "postgresql://ann@server:secret@db.example/crm?options=-c%20a=b@c"),
        ("postgres", "postgresql://one.example:5432,two.example:5433/crm"),
        ("postgres", "postgresql://[::1]:5432/crm"),
        ("postgres", "postgresql:///crm?host=/run/postgresql&user=ann@server"),
        ("mysql", "mysql://ann:p!ss:w*rd@db.example/crm"),
        ("sqlalchemy", "sqlite:////data/with:colon@and/at.db"),
        ("csv", "s3://bucket/a:b/c@d.csv"),
        ("csv", "sftp://db.example:22/folder/c@d.csv"),
        ("csv", "abfs://container@account.dfs.core.windows.net/a?.csv"),
    ],
)
def test_what_is_clear_is_taken(tmp_path: Path, connector: str, url: str) -> None:
    key = "path" if connector == "csv" else "url"
    make_destination(connector, {key: url}, tmp_path)
