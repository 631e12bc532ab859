"""Singer lines -> events: every dialect, odd but legal JSON, checkpoints behind their records."""

from __future__ import annotations

import gzip
import json
import os
import struct
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.incremental.bookmarks import BOUNDARY
from syncblocks.connectors.programs.records import Parser
from syncblocks.connectors.programs.types import columns_of
from syncblocks.connectors.singer import batches
from syncblocks.connectors.singer.batches import BadBatch, BatchFiles
from syncblocks.connectors.stream import Bookmark, Checkpoint, Stream
from syncblocks.connectors.struct_helpers import replace
from tests.connectors.singer.singer_helpers import (
    ORDERS,
    SCHEMA,
    checkpoints,
    lines,
    read,
    record,
    records,
    schema,
    state,
    stream_of,
)

WANTED = [{"id": 1, "stamp": "a", "note": "x"}, {"id": 2, "stamp": None, "note": "é"}]

#: The same two records as the dialects write them.
DIALECTS = {
    "singer-python": [
        b'{"type": "RECORD", "stream": "orders", "record": {"id": 1, "stamp": "a", "note": "x"}}',
        b'{"type": "RECORD", "stream": "orders", "record": {"id": 2, "stamp": null, "note": "\\u00e9"}, '
        b'"time_extracted": "2024-01-01T00:00:00.000000Z"}',
    ],
    "pipelinewise": [
        b'{"type": "RECORD", "stream": "orders", "record": {"id": 1, "stamp": "a", "note": "x"}, "version": 1, '
        b'"time_extracted": "2024-01-01T00:00:00.000000Z"}',
        '{"type": "RECORD", "stream": "orders", "record": {"id": 2, "note": "é"}, "version": 1}'.encode(),
    ],
    "singer-sdk": [
        b'{"type":"RECORD","stream":"orders","record":{"id":1,"stamp":"a","note":"x"},"time_extracted":"2024-01-01"}',
        b'{"type":"RECORD","stream":"orders","record":{"id":2,"stamp":null,"note":"\\u00e9"}}',
    ],
    "record first": [
        b'{"record": {"note": "x", "id": 1, "stamp": "a"}, "stream": "orders", "type": "RECORD"}',
        b'{"record": {"note": "\\u00E9", "id": 2}, "type": "RECORD", "stream": "orders"}',
    ],
    "time first": [
        b'{"time_extracted": "1", "type": "RECORD", "stream": "orders", "record": {"id": 1, "stamp": "a","note": "x"}}',
        '{"time_extracted": "2", "type": "RECORD", "stream": "orders", "record": {"id": 2, "note": "é"}}'.encode(),
    ],
    "spaces and line ends": [
        b' { "type" :\t"RECORD" , "stream" : "orders" , "record" : { "id" : 1 , "stamp" : "a", "note" : "x" } } \r',
        b"",
        b"  \r",
        b'{"type":"RECORD","stream":"orders","record":{"id":2,"note":"\\u00e9"}}\r',
    ],
    "escaped keys": [
        b'{"\\u0074ype": "RECORD", "stre\\u0061m": "ord\\u0065rs", "record": {"\\u0069d": 1, "stamp": "a","note":"x"}}',
        b'{"type": "RECORD", "stream": "orders", "r\\u0065cord": {"id": 2, "note": "\\u00e9"}}',
    ],
    "a key twice": [
        b'{"type": "RECORD", "stream": "orders", "record": {"id": 9, "id": 1, "stamp": "a", "note": "x"}}',
        b'{"type": "RECORD", "stream": "orders", "record": {"id": 2, "note": "no", "note": "\\u00e9"}}',
    ],
    "more than its schema": [
        b'{"type": "RECORD", "stream": "orders", "record": {"id": 1, "stamp": "a", "note": "x", "more": {"a": [1]}}}',
        b'{"type": "RECORD", "stream": "orders", "record": {"id": 2.0, "note": "\\u00e9", "more": "\\""}}',
    ],
    "a record inside": [
        b'{"type": "RECORD", "stream": "orders", "record": {"id": 1, "stamp": "a", "note": "x"}, "x": {"record": 1}}',
        b'{"x": {"record": {"id": 7}}, "type": "RECORD", "stream": "orders", "record": {"id": 2, "note": "\\u00e9"}}',
    ],
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_dialect_gives_the_same_records(dialect: str) -> None:
    events = read(lines(schema("orders"), *DIALECTS[dialect]), streams=[ORDERS])
    assert records(events, "orders") == WANTED


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_block_of_one_line_after_another_gives_the_same(dialect: str) -> None:
    blocks = [line + b"\n" for line in lines(schema("orders"), *DIALECTS[dialect]).split(b"\n")]
    assert records(read(*blocks, streams=[ORDERS]), "orders") == WANTED


def test_interleaved_streams_keep_their_order() -> None:
    users = stream_of("users")
    messages = [record(name, id=number) for number in range(50) for name in ("orders", "users", "left_out")]
    block = lines(schema("orders"), schema("users"), schema("left_out"), *messages)
    events = read(block, streams=[ORDERS, users], names={"left_out": ("left_out",)})
    for name in ("orders", "users"):
        assert [each["id"] for each in records(events, name)] == list(range(50))


def test_a_uniform_block_and_its_lines_give_the_same() -> None:
    block = lines(*(record("orders", id=number, note=f"n{number}") for number in range(1000)))
    uniform = records(read(lines(schema("orders")), block, block, streams=[ORDERS]), "orders")
    assert len(uniform) == 2000
    assert uniform[:1000] == [{"id": n, "stamp": None, "note": f"n{n}"} for n in range(1000)]


def test_a_line_longer_than_a_block_is_one_record() -> None:
    events = read(lines(schema("orders"), record("orders", id=1, note="x" * 9_000_000)), streams=[ORDERS])
    assert len(records(events, "orders")[0]["note"]) == 9_000_000


def test_the_last_line_needs_no_line_feed() -> None:
    assert len(records(read(lines(schema("orders"), record("orders", id=1))[:-1], streams=[ORDERS]), "orders")) == 1


TYPED: dict[str, Any] = {
    "properties": {
        "i16": {"type": "integer", "minimum": -32768, "maximum": 32767},
        "big": {"type": ["null", "integer"]},
        "num": {"type": ["null", "number"]},
        "money": {"type": "number", "multipleOf": 0.01, "minimum": -9999999999.99, "maximum": 9999999999.99},
        "bare": {"type": "number", "multipleOf": 1e-38, "minimum": -1e100, "maximum": 1e100},
        "dec": {"type": ["string", "null"], "format": "x-singer.decimal", "precision": 20, "scale": 5},
        "free": {"type": ["string", "null"], "format": "singer.decimal"},
        "at": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
        "naive": {"type": "string", "format": "date-time", "x-sql-datatype": "timestamp"},
        "day": {"type": "string", "format": "date"},
        "clock": {"type": "string", "format": "time"},
        "uuid": {"type": "string", "format": "uuid"},
        "raw": {"type": "string", "contentEncoding": "base64"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "doc": {"type": ["object", "null"]},
        "any": {"type": ["string", "number", "integer", "array", "object", "boolean", "null"]},
        "untyped": {},
        "either": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": ["string", "null"]}]},
        "ref": {"$ref": "#/definitions/flag"},
    },
    "definitions": {"flag": {"type": ["null", "boolean"]}},
}
VALUES = {
    "i16": -7,
    "big": 2**62,
    "num": 0.1,
    "money": 1234567890.12,
    "dec": "123456789012345.12345",
    "free": "1.10",
    "at": "2024-02-29T23:59:59.123456+01:00",
    "naive": "2024-03-31 02:30:00",
    "day": "2024-02-29",
    "clock": "23:59:59.000001",
    "uuid": "16E57EFC-bf2b-4b7f-ab1b-adf25e6ce268",
    "raw": "AP8=",
    "tags": ["a", None],
    "doc": {"b": [1, {"c": None}]},
    "any": "text",
    "untyped": 1.5,
    "either": "no date",
    "ref": True,
}
ARRIVING = {
    "i16": -7,
    "big": 2**62,
    "num": 0.1,
    "money": Decimal("1234567890.12"),
    "bare": None,
    "dec": Decimal("123456789012345.12345"),
    "free": "1.10",
    "at": datetime(2024, 2, 29, 22, 59, 59, 123456, tzinfo=UTC),
    "naive": datetime(2024, 3, 31, 2, 30),  # noqa: DTZ001 -- it has no zone
    "day": date(2024, 2, 29),
    "clock": time(23, 59, 59, 1),
    "raw": b"\0\xff",
    "tags": ["a", None],
    "any": '"text"',
    "untyped": "1.5",
    "either": "no date",
    "ref": True,
}


@pytest.mark.parametrize("way", ["whole block", "line by line"])
def test_types_arrive_as_the_table_says(way: str) -> None:
    of = stream_of("t", TYPED, key=())
    message = record("t", **VALUES)
    if way == "line by line":
        message["record"]["ref"] = False
        text = json.dumps(message).encode().replace(b'"ref": false', b'"ref": false, "ref": true')
    else:
        text = json.dumps(message).encode()
    (found,) = records(read(lines(schema("t", TYPED), text), streams=[of]), "t")
    if way == "line by line":
        assert found.pop("free") in ("1.1", "1.10")
    else:
        assert Decimal(found.pop("free")) == Decimal("1.1")
    assert json.loads(found.pop("doc")) == VALUES["doc"]
    assert str(found.pop("uuid")) == VALUES["uuid"].lower()
    assert found == {name: value for name, value in ARRIVING.items() if name != "free"}


def test_a_state_that_is_no_text_is_named_with_its_line() -> None:
    stream = stream_of("n", SCHEMA, "stamp")
    with pytest.raises(FatalConnectorError, match=r"tap tap-x: line 2 is a STATE that is not JSON"):
        read(lines(schema("n"), b'{"type":"STATE","value":{"bookmarks":{"n":{"st\x80mp":"1"}}}}'), streams=[stream])


def test_a_new_schema_mid_stream_is_told_before_its_records() -> None:
    wider = {"properties": {**SCHEMA["properties"], "more": {"type": "object"}}}
    block = lines(
        schema("orders"), record("orders", id=1), schema("orders", wider), record("orders", id=2, more={"a": 1})
    )
    events = [event for _, event in read(block, streams=[ORDERS])]
    assert [type(event) for event in events] == [pa.RecordBatch, Stream, pa.RecordBatch]
    assert events[1].schema.names == ["id", "stamp", "note", "more"]
    assert events[2].to_pylist()[0]["more"] == '{"a": 1}'


def test_columns_left_out_stay_out() -> None:
    wider = {"properties": {**SCHEMA["properties"], "password_hash": {"type": "string"}}}
    block = lines(schema("orders", wider), record("orders", id=1, password_hash="x"))
    events = read(block, streams=[ORDERS], adds_columns=())
    assert records(events, "orders") == [{"id": 1, "stamp": None, "note": None}]


def test_more_columns_than_a_stream_may_have_are_an_error() -> None:
    block = lines(schema("orders"), schema("orders", {"properties": {"new": {"type": "string"}}}))
    assert read(block, streams=[ORDERS], max_columns=4)[-1][1].schema.names == ["id", "stamp", "note", "new"]
    with pytest.raises(FatalConnectorError, match=r"'orders': more than 3 columns; `config\.max_columns` allows more"):
        read(block, streams=[ORDERS], max_columns=3)


def test_lines_of_a_type_that_singer_does_not_know_are_left_out_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = {"type": "LOG", "level": "INFO", "message": "reading", "record": {"id": 9}}
    block = lines(schema("orders"), log, record("orders", id=1), log, record("orders", id=2))
    assert [row["id"] for row in records(read(block, streams=[ORDERS]), "orders")] == [1, 2]
    assert [each.message for each in caplog.records if "'LOG'" in each.message] == [
        "tap tap-x: line 2 has the type 'LOG', which Singer does not have: skipped"
    ]


BAD = {
    "no JSON": (b"Traceback (most recent call last):", "line 3 is not JSON: Traceback"),
    "half a line": (b'{"type": "RECORD", "stream": "orders", "record": {"id": 1', "line 3"),
    "no object": (b"[1, 2]", "line 3 is no"),
    "no type": (b'{"stream": "orders"}', "line 3 is not a Singer message"),
    "a type in small letters": (b'{"type": "record"}', "line 3 is not a Singer message"),
    "no stream": (b'{"type": "RECORD", "record": {"id": 1}}', "line 3 is a RECORD without a stream"),
    "no record": (b'{"type": "RECORD", "stream": "orders"}', "line 3 is a RECORD without a record"),
    "a list for a record": (b'{"type": "RECORD", "stream": "orders", "record": [1]}', "line 3 is no"),
    "no schema": (b'{"type": "SCHEMA", "stream": "orders"}', "line 3 is a SCHEMA without a schema"),
    "a text for an integer": (json.dumps(record("orders", id="x")).encode(), "line 3 column 'id': \"x\" is not int64"),
    "a fraction for an integer": (json.dumps(record("orders", id=1.5)).encode(), "line 3 column 'id': 1.5"),
    "a number for a text": (
        json.dumps(record("orders", id=1, note=5)).encode(),
        "line 3 column 'note': 5 is not string",
    ),
    "no key": (json.dumps(record("orders", note="x")).encode(), "line 3 has no value for the key 'id'"),
    "two objects": (b'{"type":"RECORD","stream":"orders","record":{"id":1}}{"type":"RECORD"}', "line 3"),
    "half a surrogate": (b'{"type":"RECORD","stream":"orders","record":{"id":1,"note":"\\ud800"}}', "line 3"),
    "half a surrogate beside a NaN": (
        b'{"type":"SCHEMA","stream":"orders","schema":{"properties":{"\\ud800":{"minimum":NaN}}}}',
        "line 3 is not JSON",
    ),
    "no UTF-8": (b'{"type":"RECORD","stream":"orders","record":{"id":1,"note":"\xff"}}', "line 3"),
    "a second stream": (b'{"type":"RECORD","stream":"orders","record":{"id":1},"stream":"x"}', "line 3 names its type"),
    "before its schema": (json.dumps(record("users", id=1)).encode(), "line 3 is a RECORD before its stream's SCHEMA"),
    "a batch of nothing": (b'{"type":"BATCH","stream":"orders"}', "line 3 is a BATCH without"),
    "deep": (b'{"type":"RECORD","stream":"orders","record":{"id":' + b"[" * 100_000 + b"}}", "line 3"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_names_tap_stream_and_line(case: str) -> None:
    line, wanted = BAD[case]
    block = lines(schema("orders"), record("orders", id=1), line, record("orders", id=2))
    with pytest.raises(FatalConnectorError, match="tap tap-x") as caught:
        read(block, streams=[ORDERS, stream_of("users")])
    assert wanted in str(caught.value)
    if "column" in wanted or "key" in wanted:
        assert caught.value.stream == "orders"


def test_a_bad_line_deep_in_a_uniform_block_is_named() -> None:
    good = [record("orders", id=number) for number in range(5000)]
    good[4321] = record("orders", id="x")
    with pytest.raises(FatalConnectorError, match="stream 'orders': line 4323 column 'id'"):
        read(lines(schema("orders")), lines(*good[:100]), lines(*good[100:]), streams=[ORDERS])


def test_a_stream_that_the_catalog_lacks_is_an_error_if_another_stays_silent() -> None:
    with pytest.raises(FatalConnectorError, match=r"no message has the stream 'orders'.*Orders"):
        read(lines(schema("Orders"), record("Orders", id=1)), streams=[ORDERS])


class TestCheckpoints:
    live = stream_of("orders", SCHEMA, "stamp")

    def test_stand_behind_their_records_and_hold_their_own_part(self) -> None:
        users = stream_of("users", SCHEMA, "stamp")
        both = state(orders={"stamp": "a"}, users={"stamp": "b"}, other={"x": 1})
        both["value"]["currently_syncing"] = "users"
        block = lines(
            schema("orders"), schema("users"), record("orders", id=1, stamp="a"), record("users", id=1, stamp="b"), both
        )
        events = read(block, streams=[self.live, users], names={"other": ("other",)}, checkpoint_records=1)
        for name, value in (("orders", "a"), ("users", "b")):
            own = [event for stream, event in events if stream == name]
            assert isinstance(own[0], pa.RecordBatch)
            assert isinstance(own[1], Checkpoint)
            assert checkpoints(events, name)[0]["singer_state"] == {"bookmarks": {name: {"stamp": value}}}

    def test_wait_until_enough_records_are_there(self) -> None:
        messages = [
            m for n in range(10) for m in (record("orders", id=n, stamp=f"{n}"), state(orders={"stamp": f"{n}"}))
        ]
        events = read(lines(schema("orders"), *messages), streams=[self.live], checkpoint_records=4)
        assert [mark["singer_state"]["bookmarks"]["orders"]["stamp"] for mark in checkpoints(events, "orders")] == [
            "3",
            "7",
            "9",
        ]

    def test_wait_for_a_state_from_which_the_tap_can_go_on(self) -> None:
        marks = {"progress_markers": {"Note": "not resumable", "replication_key_value": "b"}}
        block = lines(
            schema("orders"), record("orders", id=1, stamp="b"), state(orders=marks), record("orders", id=2, stamp="a")
        )
        events = read(
            block, lines(state(orders={"replication_key_value": "b"})), streams=[self.live], checkpoint_records=1
        )
        first = next(place for place, (_, event) in enumerate(events) if isinstance(event, Checkpoint))
        assert sum(event.num_rows for _, event in events[:first]) == 2

    def test_are_none_for_a_full_table(self) -> None:
        events = read(lines(schema("orders"), record("orders", id=1), state(orders={"stamp": "a"})), streams=[ORDERS])
        assert checkpoints(events, "orders") == []

    def test_drop_what_was_committed_before_and_nothing_else(self) -> None:
        def block(*ids: int) -> bytes:
            rows = [record("orders", id=number, stamp=f"{number // 2}") for number in ids]
            return lines(schema("orders"), *rows, state(orders={"stamp": f"{ids[-1] // 2}"}))

        first = read(block(0, 1, 2), streams=[self.live])
        mark = json.loads(json.dumps(checkpoints(first, "orders")[-1]))
        second = read(block(2, 3, 4, 4), streams=[self.live], bookmarks={"orders": mark})
        assert [each["id"] for each in records(second, "orders")] == [3, 4, 4]

    def test_keep_the_columns_that_were_widened(self) -> None:
        spec = {"properties": {**SCHEMA["properties"], "n": {"type": "number"}}}
        of = stream_of("orders", spec, "stamp")
        long = b'{"type":"RECORD","stream":"orders","record":{"id":1,"stamp":"a","n":1234567890123456789.5}}'
        mark = checkpoints(
            read(lines(schema("orders", spec), long, state(orders={"stamp": "a"})), streams=[of]), "orders"
        )
        again = json.loads(json.dumps(mark[-1]))
        short = lines(schema("orders", spec), record("orders", id=2, stamp="b", n=0.1))
        events = read(short, streams=[of], bookmarks={"orders": again})
        assert isinstance(events[0][1], Stream)
        assert records(events, "orders") == [{"id": 2, "stamp": "b", "note": None, "n": Decimal("0.1")}]

    def test_keep_knowing_them_when_nothing_new_comes(self) -> None:
        block = lines(schema("orders"), record("orders", id=1, stamp="a"), state(orders={"stamp": "a"}))
        mark = None
        for wanted in (1, 0, 0):
            events = read(block, streams=[self.live], bookmarks={"orders": mark})
            assert len(records(events, "orders")) == wanted
            mark = json.loads(json.dumps(checkpoints(events, "orders")[-1]))

    def told(
        self, of: Stream, mark: Bookmark | None, *found: tuple[int, str, str]
    ) -> tuple[list[str], Bookmark | None]:
        """Return the notes that a run sends of records (id, stamp, note), and its bookmark: at the stamp `a`."""
        rows = [record("orders", id=number, stamp=stamp, note=note) for number, stamp, note in found]
        block = lines(schema("orders"), *rows, state(orders={"stamp": "a"}))
        events = read(block, streams=[of], bookmarks={"orders": mark})
        kept = json.loads(json.dumps(checkpoints(events, "orders")[-1]))
        return [each["note"] for each in records(events, "orders")], kept

    @pytest.mark.parametrize("is_merged", [True, False])
    @pytest.mark.parametrize("elsewhere", [("a",), ("b",), ("",)], ids=["there", "past", "below"])
    def test_let_a_record_through_that_goes_back_to_a_former_value(
        self, is_merged: bool, elsewhere: tuple[str]
    ) -> None:
        """Whether it was at the bookmark meanwhile, past it or below it."""
        of, mark = replace(self.live, read=replace(self.live.read, may_repeat=is_merged)), None
        found = []
        for stamp, note in (("a", "A"), (*elsewhere, "B"), ("a", "A"), ("a", "A")):
            notes, mark = self.told(of, mark, (1, stamp, note), (2, "a", "other"))
            found.append(notes)
        assert found == [["A", "other"], ["B"], ["A"], []]

    def test_of_a_key_that_an_append_has_twice_know_both(self) -> None:
        mark, found = None, []
        for source in ("A", "AB", "BA", "ABC", "ABC"):
            notes, mark = self.told(self.live, mark, *((1, "a", note) for note in source))
            found += notes
        assert found == ["A", "B", "C"]

    def test_end_a_merge_with_the_last_of_one_key(self) -> None:
        mark, last = None, ""
        for source in ("A", "AB", "A", "AB", "ABA", "B"):
            notes, mark = self.told(
                replace(self.live, read=replace(self.live.read, may_repeat=True)),
                mark,
                *((1, "a", note) for note in source),
            )
            last = [last, *notes][-1]
            assert last == source[-1]

    def test_know_records_past_the_state_when_others_come_before_them(self) -> None:
        mark, found = None, []
        for rows in ([(1, "b", "past")], [(1, "b", "past"), (2, "a", "new")], [(1, "b", "past"), (2, "a", "new")]):
            notes, mark = self.told(self.live, mark, *rows)
            found += notes
        assert found == ["past", "new"]

    def of_before(self, mark: Bookmark | None, *more: str) -> dict[str, Any]:
        """Return a bookmark as earlier releases kept it: without keys, and with records of former values."""
        kept = dict((mark or {})[BOUNDARY])
        kept["hashes"] = {text[-16:]: count for text, count in kept["hashes"].items()} | dict.fromkeys(more, 1)
        del kept["keys"]
        return {**(mark or {}), BOUNDARY: kept}

    def test_of_before_are_gone_on_with(self) -> None:
        """An append neither loses nor doubles; a merge sends what stands there once more."""
        _, former = self.told(self.live, None, (1, "a", "A"))
        _, mark = self.told(self.live, None, (1, "a", "B"), (2, "a", "other"))
        (left,) = self.of_before(former)[BOUNDARY]["hashes"]
        before = self.of_before(mark, left)
        found, mark = [], before
        for note in "BBAAB":
            notes, mark = self.told(self.live, mark, (1, "a", note), (2, "a", "other"))
            found += notes
        assert found == ["A", "B"]
        merged = replace(self.live, read=replace(self.live.read, may_repeat=True))
        notes, mark = self.told(merged, before, (1, "a", "A"), (2, "a", "other"))
        assert notes == ["A", "other"]
        assert self.told(merged, mark, (1, "a", "A"), (2, "a", "other"))[0] == []

    def test_of_records_after_the_last_state_know_those_too(self) -> None:
        block = lines(
            schema("orders"),
            record("orders", id=1, stamp="a"),
            state(orders={"stamp": "a"}),
            record("orders", id=2, stamp="b"),
        )
        mark = checkpoints(read(block, streams=[self.live]), "orders")[-1]
        assert records(read(block, streams=[self.live], bookmarks={"orders": mark}), "orders") == []


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "parquet", "arrow"])
def test_batch_files_are_read(tmp_path: Path, form: str) -> None:
    of = stream_of("t", {"properties": {"id": {"type": "integer"}, "at": {"type": "string", "format": "date-time"}}})
    rows = [{"id": number, "at": "2024-01-01T00:00:00+00:00"} for number in range(100)]
    path = tmp_path / f"rows one.{form}"
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    table = pa.Table.from_pylist(rows)
    if form == "jsonl":
        path.write_bytes(text)
    elif form == "jsonl.gz":
        path.write_bytes(gzip.compress(text))
    elif form == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    encoding = {"format": form.partition(".")[0], "compression": "gzip" if form.endswith("gz") else "none"}
    message = {"type": "BATCH", "stream": "t", "encoding": encoding, "manifest": [path.as_uri()]}
    declared = schema("t", {"properties": {"id": {"type": "integer"}, "at": {"type": "string", "format": "date-time"}}})
    block = lines(declared, record("t", id=-1), message, record("t", id=100))
    found = records(read(block, streams=[of], batch_files=BatchFiles([str(tmp_path)], tmp_path)), "t")
    assert [each["id"] for each in found] == [-1, *range(101)]
    assert found[1]["at"] == datetime(2024, 1, 1, tzinfo=UTC)


def test_an_arrow_file_whose_lengths_lie_is_refused(tmp_path: Path) -> None:
    """Arrow takes offsets as they are written: these would read what is not there."""
    offsets = pa.array([0, 3, 1 << 30, 2], pa.int32()).buffers()[1]
    text = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"abc")])
    table = pa.RecordBatch.from_arrays([pa.array([1, 2, 3]), text], names=["id", "note"])
    path = tmp_path / "rows.arrow"
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_batch(table)
    message = {"type": "BATCH", "stream": "orders", "encoding": {"format": "arrow"}, "manifest": [str(path)]}
    with pytest.raises(FatalConnectorError, match=r"stream 'orders': line 2 is a BATCH that cannot be read"):
        read(lines(schema("orders"), message), streams=[ORDERS])


