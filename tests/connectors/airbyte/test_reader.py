"""Output of a connector turned into events, whatever a connector may write."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.airbyte.catalog import streams_of
from syncblocks.connectors.airbyte.launcher import LOST_PAGE
from syncblocks.connectors.airbyte.messages import Listener, may_begin
from syncblocks.connectors.airbyte.reader import AirbyteReader, AirbyteStream
from syncblocks.connectors.errors import (
    ConnectorConfigError,
    ConnectorError,
    FatalConnectorError,
    Interrupted,
    RetriableError,
)
from syncblocks.connectors.read_spec import ReadSpec, ReplicationMethod
from syncblocks.connectors.stream import Bookmark, Checkpoint, Ended, Rejected, Stream, Warned
from syncblocks.connectors.struct_helpers import replace

from .airbyte_helpers import offered
from .airbyte_program import error, record, state, status

Events = list[tuple[str, Any]]


def text(*messages: Any) -> bytes:
    lines = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in messages]
    return b"\n".join(lines) + b"\n"


def read(
    *blocks: bytes,
    entries: Sequence[Mapping[str, Any]] = (),
    bookmarks: Mapping[str, Bookmark] | None = None,
    failure: ConnectorError | None = None,
    spec: ReadSpec | None = None,
    secrets: list[str] | None = None,
    **options: Any,
) -> Events:
    """Read blocks of a connector with streams `orders` and `users`, INCREMENTAL; `failure`: how its output ends."""
    entries = entries or [offered("orders"), offered("users")]
    streams = [replace(each, read=spec) if spec else each for each in streams_of(entries)]
    known = bookmarks or {}
    made = [AirbyteStream(s, e, known.get(s.name), None) for s, e in zip(streams, entries, strict=True)]
    listener = Listener("airbyte x", secrets or [], lambda config: None)
    options.setdefault("checkpoint_records", 1)
    reader = AirbyteReader(listener, made, [(None, e["name"]) for e in entries], **options)

    def output() -> Any:
        yield from blocks
        if failure is not None:
            raise failure

    return list(reader.read(output()))


def ids(events: Events, stream: str) -> list[int]:
    batches = [event for name, event in events if name == stream and isinstance(event, pa.RecordBatch)]
    return [n for batch in batches for n in batch.column("id").to_pylist()]


def ends(events: Events) -> dict[str, ConnectorError | None]:
    return {name: event.error for name, event in events if isinstance(event, Ended)}


def shape(events: Events, stream: str) -> list[Any]:
    """Return the events of one stream: numbers of records, states, and ends."""
    found: list[Any] = []
    for name, event in events:
        if name != stream:
            continue
        if isinstance(event, pa.RecordBatch):
            found.append(event.num_rows)
        elif isinstance(event, Checkpoint):
            assert event.bookmark is not None
            found.append(event.bookmark["airbyte_state"])
        elif isinstance(event, Ended):
            found.append("complete" if event.error is None else "failed")
    return found


def orders(*numbers: int) -> list[dict[str, Any]]:
    return [record("orders", id=n, stamp=f"{n:04}") for n in numbers]


ONE = [offered("orders")]
DONE = [status("users", "COMPLETE")]


def test_a_state_comes_behind_the_records_of_its_stream_alone() -> None:
    messages = [
        *orders(1, 2),
        record("users", id=7),
        state("orders", {"n": 2}, 2),
        *orders(3),
        record("users", id=8),
        status("orders", "COMPLETE"),
        status("users", "COMPLETE"),
        state("users", {"n": 8}, 2),
        state("orders", {"n": 3}, 1),
    ]
    events = read(text(*messages))
    assert shape(events, "orders") == [2, {"n": 2}, 1, {"n": 3}, "complete"]
    assert shape(events, "users") == [2, {"n": 8}, "complete"]


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_blocks_may_end_anywhere_between_lines(size: int) -> None:
    messages = [*orders(*range(20)), record("users", id=1), state("orders", {"n": 20}, 20), *DONE]
    lines = text(*messages, status("orders", "COMPLETE")).splitlines(keepends=True)
    blocks = [b"".join(lines[at : at + size]) for at in range(0, len(lines), size)]
    events = read(*blocks)
    assert ids(events, "orders") == list(range(20))
    assert ids(events, "users") == [1]


def test_a_stream_ends_at_its_first_state_behind_complete_and_another_one_changes_nothing() -> None:
    messages = [*orders(1), status("orders", "COMPLETE"), state("orders", {"n": 1}, 1), state("orders", {"n": 9}, 0)]
    assert shape(read(text(*messages, *DONE)), "orders") == [1, {"n": 1}, "complete"]


def test_a_stream_that_is_complete_without_a_state_ends_with_the_output() -> None:
    events = read(text(*orders(1), status("orders", "COMPLETE"), *DONE), failure=RetriableError("ended with status 1"))
    assert shape(events, "orders") == [1, "complete"]


def test_the_state_behind_incomplete_is_committed_and_the_stream_fails() -> None:
    messages = [
        *orders(1),
        error("no more quota", "orders", failure_type="transient_error", internal_message="HTTP 429"),
        status("orders", "INCOMPLETE"),
        state("orders", {"n": 1}, 1),
        *DONE,
    ]
    events = read(text(*messages))
    assert shape(events, "orders") == [1, {"n": 1}, "failed"]
    failed = ends(events)["orders"]
    assert isinstance(failed, RetriableError)
    assert str(failed) == "airbyte x, stream 'orders': no more quota; `--debug` shows more"
    assert ends(events)["users"] is None


def test_an_error_after_incomplete_and_its_state_is_still_the_streams() -> None:
    messages = [status("orders", "INCOMPLETE"), state("orders", {}, 0), error("late", "orders"), *DONE]
    events = read(text(*messages))
    assert isinstance(ends(events)["orders"], FatalConnectorError)
    assert "late" in str(ends(events)["orders"])


def test_an_error_without_a_stream_is_of_those_that_have_not_ended() -> None:
    messages = [
        status("users", "COMPLETE"),
        state("users", {}, 0),
        *orders(1),
        error("the key is wrong", failure_type="config_error"),
    ]
    events = read(text(*messages), failure=RetriableError("ended with status 1"))
    assert ends(events)["users"] is None
    assert isinstance(ends(events)["orders"], ConnectorConfigError)


def test_the_end_of_the_process_is_an_error_where_no_message_tells_one() -> None:
    events = read(text(*orders(1), *DONE), failure=RetriableError("was killed by SIGKILL"))
    assert str(ends(events)["orders"]) == "was killed by SIGKILL"
    assert ids(events, "orders") == [1]


def test_an_interrupted_read_is_interrupted_whatever_its_streams_are() -> None:
    with pytest.raises(Interrupted):
        read(text(*DONE), failure=Interrupted("stop"))


@pytest.mark.parametrize("last", [[], [status("orders", "STARTED")], [status("orders", "INCOMPLETE")]])
def test_an_end_without_complete_is_no_success_if_the_source_tells_statuses(last: list[Any]) -> None:
    events = read(text(*orders(1), *last, *DONE))
    assert isinstance(ends(events)["orders"], RetriableError)
    assert "is not COMPLETE" in str(ends(events)["orders"])


def test_a_source_without_statuses_succeeds_by_its_exit() -> None:
    assert ends(read(text(*orders(1)))) == {"orders": None, "users": None}
    assert set(map(str, ends(read(text(*orders(1)), failure=RetriableError("status 1"))).values())) == {"status 1"}


def test_the_only_stream_of_a_read_raises_its_error() -> None:
    for last in ([], [status("orders", "INCOMPLETE"), state("orders", {}, 0)], [state("orders", {}, 7)]):
        with pytest.raises(FatalConnectorError, match=r"gone|arrived"):
            read(text(*orders(1), error("gone", "orders"), *last), entries=ONE)
    assert shape(read(text(*orders(1)), entries=ONE), "orders") == [1]


@pytest.mark.parametrize("count", [1, 3, 2.5])
def test_a_count_that_disagrees_with_what_arrived_fails_the_stream(count: float) -> None:
    events = read(text(*orders(1, 2), state("orders", {}, count), *DONE))
    assert shape(events, "orders") == [2, "failed"]
    assert "sourceStats.recordCount" in str(ends(events)["orders"])


def test_counts_hold_for_records_that_are_rejected_too() -> None:
    spec = ReadSpec(method=ReplicationMethod.INCREMENTAL, bookmark_properties=("stamp",), max_rejected=5)
    messages = [*orders(1), record("orders", id="x", stamp="2"), state("orders", {"n": 2}, 2)]
    events = read(text(*messages, status("orders", "COMPLETE")), entries=ONE, spec=spec)
    rejected = [event for _, event in events if isinstance(event, Rejected)]
    assert [json.loads(each.record) for event in rejected for each in event.records] == [{"id": "x", "stamp": "2"}]
    assert ids(events, "orders") == [1]


@pytest.mark.parametrize(
    "value",
    [
        {"type": "GLOBAL", "global": {"stream_states": []}},
        {"type": "LEGACY", "data": {}},
        {"data": {"orders": 1}},
        {"type": "STREAM"},
        7,
    ],
)
def test_states_that_cover_several_streams_are_refused(value: Any) -> None:
    events = read(text(*orders(1), {"type": "STATE", "state": value}))
    assert all(isinstance(each, ConnectorConfigError) for each in ends(events).values())
    assert "covers several streams" in str(ends(events)["orders"])


def test_a_full_table_read_has_no_checkpoint() -> None:
    messages = [
        *orders(1),
        state("orders", {"n": 1}, 1),
        *orders(2),
        status("orders", "COMPLETE"),
        state("orders", {}, 1),
    ]
    assert shape(read(text(*messages), entries=ONE, spec=ReadSpec()), "orders") == [1, 1]


def test_states_come_as_often_as_records_or_seconds_say() -> None:
    now = [0.0]
    messages = [each for n in range(10) for each in (*orders(n), state("orders", {"n": n}, 1))]
    last = [status("orders", "COMPLETE"), state("orders", {"n": 99}, 0)]
    options: dict[str, Any] = {"entries": ONE, "clock": lambda: now[0]}
    events = read(text(*messages, *last), **options, checkpoint_records=4)
    assert shape(events, "orders") == [1, 1, 1, 1, {"n": 3}, 1, 1, 1, 1, {"n": 7}, 1, 1, {"n": 99}]
    events = read(text(*messages), **options, checkpoint_records=1000, checkpoint_s=0.0)
    assert len([each for each in shape(events, "orders") if isinstance(each, dict)]) == 10


def test_records_at_the_state_are_recognised_when_they_come_again() -> None:
    first = read(text(*orders(1, 2), state("orders", {"stamp": "0002"}, 2)), entries=ONE)
    bookmark = next(event.bookmark for _, event in first if isinstance(event, Checkpoint))
    changed = record("orders", id=2, stamp="0002", note="new")
    again = read(
        text(*orders(2, 3), changed, state("orders", {"stamp": "0003"}, 3)), entries=ONE, bookmarks={"orders": bookmark}
    )
    assert ids(again, "orders") == [3, 2]


@pytest.mark.parametrize("format", ["", "date-time", "integer"])
def test_an_append_tells_of_records_below_its_state(caplog: pytest.LogCaptureFixture, format: str) -> None:
    values: dict[str, list[Any]] = {"integer": [1, 2, 3, 4], "": ["0001", "0002", "0003", "0004"]}
    stamps = values.get(format) or [f"2026-01-0{n}T00:00:00Z" for n in range(1, 5)]
    kind = {"type": "integer"} if format == "integer" else {"type": "string", **({"format": format} if format else {})}
    schema = {"type": "object", "properties": {"id": {"type": "integer"}, "stamp": kind}}
    entries = [offered("orders", json_schema=schema)]
    sent = text(*(record("orders", id=n, stamp=stamp) for n, stamp in enumerate(stamps)))
    read(sent, entries=entries)
    kept = {"orders": {"airbyte_state": {"stamp": str(stamps[2])}}}
    partitioned = {"airbyte_state": {"states": [{"cursor": {"stamp": stamp}} for stamp in stamps[2:]]}}
    spec = streams_of(entries)[0].read
    read(sent, entries=entries, bookmarks=kept, spec=replace(spec, may_repeat=True))
    read(sent, entries=entries, bookmarks={"orders": partitioned})
    assert caplog.messages == []
    assert ids(read(sent, entries=entries, bookmarks=kept), "orders") == [0, 1, 2, 3]
    assert len(caplog.messages) == 1
    assert "stream 'orders': 2 records lie below its state" in caplog.text


def test_a_record_that_does_not_fit_fails_its_stream_alone() -> None:
    messages = [*orders(1), record("orders", id="one"), record("users", id=1), state("orders", {}, 2), *DONE]
    events = read(text(*messages))
    assert shape(events, "orders") == ["failed"]
    assert "column 'id': \"one\" is not int64" in str(ends(events)["orders"])
    assert shape(events, "users") == [1, "complete"]


def test_a_line_that_is_broken_json_fails_what_has_not_ended_and_keeps_what_came_before() -> None:
    broken = b'{"type":"RECORD","record":{"stream":"users","da'
    events = read(text(*orders(1), status("orders", "COMPLETE"), broken))
    assert shape(events, "orders") == [1, "complete"]
    assert "line 3 is not JSON" in str(ends(events)["users"])


def test_other_lines_are_the_programs_own_words(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    odd = [b"starting with sesame-open", b"", b"[1]", b"\xff\xfe", {"type": "ODD", "x": 1}, {"type": "ODD"}, {"a": 1}]
    events = read(text(*odd, *orders(1), status("orders", "COMPLETE")), entries=ONE, secrets=["sesame-open"])
    assert shape(events, "orders") == [1]
    assert "airbyte x: starting with ***" in caplog.text
    assert "sesame" not in caplog.text
    assert caplog.text.count("'ODD'") == 1


def test_a_traceback_of_the_log_is_for_debug_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = "Exception while syncing\nTraceback (most recent call last):\n  File x"
    read(text(*DONE, {"type": "LOG", "log": {"level": "ERROR", "message": said}}))
    assert [(each.levelname, each.message) for each in caplog.records if "syncing" in each.message] == [
        ("ERROR", "airbyte x: Exception while syncing"),
        ("DEBUG", f"airbyte x: {said}"),
    ]


def test_records_of_other_streams_are_left_out_with_a_warning_each(caplog: pytest.LogCaptureFixture) -> None:
    strange = [record("strange", id=1), record("strange", id=2), state("strange", {}, 2)]
    events = read(text(*strange, *orders(1), status("orders", "COMPLETE"), *DONE))
    assert ids(events, "orders") == [1]
    assert caplog.text.count("stream 'strange' is not in its catalog") == 1


def test_a_source_that_sends_other_streams_only_has_not_succeeded() -> None:
    with pytest.raises(FatalConnectorError, match="it sent 'order', which its catalog does not have"):
        read(text(record("order", id=1)), entries=ONE)


def test_records_after_the_end_of_a_stream_are_told(caplog: pytest.LogCaptureFixture) -> None:
    messages = [status("orders", "COMPLETE"), state("orders", {}, 0), *orders(1), *DONE]
    assert shape(read(text(*messages)), "orders") == [{}, "complete"]
    assert "sends records after its end" in caplog.text


def test_streams_of_one_name_are_told_apart_by_their_namespace() -> None:
    entries = [offered("t", namespace="a"), offered("t", namespace="b")]
    messages = []
    for space, n in (("a", 1), ("b", 2), ("a", 3)):
        message = record("t", id=n)
        message["record"] = (
            {**message["record"], "namespace": space} if n < 3 else {"namespace": space} | message["record"]
        )
        messages.append(message)
    made = read(text(*messages), entries=entries)
    assert ids(made, "a.t") == [1, 3]
    assert ids(made, "b.t") == [2]


@pytest.mark.parametrize(
    "line",
    [
        b'{"record":{"stream":"orders","data":{"id":1,"stamp":"1"},"emitted_at":1},"type":"RECORD"}',
        b'{"type":"RECORD","record":{"emitted_at":1,"stream":"orders","data":{"id":1,"stamp":"1"}}}',
        b'{"type":"RECORD","record":{"data":{"id":1,"stamp":"1"},"stream":"orders"}}',
        b'{ "type" : "RECORD" , "record" : { "stream" : "orders" , "data" : { "id" : 1 , "stamp" : "1" } } }',
        b'{"type":"RECORD","record":{"namespace":null,"stream":"orders","data":{"id":1,"stamp":"1"}},"extra":{"data":2}}',
        b'{"type":"RECORD","record":{"stream":"users","stream":"orders","data":{"id":1,"stamp":"1"}}}',
    ],
)
def test_a_record_is_found_however_its_message_is_written(line: bytes) -> None:
    assert ids(read(text(line, line)), "orders") == [1, 1]


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"RECORD"}',
        b'{"type":"RECORD","record":{"data":{"id":1}}}',
        b'{"type":"RECORD","record":{"stream":7,"data":{"id":1}}}',
        b'{"type":"RECORD","record":[]}',
    ],
)
def test_a_record_without_a_stream_is_an_error(line: bytes) -> None:
    assert "is a RECORD without a stream" in str(ends(read(text(line)))["orders"])


@pytest.mark.parametrize("data", [b"null", b"7", b'"x"', b"[1]"])
def test_a_record_without_data_fails_its_stream(data: bytes) -> None:
    events = read(text(b'{"type":"RECORD","record":{"stream":"orders","data":' + data + b"}}"))
    assert isinstance(ends(events)["orders"], FatalConnectorError)
    assert ends(events)["users"] is None


def test_values_of_all_types_arrive_exactly() -> None:
    properties = {
        "id": {"type": "integer"},
        "price": {"type": "number"},
        "at": {"type": "string", "format": "date-time"},
        "more": {"type": "object"},
        "tags": {"type": "array", "items": {"type": "string"}},
    }
    entries = [offered("orders", cursor=None, json_schema={"type": "object", "properties": properties})]
    data = {"id": 2**53 + 1, "price": 0.1, "at": "2026-01-02T03:04:05Z", "more": {"a": [1]}, "tags": ["x"]}
    line = record("orders", **data)
    events = read(text(line, {"type": "RECORD", "record": {"stream": "orders", "data": {"id": 1}}}), entries=entries)
    batch = next(event for _, event in events if isinstance(event, pa.RecordBatch))
    batch.validate(full=True)
    rows = batch.to_pylist()
    assert rows[0]["id"] == 2**53 + 1
    assert rows[0]["price"] == 0.1
    assert rows[0]["at"].isoformat() == "2026-01-02T03:04:05+00:00"
    assert json.loads(rows[0]["more"]) == {"a": [1]}
    assert rows[0]["tags"] == ["x"]
    assert rows[1] == {"id": 1, "price": None, "at": None, "more": None, "tags": None}


def test_a_page_that_the_cdk_drops_fails_the_streams_that_are_under_way() -> None:
    lost = {"type": "LOG", "log": {"level": "ERROR", "message": "Failed to parse JSON data using json library. ..."}}
    messages = [*DONE, status("orders", "STARTED"), lost, status("orders", "COMPLETE"), state("orders", {"n": 1}, 0)]
    events = read(text(*messages))
    assert shape(events, "orders") == ["failed"]
    assert "its page is lost" in str(ends(events)["orders"])


def test_no_state_behind_a_lost_page_is_committed() -> None:
    lost = {"type": "LOG", "log": {"level": "ERROR", "message": "Failed to parse JSON data using json library. ..."}}
    before = [status("orders", "STARTED"), record("orders", id=1), state("orders", {"n": 1}, 1)]
    behind = [record("orders", id=3), state("orders", {"n": 3}, 1), record("orders", id=4)]
    end = [status("orders", "COMPLETE"), state("orders", {"n": 4}, 1)]
    events = read(text(*DONE, *before, lost, *behind, *end))
    held = [event.bookmark for name, event in events if name == "orders" and isinstance(event, Checkpoint)]
    assert [each["airbyte_state"] for each in held] == [{"n": 1}]
    assert "its page is lost" in str(ends(events)["orders"])
    assert ends(events)["users"] is None


def test_a_page_may_be_lost_before_its_stream_is_said_to_be_started() -> None:
    lost = {"type": "LOG", "log": {"level": "ERROR", "message": "Failed to parse JSON data using json library. ..."}}
    marked = {"type": "LOG", "log": {"level": "INFO", "message": "Marking stream orders as STARTED"}}
    end = [record("orders", id=1), status("orders", "COMPLETE"), state("orders", {"n": 1}, 1)]
    events = read(text(lost, marked, status("orders", "STARTED"), *end, status("users", "STARTED"), *DONE))
    assert "its page is lost" in str(ends(events)["orders"])
    assert ids(events, "orders") == []
    assert ends(events)["users"] is None


def line_of_log(level: str, text: str, **mark: Any) -> dict[str, Any]:
    """Return a line of the connector's log; `mark`: what the launcher adds."""
    return {"type": "LOG", "log": {"level": level, "message": text}, **({"syncblocks": mark} if mark else {})}


