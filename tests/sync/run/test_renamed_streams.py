"""A stream under another name that appends to the table of before: the plan warns, since nobody can tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from syncblocks import load_pipeline, run_pipeline
from syncblocks.sync.session.inspection import opened
from syncblocks.sync.session.session import make_plan


class Bench:
    """CSV files that are read by `n`, all into the table `all_orders`."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.settings: dict[str, Any] = {
            "replication_method": "INCREMENTAL",
            "bookmark_properties": ["n"],
            "write_disposition": "append",
            **settings,
        }
        (folder / "data").mkdir()

    def write(self, name: str) -> None:
        (self.folder / "data" / f"{name}.csv").write_text("id,n\n1,1\n2,2\n")

    def rename(self, name: str, other: str) -> None:
        (self.folder / "data" / f"{name}.csv").rename(self.folder / "data" / f"{other}.csv")

    @property
    def document(self) -> dict[str, Any]:
        return {
            "pipeline": "p",
            "store": f"sqlite:///{self.folder}/store.db",
            "source": {"connector": "csv", "config": {"path": f"{self.folder}/data"}},
            "destination": {"connector": "sqlite", "config": {"path": f"{self.folder}/w.db"}},
            "streams": [{"stream": "*", "destination_table": "all_orders", **self.settings}],
        }

    def warnings(self, *streams: str) -> Sequence[str]:
        with opened(load_pipeline(self.document)) as session:
            plan = make_plan(session, None, streams=streams)
        return [each for each in plan.warnings if "under another name" in each]

    def run(self) -> None:
        assert run_pipeline(self.document).exit_code == 0


def test_a_stream_that_appends_what_a_vanished_one_has_appended_is_warned_of(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.write("orders")
    assert bench.warnings() == []
    bench.run()
    bench.rename("orders", "orders_2")
    (warning,) = bench.warnings()
    assert warning == (
        "orders_2: table 'all_orders' holds records that stream 'orders' has appended, which is not in this pipeline "
        "any more. If it was orders_2 under another name, they are appended once more: `syncblocks state set orders_2 "
        "n=VALUE` makes the next run go on there, and `state show` has the value"
    )
    bench.run()
    assert bench.warnings() == []


def test_streams_that_share_a_table_are_none_to_warn_of(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.write("orders")
    bench.run()
    bench.write("orders_2")
    assert bench.warnings() == []
    assert bench.warnings("orders_2") == []


@pytest.mark.parametrize(
    "settings",
    [
        {"write_disposition": "merge", "key_properties": ["id"]},
        {"replication_method": "FULL_TABLE", "bookmark_properties": None},
    ],
    ids=["merge", "full_table"],
)
def test_what_doubles_nothing_or_always_is_none_to_warn_of(tmp_path: Path, settings: dict[str, Any]) -> None:
    bench = Bench(tmp_path, **settings)
    bench.write("orders")
    bench.run()
    bench.rename("orders", "orders_2")
    assert bench.warnings() == []
