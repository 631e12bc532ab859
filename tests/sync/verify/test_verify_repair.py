"""Repairs: what differs is synced again, and nothing else changes."""

from __future__ import annotations

import json

import duckdb
import pytest

from syncblocks import load_pipeline
from syncblocks.sync.store import Store
from syncblocks.sync.store.model import AttemptPlan
from tests.conftest import RunCLI
from tests.sync.verify.verify_pairs import RECORDS, Pair, Places, damage, in_source
from tests.sync.verify.verify_pairs import pair as pair
from tests.sync.verify.verify_pairs import places as places
from tests.sync.verify.verify_pairs import servers as servers


@pytest.mark.full
def test_a_repair_leaves_the_bookmark_where_it_is(pair: Pair, places: Places) -> None:
    in_source(places, f"alter table {pair.table} add column at integer", f"update {pair.table} set at = id")
    pair.write(replication_method="INCREMENTAL", bookmark_properties=["at"])
    pair.run()
    in_source(
        places,
        f"insert into {pair.table} (id, name, at) values (30000, 'late', 17), (40000, 'next', 9999)",
    )
    damage(pair, ["delete from {} where id = 5", "insert into {} (id, name, \"at\") values (6000, 'stray', 4)"], list)
    assert 0 < pair.repair() < RECORDS
    found = pair.verify()
    assert (found.verdict, found.source_records) == ("equal", RECORDS + 1)
    pair.run()
    with duckdb.connect(pair.config["path"]) as connection:
        assert connection.execute(f'select count(*), max("at") from {pair.table}').fetchall() == [(RECORDS + 2, 9999)]


@pytest.mark.full
def test_a_record_goes_back_to_what_it_was_before_a_repair(pair: Pair, places: Places) -> None:
    """The repair has written another version since: what the bookmark's hashes tell of is not the last one."""
    in_source(places, f"alter table {pair.table} add column at integer", f"update {pair.table} set at = 1")
    pair.write(replication_method="INCREMENTAL", bookmark_properties=["at"])
    in_source(places, f"update {pair.table} set at = 2, name = 'former' where id = 5")
    pair.run()
    in_source(places, f"update {pair.table} set name = 'between' where id = 5")
    assert pair.repair() > 0
    in_source(places, f"update {pair.table} set name = 'former' where id = 5")
    pair.run()
    with duckdb.connect(pair.config["path"]) as connection:
        assert connection.execute(f"select name from {pair.table} where id = 5").fetchall() == [("former",)]


@pytest.mark.full
def test_a_repair_of_an_emptied_copy_fills_it_again(pair: Pair) -> None:
    pair.run()
    damage(pair, ["delete from {}"], list)
    assert pair.repair() == RECORDS
    assert pair.verify().verdict == "equal"


@pytest.mark.full
def test_a_replaced_copy_is_repaired_whatever_is_done_about_conflicts(pair: Pair) -> None:
    pair.write(unique_conflict_method="IGNORE")
    pair.run()
    damage(pair, ["delete from {} where id = 5", "update {} set name = 'x' where id = 6"], list)
    pair.repair()
    assert pair.verify().verdict == "equal"


def test_what_cannot_be_repaired_says_why(pair: Pair) -> None:
    pair.write(key_properties=[])
    pair.run()
    damage(pair, ["delete from {} where id = 5"], list)
    found = pair.verify(with_repairs=True)
    assert found.repair is None
    assert any("--full-refresh" in note for note in found.notes)


@pytest.mark.full
def test_the_command_says_what_differs_mends_it_and_is_in_the_history(pair: Pair, run_cli: RunCLI) -> None:
    pair.run()
    assert run_cli(["verify", "p.yaml"], pair.folder).returncode == 0
    damage(pair, ["delete from {} where id = 5", "update {} set name = 'x' where id = 6"], list)
    done = run_cli(["verify", "p.yaml"], pair.folder)
    assert done.returncode == 1
    assert "id=5: missing" in done.stdout
    assert "id=6: different in name" in done.stdout
    done = run_cli(["verify", "p.yaml", "--repair", "--json"], pair.folder)
    assert done.returncode == 0, done.stdout
    document = json.loads(done.stdout)
    assert [each["verdict"] for each in document["before"]] == ["differs"]
    assert [each["verdict"] for each in document["streams"]] == ["equal"]
    (named,) = (each["records"] for each in document["before"])
    assert {"key": {"id": "5"}, "kind": "missing", "columns": []} in named
    runs = json.loads(run_cli(["runs", "list", "p.yaml", "--json"], pair.folder).stdout)["runs"]
    assert len(runs) == 2


def test_a_repair_is_refused_while_the_pipeline_runs(pair: Pair, run_cli: RunCLI) -> None:
    pair.run()
    damage(pair, ["delete from {} where id = 5"], list)
    pipeline = load_pipeline(pair.folder / "p.yaml")
    with Store.open(pipeline.store_url) as store:
        store.begin_run(pipeline.pipeline, execution_date=pipeline.execution_date, plan=AttemptPlan(streams=()))
        done = run_cli(["verify", "p.yaml", "--repair"], pair.folder)
    assert done.returncode == 2
    assert "already running" in done.stderr