def warned(events: Events) -> dict[str, tuple[int, int]]:
    return {name: (event.warn, event.error) for name, event in events if isinstance(event, Warned)}


@pytest.mark.parametrize("sentence", LOST_PAGE)
@pytest.mark.parametrize("longest", [1, 8])
def test_a_lost_page_is_recognized_whatever_secrets_the_cdk_has_masked(sentence: str, longest: int) -> None:
    said = f"{sentence}. Expecting value: line 1 column 1 (char 0)"
    for start in range(len(said)):
        for length in range(1, longest + 1):
            text = said.replace(said[start : start + length], "****")
            assert may_begin(text, sentence), text
            assert may_begin(text.replace("*", "****"), sentence), text
    for other in ("", "Exception while syncing stream orders", "Marking stream **** as STARTED", sentence[:-1]):
        assert not may_begin(other, sentence)


def test_a_masked_lost_page_fails_the_stream_that_is_under_way() -> None:
    masked = line_of_log("ERROR", "Failed to parse **** data using **** library. Expecting value")
    end = [status("orders", "COMPLETE"), state("orders", {"n": 1}, 0)]
    assert "its page is lost" in str(ends(read(text(*DONE, status("orders", "STARTED"), masked, *end)))["orders"])
    marked = {**masked, "syncblocks": {"stream": None, "is_page_lost": False}}
    assert ends(read(text(*DONE, status("orders", "STARTED"), marked, *end)))["orders"] is None


