"""Where an index begins with the bookmark it is used for both: to find what is new, and to have it in order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.mysql.source import MySQLSource
from syncblocks.connectors.postgres.source import PostgresSource
from syncblocks.connectors.read_spec import NullBookmarks, ReplicationMethod
from syncblocks.connectors.sql.read.source import SqlSource
from syncblocks.connectors.stream import Checkpoint, Stream
from syncblocks.connectors.struct_helpers import replace
from tests.connectors.mysql import mysql_databases
from tests.connectors.postgres import postgres_pair

RECORDS = 20_000

#: From where a resumed read goes on: less than what a scan of the whole table would be worth.
BOOKMARK = {"b": RECORDS - 500}


@dataclass
class Table:
    """A table `t` with a bookmark that may be NULL, and is indexed."""

    source: SqlSource
    run: Callable[..., object]
    #: Shows how a statement is carried out; words of those that sort.
    explain: Callable[[str], str]
    sorts: str

    def stream(self, policy: NullBookmarks) -> Stream:
        (found,) = self.source.discover()
        return replace(
            found,
            read=replace(
                found.read,
                method=ReplicationMethod.INCREMENTAL,
                bookmark_properties=("b",),
                null_bookmarks=policy,
                may_repeat=True,
            ),
        )

    def ids(self, policy: NullBookmarks, *, is_resumed: bool) -> list[int]:
        stream = self.stream(policy)
        with closing(self.source.read([stream], {stream.name: BOOKMARK if is_resumed else None})) as events:
            batches = [event for _, event in events if not isinstance(event, Checkpoint)]
        return [value for batch in batches if isinstance(batch, pa.RecordBatch) for value in batch["id"].to_pylist()]


def postgres(url: str) -> Table:
    def explain(sql: str) -> str:
        return "\n".join(line for (line,) in postgres_pair.rows(url, f"explain {sql}"))

    numbers = f"select g, g from generate_series(0, {RECORDS - 1}) g"
    postgres_pair.script(url, f"create table t (id bigint primary key, b bigint); insert into t {numbers}")
    postgres_pair.script(url, "create index on t (b); analyze t")
    return Table(
        PostgresSource({"url": url}, Path()),
        lambda sql: postgres_pair.script(url, f"{sql}; analyze t"),
        explain,
        "Sort",
    )


def mariadb(url: str) -> Table:
    def explain(sql: str) -> str:
        return str(mysql_databases.query(url, f"explain {sql}"))

    numbers = f"select seq, seq from seq_0_to_{RECORDS - 1}"
    mysql_databases.run(url, "create table t (id bigint primary key, b bigint, key (b))", f"insert into t {numbers}")
    mysql_databases.run(url, "analyze table t")
    return Table(MySQLSource({"url": url}, Path()), lambda sql: mysql_databases.run(url, sql), explain, "filesort")


@pytest.fixture(params=["postgres", "mariadb"])
def table(request: pytest.FixtureRequest) -> Table:
    made = {"postgres": postgres, "mariadb": mariadb}[request.param]
    return made(request.getfixturevalue(f"{request.param}_url"))


@pytest.mark.parametrize("policy", [NullBookmarks.FAIL, NullBookmarks.ALWAYS])
def test_a_resumed_read_sorts_nothing(table: Table, policy: NullBookmarks) -> None:
    with closing(table.source):
        stream = table.stream(policy)
        sorted_once = table.source.selects(stream, BOOKMARK)
        assert [table.sorts in table.explain(sql) for sql in sorted_once] == [True]
        for sql in table.source.selects(stream, BOOKMARK, is_indexed=lambda: True):
            assert table.sorts not in table.explain(sql)


def test_records_without_a_bookmark_come_first_and_as_the_stream_says(table: Table) -> None:
    with closing(table.source):
        new = list(range(RECORDS - 500, RECORDS))
        assert table.ids(NullBookmarks.FAIL, is_resumed=True) == new
        table.run("insert into t values (-1, null)")
        for policy, is_resumed, found in (
            (NullBookmarks.ALWAYS, True, [-1, *new]),
            (NullBookmarks.ALWAYS, False, [-1, *range(RECORDS)]),
            (NullBookmarks.ONCE, False, [-1, *range(RECORDS)]),
            (NullBookmarks.ONCE, True, new),
            (NullBookmarks.NEVER, True, new),
        ):
            assert table.ids(policy, is_resumed=is_resumed) == found
        with pytest.raises(FatalConnectorError, match="at least 1 in 'b'"):
            table.ids(NullBookmarks.FAIL, is_resumed=True)


def test_an_index_is_known_by_its_first_column(table: Table) -> None:
    with closing(table.source):
        stream = table.stream(NullBookmarks.FAIL)
        with table.source.sessions("arrow").lease() as lease:
            lease.begin()
            assert table.source.is_indexed(lease, stream)
        table.run("create index other on t (id, b)")
        table.run("drop index b on t" if table.sorts == "filesort" else "drop index t_b_idx")
        with table.source.sessions("arrow").lease() as lease:
            lease.begin()
            assert not table.source.is_indexed(lease, stream)
