"""Checks of Mage's data integration pipelines: streams, columns, bookmarks, names, templates."""

from __future__ import annotations

import csv
import json
from typing import Any

from syncblocks import count, load_pipeline, state, verify
from tests import services
from tests.sync.run.log_based import Logged

from .rows import shows
from .stage import INCREMENTAL, Stage

MERGE = {**INCREMENTAL, "key_properties": ["id"]}


@shows("S17", "S18")
def a_full_table_takes_the_place_of_the_former_one(stage: Stage) -> None:
    source = stage.shop_database()
    stage.run(source=source)
    stage.change("DELETE FROM visits WHERE id < 3")
    stage.run(source=source)
    assert stage.rows("SELECT id FROM visits") == [(3,)]


@shows("S19", "S29", "S44")
def incremental_reads_what_is_at_or_past_the_bookmark_once(stage: Stage) -> None:
    stream, source = {**INCREMENTAL, "write_disposition": "append"}, stage.shop_database()
    stage.run(stream, source=source)
    stage.change("INSERT INTO visits VALUES (4, 'tie', 20), (5, 'late', 15), (6, 'new', 30)")
    result = stage.run(stream, source=source)
    assert (result.streams["visits"].rows, result.streams["visits"].bookmark) == (2, {"changed": 30})
    assert stage.rows("SELECT id FROM visits ORDER BY 1") == [(1,), (2,), (3,), (4,), (6,)]
    assert stage.rows("SELECT pipeline, stream FROM _syncblocks_ledger") == [("shop", "visits")]


@shows("S20", "S21")
def log_based_copies_a_table_and_then_merges_its_changes(stage: Stage) -> None:
    assert "LOG_BASED" in stage.refused({"stream": "visits", "replication_method": "LOG_BASED"})
    with services.fresh_postgres_database(services.logging_postgres_server()) as url:
        logged = Logged(stage.folder, url, "duckdb")
        logged.document["streams"] = [{"stream": "public.visits", "replication_method": "LOG_BASED"}]
        logged.sql(
            "CREATE TABLE visits (id int PRIMARY KEY, name text)", "INSERT INTO visits VALUES (1, 'a'), (2, 'b')"
        )
        logged.succeed()
        logged.sql("DELETE FROM visits WHERE id = 1", "UPDATE visits SET name = 'c'")
        logged.succeed()
        assert logged.merged("visits") == [(2, "c")]
        stage.command("log", "drop", "logged.yaml")


@shows("S22", "S82")
def deleted_records_are_marked_or_deleted_without_a_log(stage: Stage) -> None:
    source = stage.shop_database()
    soft, hard = {**MERGE, "deletes": "soft"}, {**MERGE, "deletes": "hard", "destination_table": "hard"}
    for stream, name in ((soft, "shop"), (hard, "other")):
        stage.run(stream, source=source, pipeline=name)
    stage.change("DELETE FROM visits WHERE id = 1")
    for stream, name in ((soft, "shop"), (hard, "other")):
        stage.run(stream, source=source, pipeline=name)
    assert stage.rows("SELECT id FROM visits WHERE _deleted_at IS NOT NULL") == [(1,)]
    assert stage.rows("SELECT id FROM hard ORDER BY 1") == [(2,), (3,)]


@shows("S23")
def a_catalog_file_holds_keys_and_types(stage: Stage) -> None:
    stage.save()
    stage.command("discover", "--save")
    catalog = stage.folder / "shop.catalog.yaml"
    text = catalog.read_text()
    assert "id: int64" in text
    catalog.write_text(text.replace("id: int64", "id: string"))
    stage.run(catalog="shop.catalog.yaml")
    assert stage.rows("SELECT typeof(id) FROM visits") == [("text",)] * 3


@shows("S24", "S25")
def streams_and_columns_are_selected(stage: Stage) -> None:
    stage.run({"stream": "*", "columns": {"include": ["id"]}}, {"stream": "words", "selected": False})
    assert stage.rows("SELECT name FROM sqlite_master WHERE name IN ('visits', 'words')") == [("visits",)]
    assert stage.rows() == [(1,), (2,), (3,)]


@shows("S26", "S28", "S56")
def a_table_is_made_with_its_key_and_conflicts_are_settled(stage: Stage) -> None:
    source, kept = stage.shop_database(), {**MERGE, "unique_conflict_method": "IGNORE", "destination_table": "kept"}
    stage.run(MERGE, source=source)
    stage.run(kept, source=source, pipeline="other")
    assert next((row[1], row[5]) for row in stage.rows("PRAGMA table_info(visits)")) == ("id", 1)
    stage.change("UPDATE visits SET word = 'new', changed = 30 WHERE id = 1")
    stage.run(MERGE, source=source)
    stage.run(kept, source=source, pipeline="other")
    assert stage.rows("SELECT word FROM visits WHERE id = 1") == [("new",)]
    assert stage.rows("SELECT word FROM kept WHERE id = 1") == [("a",)]


