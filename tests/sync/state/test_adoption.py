"""Tables that another program made: used as they are while empty, adopted with their records, else refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from syncblocks import load_pipeline, run_pipeline
from syncblocks.sync.cli import invoke
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.session.inspection import opened
from syncblocks.sync.session.session import make_plan
from tests.sync.run.targets import Target, open_target

KINDS = ("sqlite", "duckdb", "postgres", "mysql", "psycopg")
TIMES = {"sqlite": "timestamp", "duckdb": "timestamp", "postgres": "timestamp", "mysql": "datetime(6)"}
CSV = "id,v,moved\n1,a,2024-01-01 10:00:00\n2,b,2024-01-02 10:00:00\n3,c,2024-01-03 10:00:00\n"


class Shop:
    """Orders in a CSV file, and the database that they go to."""

    def __init__(self, folder: Path, target: Target) -> None:
        self.folder, self.target = folder, target
        (folder / "data").mkdir()
        (folder / "data" / "orders.csv").write_text(CSV)
        #: Other keys of the pipeline.
        self.more: dict[str, Any] = {}
        self.stream: dict[str, Any] = {
            "stream": "orders",
            "replication_method": "INCREMENTAL",
            "bookmark_properties": ["moved"],
            "key_properties": ["id"],
        }

    def write(self) -> Path:
        document = {
            "pipeline": "shop",
            "source": {"connector": "csv", "config": {"path": "data"}},
            "destination": self.target.document,
            "streams": [self.stream],
            **self.more,
        }
        path = self.folder / "shop.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    def create(self, key: str = "id bigint primary key", v: str = "varchar(50)") -> None:
        self.target.query(f"create table orders ({key}, v {v}, moved {TIMES.get(self.target.kind, 'timestamp')})")

    def insert(self, number: int, day: int) -> None:
        self.target.query(f"insert into orders values ({number}, 'old', '2024-01-0{day} 10:00:00')")

    def state(self, *args: str) -> int:
        return invoke(["state", *args[:1], str(self.write()), *args[1:]])

    def values(self) -> list[tuple[Any, ...]]:
        return self.target.query("select id, v from orders order by id, v")


@pytest.fixture(params=KINDS)
def shop(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shop]:
    with open_target(request.param, tmp_path) as target:
        yield Shop(tmp_path, target)


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[Shop]:
    with open_target("sqlite", tmp_path) as target:
        yield Shop(tmp_path, target)


@pytest.mark.one_of("shop")
def test_a_table_with_records_is_adopted_and_goes_on_from_its_newest(
    shop: Shop, capfd: pytest.CaptureFixture[str]
) -> None:
    shop.create(v="text")
    shop.insert(1, 1)
    shop.insert(2, 2)
    with pytest.raises(ConfigError, match="syncblocks state adopt orders"):
        run_pipeline(shop.write())
    assert shop.state("set", "orders", "moved=2024-01-02") == 2
    assert "syncblocks state adopt orders" in capfd.readouterr().err
    assert shop.state("adopt", "orders") == 0, capfd.readouterr()
    assert "adopted to moved=2024-01-02T10:00:00" in capfd.readouterr().out
    assert shop.state("adopt", "orders") == 2
    assert "in the ledger already" in capfd.readouterr().err
    assert run_pipeline(shop.write()).status == "success"
    assert shop.values() == [(1, "old"), (2, "b"), (3, "c")]


@pytest.mark.one_of("shop")
@pytest.mark.parametrize("disposition", ["append", "merge"])
def test_an_empty_table_that_fits_is_used_as_it_is(shop: Shop, disposition: str) -> None:
    shop.create(v="text" if shop.target.kind != "mysql" else "longtext")
    shop.stream["write_disposition"] = disposition
    with opened(load_pipeline(shop.write())) as session:
        (planned,) = make_plan(session, None).streams
    assert (planned.start.reason, planned.texts.changes) == ("empty table of another program, used as it is", ())
    assert run_pipeline(shop.write()).status == "success"
    assert shop.values() == [(1, "a"), (2, "b"), (3, "c")]


@pytest.mark.one_of("shop")
def test_an_empty_table_that_would_be_changed_is_refused(shop: Shop) -> None:
    shop.target.query("create table orders (id bigint primary key, v text)")
    with pytest.raises(ConfigError, match=r"add column moved.*state adopt orders"):
        run_pipeline(shop.write())
    shop.stream |= {"replication_method": "FULL_TABLE", "bookmark_properties": None}
    with pytest.raises(ConfigError, match="state adopt orders"):  # a replace is no use of it as it is
        run_pipeline(shop.write())


def test_a_full_table_is_adopted_without_a_bookmark(lite: Shop) -> None:
    lite.create()
    lite.insert(9, 1)
    lite.stream = {"stream": "orders"}
    assert lite.state("adopt", "orders", "moved=2024-01-01") == 2
    assert lite.state("adopt", "orders") == 0
    assert run_pipeline(lite.write()).status == "success"
    assert lite.values() == [(1, "a"), (2, "b"), (3, "c")]


@pytest.mark.parametrize(
    ("key", "ids", "hint"),
    [
        ("id bigint", (1, 1), "the key 1, and it is not the only one"),
        ("id bigint", (1, "null"), "NULL in its key"),
        ("id bigint", (1, 2), "create unique index"),
        ("id date primary key", (), "types: {id: date}"),
    ],
)
def test_what_a_merge_could_not_go_on_with_is_refused(
    lite: Shop, key: str, ids: tuple[Any, ...], hint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    lite.create(key)
    for number in ids:
        lite.insert(number, 1)
    if not ids:
        lite.insert("'2024-01-01'", 1)  # type: ignore[arg-type]
    assert lite.state("adopt", "orders") == 2
    assert hint in capfd.readouterr().err
    assert not lite.target.query("select 1 from sqlite_master where name = '_syncblocks_ledger'")


@pytest.mark.parametrize("driver", ["psycopg", "duckdb"])
def test_a_unique_index_that_is_no_primary_key_is_enough(tmp_path: Path, driver: str) -> None:
    with open_target(driver, tmp_path) as target:
        shop = Shop(tmp_path, target)
        shop.create("id bigint", "text")
        shop.insert(1, 1)
        assert shop.state("adopt", "orders") == 2
        target.query("create unique index by_id on orders (id)")
        assert shop.state("adopt", "orders") == 0


def test_a_bookmark_set_before_the_first_run_counts_until_a_commit(
    lite: Shop, capfd: pytest.CaptureFixture[str]
) -> None:
    assert lite.state("set", "orders", "moved=2024-01-02") == 0, capfd.readouterr()
    assert run_pipeline(lite.write()).status == "success"
    assert lite.values() == [(2, "b"), (3, "c")]
    lite.target.query("drop table orders")
    assert lite.state("set", "orders", "moved=2024-01-03") == 2
    assert "is gone" in capfd.readouterr().err
    assert run_pipeline(lite.write()).status == "success"
    assert len(lite.values()) == 3


@pytest.mark.parametrize("has_function", [False, True])
def test_what_does_not_fit_is_told_also_where_a_transformer_decides_the_columns(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], has_function: bool
) -> None:
    with open_target("duckdb", tmp_path) as target:
        shop = Shop(tmp_path, target)
        target.query("create table orders (id bigint primary key, _v varchar, moved timestamptz)")
        if has_function:
            (tmp_path / "tidy.py").write_text("@transformer\ndef tidy(data): return data\n")
            shop.more["transformers"] = [{"block": "tidy", "file": "tidy.py"}]
        assert shop.state("adopt", "orders", "moved=2024-01-01") == (0 if has_function else 2)
        said = capfd.readouterr().err
        assert "rename: {v: _v}" in said
        if has_function:
            assert "unless a transformer makes other columns" in said
            assert "types: {moved: timestamptz}" in said
            return
        shop.more["transformers"] = [{"block": "names", "rename": {"v": "_v"}}]
        shop.more["source"] = {"connector": "csv", "config": {"path": "data", "timezone": "UTC"}}
        assert shop.state("adopt", "orders", "moved=2024-01-02T10:00:00Z") == 0
        assert "adopted to moved=2024-01-02T10:00:00+00:00" in capfd.readouterr().out
        assert run_pipeline(shop.write()).streams["orders"].rows == 2


def test_no_types_are_told_in_which_the_source_cannot_be_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Who copied `types: {moved: timestamp}` was told the same again."""
    with open_target("duckdb", tmp_path) as target:
        shop = Shop(tmp_path, target)
        target.query("create table orders (id bigint primary key, v varchar, moved timestamp)")
        with duckdb.connect(str(tmp_path / "crm.duckdb")) as connection:
            connection.execute("create table orders (id bigint primary key, v varchar, moved timestamptz)")
        shop.more["source"] = {"connector": "duckdb", "config": {"path": "crm.duckdb"}}
        assert shop.state("adopt", "orders", "moved=2024-01-01T00:00:00Z") == 2
        said = capfd.readouterr().err
        assert "change the table's column by hand" in said
        assert "copy into" not in said


