"""A destination of another package, without a ledger: the wrapper around it loses none of its capabilities."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from syncblocks import load_pipeline, run_pipeline
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.run.results import RunResult
from tests.contracts.outside import STORES, Store


class Shop:
    """A pipeline of CSV files into the outside destination."""

    def __init__(self, folder: Path, store: str) -> None:
        self.folder = folder
        self.document: dict[str, Any] = {
            "source": {"connector": "csv", "config": {"path": "data"}},
            "destination": {"connector": "outside", "config": {"store": store}},
            "streams": [{"stream": "people", "on_lossy": "cast"}],
        }
        self.store = STORES.setdefault(store, Store())
        (folder / "data").mkdir()

    def seed(self, text: str, name: str = "people") -> None:
        (self.folder / "data" / f"{name}.csv").write_text(text)

    def run(self) -> RunResult:
        file = self.folder / "shop.yaml"
        file.write_text(yaml.safe_dump(self.document))
        return run_pipeline(load_pipeline(file))


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """Install the destination as a package does: by an entry point."""
    info = tmp_path / "site" / "outside-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[syncblocks.destinations]\noutside = tests.contracts.outside:OutsideDestination\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    name = uuid.uuid4().hex
    yield Shop(tmp_path, name)
    STORES.pop(name)


def test_its_records_arrive_and_its_bookmark_is_kept_by_the_run_store(shop: Shop) -> None:
    shop.document["streams"] = [
        {
            "stream": "people",
            "on_lossy": "cast",
            "replication_method": "INCREMENTAL",
            "bookmark_properties": ["id"],
        }
    ]
    shop.seed("id,name\n1,a\n2,b\n")
    assert shop.run().exit_code == 0
    shop.seed("id,name\n1,a\n2,b\n3,c\n")
    assert shop.run().exit_code == 0
    assert [record["id"] for record in shop.store.tables["people"]] == [1, 2, 3]


def test_a_column_that_it_keeps_with_loss_is_refused_before_anything_runs(shop: Shop) -> None:
    shop.document["streams"] = [{"stream": "people"}]
    shop.seed("id,name\n1,a\n")
    with pytest.raises(ConfigError, match=r"'id'.*int64.*int32|'id' is int64"):
        shop.run()
    assert shop.store.calls == []


def test_two_names_of_one_table_are_refused_where_one_replaces(shop: Shop) -> None:
    shop.seed("id,name\n1,a\n")
    shop.seed("id,name\n2,b\n", "other")
    shop.document["streams"] = [
        {"stream": "people", "on_lossy": "cast", "destination_table": "People", "write_disposition": "replace"},
        {"stream": "other", "on_lossy": "cast", "destination_table": "PEOPLE", "write_disposition": "append"},
    ]
    with pytest.raises(ConfigError, match="one table to this destination"):
        shop.run()


def test_it_keeps_rejected_records_and_says_which_it_cannot(shop: Shop) -> None:
    shop.document["source"]["config"]["types"] = {"id": "int32"}
    shop.document["streams"] = [{"stream": "people", "on_rejected": "keep"}]
    shop.seed("id,name\n1,a\nx,b\n3,c\n")
    result = shop.run()
    assert result.exit_code == 0
    assert [record["id"] for record in shop.store.tables["people"]] == [1, 3]
    assert [json.loads(each.record)["id"] for each in shop.store.rejected] == ["x"]
    assert result.streams[0].records_rejected == 1


def test_it_loads_by_ranges_and_the_run_store_keeps_the_commit(shop: Shop) -> None:
    shop.document["source"]["config"] |= {"range_bytes": 500, "types": {"id": "int32"}}
    shop.document["streams"] = [{"stream": "people", "write_disposition": "replace", "parallel_reads": 2}]
    shop.seed("id,name\n" + "".join(f"{number},{'x' * 20}\n" for number in range(1000)))
    result = shop.run()
    assert result.exit_code == 0
    assert "load_ranges" in shop.store.calls
    assert sorted(record["id"] for record in shop.store.tables["people"]) == list(range(1000))
    assert result.streams[0].records == 1000


def test_its_refusal_of_ledger_rows_counts_for_nothing(shop: Shop) -> None:
    """`refuses_keys` is dropped: the rows are the run store's."""
    shop.seed("id,name\n1,a\n")
    assert shop.run().exit_code == 0
