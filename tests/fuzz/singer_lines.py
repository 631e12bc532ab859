"""Lines of a Singer tap, damaged byte by byte, in both readers."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.singer.batches import BatchFiles
from syncblocks.connectors.singer.raw_lines import RawReader
from syncblocks.connectors.singer.reader import TapReader
from tests.connectors.singer.singer_helpers import SCHEMA, lines, record, schema, state, stream_of
from tests.fuzz.loop import damaged

TYPED = {
    "properties": {
        **SCHEMA["properties"],
        "n": {"type": ["null", "number"]},
        "d": {"type": ["null", "string"], "format": "date-time"},
        "j": {},
        "o": {"type": "object", "properties": {"a": {"type": "integer"}}},
    }
}
NAMES = ("orders", "users")
#: What a tap would hardly write, in the place of something that it does.
WORDS = (
    b"1e99999999",
    b"-0",
    b"null",
    b"NaN",
    b"[" * 5000,
    b"{" * 500,
    b"\\ud800",
    b"\xff",
    b'""',
    b"9" * 5000,
    b"1e-400",
)

#: A BATCH may open nothing.
NO_FILES = BatchFiles([], Path())


def fuzzer(_prepared: str) -> Callable[[random.Random], str]:
    good: list[bytes] = []
    for name in NAMES:
        good += [lines(schema(name, TYPED))]
        good += [
            lines(record(name, id=n, stamp=f"{n:04}", n=n / 3, d="2024-02-29T10:00:00Z", j={"a": [n]}, o={"a": n}))
            for n in range(6)
        ]
        good += [lines(state(**{name: {"stamp": "0005"}}))]

    def once(chance: random.Random) -> str:
        found = list(good)
        for _ in range(chance.choice((0, 1, 1, 2, 4))):
            place = chance.randrange(len(found))
            found[place] = _worse(found[place], chance)
        chosen = [stream_of(name, TYPED, "stamp") for name in NAMES]
        names = {name: (name,) for name in NAMES}
        kind = chance.choice((TapReader, RawReader))
        reader = kind("tap", chosen, names, {}, checkpoint_records=1, adds_columns=NAMES, batch_files=NO_FILES)
        try:
            for _, event in reader.read(_blocks(found, chance)):
                if isinstance(event, pa.RecordBatch):
                    event.validate(full=True)
        except ConnectorError as error:
            return type(error).__name__
        return "read"

    return once


def _worse(line: bytes, chance: random.Random) -> bytes:
    if line and chance.random() < 0.5:
        at = chance.randrange(len(line))
        return line[:at] + chance.choice(WORDS) + line[at + chance.randrange(8) :].rstrip(b"\n") + b"\n"
    return damaged(line, chance)


def _blocks(found: list[bytes], chance: random.Random) -> list[bytes]:
    cut = chance.randrange(len(found))
    return [part for part in (b"".join(found[:cut]), b"".join(found[cut:])) if part]
