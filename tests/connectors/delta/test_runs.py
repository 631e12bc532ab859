"""Pipelines into Delta tables: plan, run, verify, deletes, state and adoption, as a user types them."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from deltalake import DeltaTable, write_deltalake

from syncblocks.connectors.errors import TakenOver
from syncblocks.connectors.stream import Checkpoint
from syncblocks.sync.cli import invoke
from tests.connectors.delta.delta_loads import FINAL, begin, destination_of, items, load_of, run
from tests.connectors.delta.delta_tables import read_table, unnamed_files


class Shop:
    """Items in SQLite, and a pipeline that writes them into a lake."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sql("create table items (id integer primary key, name text, price decimal(10, 2), at timestamp)")
        self.stream: dict[str, Any] = {"stream": "items", "write_disposition": "merge"}
        self.config: dict[str, Any] = {"path": "lake"}
        #: Further keys of the pipeline.
        self.top: dict[str, Any] = {}

    def sql(self, statement: str, rows: Sequence[Sequence[Any]] = ()) -> None:
        with closing(sqlite3.connect(self.folder / "shop.db")) as connection, connection:
            connection.executemany(statement, rows) if rows else connection.execute(statement)

    def insert(self, *numbers: int) -> None:
        rows = [(n, f"n{n}", f"{n}.25", f"2024-01-01 00:00:{n % 60:02}") for n in numbers]
        self.sql("insert or replace into items values (?, ?, ?, ?)", rows)

    def command(self, *words: str) -> int:
        document = {
            "pipeline": "shop",
            "source": {"connector": "sqlite", "config": {"path": "shop.db", "checkpoint_records": 2}},
            "destination": {"connector": "delta", "config": self.config},
            "streams": [self.stream],
            **self.top,
        }
        path = self.folder / "shop.yaml"
        path.write_text(yaml.safe_dump(document))
        head = 2 if words[0] == "state" else 1
        return invoke([*words[:head], str(path), *words[head:]])

    def held(self) -> list[tuple[int, str]] | None:
        found = read_table(self.folder / "lake", "items")
        return None if found is None else sorted((row["id"], row["name"]) for row in found)

    @property
    def table(self) -> DeltaTable:
        return DeltaTable((self.folder / "lake" / "items").as_uri())


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


INCREMENTAL = {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}


