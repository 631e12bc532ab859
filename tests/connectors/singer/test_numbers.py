"""Numbers of Singer lines: each digit is kept, or the number is refused."""

from __future__ import annotations

import json
from decimal import Context, Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.programs.numbers import has_exponents, has_negative_zero, may_have_long_numbers
from syncblocks.connectors.programs.types import columns_of
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


SPECS: dict[str, Any] = {
    "integer": {"type": "integer"},
    "bounded": {"type": "integer", "minimum": 0, "maximum": 10**30},
    "number": {"type": "number"},
    "decimal": {"type": "number", "multipleOf": 0.01},
    "text": {"type": "string", "format": "singer.decimal"},
    "huge": {"type": "number", "multipleOf": 0.01, "maximum": 10**90},
}

wild = st.one_of(
    st.builds(
        lambda sign, whole, fraction, exponent: f"{sign}{whole}{fraction}e{exponent}",
        st.sampled_from(["", "-"]),
        st.sampled_from(["0", "1", "9" * 17, "9" * 40]),
        st.sampled_from(["", ".0", ".5", "." + "3" * 60]),
        st.one_of(st.integers(-400, 400), st.integers(-(10**22), 10**22)),
    ),
    st.sampled_from(["1e99999999", "-1e99999999", "1e-9999999", "0e99999999", "1e-400", "1e400", "1e200000"]),
    st.builds(lambda size: "9" * size, st.integers(1, 6000)),
)


@pytest.mark.parametrize("is_text", [False, True], ids=["bare", "quoted"])
@pytest.mark.parametrize("spec", list(SPECS))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(wild, min_size=1, max_size=2))
def test_a_wild_number_is_kept_or_refused(texts: list[str], spec: str, is_text: bool) -> None:
    properties = {"properties": {"v": SPECS[spec]}}
    of = stream_of("n", properties, key=())
    shown = [f'"{text}"' if is_text else text for text in texts]
    found = [b'{"type":"RECORD","stream":"n","record":{"v":%s}}' % each.encode() for each in shown]
    try:
        events = read(lines(schema("n", properties), *found), streams=[of])
    except FatalConnectorError:
        return
    for text, each in zip(texts, records(events, "n"), strict=True):
        value = each["v"]
        assert value == float(text) if isinstance(value, float) else Decimal(value) == Decimal(text)


@pytest.mark.parametrize("text", ["1e-77", "5e-77"])
def test_a_decimal_that_comes_as_a_text_is_never_rounded_to_zero(text: str) -> None:
    properties = {"properties": {"v": SPECS["decimal"]}}
    line = b'{"type":"RECORD","stream":"n","record":{"v":"%s"}}' % text.encode()
    with pytest.raises(FatalConnectorError):
        read(lines(schema("n", properties), line), streams=[stream_of("n", properties, key=())])


def test_a_number_next_to_not_a_number_that_no_decimal_holds_is_refused() -> None:
    line = b'{"type": "RECORD", "stream": "orders", "record": {"id": 1e99999999999999999999, "x": NaN}}'
    with pytest.raises(FatalConnectorError):
        read(lines(schema("orders"), line), streams=[ORDERS])


@pytest.mark.parametrize("key", ["maximum", "minimum", "multipleOf"])
@pytest.mark.parametrize("bound", ["1e99999999", "1e-99999999", "-1e99999999"])
def test_a_schema_with_a_giant_bound_is_read(bound: str, key: str) -> None:
    for kind in ("integer", "number"):
        (column,) = columns_of({"properties": {"v": {"type": kind, "multipleOf": "0.01", key: bound}}})
        assert column.name == "v"
