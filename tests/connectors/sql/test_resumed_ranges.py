"""Loads by ranges that are cut short and resumed: what is there in the end is the source at one moment."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from syncblocks.connectors.errors import FatalConnectorError, TakenOver
from syncblocks.connectors.files.csv_source import CSVSource
from syncblocks.connectors.postgres import ranges
from syncblocks.connectors.postgres.catalog import PostgresCatalog
from syncblocks.connectors.postgres.destination import PostgresDestination
from syncblocks.connectors.postgres.source import PostgresSource
from syncblocks.connectors.protocols import ReadsRanges
from syncblocks.connectors.ranges import Range
from syncblocks.connectors.sql.identifiers import staging_name
from syncblocks.connectors.sql.session import SessionLease
from syncblocks.connectors.stream import Commit, Load, Stream
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition
from tests.connectors.postgres.postgres_pair import destination as destination
from tests.connectors.postgres.postgres_pair import find, key_of, order, rows, script
from tests.connectors.sql.range_reads import SUM, Reads, leftovers

FULL = "insert into t select g, repeat('x', 500), 'a' from generate_series(1, 500) g"

#: Pages of the first range and of the last, which the load that is cut short never reaches.
FIRST, LAST = "ctid < '(1,0)'", "ctid >= '(34,0)'"

#: What happens between a load and the next one -> whether the first one's ranges still are what is read.
CHANGES = {
    "select 1": True,
    "analyze t": True,
    "vacuum freeze t": True,
    f"begin; update t set v = 'y' where {FIRST}; rollback": True,
    f"select * from t where {FIRST} for update": True,
    f"delete from t where {LAST}": True,
    f"update t set v = 'y' where {LAST}": True,
    "insert into t select g, repeat('n', 500), 'b' from generate_series(1000, 1200) g": True,
    "create index on t (v)": True,
    f"update t set v = 'y' where {FIRST}": False,
    f"update t set v = v where {FIRST}": False,
    f"delete from t where {FIRST}": False,
    f"begin; delete from t where {FIRST}; commit; vacuum t; insert into t select g, 'z', 'a' from "
    "generate_series(2000, 2013) g": False,
    f"truncate t; {FULL}": False,
    "vacuum full t": False,
    "cluster t using t_pkey": False,
    "alter table t drop column e; alter table t add column e mood default 'b'": False,
    "alter type mood rename value 'a' to 'c'": False,
    "alter table t rename to u; create table t (like u); insert into t select * from u": False,
    "alter table t enable row level security": False,
}


@pytest.fixture
def source(postgres_url: str) -> Iterator[PostgresSource]:
    script(postgres_url, "create type mood as enum ('a', 'b')")
    script(postgres_url, "create table t (id bigint primary key, v text, e mood)")
    script(postgres_url, FULL)
    made = PostgresSource({"url": postgres_url, "range_bytes": 8192}, Path())
    yield made
    made.close()


def cut_short(source: ReadsRanges, destination: PostgresDestination, stream: Stream, after: int = 5) -> Load:
    """Load by ranges up to an error, and keep what was loaded."""

    def fail(part: Range) -> None:
        if part.place == after:
            raise FatalConnectorError("cut short")

    ordered = order(destination, stream, "copied", WriteDisposition.REPLACE)
    with source.open_ranges(stream, 4, "arrow") as opened, pytest.raises(FatalConnectorError, match="cut short"):
        list(destination.load_ranges(ordered, Reads(opened, before=fail, keeps=True), 1, "arrow"))
    return ordered


def load(
    source: ReadsRanges, destination: PostgresDestination, stream: Stream, shape: str = "plain"
) -> tuple[set[int], list[int], Commit]:
    """Load by ranges; return which were resumed, which were read, and the commit."""
    read: list[int] = []
    ordered = order(destination, stream, "copied", WriteDisposition.REPLACE)
    with source.open_ranges(stream, 4, "arrow") as opened:
        reads = Reads(opened, before=lambda part: read.append(part.place), shape=shape)
        (done,) = destination.load_ranges(ordered, reads, 2, "arrow")
    return set(reads.resumed), sorted(read), done


@pytest.mark.parametrize("change", CHANGES)
def test_ranges_are_resumed_where_they_are_what_would_be_read(
    postgres_url: str, source: PostgresSource, destination: PostgresDestination, change: str
) -> None:
    stream = find(source, "public.t")
    cut_short(source, destination, stream)
    assert len(leftovers(postgres_url)) > 1
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for statement in change.split("; "):
            connection.execute(statement)  # type: ignore[arg-type]
    resumed, read, done = load(source, destination, find(source, "public.t"))
    assert resumed == (set(range(5)) if CHANGES[change] else set())
    assert not resumed & set(read)
    assert rows(postgres_url, SUM.format("copied")) == rows(postgres_url, SUM.format("t"))
    assert done.records == rows(postgres_url, "select count(*) from t")[0][0]
    assert leftovers(postgres_url) == []


@pytest.mark.parametrize("is_nested", [False, True])
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_transaction_that_ran_at_the_first_snapshot_counts_as_a_change(
    postgres_url: str, source: PostgresSource, destination: PostgresDestination, end: str, is_nested: bool
) -> None:
    script(postgres_url, f"delete from t where {FIRST}")
    script(postgres_url, "vacuum t")
    with psycopg.connect(postgres_url) as writer:
        writer.execute("create table other ()")  # a number of its own before the inner one's
        if is_nested:
            writer.execute("savepoint a")
        writer.execute("insert into t select g, repeat('x', 500), 'a' from generate_series(3000, 3005) g")
        assert writer.execute(f"select count(*) > 0 from t where {FIRST}").fetchone() == (True,)  # type: ignore[arg-type]
        cut_short(source, destination, find(source, "public.t"))
        writer.execute(end)  # type: ignore[arg-type]
    # As many records as were there, without those that came.
    gone = f"select id from t where ctid < '(2,0)' and id < 3000 limit {6 if end == 'commit' else 0}"
    script(postgres_url, f"delete from t where id in ({gone})")
    resumed, _, _ = load(source, destination, find(source, "public.t"))
    assert bool(resumed) == (end == "rollback")
    assert rows(postgres_url, SUM.format("copied")) == rows(postgres_url, SUM.format("t"))


def test_a_transaction_of_this_database_is_a_reason_to_begin_anew(
    postgres_url: str, source: PostgresSource, destination: PostgresDestination
) -> None:
    with psycopg.connect(postgres_url) as here:
        here.execute("select pg_current_xact_id()")
        script(postgres_url, "update t set v = v || 'newer'")
        script(postgres_url, "vacuum full t")
        cut_short(source, destination, find(source, "public.t"))
        assert load(source, destination, find(source, "public.t"))[0] == set()
    assert rows(postgres_url, SUM.format("copied")) == rows(postgres_url, SUM.format("t"))


@pytest.mark.parametrize("ends_at", [1, 2, None])
def test_a_transaction_of_another_database_is_none_even_if_it_ends_meanwhile(
    postgres_url: str,
    source: PostgresSource,
    destination: PostgresDestination,
    monkeypatch: pytest.MonkeyPatch,
    ends_at: int | None,
) -> None:
    asked: list[str] = []
    with psycopg.connect(postgres_url.rsplit("/", 1)[0] + "/postgres") as elsewhere:

        def ask(lease: SessionLease, sql: str) -> Any:
            said = alone(lease, sql)
            asked.append(sql)
            if len(asked) == ends_at:
                elsewhere.commit()
            return said

        alone = ranges._alone
        monkeypatch.setattr(ranges, "_alone", ask)
        elsewhere.execute("select pg_current_xact_id()")
        script(postgres_url, "update t set v = v || 'new'")
        script(postgres_url, "vacuum full t")
        cut_short(source, destination, find(source, "public.t"))
        assert load(source, destination, find(source, "public.t"))[0] == set(range(5))
    assert len(asked) == 4
    assert rows(postgres_url, SUM.format("copied")) == rows(postgres_url, SUM.format("t"))


def test_a_load_can_be_cut_short_again_and_again(
    postgres_url: str, source: PostgresSource, destination: PostgresDestination
) -> None:
    stream = find(source, "public.t")
    for after in (3, 6, 9):
        cut_short(source, destination, stream, after)
    resumed, read, _ = load(source, destination, stream)
    assert (resumed, read[0]) == (set(range(9)), 9)
    assert rows(postgres_url, SUM.format("copied")) == rows(postgres_url, SUM.format("t"))


def test_a_load_in_another_shape_begins_anew(
    postgres_url: str, source: PostgresSource, destination: PostgresDestination
) -> None:
    stream = find(source, "public.t")
    cut_short(source, destination, stream)
    assert load(source, destination, stream, shape="another")[0] == set()
    cut_short(source, destination, stream)
    assert load(source, destination, replace(stream, key_properties=()))[0] == set()
    assert rows(postgres_url, SUM.format("copied")) == rows(postgres_url, SUM.format("t"))
    assert leftovers(postgres_url) == []


def test_a_recovery_keeps_what_can_be_resumed_until_nobody_wants_it(
    postgres_url: str, source: PostgresSource, destination: PostgresDestination
) -> None:
    stream = find(source, "public.t")
    ordered = cut_short(source, destination, stream)
    before = leftovers(postgres_url)
    destination.drop_staging([ordered.token])
    destination.drop_ranges("p", lambda key: key == key_of("copied", "public.t"))
    destination.drop_ranges("another", lambda key: False)
    assert leftovers(postgres_url) == before
    destination.drop_ranges("p", lambda key: False)
    assert leftovers(postgres_url) == []
    assert load(source, destination, stream)[0] == set()


def test_what_another_role_has_left_is_in_nobodys_way(
    postgres_url: str, source: PostgresSource, destination: PostgresDestination
) -> None:
    stream, role = find(source, "public.t"), f"loader_{secrets.token_hex(8)}"
    ordered = cut_short(source, destination, stream)
    script(postgres_url, f"create role {role} login; grant all on schema public to {role}")
    script(postgres_url, f"grant all on all tables in schema public to {role}")
    other = PostgresDestination({"url": postgres_url, "user": role}, Path())
    try:
        own = staging_name("z" * 32)  # looked at last
        key = '["p", "public.t", "copied"]'
        script(postgres_url, f"create table {own} (v text); create table {own}_r as select '{key}'::text as stream")
        script(postgres_url, f"alter table {own} owner to {role}; alter table {own}_r owner to {role}")
        assert load(source, other, stream)[0] == set()
    finally:
        other.close()
        script(postgres_url, f"drop owned by {role}; drop role {role}")
    left = staging_name(ordered.token)
    assert [name for (name,) in leftovers(postgres_url)] == [left, f"{left}_r", f"{left}_r_pkey"]


@pytest.mark.parametrize("behind", ["list_staging", "reflect"])
@pytest.mark.parametrize("is_recovery", [False, True])
def test_what_another_stream_drops_meanwhile_is_in_nobodys_way(
    postgres_url: str,
    source: PostgresSource,
    destination: PostgresDestination,
    monkeypatch: pytest.MonkeyPatch,
    is_recovery: bool,
    behind: str,
) -> None:
    """Every stream that loads by ranges lists what all have left, and each drops its own when it is done."""
    stream, look = find(source, "public.t"), getattr(PostgresCatalog, behind)
    others = [staging_name(letter * 32) for letter in "0z"]  # looked at first, and last
    ordered = cut_short(source, destination, stream)
    for other in others:
        key = '["p", "public.other", "other"]'
        script(postgres_url, f"create table {other} (); create table {other}_r as select '{key}' as stream")

    def look_too_early(*arguments: Any) -> Any:
        found = look(*arguments)
        if any("0" * 32 in str(name) for name in found):
            script(postgres_url, "drop table " + ", ".join(f"{other}, {other}_r" for other in others))
        return found

    monkeypatch.setattr(PostgresCatalog, behind, look_too_early)
    if is_recovery:
        destination.drop_staging([ordered.token])
    assert load(source, destination, stream)[0] == set(range(5))
    assert leftovers(postgres_url) == []


def test_whoever_is_resumed_by_another_process_writes_nothing_more(
    postgres_url: str, source: PostgresSource, destination: PostgresDestination
) -> None:
    stream, other = find(source, "public.t"), PostgresDestination({"url": postgres_url}, Path())
    held, resumed = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def freeze(part: Range) -> None:
        if part.place == 4:
            held.set()
            assert resumed.wait(30)

    def work() -> None:
        ordered = order(other, stream, "copied", WriteDisposition.REPLACE)
        try:
            with source.open_ranges(stream, 4, "arrow") as opened:
                list(other.load_ranges(ordered, Reads(opened, before=freeze, retries=9), 1, "arrow"))
        except BaseException as error:
            errors.append(error)

    frozen = threading.Thread(target=work)
    frozen.start()
    assert held.wait(30)
    taken, read, done = load(source, destination, stream)
    resumed.set()
    frozen.join()
    other.close()
    assert (taken, read[0], done.records) == (set(range(4)), 4, 500)
    assert isinstance(errors[0], TakenOver), errors
    assert rows(postgres_url, SUM.format("copied")) == rows(postgres_url, SUM.format("t"))
    assert leftovers(postgres_url) == []


#: What happens to a CSV file, or to how it is read -> whether its ranges are resumed.
FILES: dict[str, tuple[Callable[[Path], object], dict[str, Any], bool]] = {
    "nothing": (lambda path: None, {}, True),
    "read by others": (Path.read_bytes, {}, True),
    "appended": (lambda path: path.write_bytes(path.read_bytes() + b"9,z\n"), {}, False),
    "as many bytes": (lambda path: path.write_bytes(path.read_bytes().replace(b"x", b"y")), {}, False),
    "moved here": (lambda path: path.with_suffix(".new").write_bytes(path.read_bytes()), {}, False),
    "read otherwise": (lambda path: None, {"null_values": ["x5"]}, False),
}


@pytest.mark.parametrize("case", FILES)
def test_ranges_of_files_are_resumed_where_the_files_are_as_they_were(
    postgres_url: str, destination: PostgresDestination, tmp_path: Path, case: str
) -> None:
    change, config, is_resumed = FILES[case]
    path = tmp_path / "f.csv"
    path.write_text("id,v\n" + "".join(f"{n},x{n}\n" for n in range(1000)))
    source = CSVSource({"path": "f.csv", "range_bytes": 500}, tmp_path)
    cut_short(source, destination, source.discover()[0])
    change(path)
    with suppress(FileNotFoundError):
        path.with_suffix(".new").replace(path)
    source = CSVSource({"path": "f.csv", "range_bytes": 500, **config}, tmp_path)
    resumed, read, done = load(source, destination, source.discover()[0])
    assert (resumed, read[0]) == ((set(range(5)), 5) if is_resumed else (set(), 0))
    nulls = 1 if case == "read otherwise" else 0
    found = rows(postgres_url, "select count(*), count(distinct id), count(*) filter (where v is null) from copied")
    expected = path.read_text().count("\n") - 1
    assert found == [(expected, len(set(path.read_text().split())) - 1 - (case == "appended"), nulls)]
    assert done.records == expected
    assert leftovers(postgres_url) == []
