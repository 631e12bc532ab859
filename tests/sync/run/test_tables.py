"""Whose table it is: what a run refuses to write, and what the ledger says of a table's past."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from syncblocks import PipelineFailed
from syncblocks.sync.errors import ConfigError
from tests.conftest import RunCLI
from tests.connectors.postgres.postgres_pair import script
from tests.sync.pipelines import Bench, statuses
from tests.sync.pipelines import bench as bench
from tests.sync.run.targets import open_target


def test_a_name_that_the_ledger_cannot_hold_is_refused_before_anything_is_made(bench: Bench, mariadb_url: str) -> None:
    from tests.connectors.mysql.mysql_databases import tables

    bench.document["destination"] = {"connector": "mysql", "config": {"url": mariadb_url}}
    bench.document["streams"] = [{"stream": "a" * 300, "destination_table": "a"}]
    bench.seed("a" * 300, 1)
    with pytest.raises(ConfigError, match="has 300 characters, and the ledger in MySQL stores names of up to 255"):
        bench.run()
    assert tables(mariadb_url) == set()
    bench.document["streams"] = [{"stream": "a" * 255, "destination_table": "a"}]
    bench.seed("a" * 255, 1)
    assert bench.run().exit_code == 0


def test_a_strangers_table_is_replaced_only_if_the_stream_says_so(bench: Bench) -> None:
    import pyarrow as pa

    bench.seed("a", 2)
    bench.destination.tables["a"] = pa.table({"mine": [1]})
    with pytest.raises(ConfigError, match="write_disposition: replace"):
        bench.run()
    assert bench.destination.tables["a"].column_names == ["mine"]
    bench.document["streams"] = [{"stream": "a", "write_disposition": "replace"}]
    assert bench.run().exit_code == 0
    assert len(bench.rows("a")) == 2


def test_a_pipeline_that_was_renamed_appends_nothing_twice(bench: Bench) -> None:
    entry = {"stream": "a", "replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
    bench.document["streams"] = [{**entry, "write_disposition": "append"}]
    bench.seed("a", 2)
    bench.run()
    bench.document["pipeline"] = "renamed"
    with pytest.raises(ConfigError, match="pipeline: bench") as caught:
        bench.run()
    assert "double" in str(caught.value)
    assert len(bench.rows("a")) == 2
    bench.document["streams"] = [{**entry, "write_disposition": "merge"}]
    assert bench.run().status == "success"
    assert len(bench.rows("a")) == 2


def test_pipelines_of_several_sources_append_to_one_table(bench: Bench) -> None:
    entry = {"stream": "a", "replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
    bench.document["streams"] = [{**entry, "write_disposition": "append"}]
    bench.seed("a", 2)
    bench.run()
    bench.document["pipeline"] = "other"
    bench.source_name = bench.document["source"]["config"]["database"] = f"other-{bench.source_name}"
    bench.seed("a", 2)
    assert bench.run().status == "success"
    assert len(bench.rows("a")) == 4


@pytest.mark.parametrize("kind", ["memory", "sqlite", "duckdb", "postgres", "mysql"])
def test_a_full_refresh_of_an_append_makes_no_key_that_the_next_append_stumbles_over(tmp_path: Path, kind: str) -> None:
    bench = Bench(tmp_path)
    entry = {"stream": "a", "replication_method": "INCREMENTAL", "bookmark_properties": ["n"]}
    bench.document["streams"] = [{**entry, "write_disposition": "append"}]
    with open_target(kind, tmp_path) as target:
        if kind != "memory":
            bench.document["destination"] = target.document
        records = [{"id": 1, "n": 1}, {"id": 1, "n": 2}]
        bench.seed("a", records)
        assert statuses(bench.run(full_refresh=True)) == {"a": "success"}
        bench.seed("a", [*records, {"id": 1, "n": 3}])
        assert statuses(bench.run()) == {"a": "success"}
        rows = bench.rows("a") if kind == "memory" else target.query("select id, n from a")
        assert len(rows) == 3


@pytest.mark.parametrize("disposition", ["merge", "replace"])
def test_the_plan_warns_of_a_column_that_the_table_computes(
    tmp_path: Path, postgres_url: str, run_cli: RunCLI, disposition: str
) -> None:
    script(postgres_url, "create table a (id int primary key, n int); insert into a values (1, 5)")
    script(postgres_url, "create table b (id int primary key, n int generated always as (id * 10) stored)")
    place = {"connector": "postgres", "config": {"url": postgres_url}}
    entry = {"stream": "public.a", "destination_table": "b"}
    document = {"source": place, "destination": place, "streams": [{**entry, "write_disposition": "replace"}]}
    (tmp_path / "p.yaml").write_text(json.dumps(document))
    assert run_cli(["run", "p.yaml"], tmp_path).returncode == 0
    document["streams"] = [{**entry, "write_disposition": disposition}]
    (tmp_path / "p.yaml").write_text(json.dumps(document))
    shown = run_cli(["plan", "p.yaml"], tmp_path)
    assert "public.a: the table computes n" in shown.stderr


@pytest.mark.parametrize("engine", ["MyISAM", "Aria"])
def test_a_table_without_transactions_is_refused_where_it_would_be_written(
    bench: Bench, mariadb_url: str, engine: str
) -> None:
    from tests.connectors.mysql.mysql_databases import is_mariadb, query, run

    if engine == "Aria" and not is_mariadb(mariadb_url):
        pytest.skip("only MariaDB has Aria")
    bench.document["destination"] = {"connector": "mysql", "config": {"url": mariadb_url}}
    bench.seed("a", 2)
    assert bench.run().exit_code == 0
    run(mariadb_url, f"alter table a engine = {engine}", "alter table a add key other (id)")
    for disposition in ("append", "merge", "replace"):
        bench.document["streams"] = [{"stream": "a", "write_disposition": disposition}]
        with pytest.raises(PipelineFailed, match=f"table 'a' uses the engine {engine}, which has no transactions"):
            bench.run().raise_for_status()
    run(mariadb_url, "alter table a drop key other")
    bench.seed("a", 3)
    assert bench.run().exit_code == 0
    engines = "select engine from information_schema.tables where table_schema = database() and table_name = 'a'"
    assert query(mariadb_url, f"select count(*), ({engines}) from a")[1] == [(3, "InnoDB")]


def test_a_sequence_that_has_the_tables_name_stays(bench: Bench, mariadb_url: str) -> None:
    from tests.connectors.mysql.mysql_databases import is_mariadb, query, run

    if not is_mariadb(mariadb_url):
        pytest.skip("only MariaDB has sequences")
    run(mariadb_url, "create sequence a start with 7")
    bench.document["destination"] = {"connector": "mysql", "config": {"url": mariadb_url}}
    bench.document["streams"] = [{"stream": "a", "write_disposition": "replace"}]
    bench.seed("a", 2)
    with pytest.raises(ConfigError, match="'a' is no table of the destination"):
        bench.run()
    assert query(mariadb_url, "select nextval(a)")[1] == [(7,)]


def test_a_dropped_table_starts_from_scratch_whatever_the_ledger_says(bench: Bench) -> None:
    bench.document["streams"] = [{"stream": "a", "replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}]
    bench.seed("a", 5)
    bench.run()
    del bench.destination.tables["a"]
    bench.run()
    assert len(bench.rows("a")) == 5


def test_a_lost_ledger_row_makes_append_refuse_and_merge_start_over(bench: Bench) -> None:
    entry = {"stream": "a", "replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
    for disposition in ("append", "merge"):
        bench.document["streams"] = [{**entry, "write_disposition": disposition, "destination_table": disposition}]
        bench.seed("a", 3)
        bench.run()
        bench.destination.ledger.clear()
        if disposition == "append":
            with pytest.raises(PipelineFailed, match="state set"):
                bench.run().raise_for_status()
        else:
            bench.run()
        assert len(bench.rows(disposition)) == 3


def test_the_ledger_row_of_another_source_is_refused(bench: Bench) -> None:
    bench.seed("a", 3)
    bench.run()
    other = Bench(bench.folder)
    other.seed("a", 1)
    bench.document["source"]["config"]["database"] = other.source_name
    with pytest.raises(PipelineFailed, match="another source"):
        bench.run().raise_for_status()


def test_two_streams_that_replace_one_table_are_refused(bench: Bench) -> None:
    bench.seed("a", 1)
    bench.seed("b", 1)
    bench.document["streams"] = [{"stream": "*", "destination_table": "same"}]
    with pytest.raises(ConfigError, match="same"):
        bench.run()


def test_a_table_that_is_its_own_destination_is_refused(bench: Bench) -> None:
    bench.seed("a", 1)
    bench.document["destination"]["config"]["database"] = bench.source_name
    with pytest.raises(ConfigError, match="its own destination"):
        bench.run()