def test_a_lost_page_fails_the_stream_that_the_launcher_names_and_no_other() -> None:
    lost = line_of_log("ERROR", "x", stream="orders", is_page_lost=True)
    messages = [status("users", "STARTED"), lost, record("users", id=1), status("orders", "STARTED"), *orders(1), lost]
    end = [status("orders", "COMPLETE"), state("orders", {"n": 1}, 1), *DONE, state("users", {"n": 1}, 1)]
    events = read(text(*messages, *end))
    assert "its page is lost" in str(ends(events)["orders"])
    assert shape(events, "users") == [1, {"n": 1}, "complete"]
    assert ids(events, "orders") == []


def test_a_lost_page_of_a_source_without_statuses_fails_its_streams() -> None:
    lost = line_of_log("ERROR", f"{LOST_PAGE[0]}. Expecting value")
    events = read(text(*orders(1), state("orders", {"n": 1}, 1), lost, *orders(2), state("orders", {"n": 2}, 1)))
    assert shape(events, "orders") == [1, {"n": 1}, 1, "failed"]
    assert "its page is lost" in str(ends(events)["users"])


def test_warnings_count_for_the_streams_that_are_started_and_not_complete() -> None:
    warn, error_line, fatal = (line_of_log(level, level) for level in ("WARN", "ERROR", "FATAL"))
    info = line_of_log("INFO", "hello")
    messages = [
        warn,
        status("orders", "STARTED"),
        warn,
        info,
        status("users", "STARTED"),
        status("users", "RUNNING"),
        error_line,
        *orders(1),
        status("orders", "COMPLETE"),
        fatal,
        state("orders", {"n": 1}, 1),
        *DONE,
        warn,
    ]
    events = read(text(*messages))
    assert warned(events) == {"orders": (1, 1), "users": (0, 2)}
    assert shape(events, "orders") == [1, {"n": 1}, "complete"]
    assert warned(read(text(*orders(1), *DONE))) == {}


