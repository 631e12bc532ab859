"""Mutated message streams: never a hang, never an error without its place, never a checkpoint ahead of its records."""

from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.singer.batches import BatchFiles
from syncblocks.connectors.singer.raw_lines import RawLines, RawReader, addressed
from syncblocks.connectors.singer.reader import TapReader
from syncblocks.connectors.stream import Checkpoint, Stream
from tests.connectors.singer.singer_helpers import SCHEMA, lines, record, schema, state, stream_of
from tests.tiers import examples

EXAMPLES = int(os.environ.get("SYNCBLOCKS_SINGER_MUTATIONS", "500"))

#: An example that hangs is seen by its own deadline.
pytestmark = pytest.mark.timeout(120 + EXAMPLES // 10)

NO_FILES = BatchFiles([], Path.cwd())

TYPED: dict[str, Any] = {
    "properties": {
        **SCHEMA["properties"],
        "n": {"type": ["null", "number"]},
        "d": {"type": ["null", "string"], "format": "date-time"},
        "j": {},
    }
}

odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**40), 10**40),
    st.floats(),
    st.text(max_size=10),
    st.just("2024-01-01T00:00:00Z"),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
names = st.sampled_from(["orders", "users", "other"])


@st.composite
def streams(draw: st.DrawFn) -> list[Any]:
    """Good messages, in which `stamp` counts the records of each stream."""
    counts = {"orders": 0, "users": 0, "other": 0}
    messages: list[Any] = [schema(name, TYPED) for name in counts]
    for kind in draw(st.lists(st.sampled_from("rrrrrrrsc"), max_size=30)):
        name = draw(names)
        if kind == "r":
            counts[name] += 1
            more = draw(
                st.dictionaries(st.sampled_from(["n", "j", "note"]), st.sampled_from([None, 1, 1.5]), max_size=1)
            )
            if "note" in more:
                more["note"] = None if more["note"] is None else str(more["note"])
            messages.append(record(name, id=counts[name], stamp=f"{counts[name]:04d}", **more))
        elif kind == "s":
            messages.append(state(**{each: {"stamp": f"{count:04d}"} for each, count in counts.items()}))
        else:
            messages.append(schema(name, TYPED))
    return messages


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Change values, keys and bytes of good messages; some come through unchanged."""
    messages = draw(streams())
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(messages) - 1))
        how = draw(st.sampled_from(["value", "drop", "key", "swap", "raw", "twice"]))
        message = messages[place]
        if how == "drop":
            messages[place] = b""
        elif how == "twice":
            messages.insert(place, message)
        elif how == "swap":
            other = draw(st.integers(0, len(messages) - 1))
            messages[place], messages[other] = messages[other], messages[place]
        elif how == "raw":
            messages[place] = draw(st.binary(max_size=30)).replace(b"\n", b"")
        elif isinstance(message, dict):
            target = message.get("record") if how == "value" and isinstance(message.get("record"), dict) else message
            key = draw(st.sampled_from(sorted(target) or ["type"]))
            messages[place] = json.loads(json.dumps(message))
            target = messages[place]["record"] if target is not message else messages[place]
            if how == "key":
                target.pop(key, None)
            else:
                target[key] = draw(odd)
    text = lines(*messages)
    if draw(st.booleans()) and draw(st.integers(0, 3)) == 0:
        cut = draw(st.integers(0, len(text)))
        text = text[:cut]
    if draw(st.integers(0, 5)) == 0:
        place = draw(st.integers(0, max(len(text) - 1, 0)))
        text = text[:place] + draw(st.binary(min_size=1, max_size=2)) + text[place + 1 :]
    return text


@st.composite
def blocks_of(draw: st.DrawFn) -> list[bytes]:
    """Cut a mutated text into blocks of whole lines."""
    blocks, block = [], b""
    for line in draw(mutated()).splitlines(keepends=True):
        block += line
        if line.endswith(b"\n") and draw(st.integers(0, 4)) == 0:
            blocks.append(block)
            block = b""
    return [*blocks, block] if block else blocks


@pytest.mark.sampled
@settings(max_examples=examples(EXAMPLES), deadline=None, suppress_health_check=list(HealthCheck))
@given(blocks_of())
def test_mutated_messages_end_in_records_or_in_an_error_with_its_place(blocks: list[bytes]) -> None:
    chosen = [stream_of(name, TYPED, "stamp") for name in ("orders", "users")]
    known = {name: (name,) for name in ("orders", "users", "other")}
    reader = TapReader(
        "tap-x",
        chosen,
        known,
        {},
        batch_files=NO_FILES,
        checkpoint_records=1,
        adds_columns=("orders", "users"),
    )
    text = b"".join(blocks)
    sent: dict[str, int] = {"orders": 0, "users": 0}
    schemas = {stream.name: stream.schema for stream in chosen}
    problem = ""
    try:
        for name, event in reader.read(blocks):
            if isinstance(event, pa.RecordBatch):
                event.validate(full=True)
                assert event.schema.equals(schemas[name])
                sent[name] += event.num_rows
            elif isinstance(event, Stream):
                schemas[name] = event.schema
            elif isinstance(event, Checkpoint):
                json.dumps(event.bookmark, allow_nan=False)
                assert sent[name] >= before(text, event, name), "a checkpoint stands behind all records it covers"
    except FatalConnectorError as error:
        problem = str(error)
    if problem:
        assert "tap tap-x" in problem
        assert " line " in problem or "no message has the stream" in problem


def before(text: bytes, checkpoint: Checkpoint, name: str) -> int:
    """Return how many records of a stream stand before the first STATE with this place, as a plain reader sees it."""
    part = (checkpoint.bookmark or {}).get("singer_state")
    count = 0
    for line in text.split(b"\n"):
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if not isinstance(message, dict):
            continue
        if message.get("type") == "RECORD" and message.get("stream") == name:
            count += 1
        if message.get("type") == "STATE":
            value = message.get("value")
            bookmarks = value.get("bookmarks") if isinstance(value, dict) else None
            mine = (part or {}).get("bookmarks") if isinstance(part, dict) else None
            if isinstance(bookmarks, dict) and isinstance(mine, dict) and bookmarks.get(name) == mine.get(name):
                return count
    return 0


@pytest.mark.sampled
@settings(max_examples=examples(max(EXAMPLES // 3, 20)), deadline=None, suppress_health_check=list(HealthCheck))
@given(blocks_of(), st.booleans())
def test_the_wire_of_lines_carries_the_records_and_checkpoints_of_the_other(
    blocks: list[bytes], is_incremental: bool
) -> None:
    chosen = [stream_of(name, TYPED, *(["stamp"] if is_incremental else [])) for name in ("orders", "users")]
    known = {name: (name,) for name in ("orders", "users", "other")}

    def heard(kind: type[TapReader]) -> tuple[dict[str, list[Any]], bool]:
        """Return per stream the keys of its records, and its checkpoints where they came."""
        found: dict[str, list[Any]] = {"orders": [], "users": []}
        reader = kind(
            "tap-x", chosen, known, {}, checkpoint_records=1, adds_columns=("orders", "users"), batch_files=NO_FILES
        )
        try:
            for name, event in reader.read(blocks):
                if isinstance(event, Checkpoint):
                    found[name].append(json.dumps(event.bookmark, sort_keys=True))
                elif isinstance(event, pa.RecordBatch):
                    found[name] += map(str, event.column("id").to_pylist())
                elif isinstance(event, RawLines) and event.kind == "RECORD":
                    lines = [json.loads(line, parse_float=Decimal) for line in event.split(b"\n") if line.strip()]
                    assert len(lines) == event.records
                    # A tap may write an integer as 1.0: its line goes as it is.
                    ids = [line["record"]["id"] for line in lines]
                    found[name] += [str(int(one) if isinstance(one, Decimal) else one) for one in ids]
                    renamed = addressed(event, "new", 5).splitlines()
                    assert {json.loads(line)["stream"] for line in renamed} == {"new"}
        except FatalConnectorError:
            return found, False
        return found, True

    by_records, is_good = heard(TapReader)
    if is_good:
        assert heard(RawReader) == (by_records, True)
