"""A trigger of the destination that changes the bookmark: `verify` counts both sides alike, and offers no repair."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from syncblocks import load_pipeline
from syncblocks.sync.session.inspection import existing_store, opened
from syncblocks.sync.state.stream_state import set_state
from tests.sync.verify.verify_pairs import Pair, Places, damage, make_pair
from tests.sync.verify.verify_pairs import places as places
from tests.sync.verify.verify_pairs import servers as servers

TRIGGERS = {
    "postgres": [
        "create function newer_{0}() returns trigger language plpgsql as 'begin new.u := 1000; return new; end'",
        "create trigger newer before insert or update on {0} for each row execute function newer_{0}()",
    ],
    "mysql": [
        "create trigger newer_{0} before insert on {0} for each row set new.u = 1000",
        "create trigger later_{0} before update on {0} for each row set new.u = 1000",
    ],
    "sqlite": [
        "create trigger newer after insert on {0} begin update {0} set u = 1000 where id = new.id; end",
    ],
}
SYSTEMS = ["postgres", *(pytest.param(name, marks=pytest.mark.full) for name in ("mysql", "sqlite"))]


def records() -> pa.RecordBatch:
    ids = pa.array(range(1, 6), pa.int64())
    return pa.RecordBatch.from_pydict({"id": ids, "u": ids, "v": ids})


def incremental(folder: Path, places: Places, system: str, **stream: object) -> Pair:
    settings = {"replication_method": "INCREMENTAL", "bookmark_properties": ["u"], **stream}
    pair = make_pair(folder, places, system, system, records(), **settings)
    pair.run()
    return pair


def with_trigger(folder: Path, places: Places, system: str, **stream: object) -> Pair:
    pair = incremental(folder, places, system, **stream)
    damage(pair, [*TRIGGERS[system], "delete from {0}"], list)
    pair.run(full_refresh=True)
    return pair


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_trigger_that_changes_the_bookmark_is_told_and_nothing_is_repaired(
    system: str, tmp_path: Path, places: Places
) -> None:
    pair = with_trigger(tmp_path, places, system, write_disposition="merge")
    found = pair.verify(with_repairs=True)
    assert (found.verdict, found.source_records, found.destination_records) == ("counted", 5, 5)
    assert found.repair is None
    assert any("trigger" in note and "'newer" in note and "'u'" in note for note in found.notes), found.notes
    damage(pair, ["delete from {0} where id = 2"], list)
    found = pair.verify(with_repairs=True)
    assert (found.verdict, found.source_records, found.destination_records) == ("differs", 5, 4)
    assert found.repair is None
    assert "--full-refresh" in found.remedy


@pytest.mark.full
def test_an_appended_table_with_such_a_trigger_is_counted(tmp_path: Path, places: Places) -> None:
    pair = with_trigger(tmp_path, places, "postgres", write_disposition="append")
    found = pair.verify()
    assert (found.verdict, found.source_records, found.destination_records) == ("counted", 5, 5)
    assert any("'newer'" in note for note in found.notes), found.notes


def test_a_bookmark_that_was_changed_by_hand_is_counted_and_repaired(tmp_path: Path, places: Places) -> None:
    pair = incremental(tmp_path, places, "sqlite", write_disposition="merge")
    damage(pair, ["update {0} set u = 1000 where id < 3"], list)
    found = pair.verify()
    assert (found.verdict, found.source_records, found.destination_records) == ("differs", 5, 5)
    assert found.comparison is not None
    assert [(each.key, each.columns) for each in found.comparison.records] == [(("1",), ("u",)), (("2",), ("u",))]
    assert pair.repair() > 0
    assert pair.verify().verdict == "equal"


def test_records_past_the_bookmark_on_both_sides_are_left_out_on_both(tmp_path: Path, places: Places) -> None:
    """As after `state rewind`: the next run reads them again."""
    pair = incremental(tmp_path, places, "sqlite", write_disposition="merge")
    pipeline = load_pipeline(pair.folder / "p.yaml")
    with opened(pipeline) as session, existing_store(pipeline) as store:
        set_state(session, store, pair.table, {"u": "3"})
    found = pair.verify()
    assert (found.verdict, found.source_records, found.destination_records) == ("equal", 3, 3)
