"""Real targets from PyPI, installed by the product itself: records and types as they come out of them."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import RunCLI

pytestmark = pytest.mark.full

TABLES = {
    "orders": {
        "columns": {
            "id": "int64",
            "amount": "decimal(12,2)",
            "note": "string",
            "paid": "bool",
            "weight": "float64",
            "seen": "timestamp[us, tz=UTC]",
            "day": "date32",
        },
        "key": ["id"],
        "records": [
            {
                "id": 1,
                "amount": "1234567890.10",
                "note": 'a "quoted" \\ line\nbreak',
                "paid": True,
                "weight": 0.1,
                "seen": "2024-01-01T10:00:00+00:00",
                "day": "2024-01-01",
            },
            {
                "id": 2,
                "amount": "-0.01",
                "note": "täglich 😀",
                "paid": False,
                "weight": 1e20,
                "seen": "2024-01-02T10:00:00.000001+00:00",
                "day": "1999-12-31",
            },
            {"id": 3, "amount": None, "note": None, "paid": None, "weight": None, "seen": None, "day": None},
        ],
    }
}


def write(folder: Path, destination: dict[str, Any], tables: dict[str, Any] = TABLES, **stream: Any) -> None:
    pipeline = {
        "pipeline": "real",
        "source": {"connector": "memory", "config": {"tables": tables}},
        "destination": {"connector": "singer", "config": destination},
        "streams": [{"stream": "orders", **stream}],
    }
    (folder / "p.yaml").write_text(yaml.safe_dump(pipeline))


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One folder of installed plugins for all tests here."""
    return {"SYNCBLOCKS_PLUGINS": str(tmp_path_factory.mktemp("plugins"))}


def test_target_jsonl_gets_every_record_exactly(tmp_path: Path, plugins: dict[str, str], run_cli: RunCLI) -> None:
    config = {"destination_path": "out", "do_timestamp_file": False}
    write(tmp_path, {"target": "target-jsonl", "pip": "target-jsonl==0.1.4", "config": config})
    done = run_cli(["run"], tmp_path, plugins, timeout_s=110)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out" / "orders.jsonl").read_text().splitlines()
    records = [json.loads(line, parse_float=Decimal) for line in lines]
    assert [record["id"] for record in records] == [1, 2, 3]
    assert [record["amount"] for record in records] == [Decimal("1234567890.10"), Decimal("-0.01"), None]
    assert records[0]["note"] == 'a "quoted" \\ line\nbreak'
    assert records[1]["note"] == "täglich 😀"
    assert [record["day"] for record in records] == ["2024-01-01", "1999-12-31", None]


@pytest.mark.timeout(300)
def test_target_postgres_keeps_types_and_merges(
    tmp_path: Path, plugins: dict[str, str], run_cli: RunCLI, postgres_url: str
) -> None:
    import psycopg

    config = {"sqlalchemy_url": postgres_url, "hard_delete": True}
    settings = {"pip": "meltanolabs-target-postgres==0.8.1", "config": config}
    incremental = {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
    write(tmp_path, settings, **incremental)
    done = run_cli(["run"], tmp_path, plugins, timeout_s=280)
    assert done.returncode == 0, done.stderr
    found = "select id, amount, note, paid, weight, seen at time zone 'UTC', day from {} order by id"
    with psycopg.connect(postgres_url) as connection:
        (schema,) = connection.execute("select table_schema from information_schema.tables where table_name = 'orders'")
        table = f'"{schema[0]}".orders'
        rows = connection.execute(found.format(table)).fetchall()
        assert [row[0] for row in rows] == [1, 2, 3]
        assert [row[1] for row in rows] == [Decimal("1234567890.10"), Decimal("-0.01"), None]
        assert [row[2] for row in rows] == ['a "quoted" \\ line\nbreak', "täglich 😀", None]
        assert [row[3] for row in rows] == [True, False, None]
        assert [str(row[6]) for row in rows] == ["2024-01-01", "1999-12-31", "None"]
    changed = json.loads(json.dumps(TABLES))
    changed["orders"]["records"] = [{"id": 3, "note": "now known"}, {"id": 4, "note": "new"}]
    write(tmp_path, settings, changed, **incremental)
    done = run_cli(["run"], tmp_path, plugins, timeout_s=110)
    assert done.returncode == 0, done.stderr
    with psycopg.connect(postgres_url) as connection:
        rows = connection.execute(f"select id, note from {table} order by id").fetchall()
    assert rows[2:] == [(3, "now known"), (4, "new")]
    shown = json.loads(run_cli(["state", "show", "--json"], tmp_path, plugins).stdout)
    assert shown["streams"][0]["bookmark"] == {"id": 4}