@shows("S27")
def records_are_merged_by_unique_columns(stage: Stage) -> None:
    stream, source = {**MERGE, "unique_constraints": ["word"]}, stage.shop_database()
    stage.run(stream, source=source)
    stage.change("UPDATE visits SET id = 9, changed = 30 WHERE word = 'a'")
    stage.run(stream, source=source)
    assert stage.rows("SELECT id FROM visits ORDER BY 1") == [(2,), (3,), (9,)]


@shows("S30", "S64")
def operators_and_filters_say_what_is_read(stage: Stage) -> None:
    source = stage.shop_database()
    stream = {**INCREMENTAL, "bookmark_property_operators": {"changed": ">"}, "where": {"id": {"<": 9}}}
    stage.run(stream, source=source)
    stage.change("INSERT INTO visits VALUES (4, 'tie', 20), (5, 'new', 30), (9, 'filtered', 30)")
    assert stage.run(stream, source=source).streams["visits"].rows == 1


@shows("S31")
def records_are_parted_by_the_values_of_columns(stage: Stage) -> None:
    stage.write("shop/visits.csv", "id,place,changed\n1,eu,2024-01-01\n2,us,2024-01-02\n3,eu,2025-01-03\n")
    config = {"path": "out", "partition_by": ["place", "year(changed)"]}
    stage.run(destination={"connector": "csv", "config": config})
    found = {
        str(path.parent.relative_to(stage.folder / "out/visits")): [
            row[0] for row in csv.reader(path.read_text().splitlines())
        ][1:]
        for path in (stage.folder / "out/visits").rglob("*.csv")
    }
    assert found == {
        "place=eu/changed_year=2024": ["1"],
        "place=us/changed_year=2024": ["2"],
        "place=eu/changed_year=2025": ["3"],
    }


@shows("S32", "S57")
def a_new_column_is_added(stage: Stage) -> None:
    source = stage.shop_database()
    stage.run(MERGE, source=source)
    stage.change("ALTER TABLE visits ADD size INTEGER", "INSERT INTO visits VALUES (4, 'd', 30, 7)")
    stage.run(MERGE, source=source)
    assert stage.rows("SELECT id, size FROM visits WHERE id > 2 ORDER BY 1") == [(3, None), (4, 7)]


@shows("S33")
def a_record_that_does_not_fit_is_kept_beside(stage: Stage) -> None:
    stage.write("shop/visits.csv", "id,word\n1,a\nno number,b\n3,c\n")
    stage.run({"stream": "visits", "types": {"id": "int64"}, "on_rejected": "keep"})
    assert stage.rows("SELECT id FROM visits ORDER BY 1") == [(1,), (3,)]
    assert stage.rows("SELECT count(*) FROM _syncblocks_rejected") == [(1,)]


@shows("S34", "S35")
def tables_are_called_as_each_stream_or_a_pattern_says(stage: Stage) -> None:
    stage.run(
        {"stream": "*", "destination_table": "raw_{{ stream | table }}"},
        {"stream": "words", "destination_table": "dim_words"},
    )
    found = stage.rows("SELECT name FROM sqlite_master WHERE name LIKE 'raw%' OR name LIKE 'dim%' ORDER BY 1")
    assert found == [("dim_words",), ("raw_visits",)]


@shows("S36")
def types_arrive(stage: Stage) -> None:
    stage.write("shop/visits.csv", "id,real,sure,word,day,at\n1,0.5,true,ä,2024-02-29,2024-02-29T23:59:00Z\n")
    stage.run({"stream": "visits", "types": {"day": "date", "at": "timestamptz"}})
    (row,) = stage.rows()
    assert row[:5] == (1, 0.5, 1, "ä", "2024-02-29")
    assert row[5].startswith("2024-02-29 23:59:00")


@shows("S38", "S39", "S40", "S42")
def templates_are_filled_in(stage: Stage) -> None:
    stage.write(".syncblocks/secrets/place", '{"files": [{"path": "shop"}]}').chmod(0o600)
    stage.write("heard.py", "@callback\ndef heard(**kwargs):\n    say('heard', None, kwargs)\n")
    stage.run(
        {"stream": "visits", "add_columns": {"region": "{{ variables('region') }}", "day": "{{ n_days_ago(7) }}"}},
        source={"connector": "csv", "config": {"path": "{{ json_value(secret('place'), 'files[0].path') }}"}},
        destination={"connector": "sqlite", "config": {"path": "{{ env_var('OUT') }}.db"}},
        variables={"region": "eu"},
        options={"environ": {"OUT": "other"}},
    )
    ((region, day),) = set(stage.rows("SELECT region, day FROM visits", "other.db"))
    assert region == "eu"
    assert len(day) == 10