def test_a_warning_counts_for_the_stream_that_the_launcher_names() -> None:
    named = line_of_log("WARN", "x", stream="orders", is_page_lost=False)
    events = read(text(status("users", "STARTED"), named, status("orders", "COMPLETE"), *DONE))
    assert warned(events) == {"orders": (1, 0)}


def test_warnings_of_a_stream_that_fails_come_before_its_error() -> None:
    messages = [status("orders", "STARTED"), line_of_log("ERROR", "gone"), error("gone", "orders")]
    events = read(text(*messages, *DONE))
    assert [type(event).__name__ for name, event in events if name == "orders"] == ["Warned", "Ended"]


def test_records_without_any_column_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    odd = [record("orders", error="try later"), record("orders", error="try later", code=7)]
    entries = [offered("orders", key=None), offered("users")]
    events = read(text(*orders(1), *odd, status("orders", "COMPLETE"), *DONE), entries=entries)
    assert warned(events) == {"orders": (1, 0)}
    assert ids(events, "orders") == [1, None, None]
    assert "stream 'orders': 2 of its records have none of its columns" in caplog.text


def test_a_warning_that_is_repeated_is_shown_once(caplog: pytest.LogCaptureFixture) -> None:
    same = line_of_log("WARN", "the connector ignores an answer")
    events = read(text(status("orders", "STARTED"), *[same] * 5, status("orders", "COMPLETE"), *DONE))
    assert warned(events) == {"orders": (5, 0)}
    assert caplog.text.count("ignores an answer") == 1


