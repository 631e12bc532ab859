"""A server that asks for files of this machine gets none, whichever connection it asks over."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from syncblocks.connectors.struct_helpers import replace

pytest.importorskip("pymysql")

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.mysql.destination import MySQLDestination
from syncblocks.connectors.mysql.source import MySQLSource
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.registry import make_source
from tests.connectors.mysql.mysql_databases import database, run
from tests.connectors.mysql.mysql_hostile import Hostile, sent_to_a_hostile_server
from tests.connectors.mysql.mysql_pair import FINAL, MERGE, PEOPLE, load_of, people, write
from tests.connectors.mysql.mysql_proxy import serving

SECRET = b"what nobody else may read"


def discover(url: str) -> None:
    with closing(MySQLSource({"url": url}, Path())) as source:
        source.discover()


def read(url: str) -> None:
    """An INCREMENTAL read asks for the horizon first."""
    with closing(MySQLSource({"url": url, "settle_s": 0}, Path())) as source:
        stream = next(each for each in source.discover() if each.name == f"{database(url)}.t")
        incremental = replace(
            stream, read=replace(stream.read, method=ReplicationMethod.INCREMENTAL, bookmark_properties=("id",))
        )
        list(source.read([incremental], {}))


def read_ranges(url: str) -> None:
    with closing(MySQLSource({"url": url, "range_bytes": 8192}, Path())) as source:
        stream = next(each for each in source.discover() if each.name == f"{database(url)}.t")
        with source.open_ranges(stream, 2, "arrow") as opened:
            for part in opened.ranges:
                list(opened.read(part))


def cancel(url: str) -> None:
    with closing(MySQLSource({"url": url}, Path())) as source, closing(source.connect()) as session:
        session.cancel()


def load(url: str) -> None:
    with closing(MySQLDestination({"url": url}, Path())) as destination:
        write(destination, load_of(PEOPLE, MERGE), iter([people((1, "a")), FINAL]))


def over_sqlalchemy(url: str) -> None:
    config = {"url": url.replace("mysql://", "mysql+pymysql://") + "?local_infile=1"}
    with closing(make_source("sqlalchemy", config, Path.cwd())) as source:
        streams: list[Any] = [each for each in source.discover() if each.name.endswith("t")]
        list(source.read(streams, {}))


@pytest.mark.full
@pytest.mark.parametrize("operate", [discover, read, read_ranges, cancel, load, over_sqlalchemy])
def test_no_file_goes_to_a_server_that_asks_for_one(
    mariadb_url: str, tmp_path: Path, operate: Callable[[str], object]
) -> None:
    run(
        mariadb_url,
        "create table t (id int primary key, v text)",
        "insert into t values (1, repeat('x', 9000)), (2, repeat('x', 9000)), (3, repeat('x', 9000))",
    )
    file = tmp_path / "secret"
    file.write_bytes(SECRET)
    count, received = sent_to_a_hostile_server(mariadb_url, file, operate)
    assert count > 3
    assert SECRET not in received


def test_a_server_is_told_that_it_was_refused(mariadb_url: str, tmp_path: Path) -> None:
    refusal = "asks for a file of this machine"
    with serving(Hostile(mariadb_url, 12, tmp_path)) as between, pytest.raises(FatalConnectorError, match=refusal):
        discover(between.url)
