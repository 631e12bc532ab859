"""A hot standby as a source: production tables are often read from there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from syncblocks.connectors.postgres.source import PostgresSource
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.write_spec import WriteDisposition
from tests import services
from tests.connectors.postgres.postgres_pair import copy, find, order, read, rows, script
from tests.connectors.postgres.postgres_pair import destination as destination
from tests.connectors.sql.range_reads import SUM, Reads

INCREMENTAL = {"method": ReplicationMethod.INCREMENTAL, "bookmark_properties": ("at",)}


@pytest.fixture(scope="module")
def standby() -> Iterator[str]:
    with services.postgres_standby() as (primary, url):
        script(
            primary,
            "create table t (id bigint primary key, v text, at timestamptz);"
            "insert into t select g, repeat('x', 500), timestamptz '2024-01-01' + g * interval '1 s' "
            "from generate_series(1, 500) g",
        )
        ((written,),) = rows(primary, "select pg_current_wal_lsn()::text")
        while rows(url, "select pg_last_wal_replay_lsn() >= %s::pg_lsn", written) != [(True,)]:
            pass
        yield url


@pytest.fixture
def source(standby: str) -> Iterator[PostgresSource]:
    made = PostgresSource({"url": standby, "range_bytes": 8192}, Path())
    yield made
    made.close()


@pytest.mark.parametrize("wire", ["arrow", "pgcopy"])
def test_its_tables_are_copied(standby: str, postgres_url: str, wire: str) -> None:
    copy(standby, "public.t", "copied", WriteDisposition.REPLACE, wire, into=postgres_url)
    assert rows(postgres_url, SUM.format("copied")) == rows(standby, SUM.format("t"))


def test_ranges_are_of_one_moment(standby: str, source: PostgresSource, postgres_url: str, destination: object) -> None:
    stream = find(source, "public.t")
    ordered = order(destination, stream, "copied", WriteDisposition.REPLACE)  # type: ignore[arg-type]
    with source.open_ranges(stream, 4, "arrow") as opened:
        assert len(opened.ranges) > 4
        assert opened.moment is None, "it tells no history by which they could be resumed"
        list(destination.load_ranges(ordered, Reads(opened), 2, "arrow"))  # type: ignore[attr-defined]
    assert rows(postgres_url, SUM.format("copied")) == rows(standby, SUM.format("t"))


@pytest.mark.parametrize("lookback", [None, "1h"])
def test_what_commits_late_on_the_primary_is_unknown_and_said_to_be(
    source: PostgresSource, caplog: pytest.LogCaptureFixture, lookback: str | None
) -> None:
    assert "primary" in source.skips_late(find(source, "public.t", **INCREMENTAL))
    with caplog.at_level(logging.WARNING, "syncblocks"):
        events = read(source, "public.t", **INCREMENTAL, null_bookmarks="never", lookback=lookback)
    assert sum(event.num_rows for event in events if isinstance(event, pa.RecordBatch)) == 500
    assert ("standby" in caplog.text) == (lookback is None)
