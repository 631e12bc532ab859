"""Masks of columns: one value has one hash, whatever its type, and what stays of a text."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from syncblocks.connectors.arrow.masking import (
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
