"""Changes that are merged together: the last one of each key is left, in the order of the keys."""

from __future__ import annotations

import uuid
from decimal import Decimal

import pyarrow as pa
import pytest

from syncblocks.connectors.sql.load.folded import last_of_each_key

UUIDS = sorted(uuid.UUID(int=number).bytes for number in (1, 2, 3))


@pytest.mark.parametrize(
    "keys",
    [
        pa.array([2, 3, 2, 1, 3]),
        pa.array(["b", "c", "b", "", "c"]),
        pa.array([Decimal("2.5"), Decimal("3.5"), Decimal("2.5"), Decimal("-1"), Decimal("3.5")]),
        pa.array([UUIDS[1], UUIDS[2], UUIDS[1], UUIDS[0], UUIDS[2]], pa.uuid()),
    ],
    ids=["numbers", "texts", "decimals", "uuids"],
)
@pytest.mark.parametrize("has_two", [False, True])
def test_the_last_change_of_each_key_is_left(keys: pa.Array, *, has_two: bool) -> None:
    changes = pa.table({"at": pa.array([0, 1, 2, 3, 4]), "id": keys, "other": pa.array(["x"] * 5)})
    changes = pa.concat_tables([changes.slice(0, 2), changes.slice(2)])
    found = last_of_each_key(changes, ["other", "id"] if has_two else ["id"])
    assert found is not None
    assert found.column("at").to_pylist() == [3, 2, 4]
    assert found.schema == changes.schema


def test_two_columns_tell_keys_apart() -> None:
    changes = pa.table({"at": pa.array([0, 1, 2, 3]), "a": pa.array([1, 1, 2, 1]), "b": pa.array(["x", "y", "x", "x"])})
    found = last_of_each_key(changes, ["a", "b"])
    assert found is not None
    assert found.column("at").to_pylist() == [3, 1, 2]


@pytest.mark.parametrize(
    "keys",
    [pa.array([1.5, float("nan")]), pa.array([[1], [2]]), pa.array([1, None])],
    ids=["doubles", "lists", "nulls"],
)
def test_keys_that_arrow_does_not_compare_as_databases_do_are_left_to_them(keys: pa.Array) -> None:
    assert last_of_each_key(pa.table({"id": keys}), ["id"]) is None
