"""What a run tells of its progress while it reads: also of wires whose records are counted at their commit only."""

from __future__ import annotations

from pathlib import Path

import psycopg

from syncblocks import load_pipeline, run_pipeline
from syncblocks.sync.run.progress import Progress


class Told(Progress):
    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []

    def advanced(self, stream: str, *, records: int, size_bytes: int) -> None:
        self.steps.append((records, size_bytes))


def test_bytes_of_a_raw_copy_are_told_while_it_goes_on(postgres_url: str, tmp_path: Path) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute(
            "create schema src; create table src.wide as select n, repeat('x', 900) from generate_series(1, 4000) n"
        )
    file = tmp_path / "p.yaml"
    file.write_text(
        f"source: {{connector: postgres, config: {{url: '{postgres_url}'}}}}\n"
        f"destination: {{connector: postgres, config: {{url: '{postgres_url}', schema: dst}}}}\n"
        "streams: [{stream: src.wide}]\n"
    )
    told = Told()
    assert run_pipeline(load_pipeline(file), progress=told).status == "success"
    *before, last = told.steps
    assert last == (4000, 0)
    assert len(before) > 1
    assert {records for records, _ in before} == {0}
    assert sum(size_bytes for _, size_bytes in before) > 4000 * 900
