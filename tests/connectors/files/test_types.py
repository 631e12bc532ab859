"""How types survive files: round trips of anything, wider types, and what text cannot keep."""

from __future__ import annotations

import io
import json
import math
import uuid
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from syncblocks import StreamResult, load_pipeline
from syncblocks import run_pipeline as run_file
from syncblocks.connectors.arrow.declared_types import read_as
from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.files.jsonl_format import JSONLFormat
from syncblocks.connectors.files.parquet_format import ParquetFormat
from syncblocks.connectors.files.parquet_source import ParquetSource
from tests.budget import within
from tests.connectors.files import files_readback
from tests.connectors.files.files_load import load_of, run
from tests.connectors.files.files_pair import FINAL, FORMATS, destination_of, every_format, read, records_of, source_of
from tests.tiers import examples

# Columns


@every_format
def test_a_wider_type_widens_the_table_and_a_value_that_does_not_fit_is_refused(tmp_path: Path, name: str) -> None:
    destination = destination_of(name, tmp_path)

    def send(token: str, kind: pa.DataType, value: Any) -> Any:
        batch = pa.record_batch({"id": pa.array([1]), "v": pa.array([value], kind)})
        return run(destination, load_of("append", token, batch.schema), batch, FINAL)

    send("a", pa.int32(), 7)
    (commit,) = send("b", pa.int64(), 2**40)
    assert [dict(change) for change in commit.schema_changes] == [
        {"column": "v", "change": "changed", "before": "int32", "after": "int64"}
    ]
    send("c", pa.int16(), 3)
    with pytest.raises(FatalConnectorError, match="'v'"):
        send("d", pa.date32(), date(2024, 1, 1))
    send("e", pa.float64(), 0.5)
    assert [record["v"] for record in read(name, tmp_path)] == [7, 2**40, 3, 0.5]
    with pytest.raises(FatalConnectorError, match="'v'"):
        send("f", pa.int64(), 2**53 + 1)


@every_format
def test_the_highest_integer_fits_the_decimal_that_its_column_becomes(tmp_path: Path, name: str) -> None:
    destination = destination_of(name, tmp_path)
    for token, values in (
        ("a", pa.array([2**63 - 1])),
        ("b", pa.array([Decimal("1.50")], pa.decimal128(5, 2))),
    ):
        batch = pa.record_batch({"id": pa.array([1]), "v": values})
        run(destination, load_of("append", token, batch.schema), batch, FINAL)
    assert [Decimal(str(record["v"])) for record in read(name, tmp_path)] == [2**63 - 1, Decimal("1.50")]


@every_format
def test_a_value_that_is_there_and_that_the_wider_type_does_not_hold_refuses_the_load(
    tmp_path: Path, name: str
) -> None:
    first = pa.array([253402214400], pa.timestamp("s"))
    second = pa.array([1], pa.timestamp("ns"))
    destination = destination_of(name, tmp_path)
    batches = [pa.record_batch({"id": pa.array([1]), "v": values}) for values in (first, second)]
    run(destination, load_of("append", "a", batches[0].schema), batches[0], FINAL)
    with pytest.raises(FatalConnectorError, match="column 'v'"):
        run(destination, load_of("append", "b", batches[1].schema), batches[1], FINAL)
    assert [record["v"] for record in read(name, tmp_path)] == first.to_pylist()


@every_format
def test_floats_stay_the_numbers_that_they_are_when_doubles_arrive(tmp_path: Path, name: str) -> None:
    destination = destination_of(name, tmp_path)
    for token, kind in (("a", pa.float32()), ("b", pa.float64())):
        batch = pa.record_batch({"id": pa.array([1]), "v": pa.array([0.1], kind)})
        run(destination, load_of("append", token, batch.schema), batch, FINAL)
    assert [record["v"] for record in read(name, tmp_path)] == [pa.scalar(0.1, pa.float32()).as_py(), 0.1]


