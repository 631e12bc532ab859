"""Masks of columns: one value has one hash, whatever its type, and what stays of a text."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from syncblocks.connectors.arrow.masking import (
    canonical_text,
    mark_of_masks,
    masked,
    masked_stream,
    masked_value,
    rule_of,
    unmasked_stream,
)
from syncblocks.connectors.read_spec import MaskRule, Masks, ReadSpec
from syncblocks.connectors.stream import Stream

KEY = b"k" * 32
HASHED = Masks(rules=(MaskRule(column="c", how="hash"),), key=KEY)


def digest(text: str) -> str:
    return hmac.new(KEY, text.encode(), hashlib.sha256).hexdigest()


def column(array: pa.Array, masks: Masks = HASHED, **metadata: str) -> list[Any]:
    schema = pa.schema([pa.field("c", array.type, metadata=metadata or None)])
    found = masked(pa.RecordBatch.from_arrays([array], schema=schema), masks)
    found.validate(full=True)
    assert found.schema.field("c").type == pa.string()
    assert not found.schema.field("c").metadata
    return list(found.column(0).to_pylist())


@pytest.mark.parametrize(
    ("array", "texts"),
    [
        (pa.array([1, None, -7], pa.int16()), ["1", None, "-7"]),
        (pa.array(["1", "", "Ann ", "ä💥"]), ["1", "", "Ann ", "ä💥"]),
        (pa.array([1.0, 1.5, 1e22, 1e-7, -0.0, float("nan")]), ["1", "1.5", "1" + "0" * 22, "0.0000001", "0", "NaN"]),
        (pa.array([1.1, 3e38], pa.float32()), ["1.1", "3" + "0" * 38]),
        (pa.array([Decimal("1.00"), Decimal("100.50"), Decimal("-0.00")], pa.decimal128(9, 2)), ["1", "100.5", "0"]),
        (pa.array([Decimal("0.0000001")], pa.decimal128(9, 8)), ["0.0000001"]),
        (pa.array([True, False]), ["true", "false"]),
        (
            pa.array([datetime(2024, 1, 2, 3, tzinfo=UTC)], pa.timestamp("us", "Europe/Berlin")),
            ["2024-01-02T03:00:00Z"],
        ),
        (pa.array([datetime.fromisoformat("2024-01-02T03:00:00.5")], pa.timestamp("ns")), ["2024-01-02T03:00:00.5"]),
        (pa.array([datetime.fromisoformat("2024-01-02T03:00:10")], pa.timestamp("s")), ["2024-01-02T03:00:10"]),
        (pa.array([date(2024, 1, 10)]), ["2024-01-10"]),
        (pa.array([time(10, 20, 30)], pa.time64("us")), ["10:20:30"]),
        (pa.array([UUID(int=7).bytes], pa.uuid()), [str(UUID(int=7))]),
        (pa.array(["b", None, "a", "b"]).dictionary_encode(), ["b", None, "a", "b"]),
        (pa.array([], pa.string()), []),
        (pa.array([None, None], pa.null()), [None, None]),
        (pa.array(["skipped", "one", "two", "one"]).slice(1), ["one", "two", "one"]),
    ],
)
def test_a_hash_is_of_the_value_as_text(array: pa.Array, texts: list[str | None]) -> None:
    assert column(array) == [None if text is None else digest(text) for text in texts]


def test_numbers_that_stand_in_texts_are_numbers_where_a_database_says_so() -> None:
    found = column(pa.array(["1.00", "10", "1E+3", "NaN"]), native_type="numeric")
    assert found == [digest("1"), digest("10"), digest("1000"), digest("NaN")]
    assert column(pa.array(["1.00", "10"])) == [digest("1.00"), digest("10")]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("1234567", "****567"), ("123456", "***456"), ("12345", "*****"), ("", ""), (None, None), ("äöüßéñç", "****éñç")],
)
def test_the_last_characters_stay_of_a_text_that_is_long_enough(text: str | None, shown: str | None) -> None:
    kept = Masks(rules=(MaskRule(column="c", how="keep_last", kept=3),))
    assert column(pa.array([text], pa.string()), kept) == [shown]
    assert column(pa.array([1234567]), kept) == ["****567"]


def test_null_leaves_nothing() -> None:
    assert column(pa.array([1, 2]), Masks(rules=(MaskRule(column="c", how="null"),))) == [None, None]


def test_a_name_comes_before_globs_and_a_glob_before_the_next() -> None:
    rules = tuple(MaskRule(column=name, how="keep_last", kept=n) for n, name in enumerate(["e*", "email", "*"], 1))
    found = [rule_of(Masks(rules=rules), name) for name in ("email", "else", "other")]
    assert [rule.kept for rule in found if rule is not None] == [2, 1, 3]


def test_the_source_gets_its_own_columns_but_guesses_as_texts() -> None:
    schema = pa.schema(
        [
            pa.field("c", pa.int64(), metadata={b"guessed": b"1"}),
            pa.field("d", pa.date32(), nullable=False, metadata={b"native_type": b"date"}),
            pa.field("e", pa.int64()),
        ]
    )
    rules = (*HASHED.rules, MaskRule(column="d", how="hash"))
    stream = masked_stream(Stream(name="s", schema=schema, read=ReadSpec(masks=Masks(rules=rules, key=KEY))))
    assert stream.schema.types == [pa.string(), pa.string(), pa.int64()]
    assert [field.nullable for field in stream.schema] == [True, False, True]
    assert unmasked_stream(stream).schema.types == [pa.string(), pa.date32(), pa.int64()]
    assert unmasked_stream(masked_stream(unmasked_stream(stream))).schema == unmasked_stream(stream).schema


def test_a_value_of_a_rejected_record_has_the_hash_of_its_column() -> None:
    rule = HASHED.rules[0]
    found = [masked_value(value, rule, KEY) for value in (1, 1.0, "1", True, None, 10**30, {"a": [1]})]
    assert found == [*[digest("1")] * 3, digest("true"), None, digest("1" + "0" * 30), digest('{"a": [1]}')]


def test_the_mark_tells_rules_and_keys_apart_and_shows_neither() -> None:
    marks = {
        mark_of_masks(masks, ["c"])
        for masks in (
            HASHED,
            Masks(rules=HASHED.rules, key=b"l" * 32),
            Masks(rules=(MaskRule(column="*", how="hash"),), key=KEY),
            Masks(rules=(MaskRule(column="c", how="keep_last", kept=1),)),
            Masks(rules=(MaskRule(column="c", how="keep_last", kept=2),)),
        )
    }
    assert len(marks) == 5
    assert mark_of_masks(HASHED, ["d"]) == mark_of_masks(None, ["c"]) == ""
    assert KEY.decode() not in repr(HASHED)


def test_the_mark_of_an_object_is_that_of_its_columns() -> None:
    of_object = Masks(rules=(MaskRule(column="a", how="hash"), MaskRule(column="a__*", how="hash")), key=KEY)
    marks = {mark_of_masks(of_object, columns) for columns in (["a"], ["a__b"], ["a", "a__b", "a__later"])}
    assert len(marks) == 1


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("us"), pa.timestamp("s", "UTC")], ids=str)
def test_infinite_dates_and_times_are_masked_as_the_words_of_databases(kind: pa.DataType) -> None:
    numbers = pa.int32() if pa.types.is_date32(kind) else pa.int64()
    most = 2 ** (numbers.bit_width - 1) - 1
    column = pa.array([0, most, -most, None], numbers).view(kind)
    texts = canonical_text(column, pa.field("d", kind)).to_pylist()
    assert texts[1:] == ["infinity", "-infinity", None]
    assert str(texts[0]).startswith("1970-01-01")


DAY_S = 86_400
FAR = {"20000-01-01": 6_585_322, "-0043-03-15": -735_160, "0000-02-29": -719_469, "9999-12-31": 2_932_896}


@pytest.mark.parametrize(("text", "days"), FAR.items(), ids=str)
def test_dates_of_any_year_are_masked_as_iso_dates(text: str, days: int) -> None:
    dates = pa.array([days, None], pa.int32()).view(pa.date32())
    moments = pa.array([days * DAY_S * 1000 + 1500, None], pa.int64()).view(pa.timestamp("ms", "UTC"))
    assert canonical_text(dates, pa.field("d", dates.type)).to_pylist() == [text, None]
    assert canonical_text(moments, pa.field("d", moments.type)).to_pylist() == [f"{text}T00:00:01.5Z", None]


def test_the_end_of_the_day_is_masked_as_24_00() -> None:
    times = pa.array([DAY_S * 10**6, 1, None], pa.int64()).view(pa.time64("us"))
    assert canonical_text(times, pa.field("t", times.type)).to_pylist() == ["24:00:00", "00:00:00.000001", None]


def test_infinite_and_far_times_within_nested_values_are_masked_beside_others() -> None:
    most, far = 2**31 - 1, FAR["20000-01-01"]
    kind = pa.struct({"d": pa.list_(pa.date32()), "m": pa.map_(pa.string(), pa.timestamp("us")), "n": pa.int64()})
    numbers = pa.struct({"d": pa.list_(pa.int32()), "m": pa.map_(pa.string(), pa.int64()), "n": pa.int64()})
    values = [
        {"d": [most, -most, far, 0, None], "m": [("k", -(2**63 - 1)), ("l", 1)], "n": most},
        None,
        {"d": [0], "m": [("k", 1_500_000)], "n": None},
    ]
    column = pa.array(values, numbers).cast(kind)
    texts = canonical_text(column, pa.field("v", kind)).to_pylist()
    assert json.loads(texts[0]) == {
        "d": ["infinity", "-infinity", "20000-01-01", "1970-01-01", None],
        "m": [["k", "-infinity"], ["l", "1970-01-01T00:00:00.000001"]],
        "n": most,
    }
    # A record has one hash, whatever else its batch has.
    assert canonical_text(column.slice(1), pa.field("v", kind)).to_pylist() == texts[1:]
