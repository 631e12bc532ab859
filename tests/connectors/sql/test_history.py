"""A history in each SQL system holds what a model in plain Python says, whatever arrives."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.read_spec import ReadSpec
from syncblocks.connectors.registry import connector_class
from syncblocks.connectors.stream import (
    ADDED,
    ENDS,
    NEWEST,
    VALID_FROM,
    VALID_TO,
    Checkpoint,
    HistoryLoad,
    LedgerKey,
    Load,
    Stream,
)
from syncblocks.connectors.write_spec import WriteDisposition, WriteSpec
from tests.connectors.sql.history_model import Batch, Model, arrow_type, held, loads, moment
from tests.connectors.sqlalchemy import firebird_files
from tests.thinned import only_full

# The cursors of Firebird's driver complain about the order in which they are freed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

#: Histories, and loads of each.
SEEDS, LOADS = (range(20), 8) if os.environ.get("SYNCBLOCKS_FAULTS") == "full" else (range(3), 5)
#: Text files are written by what writes Parquet, and all of `sqlalchemy` by what writes through psycopg.
SYSTEMS = (
    *("postgres", "mysql", "duckdb", "sqlite", "parquet", "psycopg"),
    *only_full("csv", "jsonl", "firebird", "pymysql"),
)
#: Systems by way of `sqlalchemy`, and their URLs.
ALCHEMY: dict[str, Callable[[str], str]] = {
    "psycopg": lambda url: url.replace("postgresql:", "postgresql+psycopg:"),
    "pymysql": lambda url: url.replace("mysql:", "mysql+pymysql:"),
    "firebird": lambda url: url,
}
TIME = pa.timestamp("us", "UTC")
KEY = LedgerKey(pipeline="history", stream="people", destination_table="people")


class Bench:
    """A destination, and its table as its system's own client reads it."""

    def __init__(self, system: str, url: str, folder: Path) -> None:
        self.system, self.url, self.path = system, url, folder / "out.db"
        connector = system if system not in ALCHEMY else "sqlalchemy"
        config = (
            {"url": ALCHEMY[system](url)} if system in ALCHEMY else {"url": url} if url else {"path": str(self.path)}
        )
        self.destination: Any = connector_class(connector, "destination")(config, folder)

    def load(
        self, batches: Sequence[Batch], model: Model, *, ends: bool = False, marked: pa.Table | None = None
    ) -> list[int]:
        """Write one load with a commit for each batch; return what each commit has written."""
        token = secrets.token_hex(16)
        row = self.destination.take_over(KEY, token=token, owner="test", source="test://source")
        history = HistoryLoad(
            has_versions=model.has_versions,
            time=model.bookmark if model.has_versions else "",
            in_place=model.in_place,
            known={NEWEST: "", ENDS: ends} | ({ADDED: row.history[ADDED]} if ADDED in row.history else {}),
        )
        load = Load(
            key=KEY,
            stream=_stream(batches[0], model),
            write=WriteSpec(disposition=WriteDisposition.HISTORY, kept=tuple(model.kept)),
            token=token,
            run=f"{token}:1",
            columns=row.columns,
            history=history,
            marked=marked,
        )
        return [commit.records for commit in self.destination.load(load, _events(batches, model))]

    def held(self) -> list[tuple[Any, ...]]:
        self.destination.close()  # DuckDB lets go of the file
        return held(self.system, self.url, self.path)


def _stream(batch: Batch, model: Model) -> Stream:
    fields = [pa.field("id", pa.int64(), nullable=False)]
    fields += [pa.field(name, arrow_type(name)) for name in batch.columns]
    fields += [pa.field(VALID_FROM, TIME, nullable=False), pa.field(VALID_TO, TIME)]
    marks = (model.bookmark,) if model.bookmark in batch.columns else ()
    schema = pa.schema(fields)
    return Stream(
        name="people", schema=schema, key_properties=("id", VALID_FROM), read=ReadSpec(bookmark_properties=marks)
    )


def _events(batches: Sequence[Batch], model: Model) -> Iterator[Any]:
    for number, batch in enumerate(batches):
        schema = _stream(batch, model).schema
        if number and batch.columns != batches[number - 1].columns:
            yield _stream(batch, model)
        records = [{"id": key, VALID_FROM: moment(at), VALID_TO: None, **values} for key, at, values in batch.records]
        if records:
            yield pa.RecordBatch.from_pylist(records, schema=schema)
        yield Checkpoint(is_final=batch is batches[-1])


Make = Callable[[str], Bench]


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    made: list[Bench] = []

    def bench(system: str) -> Bench:
        urls = {"postgres": "postgres_url", "mysql": "mariadb_url", "psycopg": "postgres_url", "pymysql": "mariadb_url"}
        url = request.getfixturevalue(urls[system]) if system in urls else ""
        if system == "firebird":
            url = firebird_files.create(tmp_path / "out.db")
        made.append(Bench(system, url, tmp_path))
        return made[-1]

    yield bench
    for each in made:
        each.destination.close()


@pytest.mark.full
@pytest.mark.one_of
@pytest.mark.thinned(2)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mode", ["run", "bookmark", "records"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_history_is_what_the_model_says(make: Make, system: str, mode: str, seed: int) -> None:
    bench = make(system)
    model = Model(has_versions=mode == "records", bookmark="mark" if mode == "bookmark" else "")
    has_nan = system in ("postgres", "duckdb", "parquet")
    for number, batches in enumerate(loads(str(seed), has_versions=model.has_versions, has_nan=has_nan, count=LOADS)):
        written = bench.load(batches, model)
        assert written == [len(batch.records) for batch in batches], "what has arrived, new or not"
        model.run(batches)
        if model.rows:
            assert bench.held() == model.table(), f"load {number}"
            assert model.has_no_gaps()


def _marks(ended: Sequence[int], returned: Sequence[int], at: int, model: Model) -> pa.Table:
    """Return what a comparison of keys has found, as `Load.marked` says it."""
    begin = None if model.has_versions else moment(at)
    rows = [{"id": key, VALID_FROM: None, VALID_TO: moment(at)} for key in ended]
    rows += [{"id": key, VALID_FROM: begin, VALID_TO: None} for key in returned]
    schema = pa.schema([pa.field("id", pa.int64()), pa.field(VALID_FROM, TIME), pa.field(VALID_TO, TIME)])
    return pa.Table.from_pylist(rows, schema=schema)


@pytest.mark.full
@pytest.mark.thinned(2)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mode", ["run", "records"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_versions_end_and_begin_again_as_the_model_says(make: Make, system: str, mode: str, seed: int) -> None:
    bench, chance = make(system), random.Random(f"{mode} {seed}")
    model = Model(has_versions=mode == "records", bookmark="mark" if mode == "records" else "")
    drawn = loads(str(seed), has_versions=model.has_versions, has_nan=False, count=LOADS + 3, bookmark=model.bookmark)
    for number, batches in enumerate(drawn, 1):
        bench.load(batches, model, ends=True)
        model.run(batches)
        assert not model.rows or bench.held() == model.table(), f"load {number}"
        at = chance.randrange(1, 14) if model.has_versions else number * 10
        gone, back = ([key for key in range(5) if chance.random() < 0.5] for _ in range(2))
        back = [key for key in back if key not in gone]
        bench.load([Batch(batches[-1].columns, ())], model, ends=True, marked=_marks(gone, back, at, model))
        model.end(gone, at)
        model.return_(back, at if not model.has_versions else 0)
        assert not model.rows or bench.held() == model.table(), f"keys of load {number}"
        assert model.has_no_overlaps()