@every_format
@pytest.mark.parametrize("kinds", [(pa.int32(), pa.uint64()), (pa.uint64(), pa.int32())])
def test_integers_with_and_without_a_sign_are_kept_by_a_type_that_holds_both(
    tmp_path: Path, name: str, kinds: tuple[pa.DataType, pa.DataType]
) -> None:
    destination, sent = destination_of(name, tmp_path), []
    for token, kind in zip("ab", kinds, strict=True):
        sent.append(2**64 - 1 if kind == pa.uint64() else -5)
        batch = pa.record_batch({"id": pa.array([1]), "v": pa.array([sent[-1]], kind)})
        load = load_of("append", token, batch.schema)
        table = destination.describe([load.key.destination_table])[load.key.destination_table]
        _, column = destination.keeps(load.stream, table, load.write.disposition)
        run(destination, load, batch, FINAL)
    assert (column.type, column.note) == ("decimal128(20, 0)", "")
    assert [int(record["v"]) for record in read(name, tmp_path)] == sent


@pytest.mark.parametrize("name", ["csv", "jsonl"])
@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.timestamp("s")])
def test_years_that_text_cannot_keep_are_refused(tmp_path: Path, name: str, kind: pa.DataType) -> None:
    far = (
        pa.array([10**17 * 10], pa.int64()).cast(kind)
        if kind.unit == "us"
        else pa.array([10**12], pa.int64()).cast(kind)
    )
    batch = pa.record_batch({"id": pa.array([1]), "v": far})
    with pytest.raises(FatalConnectorError, match="'v'"):
        run(destination_of(name, tmp_path), load_of("append", "a", batch.schema), batch, FINAL)
    assert files_readback.tables(tmp_path) == set()


# Round trips

MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).filter(lambda m: (m.month, m.day) != (2, 29))  # noqa: DTZ001 -- naive on purpose
TYPES: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.string(), st.text(st.characters(exclude_categories=["Cs"]), max_size=12)),
    (pa.large_string(), st.text('",\n\r\\ \t\0', max_size=5)),
    (pa.int8(), st.integers(-128, 127)),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.float64(), st.floats()),
    (pa.float32(), st.floats(width=32)),
    (pa.bool_(), st.booleans()),
    (pa.decimal128(38, 18), st.decimals(-(10**19), 10**19, places=18)),
    (pa.decimal256(60, 2), st.decimals(-(10**50), 10**50, places=2)),
    (pa.date32(), st.dates()),
    (pa.time64("us"), st.times()),
    (pa.timestamp("us"), MOMENTS),
    (pa.timestamp("us", "UTC"), MOMENTS.map(lambda moment: moment.replace(tzinfo=UTC))),
    (
        pa.timestamp("ms", "Europe/Berlin"),
        MOMENTS.map(lambda moment: moment.replace(year=2000 + moment.year % 50, microsecond=0, tzinfo=UTC)),
    ),
    (pa.duration("us"), st.timedeltas(timedelta(days=-(10**5)), timedelta(days=10**5))),
    (pa.binary(), st.binary(max_size=12)),
    (pa.binary(4), st.binary(min_size=4, max_size=4)),
    (
        pa.month_day_nano_interval(),
        st.tuples(st.integers(-99, 99), st.integers(-99, 99), st.integers(-(10**12), 10**12)),
    ),
    (pa.list_(pa.string()), st.lists(st.none() | st.text('",\n\\é', max_size=4), max_size=3)),
    (pa.list_(pa.float64()), st.lists(st.none() | st.floats(), max_size=3)),
    (
        pa.map_(pa.string(), pa.int64()),
        st.dictionaries(st.text("ab", max_size=2), st.integers(0, 9)).map(lambda d: list(d.items())),
    ),
    (
        pa.struct([("at", pa.timestamp("us", "UTC")), ("b", pa.binary()), ("n", pa.decimal128(10, 2))]),
        st.fixed_dictionaries(
            {
                "at": st.none() | MOMENTS.map(lambda moment: moment.replace(tzinfo=UTC)),
                "b": st.binary(max_size=4),
                "n": st.decimals(-1000, 1000, places=2),
            }
        ),
    ),
]
COLUMNS = st.sampled_from(TYPES).flatmap(
    lambda pair: st.tuples(st.just(pair[0]), st.lists(st.none() | pair[1], min_size=1, max_size=5))
)


