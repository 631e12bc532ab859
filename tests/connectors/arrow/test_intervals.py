"""Intervals as text: ISO 8601, the same from Python and from the SQL that `verify` compares by; old texts are read."""

from __future__ import annotations

import duckdb
import psycopg
import pyarrow as pa
import pytest

from syncblocks.connectors.arrow.text import from_text, interval_text, to_text
from syncblocks.connectors.duckdb.nested import interval_text as duckdb_text
from syncblocks.connectors.postgres.checksums import _interval as postgres_text

KIND = pa.month_day_nano_interval()
#: Months, days, nanoseconds -> text.
WRITTEN = {
    (0, 0, 60 * 10**9): "PT60S",
    (0, 0, 0): "PT0S",
    (14, 0, 0): "P14M",
    (0, -3, 0): "P-3D",
    (1, 2, 3_500_000_000): "P1M2DT3.5S",
    (-1, 0, -50_000_000): "P-1MT-0.05S",
    (0, 1, 10 * 10**9): "P1DT10S",
    (0, 0, 1_000): "PT0.000001S",
}


def test_an_interval_is_an_iso_duration_without_zeros() -> None:
    column = pa.array([*WRITTEN, None, (0, 0, 3)], KIND)
    texts = to_text(column, "c")
    assert texts.to_pylist() == [*WRITTEN.values(), None, "PT0.000000003S"]
    assert from_text(texts, KIND, is_empty_null=False).equals(column)


@pytest.mark.parametrize(
    ("text", "value"),
    [("P0M0DT90.000000000S", (0, 0, 90 * 10**9)), ("P14M-3DT-1.500000000S", (14, -3, -1_500_000_000))],
)
def test_the_form_of_earlier_versions_is_read(text: str, value: tuple[int, int, int]) -> None:
    assert from_text(pa.array([text]), KIND, is_empty_null=False).equals(pa.array([value], KIND))


@pytest.mark.parametrize("text", ["P", "PT", "P1Y", "1M", "PT1.S", "P1DT", "PT1H"])
def test_what_is_no_such_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="interval"):
        from_text(pa.array([text]), KIND, is_empty_null=False)


def test_databases_write_the_same(postgres_url: str) -> None:
    spans = [f"interval '{m} months {d} days {n // 1000} microseconds'" for m, d, n in WRITTEN]
    with duckdb.connect() as lake:
        found = [lake.execute(f"select {duckdb_text('x')} from (select {each} x)").fetchone() for each in spans]
    assert found == [(text,) for text in WRITTEN.values()]
    with psycopg.connect(postgres_url) as connection:
        found = [
            connection.execute(f"select {postgres_text('x')} from (select {each} x) t").fetchone() for each in spans
        ]
    assert found == [(text,) for text in WRITTEN.values()]
    assert interval_text(0, 0, 0) == "PT0S"
