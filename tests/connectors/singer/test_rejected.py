"""Bad lines of a tap, set aside: `on_rejected: keep`."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.rejected.limits import TooManyRejected
from syncblocks.connectors.singer.batches import BatchFiles
from syncblocks.connectors.stream import Checkpoint, Rejected
from syncblocks.connectors.struct_helpers import replace
from tests.connectors.singer.singer_helpers import (
    SCHEMA,
    full_table,
    lines,
    pipeline,
    read,
    record,
    records,
    run,
    schema,
    state,
    stream_of,
    tap_program,
)

SPEC: dict[str, Any] = {"properties": {**SCHEMA["properties"], "n": {"type": ["null", "integer"]}}}
CUT = b'{"type": "RECORD", "stream": "orders", "record": {"id": 5, "n'
BAD = {
    3: record("orders", id=2, n="not a number"),
    5: record("orders", stamp="2024", n=1.25),
    6: CUT,
}
MESSAGES = [
    schema("orders", SPEC),
    record("orders", id=1, n=1),
    BAD[3],
    record("orders", id=3, n=3),
    BAD[5],
    BAD[6],
    record("orders", id=6, n=10**30),
    state(orders={"stamp": "2024-01-01"}),
]


def keeping(limit: int | None = 10, *bookmarks: str) -> Any:
    return replace(
        offered := stream_of("orders", SPEC, *bookmarks),
        read=replace(offered.read, max_rejected=limit),
    )


def rejected(events: Any) -> list[Any]:
    return [each for _, event in events if isinstance(event, Rejected) for each in event.records]


def test_bad_lines_are_set_aside_with_their_numbers_and_the_others_kept() -> None:
    events = read(lines(*MESSAGES), streams=[keeping()])
    assert [each["id"] for each in records(events, "orders")] == [1, 3, 6]
    assert int(records(events, "orders")[-1]["n"]) == 10**30
    found = rejected(events)
    assert [each.place for each in found] == [f"tap tap-x:{number}" for number in BAD]
    assert json.loads(found[0].record) == {"id": 2, "n": "not a number"}
    assert json.loads(found[2].record) == CUT.decode()
    assert "column 'n'" in found[0].reason
    assert "key 'id'" in found[1].reason
    assert "is not JSON" in found[2].reason


@pytest.mark.parametrize("levels", [700, 5_000])  # Python 3.11 parses the first, later ones both
def test_a_bad_line_is_set_aside_however_deeply_it_is_nested(levels: int) -> None:
    deep = "[" * levels + "]" * levels
    bad = b'{"type": "RECORD", "stream": "orders", "record": {"id": 2, "n": %s}}' % deep.encode()
    messages = [schema("orders", SPEC), record("orders", id=1, n=1), bad, record("orders", id=3, n=3)]
    events = read(lines(*messages), streams=[keeping()])
    assert [each["id"] for each in records(events, "orders")] == [1, 3]
    (found,) = rejected(events)
    assert found.place == "tap tap-x:3"
    assert deep in found.record


def test_what_was_set_aside_comes_before_its_checkpoint() -> None:
    events = read(lines(*MESSAGES), streams=[keeping(10, "stamp")], checkpoint_records=1)
    kinds = [type(event) for _, event in events if isinstance(event, Rejected | Checkpoint)]
    assert kinds == [Rejected, Checkpoint, Checkpoint]


def test_too_many_end_the_stream() -> None:
    with pytest.raises(TooManyRejected, match="more than 2 rejected records"):
        read(lines(*MESSAGES), streams=[keeping(2)])


def test_without_it_the_first_one_is_an_error() -> None:
    with pytest.raises(FatalConnectorError, match=r"line [356]"):
        read(lines(*MESSAGES), streams=[keeping(None)])


@pytest.mark.full
def test_few_among_many_are_found_without_reading_all_line_by_line() -> None:
    many = [record("orders", id=number, n="x" if number % 5000 == 7 else number) for number in range(20_000)]
    events = read(lines(schema("orders", SPEC), *many), streams=[keeping()])
    assert len(records(events, "orders")) == 19_996
    assert [each.place for each in rejected(events)] == [f"tap tap-x:{number + 2}" for number in range(7, 20_000, 5000)]


def test_a_line_of_no_stream_stays_an_error() -> None:
    with pytest.raises(FatalConnectorError, match="line 2 is not JSON"):
        read(lines(schema("orders", SPEC), b"Traceback:"), streams=[keeping()])


def test_bad_lines_of_a_batch_are_named_by_their_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1, "n": 1}\n{"id": 2, "n": "x"}\n')
    uri = (tmp_path / "a.jsonl").as_uri()
    batch = {"type": "BATCH", "stream": "orders", "encoding": {"format": "jsonl"}, "manifest": [uri]}
    files = BatchFiles([str(tmp_path)], tmp_path)
    events = read(lines(schema("orders", SPEC), batch), streams=[keeping()], batch_files=files)
    assert [each.place for each in rejected(events)] == [f"{uri}:2"]
    assert json.loads(rejected(events)[0].record) == {"id": 2, "n": "x"}


def test_a_run_writes_them_beside_the_data(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(lines(*MESSAGES))
    own = {"catalog": {"streams": [full_table("orders", SPEC)]}, "lines": str(tmp_path / "lines")}
    source = {"executable": str(tap_program(tmp_path)), "config": own}
    streams = [{"stream": "orders", "on_rejected": "keep"}]
    destination = {"connector": "sqlite", "config": {"path": "out.db"}}
    result = run(pipeline(tmp_path, source, destination, streams=streams))
    assert result.status == "success"
    with closing(sqlite3.connect(tmp_path / "out.db")) as connection, connection:
        kept = connection.execute("select place from _syncblocks_rejected order by place").fetchall()
        ids = connection.execute("select id from orders order by id").fetchall()
    assert kept == [("tap tap-small:3",), ("tap tap-small:5",), ("tap tap-small:6",)]
    assert ids == [(1,), (3,), (6,)]