def test_an_estimate_is_told_with_the_stream() -> None:
    estimate = {"type": "STREAM", "name": "orders", "row_estimate": 7_000}
    odd = [{"name": "orders", "row_estimate": each} for each in (None, -1, "x", 1e9)] + [{"row_estimate": 7}, {}]
    messages = [{"type": "TRACE", "trace": {"type": "ESTIMATE", "estimate": each}} for each in (*odd, estimate)]
    events = read(text(*orders(1), *messages, *orders(2), status("orders", "COMPLETE")), entries=ONE)
    told = [event.estimated_records for _, event in events if isinstance(event, Stream)]
    assert (told, ids(events, "orders")) == ([7_000], [1, 2])


@pytest.mark.parametrize("last", [[status("orders", "COMPLETE")], []])
def test_a_state_that_was_not_due_is_committed_with_the_end(last: list[Any]) -> None:
    options: dict[str, Any] = {"entries": ONE, "checkpoint_records": 1000}
    first = [*orders(1), state("orders", {"n": 1}, 1), *orders(2), state("orders", {"n": 2}, 1)]
    assert shape(read(text(*first, *last), **options), "orders") == [1, 1, {"n": 2}]
    assert shape(read(text(*first, *orders(3), *last), **options), "orders") == [1, 1, 1]


def test_a_state_that_was_not_due_is_committed_when_the_process_ends_badly() -> None:
    events = read(text(*orders(1), state("orders", {"n": 1}, 1)), failure=RetriableError("x"), checkpoint_records=1000)
    assert shape(events, "orders") == [1, {"n": 1}, "failed"]
