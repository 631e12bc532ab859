"""The golden tables, one a system: types at their extremes, in each system's own words."""

from __future__ import annotations

import struct
import uuid
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from tests.golden.values import Column, same

TEXTS = ["plain", "\U0001d11e\U0001f600 é e\u0301", 'q"`\\ \t,;|', "NULL", "00123", "line\nend\r\n", "\u202eabc\u200b"]
QUOTED = tuple((f"'{text}'", text) for text in TEXTS)
BYTES = [b"\x00\xff\\'\"", bytes(range(256))]
DOUBLES = [0.1, -1.7976931348623157e308, 5e-324, 1 / 3, 2.0**53 + 2]
LONG = Decimal("9" * 28 + "." + "9" * 10)
SMALL = Decimal("-0.0000000001")
WIDE = Decimal("1234567890123456789012345678901234567890.12345678901234567891")
INET6 = "2001:db8::1"
UUID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
DEEP = (
    '{"a": [1, null, {"b": "\u00e9\U0001f600"}], "big": 123456789012345678901234567890, "exact": 0.1000000000000000055}'
)
SPECIAL = (("'NaN'", "nan"), ("'Infinity'", "inf"), ("'-Infinity'", "-inf"))


def f32(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


def moments(*texts: str, prefix: str = "") -> tuple[tuple[Any, Any], ...]:
    return tuple((f"{prefix}'{text}'", text) for text in texts)


def hexed(form: str) -> tuple[tuple[Any, Any], ...]:
    return tuple((form.format(value.hex()), value) for value in BYTES)


POSTGRES = [
    Column("i2", "smallint", "int", same([-(2**15), 2**15 - 1], "n")),
    Column("i4", "integer", "int", same([-(2**31), 2**31 - 1], "n")),
    Column("i8", "bigint", "int", same([-(2**63), 2**63 - 1, 2**53 + 1], "n")),
    Column("n12", "numeric(12,2)", "decimal", same([Decimal("9999999999.99"), Decimal("-0.01")])),
    Column("n38", "numeric(38,10)", "decimal", same([LONG, LONG.copy_negate(), SMALL])),
    Column("n60", "numeric(60,20)", "decimal", same([WIDE, WIDE.copy_negate()])),
    Column("bare", "numeric", "decimal", same([WIDE, Decimal("1E-40"), Decimal("1E+50"), Decimal("-0.10")])),
    Column("f4", "real", "float", same([0.1, f32(3.4028235e38), f32(1e-45), -1.5], "n")),
    Column("f8", "double precision", "double", same(DOUBLES, "n")),
    Column("fs", "double precision", "double", SPECIAL, refused_by=("mysql",)),
    Column("b", "boolean", "bool", same([True, False], "n")),
    Column("t", "text", "text", QUOTED),
    Column("vc", "varchar(12)", "text", QUOTED[:4]),
    # (In PostgreSQL itself the cast with which it is read back takes the blanks off.)
    Column("ch", "char(5)", "text", (("'ab'", "ab   "),), unlike={"postgres": ("ab",)}),
    Column("raw", "bytea", "bytes", hexed("'\\x{}'")),
    Column("d", "date", "moment", moments("0001-01-01", "1582-10-10", "9999-12-31")),
    Column("tm", "time", "moment", moments("00:00:00", "23:59:59.999999")),
    Column("tmz", "timetz", "text", (("'23:59:59.999999+02'", "23:59:59.999999+02"),)),
    Column("ts", "timestamp", "moment", moments("0001-01-01T00:00:00", "9999-12-31T23:59:59.999999")),
    Column("tz", "timestamptz", "moment", moments("1969-12-31T23:59:59.000001Z", "9999-12-30T23:59:59.999999Z")),
    Column(
        "iv",
        "interval",
        "interval",
        (("'1 mon -2 days 3.000004 s'", (1, -2, 3_000_004_000)), ("'-25:00'", (0, 0, -90_000 * 10**9))),
    ),
    Column("u", "uuid", "uuid", same([UUID])),
    Column("j", "json", "json", ((f"'{DEEP}'", DEEP),)),
    Column("jb", "jsonb", "json", ((f"'{DEEP}'", DEEP),)),
    Column("ia", "int[]", "text", (("'{1,NULL,-3}'", "{1,NULL,-3}"),)),
    Column("ta", "text[]", "text", (("""'{"a b","q\\"",NULL}'""", """{"a b","q\\"",NULL}"""),)),
    Column("ne", "numeric(5,2)[]", "text", (("'{{1.50},{2.25}}'", "{{1.50},{2.25}}"),)),
    Column("en", "mood", "text", same(["sad", "so so"])),
    # (In PostgreSQL itself the cast with which it is read back adds the mask of a host.)
    Column(
        "ip", "inet", "text", same(["192.168.0.1/24", INET6]), unlike={"postgres": ("192.168.0.1/24", f"{INET6}/128")}
    ),
    Column("r", "int4range", "text", (("'[1,10)'", "[1,10)"),)),
    Column("tr", "tstzrange", "text", (("""'["2024-01-01 00:00:00+00",)'""", '["2024-01-01 00:00:00+00",)'),)),
    Column("p", "point", "text", (("'(1.5,-2)'", "(1.5,-2)"),)),
    Column("bi", "bit(5)", "text", (("B'10101'", "10101"),)),
    Column("m", "money", "decimal", (("'-92233720368547758.08'", Decimal("-92233720368547758.08")),)),
    Column("x", "xml", "text", same(["<a>1</a>"])),
]

MYSQL = [
    Column("i1", "tinyint", "int", same([-128, 127], "n")),
    Column("u1", "tinyint unsigned", "int", same([0, 255], "n")),
    Column("i3", "mediumint", "int", same([-(2**23), 2**23 - 1], "n")),
    Column("i8", "bigint", "int", same([-(2**63), 2**63 - 1], "n")),
    Column("u8", "bigint unsigned", "int", same([0, 2**64 - 1], "n")),
    Column("b", "tinyint(1)", "bool", same([True, False], "n")),
    Column("b1", "bit(1)", "bool", (("b'1'", True), ("b'0'", False))),
    Column("b8", "bit(64)", "int", (("18446744073709551615", 2**64 - 1),)),
    Column("n38", "decimal(38,10)", "decimal", same([LONG, LONG.copy_negate(), SMALL])),
    Column("n60", "decimal(60,20)", "decimal", same([WIDE, WIDE.copy_negate()])),
    Column("f4", "float", "float", same([0.1, -1.5, f32(3.4028233e38)], "n")),
    Column("f8", "double", "double", same([0.1, -1.7976931348623157e308, 1 / 3], "n")),
    Column("y", "year", "int", same([1901, 2155], "n")),
    Column("d", "date", "moment", moments("1000-01-01", "9999-12-31")),
    Column("ts", "datetime(6)", "moment", moments("1000-01-01T00:00:00", "9999-12-31T23:59:59.999999")),
    Column("tz", "timestamp(6) null", "moment", (("'2024-02-29 23:59:59.999999'", "2024-02-29T23:59:59.999999Z"),)),
    Column("tm", "time(6)", "moment", moments("00:00:00", "23:59:59.999999")),
    Column("t", "longtext", "text", tuple((literal.replace("\\", "\\\\"), text) for literal, text in QUOTED)),
    Column("ch", "char(5)", "text", same(["ab"])),
    Column("en", "enum('sad','so so')", "text", same(["sad", "so so"])),
    Column("se", "set('a','b')", "text", same(["a,b"])),
    Column("raw", "blob", "bytes", hexed("x'{}'")),
    Column("bp", "binary(4)", "bytes", (("x'01'", b"\x01\x00\x00\x00"),)),
    Column("j", "json", "json", ((f"'{DEEP}'", DEEP),)),
    Column("u", "uuid", "uuid", same([UUID])),
    Column("ip", "inet6", "text", same([INET6])),
    Column("g", "geometry", "text", (("point(1.5, -2)", "POINT(1.5 -2)"),)),
]

SQLITE = [
    Column("i", "INTEGER", "int", same([-(2**63), 2**63 - 1], "n")),
    Column("f", "REAL", "double", same(DOUBLES, "n")),
    Column("fs", "REAL", "double", (("9e999", "inf"), ("-9e999", "-inf")), refused_by=("mysql",)),
    Column("b", "BOOLEAN", "bool", (("1", True), ("0", False))),
    Column("t", "TEXT", "text", QUOTED),
    Column("nul", "TEXT", "text", (("char(97, 0, 98)", "a\0b"),), refused_by=("postgres",)),
    Column("raw", "BLOB", "bytes", hexed("x'{}'")),
    Column("n", "DECIMAL(12,2)", "decimal", same([Decimal("9999999999.99"), Decimal("-0.01")], "n")),
    Column("d", "DATE", "moment", moments("0001-01-01", "9999-12-31")),
    Column("ts", "TIMESTAMP", "moment", moments("0001-01-01T00:00:00", "9999-12-31T23:59:59.999999")),
    Column("tz", "TIMESTAMPTZ", "moment", (("'2024-02-29 23:59:59.999999+02:00'", "2024-02-29T21:59:59.999999"),)),
    Column("tn", "TIMESTAMP(9)", "moment", moments("2024-02-29T23:59:59.123456789")),
    Column("tm", "TIME", "moment", moments("23:59:59.999999")),
    Column("u", "UUID", "uuid", same([UUID])),
    Column("j", "JSON_TEXT", "json", ((f"'{DEEP}'", DEEP),)),
]

DUCKDB = [
    Column("u1", "UTINYINT", "int", same([0, 255], "n")),
    Column("u8", "UBIGINT", "int", same([0, 2**64 - 1], "n")),
    Column("h", "HUGEINT", "int", same([10**37, -(10**37)], "n")),
    Column("n", "DECIMAL(38,10)", "decimal", same([LONG, SMALL])),
    Column("f4", "FLOAT", "float", same([0.1, -1.5], "n")),
    Column("f8", "DOUBLE", "double", same([0.1, 1 / 3], "n")),
    Column("fs", "DOUBLE", "double", SPECIAL, refused_by=("mysql",)),
    Column("b", "BOOLEAN", "bool", same([True, False], "n")),
    Column("t", "VARCHAR", "text", QUOTED),
    Column("raw", "BLOB", "bytes", (("'\\x00\\xFF\\x27'::blob", b"\x00\xff'"),)),
    Column("d", "DATE", "moment", moments("0001-01-01", "9999-12-31")),
    Column("tm", "TIME", "moment", moments("23:59:59.999999")),
    Column("ts", "TIMESTAMP", "moment", moments("0001-01-01T00:00:00", "9999-12-31T23:59:59.999999")),
    Column("tn", "TIMESTAMP_NS", "moment", moments("2024-02-29T23:59:59.123456789")),
    Column("tz", "TIMESTAMPTZ", "moment", moments("2024-02-29T23:59:59.999999Z")),
    Column("iv", "INTERVAL", "interval", (("interval '1 month -2 days 3.000004 seconds'", (1, -2, 3_000_004_000)),)),
    Column("u", "UUID", "uuid", same([UUID])),
    Column("j", "JSON", "json", ((f"'{DEEP}'", DEEP),)),
    Column("l", "INTEGER[]", "json", (("[1, NULL, -3]", [1, None, -3]),)),
    Column(
        "s", "STRUCT(a INTEGER, b VARCHAR[])", "json", (("{'a': 1, 'b': ['x', NULL]}", {"a": 1, "b": ["x", None]}),)
    ),
    Column("en", "ENUM('sad', 'so so')", "text", same(["sad", "so so"])),
    Column("bi", "BIT", "text", same(["10101"])),
]

#: As the files say it; types are found by looking.
TEXT_FILES = [
    Column("i", None, "int", ((str(2**63 - 1), 2**63 - 1), ("-5", -5))),
    Column("u", None, "int", ((str(2**64 - 1), 2**64 - 1),)),
    Column(
        "n",
        None,
        "decimal",
        (("0.1234567890123456789", Decimal("0.1234567890123456789")), ("-12345678901.5", Decimal("-12345678901.5"))),
    ),
    Column("f", None, "double", (("1e-300", 1e-300), ("0.1", 0.1))),
    Column("b", None, "bool", (("true", True), ("false", False))),
    Column("t", None, "text", tuple((text, text) for text in TEXTS)),
    Column("z", None, "text", (("00123", "00123"), ("5", "5"))),
    Column("d", None, "moment", (("0001-01-01", "0001-01-01"), ("9999-12-31", "9999-12-31"))),
    Column("ts", None, "moment", (("2024-02-29T23:59:59.999999", "2024-02-29T23:59:59.999999"),)),
    Column("tz", None, "moment", (("2024-02-29T23:59:59.999999+02:00", "2024-02-29T21:59:59.999999"),)),
]

#: Values as Arrow takes them.
PARQUET = [
    Column("i1", pa.int8(), "int", ((-128, -128), (127, 127))),
    Column("u4", pa.uint32(), "int", ((2**32 - 1, 2**32 - 1),)),
    Column("u8", pa.uint64(), "int", ((2**64 - 1, 2**64 - 1),)),
    Column("f2", pa.float16(), "float", ((1.5, 1.5),)),
    Column("f4", pa.float32(), "float", ((f32(0.1), 0.1),)),
    Column("f8", pa.float64(), "double", tuple((value, value) for value in DOUBLES)),
    Column("nz", pa.float64(), "double", ((-0.0, -0.0),), unlike={"mysql": (0.0,), "sqlite": (0.0,)}),
    Column("n", pa.decimal128(38, 10), "decimal", ((LONG, LONG), (SMALL, SMALL))),
    Column("n60", pa.decimal256(60, 20), "decimal", ((WIDE, WIDE),)),
    Column("n76", pa.decimal256(76, 40), "decimal", ((Decimal("1E-40"), Decimal("1E-40")),)),
    Column("b", pa.bool_(), "bool", ((True, True), (False, False))),
    Column("t", pa.large_string(), "text", tuple((text, text) for text in TEXTS)),
    Column("di", pa.dictionary(pa.int8(), pa.string()), "text", (("a", "a"), ("b", "b"))),
    Column("nul", pa.string(), "text", (("a\0b", "a\0b"),), refused_by=("postgres",)),
    Column("raw", pa.binary(), "bytes", tuple((value, value) for value in BYTES)),
    Column("fb", pa.binary(4), "bytes", ((b"\0\1\2\3", b"\0\1\2\3"),)),
    Column("d", pa.date32(), "moment", ((date(1, 1, 1), "0001-01-01"), (date(9999, 12, 31), "9999-12-31"))),
    Column("tn", pa.timestamp("ns"), "moment", ((1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456789"),)),
    Column("tzn", pa.timestamp("ns", "UTC"), "moment", ((-1, "1969-12-31T23:59:59.999999999"),)),
    Column("tb", pa.timestamp("us", "Europe/Berlin"), "moment", ((datetime(2024, 7, 1), "2024-07-01T00:00:00"),)),  # noqa: DTZ001
    Column("t9", pa.time64("ns"), "moment", ((86_399_123_456_789, "23:59:59.123456789"),)),
    Column("du", pa.duration("us"), "interval", ((-90_061_000_001, (0, 0, -90_061_000_001_000)),)),
    Column("u", pa.uuid(), "uuid", ((uuid.UUID(UUID).bytes, UUID),)),
    Column("l", pa.list_(pa.int32()), "json", (([1, None, -3], [1, None, -3]),)),
    Column(
        "s",
        pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]),
        "json",
        (({"a": 2**53 + 1, "b": ["x", None]}, {"a": 2**53 + 1, "b": ["x", None]}),),
    ),
]

GOLDEN: dict[str, list[Column]] = {
    "postgres": POSTGRES,
    "mysql": MYSQL,
    "sqlite": SQLITE,
    "duckdb": DUCKDB,
    "csv": TEXT_FILES,
    "jsonl": TEXT_FILES,
    "parquet": PARQUET,
}
