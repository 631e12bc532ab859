"""Numbers of a file table whose column becomes another type: each is kept as it is, or the stream fails before."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

from syncblocks import RunResult, run_pipeline

WIDE = Decimal("12345678901234567890.0123456789")
DECIMAL, SHORT = pa.decimal128(30, 10), pa.decimal128(10, 2)


def synced(folder: Path, connector: str, disposition: str, key: int, kind: Any, value: object) -> RunResult:
    """Sync a source that now holds this one record."""
    (folder / "data").mkdir(exist_ok=True)
    table = pa.table({"id": pa.array([key]), "v": pa.array([value], kind)})
    pyarrow.parquet.write_table(table, folder / "data" / "items.parquet")
    document = {
        "pipeline": "items",
        "source": {"connector": "parquet", "config": {"path": "data"}},
        "destination": {"connector": connector, "config": {"path": "out"}},
        "streams": [{"stream": "items", "key_properties": ["id"], "write_disposition": disposition}],
    }
    (folder / "items.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return run_pipeline(folder / "items.yaml")


def held(folder: Path) -> dict[int, str]:
    """Read the values back as they are written."""
    found: dict[int, str] = {}
    for file in sorted((folder / "out").rglob("items*")) + sorted((folder / "out" / "items").glob("part-*")):
        if "_syncblocks" in str(file) or file.is_dir():
            continue
        if file.suffix == ".parquet":
            found |= {record["id"]: str(record["v"]) for record in pyarrow.parquet.read_table(file).to_pylist()}
        elif file.suffix == ".csv":
            with file.open(newline="", encoding="utf-8") as lines:
                found |= {int(record["id"]): record["v"] for record in csv.DictReader(lines)}
        else:
            texts = file.read_text(encoding="utf-8").splitlines()
            found |= {record["id"]: record["v"] for record in (json.loads(text, parse_float=str) for text in texts)}
    return {key: str(value) for key, value in found.items()}


@pytest.mark.one_of
@pytest.mark.thinned(2)
@pytest.mark.parametrize("disposition", ["merge", "append"])
@pytest.mark.parametrize("connector", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize(
    ("before", "old", "after", "new"),
    [
        (DECIMAL, WIDE, pa.float64(), 0.5),
        (pa.float64(), 0.5, DECIMAL, WIDE),
        (pa.float32(), 0.5, SHORT, Decimal("12345678.12")),
        (SHORT, Decimal("12345678.12"), pa.float64(), 0.5),
        (pa.int64(), 2**53 + 1, pa.float64(), 0.5),
        (pa.list_(pa.float64()), [0.5], pa.list_(DECIMAL), [WIDE]),
        (pa.map_(pa.string(), pa.float64()), [("k", 0.5)], pa.map_(pa.string(), DECIMAL), [("k", WIDE)]),
    ],
    ids=[
        "decimal-double",
        "double-decimal",
        "float-decimal",
        "short-decimal-double",
        "integer-double",
        "lists",
        "maps",
    ],
)
def test_a_type_that_would_round_numbers_is_refused(
    tmp_path: Path, connector: str, disposition: str, before: Any, old: object, after: Any, new: object
) -> None:
    assert synced(tmp_path, connector, disposition, 1, before, old).status == "success"
    known = held(tmp_path)
    assert list(known) == [1]
    result = synced(tmp_path, connector, disposition, 2, after, new)
    assert result.status == "failure"
    assert "column 'v'" in str(result.streams[0].error)
    assert "config.types" not in str(result.streams[0].error), "that is a setting of sources"
    assert held(tmp_path) == known


@pytest.mark.one_of("connector")
@pytest.mark.parametrize("disposition", ["merge", "append"])
@pytest.mark.parametrize("connector", ["jsonl", "csv", "parquet"])
def test_integers_that_are_doubles_become_some(tmp_path: Path, connector: str, disposition: str) -> None:
    assert synced(tmp_path, connector, disposition, 1, pa.int64(), 2**53).status == "success"
    assert synced(tmp_path, connector, disposition, 2, pa.float64(), 0.5).status == "success"
    assert {key: float(value) for key, value in held(tmp_path).items()} == {1: 2.0**53, 2: 0.5}