@pytest.mark.sampled
@every_format
@example(columns=[(pa.float64(), [math.inf, -0.0])], number=0)
@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(columns=st.lists(COLUMNS, min_size=1, max_size=4), number=st.integers(0, 2**32))
def test_what_goes_in_comes_out_in_value_and_type(
    tmp_path: Path, name: str, columns: list[tuple[pa.DataType, list[Any]]], number: int
) -> None:
    count = min(len(values) for _, values in columns)
    batch = pa.record_batch(
        {f"c {place}": pa.array(values[:count], kind) for place, (kind, values) in enumerate(columns)}
    )
    folder = tmp_path / str(number)
    load = load_of("replace", "t", batch.schema)
    run(destination_of(name, folder), load, batch, FINAL)
    source = FORMATS[name][1]({"path": str(folder)}, folder)
    (stream,) = source.discover()
    assert stream.schema.equals(batch.schema)
    (found,) = [event for _, event in source.read([stream], {}) if isinstance(event, pa.RecordBatch)]
    assert repr(found.to_pylist()) == repr(batch.to_pylist())


def test_numbers_that_json_lacks_are_texts_and_come_back(tmp_path: Path) -> None:
    batch = pa.record_batch({"v": pa.array([math.nan, math.inf, -math.inf, 1.5])})
    run(destination_of("jsonl", tmp_path), load_of("replace", "t", batch.schema), batch, FINAL)
    lines = (tmp_path / "orders.jsonl").read_text().splitlines()
    assert [json.loads(line)["v"] for line in lines] == ["NaN", "Infinity", "-Infinity", 1.5]
    foreign = tmp_path / "foreign.jsonl"
    foreign.write_text("\n".join(lines))
    assert [repr(record["v"]) for record in read("jsonl", foreign, "foreign")] == ["nan", "inf", "-inf", "1.5"]


def test_json_columns_are_json_in_json_lines(tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.int64()), ("doc", pa.json_())])
    texts = ['{"a": [1,\n 2]}', "null", None, "12345678901234567890"]
    batch = pa.record_batch([pa.array([1, 2, 3, 4]), pa.array(texts, pa.json_())], schema=schema)
    run(destination_of("jsonl", tmp_path), load_of("replace", "t", schema), batch, FINAL)
    lines = (tmp_path / "orders.jsonl").read_text().splitlines()
    assert [json.loads(line)["doc"] for line in lines] == [{"a": [1, 2]}, None, None, 12345678901234567890]
    broken = pa.record_batch([pa.array([1]), pa.array(["{"], pa.json_())], schema=schema)
    with pytest.raises(FatalConnectorError, match="'doc'"):
        run(destination_of("jsonl", tmp_path), load_of("replace", "u", schema), broken, FINAL)


def test_json_lines_escape_what_json_does_not_allow_within_quotes(tmp_path: Path) -> None:
    texts = [*map(chr, range(33)), "\\n", '"\\"', "plain", "\x7f\u2028\U0001f4e6", "", '\0\n\\\b"', None]
    batch = pa.record_batch({"t": pa.array(texts)})
    run(destination_of("jsonl", tmp_path), load_of("replace", "t", batch.schema), batch, FINAL)
    lines = (tmp_path / "orders.jsonl").read_text().split("\n")
    assert [json.loads(line)["t"] for line in lines if line] == texts


@pytest.mark.parametrize(
    "texts", [[""], ["1 2"], ["{}{}"], ["[1", "2]"], ["1],[2"], ["1]", "[2"], ['"a', 'b"'], ["1,"]]
)
def test_texts_that_are_json_only_together_are_refused(texts: list[str]) -> None:
    batch = pa.record_batch({"doc": pa.array(["1", *texts], pa.json_())})
    with pytest.raises(FatalConnectorError, match="'doc'"):
        JSONLFormat().writer(io.BytesIO(), batch.schema).write(batch)


# Wide columns


def test_wide_columns_of_a_parquet_file_get_neither_dictionary_nor_statistics() -> None:
    sink = io.BytesIO()
    writer = ParquetFormat().writer(sink, pa.schema([("id", pa.int64()), ("doc", pa.string())]))
    batch = pa.record_batch({"id": pa.array([1, 1]), "doc": pa.array(["x" * (2 << 20)] * 2)})
    writer.write(batch)
    writer.close()
    narrow, wide = (pyarrow.parquet.read_metadata(sink).row_group(0).column(place) for place in range(2))
    assert (narrow.is_stats_set, wide.is_stats_set) == (True, False)
    assert "RLE_DICTIONARY" in narrow.encodings
    assert "RLE_DICTIONARY" not in wide.encodings
    assert pyarrow.parquet.read_table(sink).to_batches() == [batch]