@pytest.mark.full
def test_a_newcomer_plans_runs_and_verifies(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.insert(1, 2, 3)
    assert shop.command("check") == 0
    assert shop.command("plan", "--types") == 0
    assert "timestampNtz" in capsys.readouterr().out
    assert shop.command("run") == 0
    assert shop.command("verify") == 0
    assert shop.command("count") == 0
    shop.sql("update items set name = 'changed' where id = 2")
    assert shop.command("verify") == 1
    assert shop.command("verify", "--repair") == 0
    assert shop.held() == [(1, "n1"), (2, "changed"), (3, "n3")]
    assert shop.command("run", "--full-refresh") == 0
    assert shop.command("verify") == 0
    assert shop.held() == [(1, "n1"), (2, "changed"), (3, "n3")]


@pytest.mark.full
@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_records_that_are_deleted_at_the_source_go_or_are_marked(shop: Shop, mode: str) -> None:
    shop.stream |= {**INCREMENTAL, "deletes": {"mode": mode, "limit": "100%"}}
    shop.insert(*range(1, 8))
    assert shop.command("run") == 0
    shop.sql("delete from items where id in (2, 5)")
    shop.insert(8)
    assert shop.command("run") == 0
    rows = read_table(shop.folder / "lake", "items") or []
    gone = {row["id"] for row in rows if row.get("_deleted_at") is not None}
    assert ({row["id"] for row in rows}, gone) == (
        ({1, 3, 4, 6, 7, 8}, set()) if mode == "hard" else (set(range(1, 9)), {2, 5})
    )
    assert shop.command("verify") == 0


@pytest.mark.full
def test_state_is_shown_rewound_and_reset(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.stream |= {**INCREMENTAL, "write_disposition": "append"}
    assert shop.command("state", "set", "items", "id=2") == 0, "before the table is there"
    shop.insert(*range(1, 6))
    assert shop.command("run") == 0
    assert shop.held() == [(2, "n2"), (3, "n3"), (4, "n4"), (5, "n5")]
    version = shop.table.version()
    shop.insert(6)
    assert shop.command("run") == 0
    shop.table.restore(version)
    assert shop.command("state", "set", "items", "id=5") == 0
    assert shop.command("run") == 0
    assert [number for number, _ in shop.held() or []] == [2, 3, 4, 5, 5, 6], "at a bookmark set by hand all are read"
    assert shop.command("state", "show") == 0
    assert "id=6" in capsys.readouterr().out


def _restored(shop: Shop) -> None:
    """Restore the table to the records 1, 2 and 3, while its ledger row stands at 5."""
    shop.insert(1, 2, 3)
    assert shop.command("run") == 0
    version = shop.table.version()
    shop.insert(4, 5)
    assert shop.command("run") == 0
    shop.table.restore(version)


@pytest.mark.full
def test_an_append_to_a_restored_table_continues_at_the_newest_record_after_a_rewind(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.stream |= {**INCREMENTAL, "write_disposition": "append"}
    _restored(shop)
    capsys.readouterr()
    assert shop.command("plan") == 2
    error = capsys.readouterr().err
    assert "syncblocks state rewind items --to id=VALUE" in error
    assert "--full-refresh" in error
    assert "state set" not in error, "an append would write the records at the bookmark once more"
    assert shop.command("run") == 1
    for wrong in ("id=2", "id=4"):
        capsys.readouterr()
        assert shop.command("state", "rewind", "items", "--to", wrong) == 2
        assert "id=3" in capsys.readouterr().err
    assert shop.command("state", "rewind", "items", "--to", "id=3") == 0
    assert "once more" not in capsys.readouterr().err
    assert shop.command("run") == 0
    assert shop.command("run") == 0
    assert [number for number, _ in shop.held() or []] == [1, 2, 3, 4, 5]


@pytest.mark.full
def test_a_full_merge_into_a_restored_table_continues_with_a_warning(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    _restored(shop)
    assert shop.command("run") == 0
    assert "RESTORE" in capsys.readouterr().err
    assert shop.command("verify") == 0
    assert [number for number, _ in shop.held() or []] == [1, 2, 3, 4, 5]


@pytest.mark.full
def test_an_append_to_a_restored_table_needs_records_that_no_function_has_changed(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.stream |= {**INCREMENTAL, "write_disposition": "append"}
    shop.top = {"transformers": [{"block": "same", "file": "same.py"}]}
    (shop.folder / "same.py").write_text("@transformer\ndef same(data):\n    return data\n")
    _restored(shop)
    assert shop.command("state", "rewind", "items", "--to", "id=3") == 2
    assert "transformer" in capsys.readouterr().err
    assert shop.command("run", "--full-refresh") == 0
    assert [number for number, _ in shop.held() or []] == [1, 2, 3, 4, 5]


@pytest.mark.full
@pytest.mark.parametrize("ids", [(1, 2), (1, 1)])
def test_a_table_of_another_program_is_adopted_if_its_keys_are_keys(
    shop: Shop, ids: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    shop.stream |= INCREMENTAL
    shop.insert(1, 2, 3)
    records = pa.table({"id": pa.array(ids, pa.int64()), "name": ["old", "old"]})
    write_deltalake((shop.folder / "lake" / "items").as_uri(), records)
    assert shop.command("run") == 2, "records that we have not written"
    assert shop.command("state", "adopt", "items") == 2
    assert "reader 3, writer 7" in capsys.readouterr().err, "a time without a zone would raise the table's protocol"
    shop.stream["on_lossy"] = "text"
    adopted = shop.command("state", "adopt", "items")
    if ids == (1, 1):
        assert adopted == 2
        assert "not the only one" in capsys.readouterr().err
        return
    assert adopted == 0
    assert shop.command("run") == 0
    assert shop.held() == [(1, "old"), (2, "n2"), (3, "n3")]
    assert shop.table.protocol().min_writer_version == 2


def _age(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - 90_000,) * 2)


@pytest.mark.parametrize("is_taken_over", [False, True])
def test_recover_lists_and_removes_files_that_a_killed_load_has_left(
    shop: Shop, is_taken_over: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its run store is lost, and its stream runs no more."""
    lake = shop.folder / "lake"
    run(destination_of(lake), load_of("append", "t0"), items((1, "a")), FINAL)
    commits = begin(destination_of(lake), load_of("append", "t1"), [items((2, "b")), Checkpoint(bookmark={}), FINAL])
    next(commits)
    table = lake / "items"
    (table / "part-dead.parquet").write_bytes(b"12345")
    live = next(table.glob("part-*.snappy.parquet")).name
    written, row = table / "_syncblocks" / "written", next(table.glob("_syncblocks/syncblocks-*"))
    (written / "t1.json").write_text(f'["part-dead.parquet", "part-gone.parquet", "{live}"]')
    (row / "99.json").write_text("{}")
    (table / "part-foreign.parquet").write_bytes(b"")
    if is_taken_over:  # by one that was killed before it cleared up
        kept = (written / "t1.json").read_text()
        destination_of(lake).take_over(load_of("append", "t2").key, token="t2", owner="o", source="s")
        (table / "part-dead.parquet").write_bytes(b"12345")
        (written / "t1.json").write_text(kept)
        (row / "99.json").write_text("{}")
    assert shop.command("recover") == 0
    assert "no run was left open" in (told := capsys.readouterr().out)
    assert "files" not in told, "they are too young"
    _age(lake)
    before = DeltaTable(table.as_uri()).version()
    assert shop.command("recover") == 0
    told = capsys.readouterr().out
    assert "part-dead.parquet (5 bytes)" in told
    assert "3 files of killed runs, over a day old, which no commit names" in told
    assert f"recover {shop.folder / 'shop.yaml'} --remove-files" in told
    assert (DeltaTable(table.as_uri()).version(), (table / "part-dead.parquet").exists()) == (before, True)
    assert shop.command("recover", "--remove-files") == 0
    assert "3 files of killed runs, which no commit named: removed" in capsys.readouterr().out
    assert unnamed_files(lake, "items") == {"part-foreign.parquet"}
    assert {path.name for path in row.iterdir()}.isdisjoint({"99.json"})
    with pytest.raises(TakenOver):
        list(commits)
    assert sorted(row["id"] for row in read_table(lake, "items") or []) == [1, 2]


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        ({"write_disposition": "history"}, "history"),
        ({"write_disposition": "replace_range", "range_column": "id"}, "replace_range"),
        ({"on_rejected": "keep"}, "on_rejected"),
    ],
    ids=str,
)
def test_what_is_not_built_is_refused_by_the_plan(
    shop: Shop, stream: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.stream |= stream
    assert shop.command("plan") == 2
    assert said in capsys.readouterr().err
    assert shop.held() is None


def test_a_lake_is_no_source(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    (shop.folder / "p.yaml").write_text(
        "source: {connector: delta, config: {path: lake}}\ndestination: {connector: memory}\nstreams: [{stream: '*'}]\n"
    )
    assert invoke(["plan", str(shop.folder / "p.yaml")]) == 2
    assert "source.connector: there is no such" in capsys.readouterr().err


class Changing:
    """A file that changes between two runs into a lake."""

    def __init__(self, folder: Path, connector: str) -> None:
        self.folder, self.connector = folder, connector
        (folder / "in").mkdir()

    def put(self, number: int, value: Any) -> None:
        if self.connector == "parquet":
            pq.write_table(pa.table({"id": [number], "n": [value]}), self.folder / "in" / "t.parquet")
        else:
            (self.folder / "in" / "t.csv").write_text(f"id,n\n{number},{value}\n")

    def command(self, word: str, **stream: Any) -> int:
        document = {
            "source": {"connector": self.connector, "config": {"path": "in"}},
            "destination": {"connector": "delta", "config": {"path": "lake"}},
            "streams": [{"stream": "t", "write_disposition": "append", **stream}],
        }
        path = self.folder / "p.yaml"
        path.write_text(yaml.safe_dump(document))
        return invoke([word, str(path)])

    def rows(self) -> list[tuple[int, Any]]:
        return sorted((row["id"], row["n"]) for row in read_table(self.folder / "lake", "t") or [])


def test_plan_and_run_agree_on_a_double_for_a_column_of_integers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = Changing(tmp_path, "parquet")
    file.put(1, 5)
    assert file.command("run") == 0
    file.put(2, 1.5)
    capfd.readouterr()
    for stream in ({}, {"on_lossy": "text"}, {"key_properties": ["n"], "on_schema_change": "widen"}):
        for word, code in (("plan", 2), ("run", 1)):
            assert file.command(word, **stream) == code, (word, stream)
            offered = capfd.readouterr().err
            assert "on_lossy" not in offered
            assert ("say `on_schema_change: widen`" in offered) == (not stream.get("key_properties"))
    assert file.command("plan", on_schema_change="widen") == 0
    assert file.command("run", on_schema_change="widen") == 0
    assert file.rows() == [(1, "5"), (2, "1.5")]


def test_guessed_integers_that_get_fractions_become_a_decimal(tmp_path: Path) -> None:
    file = Changing(tmp_path, "csv")
    file.put(1, 5)
    assert file.command("run") == 0
    file.put(2, 1.5)
    assert file.command("plan") == 0
    assert file.command("run") == 0
    assert file.rows() == [(1, 5), (2, Decimal("1.5"))]


def test_the_types_that_a_value_of_another_kind_names_work_with_widen(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = Changing(tmp_path, "csv")
    file.put(1, "2024-01-02")
    assert file.command("run") == 0
    file.put(2, "2024-01-02T03:04:05")
    assert file.command("run") == 1
    assert "t.csv:2: column 'n'" in (shown := capfd.readouterr().err)
    assert "`types: {n: string}`" in shown
    assert file.command("plan", types={"n": "string"}) == 2
    assert file.command("run", types={"n": "string"}, on_schema_change="widen") == 0
    assert file.rows() == [(1, "2024-01-02"), (2, "2024-01-02T03:04:05")]
