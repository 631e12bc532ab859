"""What `verify` counts and what it compares: bookmarks, appends, keys, columns, transformers, empty tables."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest
import yaml

from syncblocks import load_pipeline, run_pipeline
from syncblocks.sync.session.inspection import count_streams, opened
from tests.sync.verify.verify_pairs import (
    RECORDS,
    Pair,
    Places,
    damage,
    found_damage,
    in_source,
    make_pair,
    plain_records,
)
from tests.sync.verify.verify_pairs import pair as pair
from tests.sync.verify.verify_pairs import places as places
from tests.sync.verify.verify_pairs import servers as servers


@pytest.mark.full
def test_incremental_counts_what_was_read_and_not_what_has_changed_since(pair: Pair, places: Places) -> None:
    in_source(places, f"alter table {pair.table} add column at integer", f"update {pair.table} set at = id")
    pair.write(replication_method="INCREMENTAL", bookmark_properties=["at"])
    pair.run()
    in_source(
        places,
        f"update {pair.table} set at = 10000 + id, name = 'newer' where id % 100 = 0",
        f"insert into {pair.table} (id, name, at) values (20000, 'new', 20000)",
    )
    found = pair.verify()
    assert (found.verdict, found.source_records) == ("equal", RECORDS - 50), found
    assert found.comparison is not None
    assert found.comparison.changed_since == 51
    # Committed late, below the bookmark: no run will read it.
    in_source(places, f"insert into {pair.table} (id, name, at) values (30000, 'late', 17)")
    found = pair.verify()
    assert (found.verdict, found_damage(found)) == ("differs", {("30000", "missing", ())})


def test_a_float_that_two_systems_write_differently_is_no_difference(tmp_path: Path, places: Places) -> None:
    """PostgreSQL writes 1e23 as 9.999999999999999e+22, which reads back as the same double."""
    batch = plain_records()
    batch = batch.set_column(2, "part", pa.array([1e23 if n < 1500 else n / 3 for n in range(RECORDS)]))
    pair = make_pair(tmp_path, places, "postgres", "duckdb", batch)
    pair.run()
    assert pair.verify().verdict == "equal"


@pytest.mark.full
def test_append_is_counted_unless_it_is_equal(pair: Pair) -> None:
    pair.write(write_disposition="append")
    pair.run()
    assert pair.verify().verdict == "equal"
    pair.run()
    found = pair.verify()
    assert (found.verdict, found.destination_records) == ("counted", 2 * RECORDS)
    assert found.notes == ("append: the destination holds every record 2 times, and nothing else",)
    damage(pair, ["update {} set name = 'older' where id = 7"], list)
    assert pair.verify().notes == ("append: the destination may hold a record several times, and in older versions",)
    damage(pair, ["delete from {}"], list)
    assert pair.verify().verdict == "differs"


def test_append_is_equal_though_its_texts_have_another_order_there(tmp_path: Path, places: Places) -> None:
    """`B` is the last but one by the source's collation, and among the first by the destination's."""
    pair = make_pair(tmp_path, places, "postgres", "postgres", plain_records())
    pair.write(write_disposition="append", replication_method="INCREMENTAL", bookmark_properties=["name"])
    with psycopg.connect(places.source["postgres"]["url"], autocommit=True) as connection:
        connection.execute(f'alter table {pair.table} alter column name type text collate "und-x-icu"')
        connection.execute(f"update {pair.table} set name = case when id % 2 = 0 then 'a' else 'B' end")
        pair.run()
        assert pair.verify().verdict == "equal"
        connection.execute(f"insert into {pair.table} (id, name) values (9000, 'late, and above')")
    assert pair.verify().verdict == "equal"
    damage(pair, ["delete from {} where id = 7"], list)
    assert pair.verify().verdict == "differs"


def test_append_is_equal_though_its_numbers_are_texts_there(tmp_path: Path, places: Places) -> None:
    """Among the texts of a file `9` is past the bookmark `10`."""
    numbers = pa.array([Decimal(n) for n in range(2, 12)], pa.decimal256(50, 0))
    pair = make_pair(tmp_path, places, "postgres", "jsonl", pa.record_batch({"id": numbers}))
    pair.write(write_disposition="append", replication_method="INCREMENTAL", bookmark_properties=["id"])
    pair.run()
    assert pair.verify().verdict == "equal"


def test_without_a_key_all_records_together_are_compared(pair: Pair) -> None:
    pair.write(key_properties=[])
    pair.run()
    assert pair.verify().verdict == "equal"
    damage(pair, ["update {} set name = 'changed' where id = 7"], list)
    found = pair.verify()
    assert (found.verdict, found.key) == ("differs", ())
    assert any("no key" in note for note in found.notes)


def test_a_column_without_a_name_marks_no_records(tmp_path: Path, places: Places) -> None:
    pair = make_pair(tmp_path, places, "parquet", "jsonl", pa.record_batch({"id": [1, 2], "": ["a", "b"]}))
    pair.run()
    assert pair.verify().verdict == "equal"


def test_columns_of_one_side_are_left_out(pair: Pair) -> None:
    pair.write(columns={"exclude": ["part"]})
    pair.run()
    damage(pair, ["alter table {} add column mine integer", "update {} set name = 'x' where id = 4000"], list)
    found = pair.verify()
    assert found_damage(found) == {("4000", "different", ("name",))}
    assert found.notes == ("only in the destination: mine",)


def test_what_a_transformer_changes_is_counted(pair: Pair) -> None:
    (pair.folder / "t.py").write_text("@transformer\ndef change(df):\n    return df.assign(name='x')\n")
    path = pair.folder / "p.yaml"
    document = yaml.safe_load(path.read_text())
    document["transformers"] = [{"block": "change", "file": "t.py"}]
    path.write_text(yaml.safe_dump(document))
    pair.run()
    found = pair.verify()
    assert (found.verdict, found.source_records, found.destination_records) == ("counted", RECORDS, RECORDS)
    assert any("transformer" in note for note in found.notes)


def test_a_table_that_is_not_there_differs(pair: Pair) -> None:
    found = pair.verify()
    assert (found.verdict, found.source_records, found.destination_records) == ("differs", RECORDS, 0)


@pytest.mark.full
@pytest.mark.parametrize(("destination", "schema"), [("postgres", "public"), ("duckdb", "main")])
def test_a_table_outside_of_the_schema_of_the_config_is_found(
    tmp_path: Path, places: Places, destination: str, schema: str
) -> None:
    places.destination[destination]["schema"] = schema
    pair = make_pair(tmp_path, places, "sqlite", destination, plain_records())
    pair.table = f"{pair.table}_schema.copies"
    pair.write(destination_table=pair.table)
    pair.run()
    assert pair.verify().verdict == "equal"
    damage(pair, ["delete from {} where id = 7"], list)
    assert found_damage(pair.verify()) == {("7", "missing", ())}
    with opened(load_pipeline(pair.folder / "p.yaml")) as session:
        assert count_streams(session).streams[0].destination == RECORDS - 1
    pair.repair()
    assert pair.verify().verdict == "equal"


def test_a_copy_that_may_not_be_read_is_not_called_missing(tmp_path: Path, places: Places) -> None:
    pair = make_pair(tmp_path, places, "sqlite", "postgres", plain_records())
    pair.run()
    url = places.destination["postgres"]["url"]
    who = f"blind_{pair.table}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"create role {who} login")
        try:
            connection.execute(f"grant all on _syncblocks_ledger to {who}")
            path = pair.folder / "p.yaml"
            document = yaml.safe_load(path.read_text())
            document["destination"]["config"] = {**places.destination["postgres"], "user": who}
            path.write_text(yaml.safe_dump(document))
            found = pair.verify()
        finally:
            connection.execute(f"drop owned by {who}; drop role {who}")
    assert found.verdict == "failed"
    assert "permission denied" in found.notes[0]


def test_everything_differs_in_bounded_work(pair: Pair) -> None:
    """One by one only the first thousand are named; the rest as ranges."""
    pair.run()
    damage(pair, ["update {} set name = name || '!'"], list)
    found = pair.verify()
    assert found.comparison is not None
    assert not found.comparison.is_complete
    assert sum(each.source_records for each in found.comparison.ranges) == RECORDS
    assert 1000 <= len(found.comparison.records) < RECORDS


def test_an_empty_copy_is_one_range(pair: Pair) -> None:
    pair.run()
    damage(pair, ["delete from {}"], list)
    found = pair.verify()
    assert found.comparison is not None
    (gone,) = found.comparison.ranges
    assert (gone.source_records, gone.destination_records) == (RECORDS, 0)


@pytest.mark.full
def test_a_run_that_is_told_to_verifies_what_it_has_synced(pair: Pair) -> None:
    pair.write(verify=True)
    result = run_pipeline(pair.folder / "p.yaml")
    assert (result.streams[0].verdict, result.exit_code) == ("equal", 0)
    pair.write(write_disposition="merge")
    damage(pair, ["insert into {} (id, name) values (-5, 'stray')"], list)
    result = run_pipeline(pair.folder / "p.yaml")  # a merge leaves it where it is
    assert (result.status, result.streams[0].verdict, result.exit_code) == ("success", "differs", 1)
    pair.write(verify=False)
    assert run_pipeline(pair.folder / "p.yaml").streams[0].verdict is None