@pytest.mark.full
def test_columns_whose_values_repeat_get_a_dictionary_in_parquet() -> None:
    count = 30_000
    uuids = [uuid.UUID(int=number) for number in range(count)]
    table = pa.table(
        {
            "id": pa.array(range(count)),
            "word": [f"word {number % 100}" for number in range(count)],
            "first": pa.array([number if number < 15_000 else 0 for number in range(count)], pa.int32()),
            "is_set": pa.array([number % 2 == 0 for number in range(count)]),
            "price": pa.array([Decimal(number) for number in range(count)], pa.decimal128(12, 2)),
            "key": pa.array([each.bytes for each in uuids], pa.uuid()),
            "doc": pa.array([f'{{"at": {number % 5}}}' for number in range(count)], pa.json_()),
            "tags": pa.array([["a", str(number)] for number in range(count)]),
            "box.x": pa.array([{"a": 1, "b": {"c": str(number)}} for number in range(count)]),
            "pairs": pa.array([[("k", number)] for number in range(count)], pa.map_(pa.string(), pa.int64())),
            "nothing": pa.nulls(count, pa.string()),
        }
    )
    sink = io.BytesIO()
    writer = ParquetFormat().writer(sink, table.schema)
    for batch in table.to_batches(max_chunksize=7_000):
        writer.write(batch)
    writer.close()
    group = pyarrow.parquet.read_metadata(sink).row_group(0)
    columns = [group.column(place) for place in range(group.num_columns)]
    assert {column.path_in_schema for column in columns if not column.has_dictionary_page} == {
        "id",
        "first",
        "is_set",  # which has one bit a value
        "price",
        "key",
    }
    assert all(column.is_stats_set for column in columns if column.path_in_schema not in ("nothing",))
    assert pyarrow.parquet.read_table(sink).equals(table)


def test_old_timestamps_of_parquet_come_as_they_are_or_not_at_all(tmp_path: Path) -> None:
    first, near, far = map(datetime.fromisoformat, ("0001-01-01", "1960-01-01T01:02:03.000004", "9999-12-31T23:59:59"))
    columns = {
        "far": pa.array([far, None, first], pa.timestamp("us")),
        "near": pa.array([near, None, near], pa.timestamp("us")),
        "digits": pa.array([1, None, -1], pa.timestamp("ns")),
        "deep": pa.array([[near], None, [far]], pa.list_(pa.timestamp("us"))),
    }
    for name, values in columns.items():
        pyarrow.parquet.write_table(
            pa.table({name: values}), tmp_path / f"{name}.parquet", use_deprecated_int96_timestamps=True
        )

    def read_in(name: str, **types: str) -> list[Any]:
        source = source_of(tmp_path / f"{name}.parquet", ParquetSource, types=types)
        return [record[name] for record in records_of(source)]

    assert read_in("far", far="timestamp") == columns["far"].to_pylist()
    assert read_in("near") == read_in("near", near="timestamp") == columns["near"].to_pylist()
    assert read_in("digits") == columns["digits"].to_pylist()
    with pytest.raises(FatalConnectorError, match=r"far\.parquet: column 'far': 9999.* ends in 2262; .*timestamp\}"):
        read_in("far")
    with pytest.raises(FatalConnectorError, match=r"deep\.parquet: column 'deep': 9999.* ends in 2262"):
        read_in("deep")
    with pytest.raises(FatalConnectorError, match=r"digits\.parquet: column 'digits': 1970.* has nanoseconds"):
        read_in("digits", digits="timestamp")


def test_what_the_error_of_an_old_timestamp_says_can_be_done(tmp_path: Path) -> None:
    """Of a year past 9999 it named `types` only, which SQLite and texts refuse as well."""
    path = tmp_path / "t.parquet"
    far = pa.array([9_089_348_884_560_000_000, 0], pa.timestamp("us"))
    pyarrow.parquet.write_table(pa.table({"at": far}), path, use_deprecated_int96_timestamps=True)

    def run(said: dict[str, Any], **stream: str) -> StreamResult:
        document = {
            "pipeline": "p",
            "source": {"connector": "parquet", "config": {"path": "t.parquet", **said}},
            "destination": {"connector": "sqlite", "config": {"path": "out.db"}},
            "streams": [{"stream": "t", **stream}],
        }
        (result,) = run_file(load_pipeline(document, folder=tmp_path)).streams
        return result

    error = str(run({}).error)
    assert "290000-01-01 06:36:00.000000 is no timestamp[ns]" in error
    assert "`config.types: {at: timestamp}`" in error
    assert "`on_rejected: keep`" in error
    done = run({"types": {"at": "timestamp"}}, on_rejected="keep")
    assert (done.status, done.records, done.records_rejected) == ("success", 1, 1)


