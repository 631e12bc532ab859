"""No command calls a function or an operator that somebody has planted in a schema that is searched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from tests import services
from tests.conftest import RunCLI
from tests.faults.planted import called, planted

#: Of many types, keys of types that are compared by operators of other ones.
TABLE = """
create table src.{name} (id {kind} primary key, n int2 not null, m numeric(12,2), r float4, f float8, v varchar(20),
  c char(5), t text, b bytea, u uuid, j json, k jsonb, d date, at timestamp, seen timestamptz, i interval, o oid,
  l int[], mood public.mood, ci public.citext, s public.short)
"""
RECORDS = """
insert into src.{name} select {value}, g, g, g, g, 'v' || g::text, 'c', repeat('x', 300), '\\x00'::bytea,
  '00000000-0000-0000-0000-000000000001'::uuid, '{{"a": 1}}'::json, '{{"a": 1}}'::jsonb, '2024-02-29'::date,
  '2024-02-29 10:00:00'::timestamp, '2024-02-29 10:00:00+00'::timestamptz, '1 day'::interval, 17::oid,
  '{{1,2}}'::int[], 'sad'::public.mood, 'Ci'::public.citext, 's'::public.short
from pg_catalog.generate_series({first}, {last}) g
"""
KEYS = {
    "int8": "g::int8",
    "varchar(30)": "('k' || lpad(g::text, 5, '0'))::varchar",
    "public.citext": "('K' || lpad(g::text, 5, '0'))::public.citext",
    "public.short": "('k' || lpad(g::text, 5, '0'))::public.short",
    "uuid": "md5(g::text)::uuid",
    "date": "'2024-01-01'::date + g",
    "char(8)": "('k' || g::text)::bpchar",
}


class Bench:
    def __init__(self, url: str, folder: Path, run_cli: RunCLI) -> None:
        self.url, self.folder, self.run_cli = url, folder, run_cli

    def execute(self, *statements: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("set search_path = ''")
            for each in statements:
                connection.execute(each)  # type: ignore[arg-type]  # texts are put together

    def make(self, name: str, kind: str) -> None:
        self.execute(TABLE.format(name=name, kind=kind))
        self.fill(name, kind, 1, 60)

    def fill(self, name: str, kind: str, first: int, last: int) -> None:
        value = KEYS[kind].replace("lpad(", "pg_catalog.lpad(").replace("md5(", "pg_catalog.md5(")
        sql = RECORDS.format(name=name, value=value, first=first, last=last)
        self.execute(sql.replace("repeat(", "pg_catalog.repeat("))

    def command(self, *arguments: str, code: int = 0) -> str:
        outcome = self.run_cli([*arguments, "--json"], self.folder)
        assert outcome.returncode == code, (arguments, outcome.stdout[-3000:], outcome.stderr[-3000:])
        assert called(self.url) == [], arguments
        return outcome.stdout

    def write(self, streams: list[dict[str, Any]], **more: Any) -> None:
        document = {
            "pipeline": self.folder.name,
            "store": self.url,
            "source": {"connector": "postgres", "config": {"url": self.url, "range_bytes": 8192}},
            "destination": {"connector": "postgres", "config": {"url": self.url, "schema": "dst"}},
            "streams": streams,
            **more,
        }
        (self.folder / "p.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A database in which everything is planted, which takes some seconds."""
    with services.fresh_postgres_database() as url, planted(url):
        yield url


@pytest.fixture
def bench(database: str, tmp_path: Path, run_cli: RunCLI) -> Iterator[Bench]:
    made = Bench(database, tmp_path, run_cli)
    made.execute("drop function if exists public.note()", "create schema src", "create schema dst")
    made.execute("select pg_catalog.pg_stat_reset()")
    yield made
    made.execute("drop schema src cascade", "drop schema dst cascade")


@pytest.mark.full
@pytest.mark.parametrize("kind", KEYS)
def test_no_command_calls_what_is_planted(bench: Bench, kind: str) -> None:
    names = ("replaced", "appended", "merged", "grown")
    for name in names:
        bench.make(name, kind)
    dispositions = {"replaced": "replace", "appended": "append", "merged": "merge", "grown": "merge"}
    streams: list[dict[str, Any]] = [
        {"stream": f"src.{name}", "write_disposition": dispositions[name]} for name in names
    ]
    streams[3] |= {"replication_method": "INCREMENTAL", "bookmark_properties": ["n"]}
    bench.write(streams)
    for command in ("check", "discover", "plan"):
        bench.command(command)
    bench.command("run")
    for name in ("replaced", "merged", "grown"):
        bench.fill(name, kind, 61, 80)
    # A table on which others depend is refilled; one with triggers is merged in another way.
    bench.execute("create view dst.seen as select * from dst.replaced")
    bench.command("run")
    bench.command("count")
    bench.command("preview", "--stream", "src.merged")
    bench.execute("delete from dst.merged where n = 5::int2")
    bench.command("verify", code=1)
    bench.command("verify", "--repair")
    bench.command("runs", "list")
    bench.command("state", "show")


@pytest.mark.full
@pytest.mark.parametrize("on_rejected", ["fail", "keep"])
def test_no_load_by_ranges_or_with_bad_records_does(bench: Bench, on_rejected: str) -> None:
    bench.make("t", "int8")
    bench.fill("t", "int8", 61, 1000)
    bench.execute("vacuum analyze src.t")
    bench.write([{"stream": "src.t", "write_disposition": "replace", "on_rejected": on_rejected}], parallel_reads=3)
    bench.command("run")
    bench.command("run")
    bench.command("verify")


@pytest.mark.full
@pytest.mark.parametrize("is_unique", [True, False])
def test_a_trigger_of_the_destination_finds_its_tables(bench: Bench, is_unique: bool) -> None:
    """And a key of another one's type is compared by that type's own operator."""
    bench.execute("create table src.t (id text primary key, n int)", "insert into src.t values ('A', 0), ('b', 2)")
    bench.write([{"stream": "src.t", "write_disposition": "merge"}])
    bench.command("run")
    bench.execute(
        "update src.t set id = 'a', n = 1 where n = 0",
        *([] if is_unique else ["alter table dst.t drop constraint t_pkey"]),
        "alter table dst.t alter id type public.citext",
        "drop table if exists public.seen",
        "create table public.seen (id text)",
        "create or replace function public.note() returns trigger language plpgsql as "
        "'begin insert into seen values (new.id); return new; end'",
        "create trigger note after insert or update on dst.t for each row execute function public.note()",
    )
    outcome = bench.run_cli(["run", "--json"], bench.folder)
    assert outcome.returncode == 0, outcome.stdout
    assert called(bench.url) in (["public.note()"], ["note()"])
    with psycopg.connect(bench.url) as connection:
        rows = connection.execute('select id::text collate "C", n from dst.t order by n').fetchall()
        seen = connection.execute("select count(*) from public.seen").fetchone()
    assert [(key.lower(), n) for key, n in rows] == [("a", 1), ("b", 2)]
    assert seen == (2,)