@shows("S41")
def a_store_of_secrets_that_is_not_there_is_told(stage: Stage) -> None:
    stage.save(variables={"key": "{{ vault_secret_var('mage/api', 'token') }}"})
    said = stage.command("plan", code=2, VAULT_URL="http://127.0.0.1:9", VAULT_TOKEN="t0ken-of-ours").stderr
    assert "HashiCorp Vault did not give 'token' of secret 'mage/api'" in said
    assert "t0ken-of-ours" not in said


@shows("S43")
def secrets_are_masked(stage: Stage) -> None:
    stage.write(
        "shows.py",
        "@callback\ndef shows(*, region, **kwargs):\n    print('is', region)\n    raise ValueError(region)\n",
    )
    stage.save(variables={"region": "{{ secret('place') }}"}, callbacks=[{"file": "shows.py", "attempts": 1}])
    done = stage.command("run", code=3, SYNCBLOCKS_SECRET_PLACE="s3cret-place")
    history = stage.command("callbacks", "history", "--json", SYNCBLOCKS_SECRET_PLACE="s3cret-place").stdout
    assert "is ***" in history
    assert "s3cret-place" not in done.stdout + done.stderr + history


@shows("S47", "S48", "S49")
def bookmarks_are_set_reset_and_given_for_one_run(stage: Stage) -> None:
    source = stage.shop_database()
    stage.save(MERGE, source=source)
    stage.command("run")

    def rows(*words: str) -> int:
        result = json.loads(stage.command("run", "--json", *words).stdout.splitlines()[-1])
        return int(result["streams"][0]["records"])

    stage.command("state", "rewind", "visits", "--to", "changed=10")
    assert rows() == 3
    stage.command("state", "set", "visits", "changed=40")
    assert rows() == 0
    stage.command("state", "reset", "visits")
    assert rows() == 3
    assert rows("--bookmark", "visits", "changed=10") == 3
    assert rows() == 0
    pipeline = load_pipeline(stage.folder / "shop.yaml")
    assert [each.bookmark["changed"] for each in state(pipeline).streams] == [20]


@shows("S55")
def mages_own_columns_are_written(stage: Stage) -> None:
    source, stream = stage.shop_database(), {**MERGE, "mage_columns": True}
    stage.run(stream, source=source)
    stage.change("UPDATE visits SET changed = 30 WHERE id = 1")
    stage.run(stream, source=source)
    found = stage.rows("SELECT _mage_created_at < _mage_updated_at FROM visits ORDER BY id")
    assert found == [(1,), (0,), (0,)]


@shows("S58")
def names_are_made_as_mage_makes_them(stage: Stage) -> None:
    stage.write("shop/visits.csv", "OrderID,Unit Price,Order\n1,2,3\n")
    destination = {"connector": "sqlite", "config": {"path": "out.db"}, "naming": "mage"}
    stage.run(destination=destination)
    assert [row[1] for row in stage.rows("PRAGMA table_info(visits)")] == ["orderid", "unit_price", "_order"]


@shows("S59")
def memory_of_a_run_is_bounded(stage: Stage) -> None:
    assert stage.run(memory="64MB").status == "success"
    assert "memory" in stage.refused(memory="1MB")


@shows("S61")
def columns_of_ones_own_are_added(stage: Stage) -> None:
    stage.run({"stream": "visits", "add_columns": {"origin": "crm", "rate": {"value": "1.5", "type": "double"}}})
    assert stage.rows("SELECT DISTINCT origin, rate FROM visits") == [("crm", 1.5)]


@shows("S63", "S70")
def an_interval_says_what_is_read(stage: Stage) -> None:
    stream: dict[str, Any] = {"stream": "visits", "types": {"changed": "date"}}
    stream["where"] = {"changed": {">=": "{{ interval_start_datetime }}", "<": "{{ interval_end_datetime }}"}}
    stage.save(stream)
    stage.command("run", "--interval-start", "2024-01-02", "--interval-end", "2024-01-03")
    assert stage.rows("SELECT id FROM visits") == [(2,)]
    assert "interval" in stage.command("run", code=2).stderr


@shows("S60", "S73")
def nothing_is_left_behind(stage: Stage) -> None:
    stage.write("heard.py", "@callback\ndef heard(data, **kwargs): ...\n")
    pipeline = load_pipeline(stage.document(callbacks=[{"file": "heard.py"}]), folder=stage.folder)
    stage.run(callbacks=[{"file": "heard.py"}])
    assert not list((stage.folder / ".syncblocks").rglob("*.arrow*"))
    assert [each.destination for each in count(pipeline).streams] == [3]
    assert [each.verdict for each in verify(pipeline)] == ["equal"]
