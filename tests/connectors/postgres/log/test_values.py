"""Values of the log are what the ordinary reader reads of the same table, type by type."""

from __future__ import annotations

from typing import Any

import psycopg
import pyarrow as pa
import pytest

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.field_facts import facts_of, with_facts
from syncblocks.connectors.postgres.log.decoder import Decoder
from syncblocks.connectors.postgres.log.values import values_of
from syncblocks.connectors.postgres.source import PostgresSource
from syncblocks.connectors.stream import Stream
from tests.connectors.postgres.log.messages import recorded
from tests.connectors.postgres.postgres_pair import can, rows, script
from tests.golden.columns import POSTGRES
from tests.golden.systems import make

#: As the catalog calls the golden types.
NATIVE = {
    "time": "time without time zone",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
}

#: Columns of `odd` that are read as text.
TEXTS = ("fl", "ip", "ch4")

#: What few tables hold, beside the golden values.
ODD = """
create domain positive as numeric(9,2) check (value > 0);
create table odd (id int primary key, d date, ts timestamp, tz timestamptz, iv interval, by bytea, p positive, o oid,
  n name, ch char, va varchar[], bp char(3)[], e text, f4 real, tm time, js json, fl boolean, ip inet, ch4 char(4));
alter database current_db set datestyle = 'German, DMY';
insert into odd values
 (1, '4713-01-01 BC', '0044-03-15 12:00 BC', '294000-12-31 23:59:59.999999+00', '-1 year -2 mons 3 days -04:05:06.7',
  '', 1.5, 4294967295, 'Name', 'x', '{a,NULL,"b c"}', '{ab}', '', '-Infinity', '12:34:56.5', '{"a":  1}', true,
  '10.0.0.1', 'ab'),
 (2, '10000-01-01', '10000-01-01', '0001-01-01 00:00:00+00 BC', '178000000 years', '\\xdeadbeef', 0.01, 0, '', '', '{}',
  '{}', E'\\n', 'NaN', '00:00', 'null', false, '10.0.0.0/8', '');
insert into odd (id) values (3)
"""


def from_log(url: str, table: str, statements: Any) -> tuple[pa.RecordBatch, Stream]:
    """Return the records that statements insert into a table, out of the log, and the stream that they are of."""
    rows(url, "select pg_create_logical_replication_slot('types', 'pgoutput')")
    statements()
    end = rows(url, "select pg_current_wal_insert_lsn()::text")[0][0]
    source = PostgresSource(config(url, table))
    stream = next(each for each in source.discover() if each.name == f"public.{table}")
    changes = Decoder(lambda relation: relation.name == table).decode(recorded(url, "types", "types", end))
    (found,) = changes
    assert [column.name for column in found.relation.columns] == stream.schema.names
    columns = [values_of(found.new.texts(n), field, stream.name) for n, field in enumerate(stream.schema)]
    batch = source.to_schema(pa.RecordBatch.from_arrays(columns, stream.schema.names), stream)
    source.close()
    return batch, stream


def config(url: str, table: str) -> dict[str, Any]:
    return {"url": url, "text_columns": [f"public.odd.{column}" for column in TEXTS if table == "odd"]}


def ordinary(url: str, stream: Stream, table: str) -> pa.RecordBatch:
    """Return the same records as the ordinary reader reads them."""
    source = PostgresSource(config(url, table))
    try:
        events = [event for _, event in source.read([stream], {stream.name: None}, "arrow")]
    finally:
        source.close()
    batches = [event for event in events if isinstance(event, pa.RecordBatch)]
    return pa.Table.from_batches(batches).sort_by("id").combine_chunks().to_batches()[0]


def same(found: pa.RecordBatch, expected: pa.RecordBatch) -> None:
    assert found.schema == expected.schema
    for name, ours, theirs in zip(found.schema.names, found.columns, expected.columns, strict=True):
        assert ours.to_string(window=100) == theirs.to_string(window=100), name
        assert ours.null_count == theirs.null_count, name


def test_every_golden_type_is_what_the_ordinary_reader_reads(log_url: str) -> None:
    script(log_url, "create publication types for all tables")
    columns = [column for column in POSTGRES if column.type != "xml" or can(log_url, "select xml '<a>1</a>'")]
    found, stream = from_log(log_url, "golden", lambda: make("postgres", log_url, columns))
    same(found, ordinary(log_url, stream, "golden"))


def test_odd_values_are_what_the_ordinary_reader_reads_whatever_the_database_sets(log_url: str) -> None:
    script(log_url, "create publication types for all tables")
    with psycopg.connect(log_url) as connection:
        sql = ODD.replace("current_db", f'"{connection.info.dbname}"')
    found, stream = from_log(log_url, "odd", lambda: script(log_url, sql))
    same(found, ordinary(log_url, stream, "odd"))


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("native", sorted({column.type for column in POSTGRES}))
def test_a_column_without_a_value_has_none(native: str, count: int) -> None:
    field = with_facts(pa.field("none", pa.string()), native_type=NATIVE.get(native, native), native_system="postgres")
    found = values_of(pa.nulls(count, pa.binary()), field, "s")
    assert (len(found), found.null_count) == (count, count)


@pytest.mark.parametrize(
    ("native", "text"),
    [
        ("integer", b"1x"),
        ("boolean", b"yes"),
        ("bytea", b"\\xabc"),
        ("bytea", b"abcd"),
        ("text", b"\xff"),
        ("date", b"2024-13-01"),
        ("timestamp with time zone", b"never"),
        ("interval", b"infinity"),
        ("interval", b"P999999999999Y"),
        ("time without time zone", b"25:00:00"),
    ],
)
def test_a_text_that_is_none_of_its_type_is_an_error(native: str, text: bytes) -> None:
    field = with_facts(pa.field("odd", pa.string()), native_type=native, native_system="postgres")
    assert facts_of(field).native_type == native
    with pytest.raises(FatalConnectorError, match="column 'odd' holds what is no"):
        values_of(pa.array([text], pa.binary()), field, "s")
