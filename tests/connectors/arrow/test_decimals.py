"""Decimals out of texts and JSON lines, against Python's own arithmetic."""

from __future__ import annotations

import json
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from syncblocks.connectors.arrow.decimals import from_texts
from syncblocks.connectors.arrow.text import from_text, revive, revived
from syncblocks.connectors.errors import ConnectorConfigError, FatalConnectorError
from syncblocks.connectors.files.type_inference import Guess
from syncblocks.connectors.incremental.bookmarks import from_json
from syncblocks.connectors.registry import make_source
from syncblocks.connectors.stream import Checkpoint
from tests.tiers import examples

EXACT = Context(prec=1000)

KINDS = [pa.decimal128(p, s) for p, s in ((38, 18), (38, 0), (38, 38), (12, 2), (5, 5), (1, 0))] + [
    pa.decimal256(p, s) for p, s in ((50, 10), (76, 38), (76, 0))
]

digits = st.text("0123456789", min_size=1, max_size=48)
numbers = st.builds(
    lambda sign, whole, fraction, exponent: f"{sign}{whole.lstrip('0') or '0'}{fraction}{exponent}",
    st.sampled_from(["", "-"]),
    digits,
    st.one_of(st.just(""), digits.map(lambda text: f".{text}")),
    st.one_of(st.just(""), st.integers(-60, 60).map(lambda number: f"e{number:+d}")),
)


def fits(text: str, kind: Any) -> bool:
    value = Decimal(text).normalize(EXACT)
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    return not value or (value.adjusted() < kind.precision - kind.scale and -exponent <= kind.scale)


@pytest.mark.full
@settings(deadline=None)
@given(st.lists(numbers, min_size=1, max_size=4), st.sampled_from(KINDS))
@example(["8864084658405480605985331"], pa.decimal128(38, 18))  # Arrow's cast wraps around
@example(["9069.0"], pa.decimal128(38, 38))
@example(["0e45", "-0"], pa.decimal128(12, 2))
def test_texts_become_exact_decimals_or_are_refused(texts: list[str], kind: pa.DataType) -> None:
    if all(fits(text, kind) for text in texts):
        found = from_texts(pa.array([None, *texts]), kind)
        assert found.type == kind
        assert found.to_pylist() == [None, *(Decimal(text) for text in texts)]
        found.validate(full=True)
    else:
        with pytest.raises(ValueError):  # noqa: PT011 -- its texts are Arrow's in part
            from_texts(pa.array([None, *texts]), kind)


