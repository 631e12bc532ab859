"""`verify` and its repair keep to `memory`, however wide the records are."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psycopg
import pytest

from tests import services
from tests.peaks import peak_bytes


@pytest.mark.full
def test_wide_records_that_differ_are_compared_within_the_budget(tmp_path: Path) -> None:
    """320 MB on each side, a difference in each thousand records."""
    with services.fresh_postgres_database() as source, services.fresh_postgres_database() as destination:
        document = {
            "memory": "64MB",
            "source": {"connector": "postgres", "config": {"url": source}},
            "destination": {"connector": "postgres", "config": {"url": destination}},
            "streams": [{"stream": "public.wide", "key_properties": ["id"], "write_disposition": "merge"}],
        }
        (tmp_path / "p.yaml").write_text(json.dumps(document))
        with psycopg.connect(source) as connection:
            connection.execute(
                "create table wide as select id, repeat(md5(id::text), 1250) as doc from generate_series(1, 8000) as id"
            )
        program = str(Path(sys.executable).with_name("syncblocks"))
        peak_bytes([program, "run", "p.yaml"], tmp_path)
        with psycopg.connect(destination) as connection:
            connection.execute("update wide set doc = 'damaged' where id % 500 = 7")
        assert peak_bytes([program, "verify", "--repair", "p.yaml"], tmp_path) < 250_000_000
        assert peak_bytes([program, "verify", "p.yaml"], tmp_path) < 250_000_000
