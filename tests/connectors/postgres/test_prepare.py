"""Connections opened ahead: the catalog and the ledger read the same over either driver."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from syncblocks.connectors.errors import ConnectorConfigError
from syncblocks.connectors.postgres.destination import PostgresDestination
from syncblocks.connectors.postgres.source import PostgresSource
from syncblocks.connectors.stream import Checkpoint
from tests.connectors.postgres.postgres_pair import find, key_of, order, rows, script

_OPEN = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'syncblocks'"

_TABLE = """create table "Odd ""name" (id bigint, "At" timestamptz default now(), tags text[],
  price numeric(9,2) not null,
  kind "char", n int generated always as (1 + 1) stored, primary key (id, price));
  create view v as select * from "Odd ""name"; insert into "Odd ""name" values (1, now(), '{a}', 1, 'x');
  analyze "Odd ""name"; comment on column "Odd ""name".id is 'key'"""


def test_both_drivers_read_the_same_catalog_and_ledger(postgres_url: str) -> None:
    script(postgres_url, _TABLE)
    seen = []
    for wire in ("arrow", "pgcopy"):
        source = PostgresSource({"url": postgres_url}, Path())
        destination = PostgresDestination({"url": postgres_url}, Path())
        for connector in (source, destination):
            connector.prepare(wire, is_whole=wire == "pgcopy")
        key = key_of("target")
        ledger = destination.take_over(key, token="t", owner="o", source=None)
        destination.set_bookmark(key, {"id": [1]})
        streams = source.discover()
        state = destination.describe(['public.Odd "name', "target", "missing"])
        kept = [(row.key, row.bookmark, row.source) for row in state["target"].ledger]
        seen.append((streams, [stream.schema.metadata for stream in streams], state['public.Odd "name'], ledger, kept))
        destination.set_bookmark(key, None, forget=True)
        source.check()
        assert source.count(streams[0]) == 1
        source.close()
        destination.close()
    assert seen[0] == seen[1]
    assert len(seen[0][0]) == 2


def test_the_connection_that_read_the_catalog_carries_the_records(postgres_url: str) -> None:
    script(postgres_url, "create table a (id int primary key); insert into a values (1)")
    source, destination = (
        PostgresSource({"url": postgres_url}, Path()),
        PostgresDestination({"url": postgres_url}, Path()),
    )
    for connector in (source, destination):
        connector.prepare("pgcopy", is_whole=True)
    stream = find(source, "public.a")
    assert destination.describe(["b"])["b"].schema is None
    events = [event for _, event in source.read([stream], {}, "pgcopy")]
    list(destination.load(order(destination, stream, "b"), iter([*events, Checkpoint(is_final=True)]), "pgcopy"))
    assert rows(postgres_url, _OPEN) == [(2,)]
    assert rows(postgres_url, "select id from b") == [(1,)]
    source.close()
    destination.close()


@pytest.mark.parametrize("wire", ["arrow", "pgcopy"])
def test_a_connection_that_fails_is_told_by_the_call_that_wants_it(postgres_url: str, wire: str) -> None:
    source = PostgresSource({"url": f"{postgres_url}_missing"}, Path())
    source.prepare(wire, is_whole=True)
    with pytest.raises(ConnectorConfigError, match="_missing"):
        source.discover()
    source.close()


@pytest.mark.parametrize("wire", ["arrow", "pgcopy"])
def test_a_connection_that_nobody_wants_is_closed(postgres_url: str, wire: str) -> None:
    for _ in range(3):
        source = PostgresSource({"url": postgres_url}, Path())
        source.prepare(wire, is_whole=True)
        source.prepare(wire, is_whole=True)
        source.close()
    deadline = time.monotonic() + 5
    while rows(postgres_url, _OPEN) != [(0,)]:
        assert time.monotonic() < deadline
