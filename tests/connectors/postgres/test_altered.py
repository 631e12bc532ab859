"""A table of PostgreSQL that is altered between the plan and the read: its values arrive as they are, or none do."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from syncblocks import run_pipeline
from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.postgres.destination import PostgresDestination
from syncblocks.connectors.postgres.source import PostgresSource
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.stream import Checkpoint, Stream
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition
from tests.connectors.postgres.postgres_pair import find, order, rows, script

APPEND, REPLACE, MERGE = WriteDisposition.APPEND, WriteDisposition.REPLACE, WriteDisposition.MERGE

#: Type when the run is planned, a value then; type when it is read, and how the value becomes one of it.
TYPES = [
    ("integer", "3", "real", "n::real"),
    ("real", "3", "integer", "n::integer"),
    ("bigint", "3", "double precision", "n::double precision"),
    ("double precision", "0.1", "bigint", "7"),
    ("double precision", "0.5", "real", "0.1"),
    ("real", "0.5", "double precision", "0.1"),
    ("date", "'2020-02-03'", "integer", "7"),
    ("integer", "7", "date", "'2020-02-03'::date"),
    ("timestamp", "'2020-02-03 04:05'", "bigint", "7"),
    ("timestamp", "'2020-02-03 04:05'", "timestamptz", "n at time zone 'Asia/Tokyo'"),
    ("timestamptz", "'2020-02-03 04:05Z'", "timestamp", "n at time zone 'Asia/Tokyo'"),
    ("date", "'2020-02-03'", "timestamp", "'2020-02-03 04:05'::timestamp"),
    ("timestamp", "'2020-02-03 04:05'", "date", "n::date"),
    ("timestamp(0)", "'2020-02-03 04:05'", "timestamp", "'2020-02-03 04:05:06.7'::timestamp"),
    ("numeric(10,2)", "3.12", "numeric(10,6)", "3.123456"),
    ("numeric(10,2)", "3.12", "double precision", "3.123456"),
    ("text", "'abc'", "bytea", "n::bytea"),
    ("bytea", "'abc'", "text", "'abc'"),
    ("text", "'abc'", "integer", "7"),
    ("money", "3.12", "bigint", "312"),
    ("bigint", "312", "money", "3.12::money"),
    ("money", "3.12", "numeric(10,4)", "3.1234"),
    ("boolean", "true", "integer", "5"),
    ("integer", "5", "boolean", "true"),
    ("smallint", "5", "integer", "70000"),
    ("varchar(3)", "'abc'", "varchar(9)", "'abc   '"),
    ("json", "'[1]'", "text", "'[1'"),
    ("inet", "'10.0.0.1'", "text", "'no'"),
    ("uuid", "'8b7ee2f6-63e0-4e5d-b4a0-3b0e40b8d5a1'", "interval", "'3 days'::interval"),
    ("time", "'04:05'", "bigint", "7"),
    ("interval", "'3 days'", "uuid", "'8b7ee2f6-63e0-4e5d-b4a0-3b0e40b8d5a1'::uuid"),
]


class Altered:
    """A stream that was planned, and what is read of its table after it was altered."""

    def __init__(self, url: str, name: str = "public.t", columns: list[str] | None = None) -> None:
        self.url = url
        self.source = PostgresSource({"url": url}, Path())
        self.destination = PostgresDestination({"url": url}, Path())
        self.stream = find(self.source, name)
        if columns:
            kept = [self.stream.schema.field(column) for column in columns]
            self.stream = _with_schema(self.stream, kept)

    def load(self, wire: str, disposition: WriteDisposition, table: str = "copied") -> str:
        """Return the error; empty: it was loaded."""
        assert wire in self.source.offers(self.stream)

        def events() -> Iterator[Any]:
            yield from (event for _, event in self.source.read([self.stream], {}, wire))
            yield Checkpoint(is_final=True)

        try:
            list(self.destination.load(order(self.destination, self.stream, table, disposition), events(), wire))
        except ConnectorError as error:
            return str(error)
        return ""

    def close(self) -> None:
        self.source.close()
        self.destination.close()


def _with_schema(stream: Stream, fields: list[Any]) -> Stream:
    return replace(stream, schema=pa.schema(fields))


def wires(url: str) -> list[str]:
    with closing(Altered(url)) as altered:
        return list(altered.source.offers(altered.stream))


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("wire", ["pgcopy", "arrow"])
@pytest.mark.parametrize("disposition", [APPEND, REPLACE, MERGE])
def test_a_column_of_another_type_is_never_taken_for_the_one_that_was_planned(
    postgres_url: str, wire: str, disposition: WriteDisposition
) -> None:
    wrong = []
    for number, (planned, value, _, _) in enumerate(TYPES):
        script(
            postgres_url,
            f"create table t{number} (id int primary key, n {planned}); insert into t{number} values (1, {value})",
        )
    with closing(Altered(postgres_url, "public.t0")) as altered:
        streams = {stream.name: stream for stream in altered.source.discover()}
        for number, (planned, _, now, using) in enumerate(TYPES):
            altered.stream = streams[f"public.t{number}"]
            if wire not in altered.source.offers(altered.stream):
                continue
            table, read = f"copied{number}", f"select id, n::text from copied{number} order by id"
            assert altered.load(wire, disposition, table) == ""
            before = rows(postgres_url, read)
            script(postgres_url, f"update t{number} set id = 2; alter table t{number} alter n type {now} using {using}")
            error, after = altered.load(wire, disposition, table), rows(postgres_url, read)
            if error and ("'n'" not in error or after != before):
                wrong.append((planned, now, error, after))
            if not error and after[-1:] != rows(postgres_url, f"select id, n::text from t{number}"):
                wrong.append((planned, now, "silently", after))
    assert wrong == []


@pytest.mark.parametrize("wire", ["pgcopy", "arrow"])
def test_a_column_that_was_renamed_is_not_taken_for_another(postgres_url: str, wire: str) -> None:
    script(postgres_url, "create table t (id int primary key, n int, x int); insert into t values (1, 10, 20)")
    with closing(Altered(postgres_url, columns=["id", "n"])) as altered:
        script(postgres_url, "alter table t rename n to m; alter table t rename x to n")
        error = altered.load(wire, APPEND)
        assert "'n'" in error
        assert rows(postgres_url, "select to_regclass('copied')") == [(None,)]
    with closing(Altered(postgres_url, columns=["id", "n"])) as again:
        assert again.load(wire, APPEND) == ""
        assert rows(postgres_url, "select id, n from copied") == [(1, 20)]


@pytest.mark.parametrize("wire", ["pgcopy", "arrow"])
def test_columns_that_were_swapped_are_not_taken_for_each_other(postgres_url: str, wire: str) -> None:
    script(postgres_url, "create table t (id int primary key, n int, x int); insert into t values (1, 10, 20)")
    with closing(Altered(postgres_url)) as altered:
        script(postgres_url, "alter table t rename n to m; alter table t rename x to n; alter table t rename m to x")
        assert "'n'" in altered.load(wire, APPEND)
        assert rows(postgres_url, "select to_regclass('copied')") == [(None,)]


def test_a_domain_or_an_enum_that_was_made_anew(postgres_url: str) -> None:
    script(
        postgres_url,
        "create domain d as int; create type e as enum ('a', 'b'); create table t (id int, n d, x e); "
        "insert into t values (1, 3, 'a')",
    )
    with closing(Altered(postgres_url)) as altered:
        script(
            postgres_url,
            "drop table t; drop domain d; drop type e; create domain d as real; create type e as enum ('b', 'a'); "
            "create table t (id int, n d, x e); insert into t values (1, 3.5, 'b')",
        )
        assert "'n'" in altered.load("arrow", APPEND)
    with closing(Altered(postgres_url, columns=["id", "x"])) as altered:
        script(
            postgres_url,
            "drop table t; drop type e; create type e as enum ('c', 'b', 'a'); "
            "create table t (id int, n d, x e); insert into t values (1, 3.5, 'c')",
        )
        assert altered.load("arrow", APPEND) == ""
        assert rows(postgres_url, "select id, x from copied") == [(1, "c")]


def test_what_arrow_reads_in_the_same_way_is_read(postgres_url: str) -> None:
    script(postgres_url, "create table t (id int, n int, s text); insert into t values (1, 3, 'abc')")
    with closing(Altered(postgres_url)) as altered:
        script(postgres_url, "alter table t alter n type bigint, alter s type varchar(9), add extra int")
        assert altered.load("arrow", APPEND) == ""
        assert rows(postgres_url, "select * from copied") == [(1, 3, "abc")]


def _while_it_is_altered(url: str, statements: list[str], begin: Callable[[], str]) -> str:
    """Run `begin`, which waits for a transaction that alters what it reads; it is committed then."""
    found: list[str] = []
    with psycopg.connect(url) as connection:
        for sql in statements:
            connection.execute(sql.encode())
        thread = threading.Thread(target=lambda: found.append(begin()))
        thread.start()
        is_waiting = "select 1 from pg_locks where not granted and locktype = 'relation'"
        while thread.is_alive() and not rows(url, is_waiting):
            pass
        connection.commit()
        thread.join()
    return found[0]


@pytest.mark.thinned(1)
@pytest.mark.parametrize("wire", ["pgcopy", "arrow"])
@pytest.mark.parametrize("name", ["public.t", "public.v", "public.p"])
def test_a_table_that_is_rewritten_while_its_read_waits_is_not_empty(postgres_url: str, wire: str, name: str) -> None:
    script(
        postgres_url,
        "create table t (id int, n int); insert into t values (1, 10); create view v as select id, n from t; "
        "create table p (id int, n int) partition by range (id); create table p1 partition of p for values from (0) "
        "to (9); insert into p values (1, 10)",
    )
    with closing(Altered(postgres_url, name)) as altered:
        table = "p" if name == "public.p" else "t"
        error = _while_it_is_altered(
            postgres_url,
            [f"alter table {table} add extra double precision default random()"],
            lambda: altered.load(wire, REPLACE),
        )
        assert error == ""
        assert rows(postgres_url, "select id, n from copied") == [(1, 10)]


@pytest.mark.parametrize("kind", ["int", "text"])
def test_an_incremental_read_that_waits_for_a_rewritten_table_is_not_empty(postgres_url: str, kind: str) -> None:
    script(postgres_url, f"create table t (id {kind} primary key, n int); insert into t values ('1', 10)")
    # What was taken back is still told of in the catalog.
    script(postgres_url, "begin; alter table t alter n type bigint; rollback")
    with closing(Altered(postgres_url)) as altered:
        altered.stream = replace(
            altered.stream,
            read=replace(altered.stream.read, method=ReplicationMethod.INCREMENTAL, bookmark_properties=("id",)),
        )
        error = _while_it_is_altered(
            postgres_url,
            ["alter table t add extra double precision default random()"],
            lambda: altered.load("arrow", REPLACE),
        )
        assert error == ""
        assert rows(postgres_url, "select id::text, n from copied") == [("1", 10)]


@pytest.mark.parametrize("change", ["add extra double precision default random()", "alter n type timestamptz"])
def test_ranges_that_wait_for_a_table_that_is_altered_are_those_of_after_it(postgres_url: str, change: str) -> None:
    script(
        postgres_url,
        "create table t (id int, n timestamp, s text); insert into t select g, '2020-02-03', repeat('x', 100) "
        "from generate_series(1, 5000) g",
    )
    script(postgres_url, "begin; alter table t alter n type date; rollback")
    with closing(PostgresSource({"url": postgres_url, "range_bytes": 1 << 16}, Path())) as source:
        stream = find(source, "public.t")

        def read() -> str:
            try:
                with source.open_ranges(stream, 2, "arrow") as opened:
                    batches = [batch for part in opened.ranges for batch in opened.read(part)]
            except ConnectorError as error:
                return str(error)
            return str(sum(batch.num_rows for batch in batches if isinstance(batch, pa.RecordBatch)))

        found = _while_it_is_altered(postgres_url, ["set timezone = 'UTC'", f"alter table t {change}"], read)
        assert found == "5000" if "add" in change else "'n'" in found


@pytest.mark.parametrize("wire", ["pgcopy", "arrow"])
def test_a_type_that_changes_while_the_read_waits_is_seen(postgres_url: str, wire: str) -> None:
    script(postgres_url, "create table t (id int, n timestamp); insert into t values (1, '2020-02-03 04:05')")
    with closing(Altered(postgres_url)) as altered:
        # In UTC the values stay as they are on disk.
        error = _while_it_is_altered(
            postgres_url,
            ["set timezone = 'UTC'", "alter table t alter n type timestamptz"],
            lambda: altered.load(wire, REPLACE),
        )
        assert "'n'" in error


@pytest.mark.parametrize("disposition", [APPEND, REPLACE, MERGE])
def test_a_target_that_changes_while_its_load_waits_keeps_its_values(
    postgres_url: str, disposition: WriteDisposition
) -> None:
    script(postgres_url, "create table t (id int primary key, n int); insert into t values (1, 3)")
    for wire in ("pgcopy", "arrow"):
        script(postgres_url, "drop table if exists copied")
        with closing(Altered(postgres_url)) as altered:
            assert altered.load(wire, disposition) == ""
            script(postgres_url, "update t set id = id + 1")
            error = _while_it_is_altered(
                postgres_url,
                ["alter table copied alter n type real"],
                partial(altered.load, wire, disposition),
            )
            found = rows(postgres_url, "select n::float8 from copied where id > 1")
            assert error or found == [(3.0,)], (wire, error, found)


def _pipeline(folder: Path, url: str, stream: dict[str, Any]) -> Path:
    document = {
        "pipeline": "p",
        "source": {"connector": "postgres", "config": {"url": url, "range_bytes": 1 << 16}},
        "destination": {"connector": "postgres", "config": {"url": url}},
        "streams": [{"stream": "public.t", "destination_table": "copied", **stream}],
    }
    file = folder / "p.yaml"
    file.write_text(json.dumps(document))
    return file


@pytest.mark.parametrize(
    "stream",
    [
        {"write_disposition": "replace", "parallel_reads": 4},
        {"write_disposition": "append", "parallel_reads": 4},
        {"write_disposition": "append", "replication_method": "INCREMENTAL", "bookmark_properties": ["id"]},
    ],
    ids=["ranges", "ranges into one loader", "incremental"],
)
def test_a_run_whose_table_is_altered_behind_its_plan_fails_and_the_next_one_goes_on(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch, stream: dict[str, Any]
) -> None:
    from syncblocks.sync.run.run_options import options

    script(
        postgres_url,
        "create table t (id int primary key, n int, s text); "
        "insert into t select g, g, repeat('x', 100) from generate_series(1, 5000) g; analyze t",
    )
    make_plan, alter = options.make_plan, [True]

    def altered(*arguments: Any, **named: Any) -> Any:
        plan = make_plan(*arguments, **named)
        if alter.pop() if alter else False:
            script(postgres_url, "alter table t alter n type real using n + 0.5")
        return plan

    monkeypatch.setattr(options, "make_plan", altered)
    file = _pipeline(tmp_path, postgres_url, stream)
    result = run_pipeline(file)
    assert result.status == "failure"
    assert "'n'" in str(result.streams[0].error)
    assert "run again" in str(result.streams[0].error)
    assert rows(postgres_url, "select to_regclass('copied')") == [(None,)]
    assert run_pipeline(file).status == "success"
    assert rows(postgres_url, "select count(*), sum(n) from copied") == [(5000, 12505000.0)]
