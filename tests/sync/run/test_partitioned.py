"""`partition_by` of a destination beside what decides about columns: guesses, exact numbers, added ones, functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from syncblocks import load_pipeline, run_pipeline
from syncblocks.sync.errors import ConfigError

FUNCTION = """
@transformer
def shout(df):
    df["loud"] = df["region"] + "!"
    return df
"""
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "exact": ("region", {"numbers": "exact"}, {}),
    "added": ("_from", {}, {"add_columns": {"_from": "crm"}}),
    "function": ("loud", {}, {}),
}


def document(folder: Path, column: str, config: dict[str, Any], stream: dict[str, Any]) -> dict[str, Any]:
    (folder / "orders.csv").write_text("id,region,price\n1,eu,1.10\n2,us,2.20\n")
    (folder / "shout.py").write_text(FUNCTION)
    return {
        "pipeline": "orders",
        "source": {"connector": "csv", "config": {"path": "orders.csv", **config}},
        "transformers": [{"file": "shout.py"}] if column == "loud" else None,
        "destination": {"connector": "parquet", "config": {"path": "out", "partition_by": [column]}},
        "streams": [{"stream": "orders", "key_properties": ["id"], "write_disposition": "merge", **stream}],
    }


@pytest.mark.parametrize("case", CASES)
def test_a_table_is_partitioned_by_a_column_whoever_decides_about_it(tmp_path: Path, case: str) -> None:
    pipeline = load_pipeline(document(tmp_path, *CASES[case]), folder=tmp_path)
    for _ in range(2):
        result = run_pipeline(pipeline)
        assert (result.status, result.error) == ("success", None)
        files = (tmp_path / "out" / "orders").rglob("*.parquet")
        found = {file.parent.name: pq.ParquetFile(file).read().column("id").to_pylist() for file in files}
        column = CASES[case][0]
        expected = {"region": {"region=eu": [1], "region=us": [2]}, "_from": {"%5Ffrom=crm": [1, 2]}}
        assert found == expected.get(column, {"loud=eu%21": [1], "loud=us%21": [2]})


def test_a_column_that_is_not_there_is_refused_by_the_plan(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="column 'regio' does not exist; the columns are id, region, price"):
        run_pipeline(load_pipeline(document(tmp_path, "regio", {}, {}), folder=tmp_path))