@pytest.mark.parametrize("text", ["2024-01-01T10:00:00Z", "2024-01-01 10:00:00+02:00"])
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_the_error_of_a_zoned_time_names_the_type_that_takes_it(text: str, ending: str, tmp_path: Path) -> None:
    lines = ["at", text] if ending == "csv" else [json.dumps({"at": text})]
    (tmp_path / f"t.{ending}").write_text("\n".join([*lines, ""]))
    document = {
        "pipeline": "p",
        "source": {"connector": ending, "config": {"path": ".", "types": {"at": "timestamp"}}},
        "destination": {"connector": "duckdb", "config": {"path": "out.db"}},
        "streams": [{"stream": "t"}],
    }
    (stream,) = run_file(load_pipeline(document, folder=tmp_path)).streams
    assert "`at: timestamptz` reads times with a zone" in str(stream.error)


def test_texts_of_parquet_that_are_no_utf_8_name_the_column(tmp_path: Path) -> None:
    made = pa.array([b"a", b"\xff\xfe"], pa.binary()).view(pa.string())
    for name, column in (("t", made), ("l", pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), made))):
        pyarrow.parquet.write_table(pa.table({name: column}), tmp_path / f"{name}.parquet")
        with pytest.raises(FatalConnectorError, match=rf"{name}\.parquet: column '{name}' .*Invalid UTF8 sequence"):
            records_of(source_of(tmp_path / f"{name}.parquet", ParquetSource))


@pytest.mark.parametrize(
    ("kind", "count"),
    [(pa.time32("ms"), -53_940_000), (pa.time64("us"), 86_400_000_001), (pa.time64("ns"), -1)],
    ids=str,
)
def test_times_of_parquet_that_no_day_has_name_the_column(kind: pa.DataType, count: int, tmp_path: Path) -> None:
    for name, counts in (("day", [0, 1, None]), ("t", [0, None, count])):
        pyarrow.parquet.write_table(pa.table({name: pa.array(counts, kind)}), tmp_path / f"{name}.parquet")
    assert len(records_of(source_of(tmp_path / "day.parquet", ParquetSource))) == 3
    with pytest.raises(
        FatalConnectorError, match=rf"t\.parquet: column 't' .*{count} {kind.unit} is not a time of day"
    ):
        records_of(source_of(tmp_path / "t.parquet", ParquetSource))


def test_a_year_that_text_cannot_keep_is_an_error_with_its_column(tmp_path: Path) -> None:
    days = pa.array([2_932_897], pa.date32())  # the first day of the year 10000
    pyarrow.parquet.write_table(pa.table({"d": days}), tmp_path / "t.parquet")
    with pytest.raises(FatalConnectorError, match="column 'd' contains a date outside the years"):
        records_of(source_of(tmp_path / "t.parquet", ParquetSource, types={"d": "string"}))
    with pytest.raises(FatalConnectorError, match="column 'd' contains a date outside the years"):
        read_as(days, pa.string(), "d")


def test_a_text_that_is_no_json_is_none_where_types_say_json(tmp_path: Path) -> None:
    """No database would read the column: DuckDB refuses each query of it."""
    (tmp_path / "t.csv").write_text('n,v\n1,"{""a"": [1e999]}"\n2,\n3,"""\\ud800"""\n4,nope\n')
    with pytest.raises(FatalConnectorError, match=r"t\.csv:5: column 'v': 'nope' is no json"):
        records_of(source_of(tmp_path / "t.csv", types={"v": "json"}))
    (tmp_path / "t.csv").write_text((tmp_path / "t.csv").read_text().replace("nope", "[]"))
    assert [record["v"] for record in records_of(source_of(tmp_path / "t.csv", types={"v": "json"}))] == [
        '{"a": [1e999]}',
        None,
        '"\\ud800"',
        "[]",
    ]
    pyarrow.parquet.write_table(pa.table({"v": ["1", None, "NaN"]}), tmp_path / "t.parquet")
    with pytest.raises(FatalConnectorError, match=r"t\.parquet: column 'v': 'NaN' is no json"):
        records_of(source_of(tmp_path / "t.parquet", ParquetSource, types={"v": "json"}))
    deep = "[" * 100_000 + "]" * 100_000
    assert read_as(pa.array([deep, None]), pa.json_(), "v").to_pylist() == [deep, None]
    with pytest.raises(FatalConnectorError, match="column 'v': '1 2' is not a json, the type that `types` declares"):
        read_as(pa.array(["1", "1 2"]), pa.json_(), "v")


