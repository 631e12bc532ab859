"""Wide records of CSV files: cut where Arrow's parser ends records, with the values that it finds in them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncblocks.connectors.arrow.record_size import RecordTooWide
from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.files.csv_source import CSVSource
from syncblocks.connectors.files.csv_wide import Records, TooLong
from syncblocks.connectors.stream import Rejected
from syncblocks.connectors.struct_helpers import replace

NAMES = ["a", "b"]
NULLS = ["", "NULL"]

#: What has a meaning somewhere, much of it; what has none, and characters of several bytes.
TEXTS = st.lists(
    st.sampled_from(['"', '""', ',"', '",', ",", "\n", "\r", "\r\n", "\\", "x", "NULL", "é", "some text"]), max_size=30
).map("".join)
DIALECTS = st.sampled_from([('"', None), ('"', "\\"), ("'", None), ("", None)])


def reading(data: bytes, step: int) -> Callable[[int], bytes]:
    source = io.BytesIO(data)
    return lambda _: source.read(step)


def parsed(data: bytes, quote: str, escape: str | None) -> list[tuple[Any, ...]]:
    """What Arrow finds in it, records of another number of fields by that number."""
    odd: list[tuple[Any, ...]] = []

    def note(row: Any) -> str:
        odd.append((row.number, row.actual_columns))
        return "skip"

    if not data:
        return []
    table = pyarrow.csv.read_csv(
        pa.BufferReader(data),
        pyarrow.csv.ReadOptions(column_names=NAMES, block_size=len(data) + 1, use_threads=False),
        pyarrow.csv.ParseOptions(
            quote_char=quote or False,
            escape_char=escape or False,
            newlines_in_values=bool(quote),
            invalid_row_handler=note,
        ),
        pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(NAMES, pa.string()),
            null_values=NULLS,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    return [*zip(*(column.to_pylist() for column in table.columns), strict=True), *(fields for _, fields in odd)]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=TEXTS, end=st.sampled_from(["\n", "x"]), dialect=DIALECTS, step=st.integers(1, 9), piece=st.integers(1, 40))
def test_pieces_hold_the_records_that_arrow_finds_in_the_whole(
    text: str, end: str, dialect: tuple[str, str | None], step: int, piece: int
) -> None:
    # Of a quoted field and an empty one at the end of a file Arrow says that both are quoted.
    data, (quote, escape) = f"{text}{end}".encode(), dialect
    records = Records(reading(data, step), delimiter=",", quote=quote, escape=escape, piece_bytes=piece)
    pieces, found = [], []
    while taken := records.take(1000):
        batch = records.batch(taken, NAMES, NAMES, NULLS) if records.is_wide else None
        by_arrow = parsed(bytes(taken), quote, escape)
        if batch is not None:
            assert [tuple(record.values()) for record in batch.to_pylist()] == by_arrow
        pieces.append(bytes(taken))
        found += by_arrow
    assert b"".join(pieces) == data
    assert sorted(map(repr, found)) == sorted(map(repr, parsed(data, quote, escape)))


# ---------------------------------------------------------------- as a source reads them

WIDE = 18 << 20  # does not fit into two of the blocks that are parsed otherwise


def source_of(path: Path, **config: Any) -> CSVSource:
    return CSVSource({"path": str(path), **config}, path.parent)


def read(source: CSVSource, **changes: Any) -> tuple[list[dict[str, Any]], list[Rejected]]:
    (stream,) = source.discover()
    events = [event for _, event in source.read([replace(stream, read=replace(stream.read, **changes))], {})]
    batches = [event for event in events if isinstance(event, pa.RecordBatch)]
    return pa.Table.from_batches(batches).to_pylist(), [each for each in events if isinstance(each, Rejected)]


@pytest.mark.full
def test_wide_records_are_read_among_narrow_ones(tmp_path: Path) -> None:
    path, wide = tmp_path / "docs.csv", 'say "é",\n' * (WIDE // 9)
    quoted = wide.replace('"', '""')
    path.write_text(
        f'id,doc,n\n1,a,7\n2,"{quoted}",8\n3,,9\n4,"",\n5,x"y,{10**6}\n6,"{quoted}z",\n', encoding="utf-8", newline=""
    )
    records, _ = read(source_of(path))
    assert [(record["id"], record["n"]) for record in records] == [
        (1, 7),
        (2, 8),
        (3, 9),
        (4, None),
        (5, 10**6),
        (6, None),
    ]
    assert [record["doc"] for record in records] == ["a", wide, None, "", 'x"y', f"{wide}z"]


@pytest.mark.full
def test_what_is_wrong_behind_a_wide_record_is_told_with_its_line(tmp_path: Path) -> None:
    path, begin = tmp_path / "docs.csv", 'id,doc\n1,"a\nb"\n2,"' + ("x" * 1000 + "\r\n") * (WIDE // 1000) + '"\n'
    line = begin.count("\n") + 1
    path.write_text(f"{begin}3,c,d\n4,e\nfive,f\n", newline="")
    with pytest.raises(FatalConnectorError, match=rf"docs\.csv:{line}: 3 fields for 2 columns"):
        read(source_of(path))
    records, rejected = read(source_of(path, types={"id": "int64"}), max_rejected=5)
    assert [record["id"] for record in records] == [1, 2, 4]
    found = [(record.place.rpartition(":")[2], record.reason) for each in rejected for record in each.records]
    assert found == [
        (str(line), "3 fields for 2 columns"),
        (str(line + 2), "column 'id': 'five' is no int64"),
    ]


@pytest.mark.full
def test_a_wide_record_may_be_what_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "docs.csv"
    path.write_text(f"id,doc\n1,a\n{'x' * WIDE},b,c\n3,d\n")
    records, rejected = read(source_of(path), max_rejected=5)
    assert [record["id"] for record in records] == [1, 3]
    assert [record.place for each in rejected for record in each.records] == [f"{path}:3"]


@pytest.mark.full
def test_a_wide_record_that_is_no_utf_8_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "docs.csv"
    path.write_bytes(b"id,doc\n1,a\n2," + b"x" * WIDE + b"\xff\n")
    with pytest.raises(FatalConnectorError, match=r"docs\.csv:3: not encoded in utf-8"):
        read(source_of(path))


def test_a_quote_that_is_never_closed_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "docs.csv"
    path.write_text('id,doc\n1,a\n2,"b\n' + "3,cccccccc\n" * (WIDE // 11))
    with pytest.raises(FatalConnectorError, match=r"docs\.csv:3: a quoted field does not end: .*`config\.quote: \"\"`"):
        source_of(path).discover()


@pytest.mark.full
def test_a_record_larger_than_memory_is_refused_before_it_is_read_to_its_end(tmp_path: Path) -> None:
    path, taken = tmp_path / "docs.csv", 0

    def counted(size: int) -> bytes:
        nonlocal taken
        taken += size
        return b"x" * size

    records = Records(counted, delimiter=",", quote='"', escape=None)
    with pytest.raises(TooLong):
        records.take(20_000_000)
    assert taken < 22_000_000
    path.write_text(f"id,doc\n1,{'x' * WIDE}\n2,{'y' * 2 * WIDE}\n3,{'z' * 10**7}\n")
    source = source_of(path)
    source.limit_record(WIDE)
    with pytest.raises(RecordTooWide, match=r"docs\.csv:3: a record is larger than `memory`, 19 MB: raise"):
        source.discover()
