"""Rejected records are found among those that were sent, or nothing is said of them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.rejected.records import rejection
from syncblocks.sync.flow.rejected import places_of

AT = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)


def places(sent: list[list[dict[str, Any]]], *refused: Any) -> set[tuple[int, int]] | None:
    return places_of(map(pa.RecordBatch.from_pylist, sent), [rejection(record, "no") for record in refused])


@pytest.mark.parametrize(
    "record",
    [
        {"id": 3, "n": Decimal("1.5"), "at": AT, "is": True},
        {"id": 3, "n": "1.50", "at": "2024-01-02 03:04:05+00:00", "is": 1},
        {"id": "3", "n": 1.5, "at": "2024-01-02T04:04:05+01:00", "is": True},
    ],
)
def test_a_record_is_found_whatever_form_its_values_have_by_then(record: dict[str, Any]) -> None:
    sent = [[{"id": number, "n": Decimal("1.50"), "at": AT, "is": True} for number in (1, 2)] for _ in range(2)]
    sent[1][0]["id"] = 3
    assert places(sent, record) == {(1, 0)}


def test_of_equal_records_as_many_go_as_were_rejected() -> None:
    found = places([[{"id": 1}, {"id": 2}], [{"id": 1}, {"id": 1}]], {"id": 1}, {"id": 1})
    assert found == {(1, 0), (1, 1)}


@pytest.mark.parametrize(
    ("sent", "refused"),
    [
        ([{"v": "a"}], {"v": "b"}),  # none is like it
        ([{"v": "01"}, {"v": "1"}], {"v": "1.0"}),  # two are, and they differ
        ([{"v": "a"}], {"w": "a"}),
        ([{"v": "a"}], "a line"),
        ([{"v": "a"}], {}),
    ],
)
def test_what_cannot_be_told_from_others_is_not_guessed(sent: list[dict[str, Any]], refused: Any) -> None:
    assert places([sent], refused) is None
