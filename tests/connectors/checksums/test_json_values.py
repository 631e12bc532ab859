"""JSON by what it says: the very text that PostgreSQL's jsonb makes of it, and no two documents for one."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from syncblocks.connectors.checksums.json_values import is_same_json, jsonb_text, value_text

RANDOM = random.Random(11)

#: As they may be written; jsonb writes each in another way, or as it is.
NUMBERS = (
    "0", "-0", "0.0", "-0.0", "0e5", "0e-5", "1.50", "1e5", "1.0e5", "1.50e1", "1E+2", "-1.5e-7", "12e-1",
    "9223372036854775808", "1e23", "100000000000000000000000.5", "5e-324", "1.7976931348623157e308",
)  # fmt: skip
TEXTS = ["", "a", "ab", "B", "é", "\U0001f600", 'q"', "b\\", "/", "\t\n\r\b\f", "\x01\x1f\x7f", "null", "1", "\u2028"]


def number() -> str:
    return (
        RANDOM.choice(NUMBERS) if RANDOM.random() < 0.5 else repr(RANDOM.uniform(-1, 1) * 10 ** RANDOM.randint(-9, 25))
    )


def document(depth: int) -> str:
    """Write a document with repeated keys, blanks and escapes."""
    kind = RANDOM.randrange(7 if depth else 4)
    if kind == 0:
        return number()
    if kind == 1:
        return json.dumps(RANDOM.choice(TEXTS), ensure_ascii=RANDOM.random() < 0.5)
    if kind < 4:
        return RANDOM.choice(["true", "false", "null"])
    items = [document(depth - 1) for _ in range(RANDOM.randrange(5))]
    if kind == 4:
        return f"[ {' , '.join(items)}]"
    return "{" + ",\n ".join(f"{json.dumps(RANDOM.choice(TEXTS))} : {item}" for item in items) + "}"


def as_jsonb(url: str, texts: Sequence[str]) -> list[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "select t::jsonb::text from unnest(%s::text[]) with ordinality as u(t, n) order by n", (list(texts),)
        )
        return [text for (text,) in rows.fetchall()]


def test_jsonb_text_is_what_postgres_writes(postgres_url: str) -> None:
    texts = [*NUMBERS, *(document(4) for _ in range(4000)), '{"b":1,"aa":2,"a":{"z":[],"é":{}},"b":3}', "[[],{}]"]
    assert [jsonb_text(text) for text in texts] == as_jsonb(postgres_url, texts)


@pytest.mark.parametrize("text", ["", "{", "NaN", "[Infinity]", '"\\ud800"', "1e200000", "1e-20000", "[" * 100_000])
def test_what_is_no_json_there_stays_as_it_is(text: str) -> None:
    assert jsonb_text(text) == value_text(text) == text
    assert not is_same_json(text, "1")


def test_numbers_by_value_have_one_text() -> None:
    assert {value_text(text) for text in ("[1]", "[1.0]", "[ 1.00]", "[10e-1]", "[1e0]")} == {"[1]"}
    assert value_text('{"b": [100, 0.10, -0.0, 1e2], "a": "1.0"}') == '{"a": "1.0", "b": [100, 0.1, 0, 100]}'


SAME = [
    ("1", "1.00", None),
    ('{"a":1,"b":[2]}', '{"b": [2.0], "a": 1}', None),
    ("[9.999999999999999e22]", "[1e+23]", pa.list_(pa.float64())),
    ('[{"f":[0.1]}]', '[{"f":[0.1000000000000000055]}]', pa.list_(pa.struct([("f", pa.list_(pa.float64()))]))),
    ('[["k",0.1]]', '[["k",0.10000000000000001]]', pa.map_(pa.string(), pa.float64())),
]
DIFFERENT = [
    ("[1]", "[true]", None),
    ("[0]", "[false]", None),
    ("[1]", '["1"]', None),
    ("[null]", "[]", None),
    ("[]", "null", None),
    ("[[]]", "[]", None),
    ("[1,2]", "[2,1]", None),
    ("[0.1]", "[0.10000000000000001]", None),
    ("[0.1]", "[0.10000000000000001]", pa.list_(pa.decimal128(20, 17))),
    ('{"a":null}', "{}", None),
    ('{"a":1}', '{"b":1}', None),
    ('["NaN"]', "[null]", pa.list_(pa.float64())),
    ('["a"]', '["A"]', None),
]


@pytest.mark.parametrize(("left", "right", "kind"), SAME)
def test_documents_that_say_the_same_are_the_same(left: str, right: str, kind: Any) -> None:
    assert is_same_json(left, right, kind)


@pytest.mark.parametrize(("left", "right", "kind"), DIFFERENT)
def test_documents_that_say_something_else_are_not(left: str, right: str, kind: Any) -> None:
    assert not is_same_json(left, right, kind)
    assert value_text(left) != value_text(right)
    assert jsonb_text(left) != jsonb_text(right)