def test_a_bookmark_has_the_type_that_the_table_decides(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with open_target("duckdb", tmp_path) as target:
        shop = Shop(tmp_path, target)
        target.query("create table orders (id bigint primary key, v varchar, moved timestamptz)")
        assert shop.state("adopt", "orders", "moved=2024-01-01") == 0
        assert "adopted to moved=2024-01-01T00:00:00+00:00" in capfd.readouterr().out


@pytest.mark.full
@pytest.mark.one_of("shop")
def test_an_append_that_a_unique_index_would_refuse_is_refused_before(
    shop: Shop, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its next run would write the records at the bookmark once more, and fail; each way out is one."""
    shop.create(v="text")
    for number in (1, 2):
        shop.insert(number, number)
    shop.stream["write_disposition"] = "append"
    assert shop.state("adopt", "orders") == 2
    said = capfd.readouterr().err
    assert "has a unique index on id: the next run writes records at the bookmark once more" in said
    assert "write_disposition: merge" in said
    ways = [({"bookmark_property_operators": {"moved": ">"}}, "old"), ({"write_disposition": "merge"}, "b")]
    for more, value in ways:
        shop.target.query("delete from orders where id = 3")
        own, shop.stream = shop.stream, shop.stream | more
        assert shop.state("adopt", "orders") == 0, capfd.readouterr()
        assert run_pipeline(shop.write()).status == "success"
        assert shop.values() == [(1, "old"), (2, value), (3, "c")]
        assert shop.state("reset", "--forget", "orders") == 0, capfd.readouterr()
        shop.stream = own
    assert shop.state("adopt", "orders", "moved=2024-01-03") == 0
    assert "its unique index on id refuses those that are there" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("index", "more", "is_fine"),
    [
        ("", {}, True),
        ("id", {}, False),
        ("number", {}, True),
        ("id", {"on_rejected": "keep"}, True),
        ("id", {"replication_method": "FULL_TABLE", "bookmark_properties": None}, False),
    ],
    ids=["none", "on a column of the stream", "on a column that the database fills", "rejected are kept", "FULL_TABLE"],
)
def test_whether_an_append_is_refused(lite: Shop, index: str, more: dict[str, Any], is_fine: bool) -> None:
    number = "number integer primary key autoincrement" if index == "number" else "number integer"
    lite.target.query(f"create table orders (id bigint, v text, moved timestamp, {number})")
    if index == "id":
        lite.target.query("create unique index by_id on orders (id)")
    for place in (1, 2):
        lite.target.query(f"insert into orders (id, v, moved) values ({place}, 'old', '2024-01-0{place} 10:00:00')")
    lite.stream |= {"write_disposition": "append", "key_properties": None, **more}
    assert lite.state("adopt", "orders") == (0 if is_fine else 2)
    if is_fine:
        assert run_pipeline(lite.write()).status == "success"


@pytest.mark.one_of("shop")
def test_an_appended_table_becomes_a_merged_one_once_its_key_was_checked(
    shop: Shop, capfd: pytest.CaptureFixture[str]
) -> None:
    """The bookmark stays where it was, and a record that comes again takes the place of the one that is there."""
    merged = {**shop.stream, "write_disposition": "merge"}
    shop.stream = {**shop.stream, "key_properties": [], "write_disposition": "append"}
    assert run_pipeline(shop.write()).status == "success"
    shop.stream = merged
    assert "state adopt" in str(run_pipeline(shop.write()).streams[0].error)
    shop.target.query("insert into orders (id, v) values (3, 'twice')")
    assert shop.state("adopt", "orders") == 2
    assert "the key 3" in capfd.readouterr().err
    shop.target.query("delete from orders where v = 'twice'")
    assert shop.state("adopt", "orders") == 0
    orders = shop.folder / "data" / "orders.csv"
    orders.write_text(CSV.replace("3,c", "3,new") + "4,d,2024-01-04 10:00:00\n")
    result = run_pipeline(shop.write())
    assert (result.status, result.streams[0].records) == ("success", 2)
    assert shop.values() == [(1, "a"), (2, "b"), (3, "new"), (4, "d")]
