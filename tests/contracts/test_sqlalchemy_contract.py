"""`sqlalchemy` under the contracts: over Firebird, which has no connector here, and psycopg's dialect, unlike it."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.protocols import Destination, Source
from syncblocks.connectors.sqlalchemy.destination import SQLAlchemyDestination
from syncblocks.connectors.sqlalchemy.source import SQLAlchemySource
from syncblocks.connectors.testing import DestinationContract, Feature, Quirks, SourceContract
from syncblocks.connectors.testing.destination_base import APPEND, FINAL
from syncblocks.connectors.testing.source_bookmarks import BOOKMARKS
from syncblocks.connectors.testing.values import VALUES
from tests.connectors.sqlalchemy import firebird_files as firebird
from tests.contracts import test_contracts

#: Firebird keeps seconds with four digits behind the point.
COARSE = ("aware datetimes", "naive timestamps", "times")


CASES = Quirks(lacks={Feature.CASE_PAIRS: "some systems fold names: all are taken for such"})


# The driver's own cursors complain about the order in which they are freed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class Firebird:
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _freed(cls) -> Iterator[None]:
        """Free those cursors here, and not in another class's test, where a complaint is an error."""
        yield
        gc.collect()

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        self.url = firebird.create(tmp_path / "x.fdb")
        return tmp_path / "x.fdb"

    def config(self, place: Path) -> Mapping[str, Any]:
        return {"url": self.url, "checkpoint_records": 1}

    def bad_configs(self, place: Path) -> Sequence[Mapping[str, Any]]:
        place.with_name("text.fdb").write_text("no database " * 1000)
        return [{"url": self.url.replace("x.fdb", name)} for name in ("missing.fdb", "text.fdb")]


class TestFirebirdSource(Firebird, SourceContract):
    connector = SQLAlchemySource

    def put(self, place: Path, table: str, records: pa.Table, key: Sequence[str] = ()) -> None:
        firebird.put(place, table, records, key)

    @pytest.mark.parametrize("name", [name for name in VALUES if name not in COARSE])
    def test_values_arrive_unchanged(self, place: Any, source: Source, name: str) -> None:
        super().test_values_arrive_unchanged(place, source, name)

    @pytest.mark.parametrize("name", [name for name in BOOKMARKS if name not in COARSE])
    def test_bookmarks_of_every_type(self, place: Any, source: Source, name: str) -> None:
        super().test_bookmarks_of_every_type(place, source, name)


class TestFirebirdDestination(Firebird, DestinationContract):
    connector = SQLAlchemyDestination
    quirks = CASES

    def read_back(self, place: Path, table: str, schema: pa.Schema) -> list[dict[str, Any]] | None:
        if table not in self.tables(place):
            return None
        names, rows = firebird.query(place, f"select * from {firebird.quoted(table)}")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def tables(self, place: Path) -> set[str]:
        return firebird.tables(place) - {"_syncblocks_ledger"}

    @pytest.mark.parametrize("name", VALUES)
    def test_values_arrive_unchanged(self, place: Any, destination: Destination, name: str) -> None:
        if name not in COARSE:
            super().test_values_arrive_unchanged(place, destination, name)
            return
        schema = pa.schema([pa.field("id", pa.int64(), nullable=False), ("v", VALUES[name].kind)])
        records = [{"id": number, "v": value} for number, value in enumerate(VALUES[name].values)]
        batch = pa.RecordBatch.from_pylist(records, schema=schema)
        with pytest.raises(ConnectorError, match="4 decimal places"):
            self.run(destination, self.load_of(schema, APPEND, table="valued"), batch, FINAL)
        assert not self.read_back(place, "valued", schema)

    @pytest.mark.parametrize("name", [name for name in VALUES if name not in COARSE])
    def test_the_stated_types_are_those_of_the_table(self, place: Any, destination: Destination, name: str) -> None:
        super().test_the_stated_types_are_those_of_the_table(place, destination, name)


@pytest.mark.postgres
@pytest.mark.full
class TestPsycopgSource(test_contracts.TestPostgresSource):
    connector = SQLAlchemySource

    def config(self, place: str) -> Mapping[str, Any]:
        return {"url": place.replace("postgresql://", "postgresql+psycopg://"), "checkpoint_records": 1}

    def bad_configs(self, place: str) -> Sequence[Mapping[str, Any]]:
        return [{"url": self.config(place)["url"] + "_no_such"}]

    def stream_name(self, table: str) -> str:
        return table


@pytest.mark.postgres
@pytest.mark.full
class TestPsycopgDestination(test_contracts.TestPostgresDestination):
    connector = SQLAlchemyDestination

    def config(self, place: str) -> Mapping[str, Any]:
        return {"url": place.replace("postgresql://", "postgresql+psycopg://")}

    def bad_configs(self, place: str) -> Sequence[Mapping[str, Any]]:
        return [{"url": self.config(place)["url"] + "_no_such"}]

    def read_back(self, place: str, table: str, schema: pa.Schema) -> list[dict[str, Any]] | None:
        records = super().read_back(place, table, schema)
        # Of two names that differ in case only, the second carries a hash.
        return records and [
            {name if name in schema.names else name.rpartition("_")[0]: value for name, value in record.items()}
            for record in records
        ]
