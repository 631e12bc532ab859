"""Singer messages written by Arrow kernels: every value read back by Python's own JSON reader is the one sent."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.programs.types import column_of
from syncblocks.connectors.singer.json_schema import json_schema, property_schema
from syncblocks.connectors.singer.lines import RecordLines, schema_line
from syncblocks.connectors.stream import Stream

NOON = datetime.fromisoformat("2024-05-06T12:00:00.000120")
UUID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
#: Everything that JSON must escape, and what it need not.
HOSTILE = (
    'quote " backslash \\ \\u0041 newline \n tab \t return \r null \x00 bell \x07 del \x7f \u2028 é 漢 😀 </script>'
)

VALUES: dict[str, tuple[pa.Array, list[Any]]] = {
    "int64": (pa.array([0, -(2**63), 2**63 - 1, None]), [0, -(2**63), 2**63 - 1, None]),
    "uint64": (pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
    "bool": (pa.array([True, False, None]), [True, False, None]),
    "float": (pa.array([0.1, -0.0, 1e300, 5e-324, 1.0]), [0.1, -0.0, 1e300, 5e-324, 1.0]),
    "decimal": (
        pa.array([Decimal("12345678901234567890.123456789"), Decimal("-0.000000001"), None], pa.decimal128(38, 9)),
        [Decimal("12345678901234567890.123456789"), Decimal("-0.000000001"), None],
    ),
    "string": (pa.array([HOSTILE, "", "plain", None]), [HOSTILE, "", "plain", None]),
    "large string": (pa.array([HOSTILE, None], pa.large_string()), [HOSTILE, None]),
    "dictionary": (pa.array(["a", "b", None, "a"]).dictionary_encode(), ["a", "b", None, "a"]),
    "instant": (
        pa.array([NOON.replace(tzinfo=UTC)], pa.timestamp("us", "Europe/Berlin")),
        ["2024-05-06T12:00:00.000120Z"],
    ),
    "naive": (pa.array([NOON, None], pa.timestamp("us")), ["2024-05-06T12:00:00.000120", None]),
    "seconds": (pa.array([NOON.replace(microsecond=0)], pa.timestamp("s")), ["2024-05-06T12:00:00"]),
    "date": (pa.array([date(1, 1, 1), date(9999, 12, 31)]), ["0001-01-01", "9999-12-31"]),
    "time": (pa.array([time(23, 59, 59, 1)]), ["23:59:59.000001"]),
    "binary": (pa.array([b"\x00\xff", b"", None]), ["AP8=", "", None]),
    "uuid": (pa.ExtensionArray.from_storage(pa.uuid(), pa.array([UUID.bytes], pa.binary(16))), [str(UUID)]),
    "json": (
        pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a":\n [1.10, "x\\n"]}', "3", None])),
        [{"a": [Decimal("1.10"), "x\n"]}, 3, None],
    ),
    "list": (pa.array([[1, None], [], None]), [[1, None], [], None]),
    "struct": (pa.array([{"a": "x", "b": 1}, None]), [{"a": "x", "b": 1}, None]),
    "duration": (pa.array([timedelta(days=1, microseconds=5)]), ["PT86400.000005S"]),
    "null": (pa.nulls(2), [None, None]),
}


@pytest.mark.parametrize("name", VALUES)
def test_each_value_is_read_back_as_it_was(name: str) -> None:
    array, expected = VALUES[name]
    batch = pa.record_batch({"v": array, "last": pa.array(["x"] * len(array))})
    for part, wanted in ((batch, expected), (batch.slice(1), expected[1:])):
        text = b"".join(RecordLines("s").write(part)).decode()
        messages = [json.loads(line, parse_float=Decimal) for line in text.split("\n")[:-1]]
        records = [message["record"] for message in messages]
        assert [record["last"] for record in records] == ["x"] * len(wanted)
        if name == "float":
            assert [float(record["v"]) for record in records] == wanted
        else:
            assert [record["v"] for record in records] == wanted


def test_a_message_carries_stream_version_and_time() -> None:
    batch = pa.record_batch({'a "b"': pa.array([1])})
    (piece,) = RecordLines("öffentlich", version=7).write(batch, "2024-01-01T00:00:00Z")
    assert json.loads(bytes(piece)) == {
        "type": "RECORD",
        "stream": "öffentlich",
        "record": {'a "b"': 1},
        "version": 7,
        "time_extracted": "2024-01-01T00:00:00Z",
    }


def test_records_alone_have_no_envelope() -> None:
    text = b"".join(RecordLines("s", is_wrapped=False).write(pa.record_batch({"a": pa.array([1, 2])})))
    assert text == b'{"a":1}\n{"a":2}\n'


@pytest.mark.parametrize(
    "array",
    [
        pa.array([1.0, float("nan")]),
        pa.array([float("-inf")]),
        pa.array([4 * 10**17], pa.timestamp("us")),
        pa.array([-(10**17)], pa.timestamp("us")),
        pa.array([3 * 10**6], pa.date32()),
    ],
    ids=["nan", "infinity", "after 9999", "before 1", "date after 9999"],
)
def test_what_json_cannot_say_is_refused_and_never_changed(array: pa.Array) -> None:
    with pytest.raises(FatalConnectorError, match="'v'"):
        list(RecordLines("s").write(pa.record_batch({"v": array})))


def test_types_survive_the_way_through_json_schema() -> None:
    kinds = [
        pa.int16(), pa.int32(), pa.int64(), pa.float64(), pa.bool_(), pa.string(), pa.decimal128(12, 2),
        pa.decimal128(38, 9), pa.decimal128(38, 0), pa.timestamp("us", "UTC"), pa.timestamp("us"), pa.date32(),
        pa.time64("us"), pa.binary(), pa.uuid(), pa.list_(pa.string()), pa.list_(pa.int64()), pa.json_(),
    ]  # fmt: skip
    for kind in kinds:
        spec = property_schema(kind, nullable=True)
        assert column_of("c", spec, {}).type == kind, spec


def test_every_column_has_a_type_and_none_a_step_that_floats_miss() -> None:
    """Old targets drop a column without a type, and check `multipleOf` with floats."""
    kinds = {"j": pa.json_(), "many": pa.list_(pa.json_()), "d": pa.decimal128(12, 2), "f": pa.float64()}
    declared = json_schema(Stream(name="s", schema=pa.schema(list(kinds.items())), key_properties=("j",)))
    specs = declared["properties"]
    assert all("type" in spec for spec in (*specs.values(), specs["many"]["items"]))
    assert "multipleOf" not in repr(declared)
    for spec in (specs["j"], specs["many"]["items"]):
        assert sorted(spec["type"]) == ["array", "boolean", "null", "number", "object", "string"]


def test_a_key_is_not_nullable_and_decimals_keep_their_digits() -> None:
    schema = pa.schema([pa.field("id", pa.int64()), ("d", pa.decimal128(38, 9)), ("j", pa.json_())])
    stream = Stream(name="s", schema=schema, key_properties=("id",))
    assert json_schema(stream)["properties"]["id"] == {"type": "integer"}
    message = json.loads(schema_line(stream), parse_float=Decimal)
    assert message["schema"]["properties"]["d"]["maximum"] == Decimal("99999999999999999999999999999.999999999")
    assert message["key_properties"] == ["id"]
