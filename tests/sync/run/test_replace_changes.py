"""Replace where the source's keys and types change, and the destination's table cannot simply be swapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from syncblocks import RunResult, run_pipeline


class Bench:
    """A table `s.items` of PostgreSQL that replaces `d.items` of the same database."""

    def __init__(self, folder: Path, url: str, connector: str) -> None:
        self.folder, self.url, self.connector = folder, url, connector
        self.sql(
            "create schema s; create schema d; create table s.items (id int primary key, k int, a text);"
            "insert into s.items values (1, 10, 'a'), (2, 20, 'b')"
        )

    def sql(self, statements: str) -> list[Any]:
        with psycopg.connect(self.url) as connection:
            cursor = connection.execute(statements.encode())
            return cursor.fetchall() if cursor.description else []

    def run(self) -> RunResult:
        url = self.url if self.connector == "postgres" else self.url.replace("postgresql:", "postgresql+psycopg:")
        document = {
            "pipeline": "items",
            "source": {"connector": "postgres", "config": {"url": self.url}},
            "destination": {"connector": self.connector, "config": {"url": url}},
            "streams": [{"stream": "s.items", "destination_table": "d.items"}],
        }
        (self.folder / "items.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        return run_pipeline(self.folder / "items.yaml")

    def key(self) -> list[str]:
        rows = self.sql(
            "select attname from pg_index, unnest(indkey) with ordinality k (number, place), pg_attribute "
            "where indrelid = 'd.items'::regclass and indisprimary and attrelid = indrelid and attnum = number "
            "order by place"
        )
        return [name for (name,) in rows]


@pytest.fixture
def bench(tmp_path: Path, postgres_url: str, request: pytest.FixtureRequest) -> Bench:
    return Bench(tmp_path, postgres_url, getattr(request, "param", "postgres"))


@pytest.mark.one_of("bench")
@pytest.mark.parametrize("bench", ["postgres", "sqlalchemy"], indirect=True)
@pytest.mark.parametrize(
    ("change", "record", "key"),
    [
        ("add primary key (id, k)", "(1, 11, 'c')", ["id", "k"]),
        ("alter id drop not null", "(null, 10, 'c')", []),
    ],
    ids=["wider", "none"],
)
def test_other_keys_are_taken_over(bench: Bench, change: str, record: str, key: list[str]) -> None:
    assert bench.run().status == "success"
    assert bench.key() == ["id"]
    bench.sql(f"alter table s.items drop constraint items_pkey; alter table s.items {change}")
    bench.sql(f"insert into s.items values {record}")
    result = bench.run()
    assert (result.status, result.streams[0].error) == ("success", None)
    assert bench.key() == key
    assert bench.sql("select * from d.items except all select * from s.items") == []
    assert bench.sql("select count(*) from d.items") == [(3,)]


def test_a_way_out_is_named_where_a_view_keeps_the_table_as_it_is(bench: Bench) -> None:
    """A full refresh is a replace as well: it would fail the same way."""
    assert bench.run().status == "success"
    bench.sql("create view d.seen as select * from d.items; alter table s.items alter k type text")
    error = str(bench.run().streams[0].error)
    assert "'k'" in error
    assert "drop what depends on the table" in error
    assert "full-refresh" not in error
    bench.sql("drop view d.seen")
    assert bench.run().status == "success"
