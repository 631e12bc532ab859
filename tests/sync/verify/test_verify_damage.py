"""`verify` between real systems: each kind of damage is found and named, behind keys of every kind."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pytest

from tests.sync.verify.verify_pairs import (
    RECORDS,
    SYSTEMS,
    Places,
    damage,
    damage_everything,
    expected_damage,
    found_damage,
    make_pair,
    plain_records,
)
from tests.sync.verify.verify_pairs import places as places
from tests.sync.verify.verify_pairs import servers as servers


@pytest.mark.full
@pytest.mark.parametrize(
    ("source", "destination"),
    [*(("postgres", name) for name in SYSTEMS), ("mysql", "postgres"), ("mysql", "mysql"), ("sqlite", "sqlite")],
)
def test_each_kind_of_damage_is_found_and_named(tmp_path: Path, places: Places, source: str, destination: str) -> None:
    pair = make_pair(tmp_path, places, source, destination, plain_records())
    pair.run()
    assert pair.verify().verdict == "equal"
    damage_everything(pair)
    found = pair.verify()
    assert found.verdict == "differs"
    assert (found.source_records, found.destination_records) == (RECORDS, RECORDS - 20)
    assert found_damage(found) == expected_damage()
    assert found.comparison is not None
    assert found.comparison.is_complete
    # Narrowed down to less than what there is: pieces of at most a thousand records.
    assert all(each.source_records <= 1000 for each in found.comparison.ranges)
    assert len(found.comparison.ranges) == 4
    # A repair syncs those ranges, and nothing else.
    assert pair.repair() == sum(each.source_records for each in found.comparison.ranges)
    mended = pair.verify()
    assert (mended.verdict, mended.destination_records) == ("equal", RECORDS)
    pair.run()
    assert pair.verify().verdict == "equal"


KEYS = {
    "text": (pa.string(), lambda n: ["a", "A", "ä", "Z", "z", "_", " ", "'", "é"][n % 9] + f"{n * 7919 % 3000}"),
    "date": (pa.date32(), lambda n: date.fromordinal(719_000 + n)),
    "moment": (pa.timestamp("us", "UTC"), lambda n: 1_700_000_000_000_001 + n * 500_000),
    "uuid": (pa.uuid(), lambda n: UUID(int=(n * 2**117 + n) % 2**128).bytes),
    "decimal": (pa.decimal128(20, 2), lambda n: Decimal(n * 37 - 40_000) / 100),
    "bytes": (pa.binary(), lambda n: (n * 40_503 % 2**16).to_bytes(2, "big") + b"\xff"),
}


@pytest.mark.full
@pytest.mark.parametrize(
    ("source", "destination", "kind"),
    [
        *(("postgres", "mysql", kind) for kind in ("text", "moment", "decimal")),
        *(("duckdb", "sqlite", k) for k in KEYS),
    ],
)
def test_keys_of_every_kind_are_split_at_the_same_places_in_every_system(
    tmp_path: Path, places: Places, source: str, destination: str, kind: str
) -> None:
    """Behind a first column with few values; texts in an order that no collation has."""
    arrow, make = KEYS[kind]
    number = 3000
    schema = pa.schema([pa.field("part", pa.int32(), False), pa.field("k", arrow, False), ("v", pa.int64())])
    storage = arrow.storage_type if isinstance(arrow, pa.BaseExtensionType) else arrow
    keys = pa.array([make(n) for n in range(number)], storage)
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array([n % 2 for n in range(number)], pa.int32()),
            arrow.wrap_array(keys) if storage is not arrow else keys,
            pa.array(range(number), pa.int64()),
        ],
        schema=schema,
    )
    pair = make_pair(tmp_path, places, source, destination, batch, key_properties=["part", "k"])
    pair.run()
    assert pair.verify().verdict == "equal"
    damage(pair, ["update {} set v = -1 where v in (5, 1500, 2999)", "delete from {} where v = 1234"], list)
    found = pair.verify()
    assert found.comparison is not None
    kinds = sorted((each.kind, each.columns) for each in found.comparison.records)
    assert kinds == [("different", ("v",))] * 3 + [("missing", ())], found.notes
    assert found.comparison.is_complete
    assert all(each.source_records <= 1000 for each in found.comparison.ranges)
    damage(pair, ["insert into {0} (part, k, v) select 7, k, v from (select * from {0} where v = 100) x"], list)
    assert 0 < pair.repair() <= number
    assert pair.verify().verdict == "equal"


@pytest.mark.parametrize("source", ["sqlite", "duckdb", "postgres"])
def test_a_side_that_fails_says_why(tmp_path: Path, places: Places, source: str) -> None:
    """Not that it was interrupted, which is what the other side was."""
    pair = make_pair(tmp_path, places, source, "csv", plain_records())
    pair.run()
    damage(pair, [], lambda records: [*records[:9], {**records[9], "part": "no number"}])
    found = pair.verify()
    assert found.verdict == "failed"
    assert "column 'part': 'no number' is no double" in found.notes[0]
