"""Numbers of Singer lines: each digit is kept, or the number is refused."""

from __future__ import annotations

import json
from decimal import Context, Decimal
from typing import Any

import pytest

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.singer.numbers import has_exponents, has_negative_zero, may_have_long_numbers
from syncblocks.connectors.stream import Stream
from tests.connectors.singer.singer_helpers import ORDERS, lines, read, record, records, schema, stream_of


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("12345678901234567890.25", Decimal("12345678901234567890.25")),
        ("0.123456789012345678901", Decimal("0.123456789012345678901")),
        ("9007199254740993", Decimal(2**53 + 1)),
        ("1234567890123456.7", Decimal("1234567890123456.7")),
        ("-99999999999999999999999999999999999999", Decimal("-" + "9" * 38)),
        ("1" * 60 + ".5", "1" * 60 + ".5"),
    ],
)
def test_a_number_past_a_double_keeps_every_digit(text: str, wanted: Any) -> None:
    of = stream_of("n", {"properties": {"v": {"type": "number"}}}, key=())
    line = b'{"type":"RECORD","stream":"n","record":{"v":%s}}' % text.encode()
    small = record("n", v=1.5)
    events = read(lines(schema("n", {"properties": {"v": {"type": "number"}}}), small, line), streams=[of])
    first, second = (each["v"] for each in records(events, "n"))
    assert Decimal(second) == Decimal(wanted)
    assert Decimal(first) == Decimal("1.5")
    assert any(isinstance(event, Stream) for _, event in events), "the type changed, and that is told"


@pytest.mark.parametrize(
    "text",
    [
        "1e36",
        "1.5e+40",
        "1e50",
        "1e-120",
        "4.8777320421411474e-05",
        "0",
        "0.30000000000000004",
        "1e308",
        "5e-324",
        "0.1",
        "-0.0",
        "1e22",
        "3",
        "1.7976931348623157e308",
    ],
)
def test_a_double_stays_one(text: str) -> None:
    of = stream_of("n", {"properties": {"v": {"type": "number"}}}, key=())
    line = b'{"type":"RECORD","stream":"n","record":{"v":%s,"w":"0.12345678901234567"}}' % text.encode()
    events = read(lines(schema("n", {"properties": {"v": {"type": "number"}}}), line), streams=[of])
    (found,) = records(events, "n")
    assert repr(found["v"]) == repr(float(text))
    assert not any(isinstance(event, Stream) for _, event in events)


@pytest.mark.parametrize(
    ("text", "wanted"), [("9223372036854775808", 2**63), ("-" + "9" * 37, -int("9" * 37)), ("5.0", 5)]
)
def test_integers_keep_every_digit(text: str, wanted: int) -> None:
    line = b'{"type":"RECORD","stream":"orders","record":{"id":%s}}' % text.encode()
    (found,) = records(read(lines(schema("orders"), line), streams=[ORDERS]), "orders")
    assert found["id"] == wanted


def test_python_s_own_not_a_number_is_one() -> None:
    of = stream_of("n", {"properties": TWO}, key=())
    line = b'{"type": "RECORD", "stream": "n", "record": {"v": NaN, "o": {"a": Infinity}}}'
    (found,) = records(read(lines(schema("n", {"properties": TWO}), line), streams=[of]), "n")
    assert found["v"] != found["v"]
    assert json.loads(found["o"]) == {"a": "Infinity"}


TWO = {"v": {"type": "number"}, "o": {"type": "object"}}


@pytest.mark.parametrize("kind", [(12, 2), (38, 18), (38, 0), (76, 10)])
@pytest.mark.parametrize(
    "text", ["1" * 37, "1" * 60, "1e50", "1e-41", "12345678901.5", "0.001", "1e300", "-1e-120", "7"]
)
def test_a_decimal_is_exact_or_refused(kind: tuple[int, int], text: str) -> None:
    spec = {
        "properties": {"v": {"type": "string", "format": "x-singer.decimal", "precision": kind[0], "scale": kind[1]}}
    }
    of = stream_of("n", spec, key=())
    line = b'{"type":"RECORD","stream":"n","record":{"v":%s}}' % text.encode()
    whole = len(str(int(abs(Decimal(text)))))
    fits = Decimal(text).quantize(Decimal(1).scaleb(-kind[1]), context=Context(prec=400)) == Decimal(text)
    if fits and whole <= kind[0] - kind[1]:
        (found,) = records(read(lines(schema("n", spec), line), streams=[of]), "n")
        assert found["v"] == Decimal(text)
    else:
        with pytest.raises(FatalConnectorError, match="column 'v'"):
            read(lines(schema("n", spec), line), streams=[of])


def test_long_digits_are_seen_wherever_they_stand() -> None:
    for place in range(20):
        assert may_have_long_numbers(b" " * place + b"1234567890.123456" + b" " * 5)
        assert not may_have_long_numbers(b" " * place + b"1234567" + b" " * 5)


@pytest.mark.parametrize("number", [b"1e5", b"-1E+5", b"0.5e-7", b"12.25E0"])
@pytest.mark.parametrize("before", [b'{"a":', b'{"a" : ', b'{"a":[1,', b'{"a":[1,\t', b'{"a":['])
def test_numbers_with_an_exponent_are_seen(number: bytes, before: bytes) -> None:
    assert has_exponents(before + number + b"}", in_texts=False)


def test_hexadecimal_digits_of_a_text_are_no_exponents() -> None:
    assert not has_exponents(b'{"a":"0e5c1e99","b":12,"c":1.5,"d":[1,2], "e": true}', in_texts=False)
    assert has_exponents(b'{"a":"1e5"}', in_texts=True)


@pytest.mark.parametrize("zero", [b"-0", b"-0.0", b"-0.000"])
def test_a_negative_zero_is_seen(zero: bytes) -> None:
    assert has_negative_zero(b'{"a": ' + zero + b"}")
    assert has_negative_zero(b'{"a":[1,' + zero + b',"b"]')
    assert not has_negative_zero(b'{"a":"2024-01-05","b":-0.5,"c":0.0}')
