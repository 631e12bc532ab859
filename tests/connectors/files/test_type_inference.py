"""Types of texts: the same however the texts come in blocks, and none that changes a value."""

from __future__ import annotations

import math
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncblocks.connectors.arrow.text import from_text
from syncblocks.connectors.files.type_inference import Guess

_INTEGERS = st.integers(-(10**25), 10**25).map(str) | st.integers(-9, 9).map(str)
_NUMBERS = (
    st.floats(allow_nan=False).map(repr)
    | st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**20), max_value=10**20).map(str)
    | st.sampled_from(["-0", "0", "1.50", "1e5", "1E-7", "9007199254740993", "1e400", "1e-400"])
)
_ODD = st.text("0123456789.-+eE xn", min_size=1, max_size=6)
_TIMES = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(["2024-02-29", "2024-02-30", "0001-01-01", "9999-12-31", "2024-2-9", " 2024-02-29"]),
    st.sampled_from(["T", " ", "  ", "t"]),
    st.sampled_from(["10", "10:20", "10:20:30", "23:59:60", "24:00", "1:02", "102030"]),
    st.sampled_from(["", ".", ".1", ".123456", ".1234567", ".1234567890"]),
    st.sampled_from(["", "Z", "z", "+02", "+0230", "-02:30", "+02:3", " UTC", "+25:00"]),
)
_TEXTS = st.sampled_from(["", "007", "abc", "2024-02-29", "2024-02-30", "true", "NaN", "-inf", "+1", " 1", "5."])


def type_of(*blocks: list[str | None]) -> pa.DataType:
    guess = Guess()
    for block in blocks:
        guess.add(pa.array(block, pa.string()))
    return guess.type()


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.none() | _INTEGERS, min_size=1)
    | st.lists(_INTEGERS | _NUMBERS, min_size=1)
    | st.lists(_NUMBERS | _TEXTS, min_size=1)
)
@pytest.mark.full
def test_blocks_make_no_difference_and_no_number_changes(texts: list[str | None]) -> None:
    kind = type_of(texts)
    assert type_of(*([text] for text in texts)) == kind
    values = from_text(pa.array(texts, pa.string()), kind, is_empty_null=True).to_pylist()
    if pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        assert [value for value in values if value is not None] == [Decimal(text) for text in texts if text]
    elif pa.types.is_floating(kind) and not any(set("eE") & set(text or "") for text in texts):
        pairs = [(value, text) for value, text in zip(values, texts, strict=True) if value is not None]
        assert all(Decimal(repr(value)) == Decimal(text or "") for value, text in pairs if math.isfinite(value))
    elif pa.types.is_floating(kind):
        whole = [text for text in texts if text and text.lstrip("-").isdigit()]
        assert all(Decimal(text) in (Decimal(float(text)), Decimal(repr(float(text)))) for text in whole)


@pytest.mark.full
@settings(max_examples=200, deadline=None)
@given(
    st.lists(_NUMBERS | _TEXTS | _ODD, min_size=1, max_size=3)
    | st.lists(_ODD, min_size=1, max_size=2)
    | st.lists(_TIMES, min_size=1, max_size=3)
)
def test_what_arrow_reads_faster_has_the_type_that_the_patterns_say(texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Guess, "_without_plain", lambda _, column: column)
        kind = type_of(texts)
    assert type_of(texts) == kind


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["1", "-5", None, ""], pa.int64()),
        (["1", "-0"], pa.float64()),
        (["123456789012345678"], pa.int64()),
        (["12345678901234567890"], pa.decimal128(38, 0)),
        (["1.5", "2"], pa.float64()),
        (["0.12345678901234567890"], pa.decimal128(38, 20)),
        (["1.5", "nan"], pa.float64()),
        (["0.10", "-12.0"], pa.float64()),
        (["01.5"], pa.string()),
        ([".5"], pa.string()),
        (["5."], pa.string()),
        (["2024-02-29 10:20", "2024-02-29T10:20:30.123456"], pa.timestamp("us")),
        (["2024-02-29 10:20", "2024-02-29T10:20:30.1234567"], pa.timestamp("ns")),
        (["2024-02-29 10:20+02", "2024-02-29T10:20:30Z"], pa.timestamp("us", "UTC")),
        (["2024-02-29 10:20+02", "2024-02-29 10+02"], pa.string()),
        (["2024-02-29 10:20", "2024-02-29 10:20Z"], pa.string()),
        (["2024-02-29"], pa.date32()),
        (["2024-02-29", "2024-2-29"], pa.string()),
        (["1", "2024-02-29"], pa.string()),
        (["007"], pa.string()),
        (["1e400"], pa.string()),
        (["1e5", "9007199254740993"], pa.string()),
        (["1e-7", "0.12345678901234567890"], pa.string()),
        (["1e-7", "-12345678901234567890.0"], pa.string()),
        (["1e-7", "0.10000000000000001", "1.50000000000000000000", "9007199254740992"], pa.float64()),
        (["1.000000000000000056e-01", "1.234567890123456789e+05"], pa.float64()),
    ],
)
def test_the_narrowest_type_that_loses_nothing(texts: list[str | None], kind: pa.DataType) -> None:
    assert type_of(texts) == kind