def test_a_batch_file_that_is_not_there_names_its_line(tmp_path: Path) -> None:
    message = {"type": "BATCH", "stream": "orders", "encoding": {"format": "jsonl"}, "manifest": [f"{tmp_path}/none"]}
    with pytest.raises(FatalConnectorError, match=r"stream 'orders': line 2 is a BATCH that cannot be read"):
        read(lines(schema("orders"), message), streams=[ORDERS], batch_files=BatchFiles([str(tmp_path)], tmp_path))


def test_a_batch_names_only_regular_files_below_its_roots(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (tmp_path / "secret").write_text('{"id": 1}\n')
    (allowed / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(allowed / "pipe")
    files = BatchFiles([allowed.as_uri(), "memory://bucket/mine"], tmp_path)
    secret = fsspec.filesystem("memory")
    secret.pipe_file("/bucket/other/secret", b'{"id": 1}\n')
    for file, reason in {
        "secret": "outside of all folders and URLs",
        (tmp_path / "secret").as_uri(): "outside of all folders and URLs",
        f"{allowed}/../secret": "outside of all folders and URLs",
        f"{allowed}/link": "outside of",
        f"{allowed}/pipe": "not a regular file",
        "http://169.254.169.254/latest": "outside of all folders and URLs",
        "memory://bucket/other/secret": "outside of all folders and URLs",
        "memory://bucket/mine/../other/secret": "could lead out of",
        "memory://bucket/mine/%2e%2e/other/secret": "could lead out of",
        f"memory://bucket/mine/x::file://{tmp_path}/secret": "could lead out of",
    }.items():
        with pytest.raises(BadBatch, match=reason):
            list(files.read_lines(file, {}))
    secret.pipe_file("/bucket/mine/part", b'{"id": 2}\n')
    assert list(files.read_lines("memory://bucket/mine/part", {})) == [(b'{"id": 2}\n', [1])]


def test_an_arrow_file_of_lying_lengths_is_an_error(tmp_path: Path) -> None:
    offsets = pa.py_buffer(struct.pack("3i", 0, 1 << 30, 2))
    texts = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"ab")])
    table = pa.RecordBatch.from_arrays([texts], names=["note"])
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_batch(table)
    files = BatchFiles([str(tmp_path)], tmp_path)
    with pytest.raises(BadBatch, match=r"a\.arrow: .*offset"):
        list(files.read_tables(f"{tmp_path}/a.arrow", {"format": "arrow"}, table.schema))


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MAX_LINE_BYTES", 8 << 20)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"{}\n" + b" " * (32 << 20)))
    files = BatchFiles([str(tmp_path)], tmp_path)
    with pytest.raises(BadBatch, match="line 2 has more than 8 MB"):
        list(files.read_lines("bomb.gz", {}))


def test_whole_blocks_do_not_go_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = Parser(columns_of(TYPED), stream="t")
    monkeypatch.setattr(parser, "_slow", lambda *_: pytest.fail("went line by line"))
    assert parser.parse(lines(record("t", **VALUES)), [1]).num_rows == 1
