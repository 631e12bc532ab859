"""Each type of each system into each other, read back by another library: exact, as text or refused, never changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from syncblocks import RunResult, run_pipeline
from tests import services
from tests.golden.columns import GOLDEN
from tests.golden.systems import FILES, make, read_back, rows
from tests.golden.values import Column, normal


class Golden:
    """Places of both sides, and runs from one to the other."""

    def __init__(self, folder: Path, source: str, destination: str, places: tuple[str, str]) -> None:
        self.folder, self.source, self.destination, self.places = folder, source, destination, places

    def run(self, columns: list[Column], **options: Any) -> RunResult:
        stream = {"postgres": "public.golden", "mysql": f"{self.places[0].rpartition('/')[2]}.golden"}
        document = {
            "pipeline": "golden",
            "source": {"connector": self.source, "config": self._config(self.source, self.places[0])},
            "destination": {"connector": self.destination, "config": self._config(self.destination, self.places[1])},
            "on_lossy": "text",
            "streams": [
                {
                    "stream": stream.get(self.source, "golden"),
                    "destination_table": "golden",
                    "columns": {"include": ["id", *(column.name for column in columns)]},
                    **options,
                }
            ],
        }
        file = self.folder / "golden.yaml"
        file.write_text(json.dumps(document), encoding="utf-8")
        return run_pipeline(file)

    @staticmethod
    def _config(system: str, place: str) -> dict[str, Any]:
        return {"url": place} if system in ("postgres", "mysql") else {"path": place}


@pytest.fixture
def places(request: pytest.FixtureRequest, tmp_path: Path, source: str, destination: str) -> tuple[str, str]:
    def place(system: str, role: str) -> str:
        if system in ("postgres", "mysql"):
            fixture = {"postgres": "postgres_url", "mysql": "mariadb_url"}[system]
            return str(request.getfixturevalue(fixture if role == "source" else f"other_{fixture}"))
        return str(tmp_path / (role if system in FILES else f"{role}.{system}"))

    return place(source, "source"), place(destination, "destination")


@pytest.fixture
def other_postgres_url() -> Iterator[str]:
    with services.fresh_postgres_database() as url:
        yield url


@pytest.fixture
def other_mariadb_url() -> Iterator[str]:
    with services.fresh_mariadb_database() as url:
        yield url


@pytest.mark.one_of("destination")
@pytest.mark.parametrize("destination", GOLDEN)
@pytest.mark.parametrize("source", GOLDEN)
def test_types_arrive_as_they_are(tmp_path: Path, source: str, destination: str, places: tuple[str, str]) -> None:
    columns = GOLDEN[source]
    make(source, places[0], columns)
    golden = Golden(tmp_path, source, destination, places)
    kept = [column for column in columns if destination not in column.refused_by]
    result = golden.run(kept)
    assert result.status == "success", [result.error, *(stream.error for stream in result.streams)]
    found = read_back(destination, places[1], kept)
    expected = rows(kept, 1)
    wrong = {}
    for place, column in enumerate(kept):  # all at once: a table of what differs
        there = [normal(column.kind, row[place]) for row in found]
        unlike = column.unlike.get(destination, ())
        wanted = [normal(column.kind, unlike[n] if n < len(unlike) else row[place]) for n, row in enumerate(expected)]
        if there != wanted:
            wrong[column.name] = [pair for pair in zip(wanted, there, strict=False) if pair[0] != pair[1]]
    assert not wrong
    for column in columns:
        if destination in column.refused_by:
            refused = golden.run([column])
            assert refused.status == "failure", f"{column.name} was taken"
            assert column.name in str(refused.streams[0].error)