@pytest.mark.parametrize("text", ["", "abc", "NaN", "Infinity", "1_000", " 1", "0x10", "1e", ".", "1e9999999999"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- its texts are Arrow's in part
        from_texts(pa.array([text]), pa.decimal128(38, 2))


def read_lines(folder: Path, lines: list[str], types: dict[str, str]) -> list[dict[str, Any]]:
    (folder / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    source = make_source("jsonl", {"path": "in.jsonl", "types": types}, folder)
    (stream,) = source.discover()
    return [
        record
        for _, event in source.read([stream], {})
        if not isinstance(event, Checkpoint)
        for record in event.to_pylist()
    ]


@pytest.mark.sampled
@settings(deadline=None, max_examples=examples(100))
@given(st.lists(numbers, min_size=1, max_size=3), st.sampled_from(["price", "Größe", 'a"b', "a\\b", "a\nb", "*"]))
@example(["8864084658405480605985331"], "price")
@example(["760175.00900900099090190000191010999E-31"], "a\nb")
def test_json_lines_give_exact_decimals_or_name_the_line(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], name: str
) -> None:
    kind = pa.decimal128(38, 18)
    folder = tmp_path_factory.mktemp("lines")
    lines = [f'{{{json.dumps(name, ensure_ascii=False)}: {text}, "n": 12345678901234567890}}' for text in texts]
    misfits = [line for line, text in enumerate(texts, 1) if not fits(text, kind)]
    if misfits:
        with pytest.raises(FatalConnectorError, match=rf"in\.jsonl:{misfits[0]}: "):
            read_lines(folder, lines, {name: "decimal(38,18)"})
    else:
        found = read_lines(folder, lines, {name: "decimal(38,18)"})
        assert [record[name] for record in found] == [Decimal(text) for text in texts]


def test_a_key_that_is_written_with_escapes_is_the_same_key(tmp_path: Path) -> None:
    lines = ['{"pr\\u0069ce": 1e-3, "note": "a \\"quoted\\" text: 5"}', '{"price": 8864084658405480605.5}']
    found = read_lines(tmp_path, lines, {"price": "decimal(38,18)"})
    assert [record["price"] for record in found] == [Decimal("0.001"), Decimal("8864084658405480605.5")]


def test_csv_refuses_what_a_decimal_has_no_room_for(tmp_path: Path) -> None:
    for text in ("8864084658405480605985331", "1e-45", "13242725222724010544830789513468.9000000000090"):
        (tmp_path / "in.csv").write_text(f"a,b\n1,{text}\n")
        source = make_source("csv", {"path": "in.csv", "types": {"b": "decimal(38,18)"}}, tmp_path)
        (stream,) = source.discover()
        with pytest.raises(FatalConnectorError, match=r"in\.csv:2: column 'b'"):
            list(source.read([stream], {}))


#: Numbers that are short to write and long to write out, or too small for any table of powers.
GIANTS = ["1e99999999", "-1e99999999", "1e-99999999", "-7.25e-9999999", "0e99999999", "0e-99999999", "1.5e999999999"]
FAR = ["1e99999999999999999999", "1e-99999999999999999999", "0e99999999999999999999"]

wild = st.one_of(
    st.sampled_from([*GIANTS, *FAR]),
    st.builds(
        lambda sign, whole, fraction, exponent: f"{sign}{whole}{fraction}e{exponent}",
        st.sampled_from(["", "-"]),
        st.sampled_from(["0", "1", "9" * 17, "9" * 40, "1" + "0" * 80]),
        st.sampled_from(["", ".0", ".5", "." + "3" * 60]),
        st.one_of(st.integers(-400, 400), st.integers(-(10**22), 10**22)),
    ),
    st.builds(lambda size: "9" * size, st.integers(1, 6000)),
)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("text", [*GIANTS, *FAR])
def test_a_giant_exponent_is_refused_without_a_crash(text: str, kind: pa.DataType) -> None:
    if text in ("0e99999999", "0e-99999999"):
        assert from_texts(pa.array([text]), kind).to_pylist() == [0]
    else:
        with pytest.raises(ValueError, match=r"room|no number|too large"):
            from_texts(pa.array([text]), kind)


LINES = {
    "int": "int64",
    "decimal": "decimal(38,9)",
    "wide": "decimal(76,20)",
    "double": "double",
    "text": "string",
    "json": "json",
}


@pytest.mark.parametrize("kind", ["", *LINES])
@pytest.mark.parametrize("text", [*GIANTS, *FAR])
def test_a_giant_exponent_in_json_lines_is_an_error_or_a_text(text: str, kind: str, tmp_path: Path) -> None:
    for shown in (text, f'"{text}"', f"[{text}]"):
        (tmp_path / "t.jsonl").write_text(f'{{"a": 1, "b": 1.5}}\n{{"a": {shown}, "b": 2.5}}\n')
        types = {"a": LINES[kind]} if kind else {}
        source = make_source("jsonl", {"path": str(tmp_path / "*.jsonl"), "types": types}, tmp_path)
        try:
            (stream,) = source.discover()
            for _, event in source.read([stream], {stream.name: None}):
                if isinstance(event, pa.RecordBatch):
                    event.validate(full=True)
                    value = event.column("a")[1].as_py()
                    assert isinstance(value, str) or not value, value
        except FatalConnectorError as error:
            assert "t.jsonl:2" in str(error), error  # noqa: PT017 -- some are text, which is no error


@pytest.mark.parametrize("kind", ["int64", "decimal(38,9)", "double"])
@pytest.mark.parametrize("text", GIANTS)
def test_a_giant_exponent_in_csv_is_an_error(text: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"a,b\n1,x\n{text},y\n")
    source = make_source("csv", {"path": str(tmp_path / "*.csv"), "types": {"a": kind}}, tmp_path)
    (stream,) = source.discover()
    try:
        events = [event for _, event in source.read([stream], {stream.name: None})]
    except FatalConnectorError as error:
        assert "t.csv:3" in str(error), error  # noqa: PT017 -- zero is no error
    else:
        assert text.startswith("0e")
        assert [each.column("a").to_pylist() for each in events if isinstance(each, pa.RecordBatch)] == [[1, 0]]


@settings(deadline=None, max_examples=300)
@given(wild, st.sampled_from([pa.int64(), pa.int8(), pa.float64(), *KINDS]))
def test_parsed_json_becomes_what_it_says_or_an_error(text: str, kind: pa.DataType) -> None:
    try:
        value = json.loads(text, parse_float=Decimal)
        found = revived([revive(value, kind)], kind)
    except (ValueError, ArithmeticError, pa.ArrowException):
        return
    made = found[0].as_py()
    assert made == (float(value) if pa.types.is_floating(kind) else value)


@settings(deadline=None, max_examples=300)
@given(wild, st.sampled_from([pa.int64(), pa.int16(), pa.float64(), *KINDS]))
def test_bookmarks_become_what_they_say_or_an_error(text: str, kind: pa.DataType) -> None:
    try:
        found = from_json(text, kind)
    except ConnectorConfigError:
        return
    assert found.as_py() == (float(text) if pa.types.is_floating(kind) else Decimal(text))


@pytest.mark.sampled
@settings(deadline=None, max_examples=examples(300))
@given(st.lists(wild, min_size=1, max_size=3))
def test_types_are_inferred_from_wild_numbers(texts: list[str]) -> None:
    guess = Guess()
    guess.add(pa.array(texts))
    kind = guess.type()
    found = from_text(pa.array(texts), kind, is_empty_null=True).to_pylist()
    if pa.types.is_decimal(kind) or pa.types.is_integer(kind):
        assert found == [Decimal(text) for text in texts]