def test_a_decimal_of_parquet_with_more_digits_than_its_type_names_the_column(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    wide = pa.array([Decimal("1234567890123456.78")], pa.decimal128(38, 2))
    pyarrow.parquet.write_table(pa.table({"d": pa.Array.from_buffers(pa.decimal128(17, 2), 1, wide.buffers())}), path)
    with pytest.raises(
        FatalConnectorError, match=r"t\.parquet: column 'd' .*123456789012345678 does not fit.*config\.types"
    ):
        records_of(source_of(path, ParquetSource))
    assert records_of(source_of(path, ParquetSource, types={"d": "decimal(38,2)"})) == [
        {"d": Decimal("1234567890123456.78")}
    ]


def test_a_parquet_file_with_fewer_values_than_its_footer_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pa.table({"a": range(300)}), path)
    count = b"\x16\xd8\x04"  # of records of the file, of values of the column, of records of its row group
    before, file, column, rest = path.read_bytes().split(count)
    path.write_bytes(before + count + file + b"\x16\x80\x00" + column + count + rest)
    assert pyarrow.parquet.ParquetFile(path).metadata.num_rows == 300
    with pytest.raises(FatalConnectorError, match=r"t\.parquet: cannot be read: the footer counts 300 records"):
        records_of(source_of(path, ParquetSource))


def test_a_page_of_parquet_that_does_not_match_its_checksum_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    made = pa.table({"a": [*range(100)]})
    pyarrow.parquet.write_table(made, path, compression="none", use_dictionary=False, write_page_checksum=True)
    number = (77).to_bytes(8, "little")
    path.write_bytes(path.read_bytes().replace(number, (79).to_bytes(8, "little"), 1))
    with pytest.raises(FatalConnectorError, match=r"t\.parquet: cannot be read: .*checksum"):
        records_of(source_of(path, ParquetSource))


def test_an_encrypted_parquet_file_is_said_to_be_one(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"a": [1]}), tmp_path / "t.parquet")
    data = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(data[:-4] + b"PARE")  # as the end of a file whose footer is encrypted
    with pytest.raises(FatalConnectorError, match=r"t\.parquet: is encrypted.*decrypt it"):
        source_of(tmp_path / "t.parquet", ParquetSource).discover()


@pytest.mark.full
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_thousands_of_columns_are_read_in_seconds(tmp_path: Path, ending: str) -> None:
    names = [f"c{place}" for place in range(5000)]
    path = tmp_path / f"t.{ending}"
    if ending == "csv":
        path.write_text(",".join(names) + "\n" + ",".join("1" for _ in names) + "\n")
    else:
        pyarrow.parquet.write_table(pa.table({name: [1] for name in names}), path)
    source = source_of(path, FORMATS[ending][1])
    (stream,) = source.discover()
    with within(1):  # half of one; over four where each column is sought among all
        assert records_of(source, stream) == [dict.fromkeys(names, 1)]


def test_an_integer_past_the_tables_column_is_told_with_the_type_that_widens_it(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    with closing(duckdb.connect(tmp_path / "out.db")) as database:
        database.execute("create table t (id integer, n integer)")
    (tmp_path / "t.jsonl").write_text('{"id": 1, "n": 3000000000}\n')
    document: dict[str, Any] = {
        "pipeline": "p",
        "source": {"connector": "jsonl", "config": {"path": "t.jsonl"}},
        "destination": {"connector": "duckdb", "config": {"path": "out.db"}},
        "streams": [{"stream": "t", "write_disposition": "append"}],
    }
    (stream,) = run_file(load_pipeline(document, folder=tmp_path)).streams
    assert "t.jsonl:1: column 'n': '3000000000' is no int32" in str(stream.error)
    assert "`types: {n: bigint}` of the stream makes it wider" in str(stream.error)
    document["streams"][0]["types"] = {"n": "bigint"}
    assert run_file(load_pipeline(document, folder=tmp_path)).status == "success"
