"""Numbers of JSON lines and of a Singer tap: each is kept to its last digit, or refused; whatever its exponent."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.registry import make_source
from syncblocks.connectors.singer.batches import BatchFiles
from syncblocks.connectors.singer.reader import TapReader
from tests.connectors.singer.singer_helpers import lines, schema, stream_of

TYPES = (None, "int64", "double", "decimal(38,9)", "string")
SINGER = {"properties": {"v": {"type": ["null", "number"]}, "i": {"type": ["null", "integer"]}}}


def fuzzer(_prepared: str) -> Callable[[random.Random], str]:
    folder = tempfile.TemporaryDirectory(prefix="syncblocks-fuzz-")

    def once(chance: random.Random) -> str:
        texts = [_number(chance) for _ in range(chance.randrange(1, 5))]
        try:
            if chance.random() < 0.4:
                return _by_tap(texts, chance)
            return _by_file(texts, Path(folder.name, "t.jsonl"), chance)
        except ConnectorError as error:
            return type(error).__name__

    return once


def _number(chance: random.Random) -> str:
    digits = "".join(chance.choices("0123456789", k=chance.choice((1, 2, 15, 17, 19, 38, 40, 400))))
    whole = digits.lstrip("0") or "0"
    fraction = "." + "".join(chance.choices("0123456789", k=chance.choice((1, 3, 20)))) if chance.random() < 0.4 else ""
    power = chance.choice((0, 1, 5, 22, 37, 308, 309, 324, 400, 5000, 99999999, chance.randrange(1 << 40)))
    exponent = chance.choice("eE") + chance.choice(("", "+", "-")) + str(power) if chance.random() < 0.4 else ""
    return chance.choice(("", "-")) + whole + fraction + exponent


def _by_file(texts: list[str], file: Path, chance: random.Random) -> str:
    file.write_text("".join(f'{{"v": {text}}}\n' for text in texts))
    kind = chance.choice(TYPES)
    with closing(
        make_source("jsonl", {"path": str(file), **({"types": {"v": kind}} if kind else {})}, file.parent)
    ) as source:
        (stream,) = source.discover()
        found = [event for _, event in source.read([stream], {stream.name: None}) if isinstance(event, pa.RecordBatch)]
    return _held([value for batch in found for value in batch.column("v").to_pylist()], texts)


def _by_tap(texts: list[str], chance: random.Random) -> str:
    column = chance.choice("vi")
    told = [
        b'{"type": "RECORD", "stream": "n", "record": {"%s": %s}}' % (column.encode(), text.encode()) for text in texts
    ]
    stream = stream_of("n", SINGER, key=())
    files = BatchFiles([], Path())
    reader = TapReader("tap", [stream], {"n": ("n",)}, {}, checkpoint_records=1, adds_columns=("n",), batch_files=files)
    values: list[Any] = []
    for _, event in reader.read([lines(schema("n", SINGER, ()), *told)]):
        if isinstance(event, pa.RecordBatch):
            values += event.column(column).to_pylist()
    return _held(values, texts)


def _held(values: list[Any], texts: list[str]) -> str:
    """Hold values against what was written: equal as numbers, a double as the nearest one."""
    assert len(values) == len(texts), (values, texts)
    for value, text in zip(values, texts, strict=True):
        if isinstance(value, float):
            assert value == float(text), (value, text)
        elif not isinstance(value, str):
            assert Decimal(value) == Decimal(text), (value, text)
        else:
            assert value == text or Decimal(json.loads(json.dumps(value))) == Decimal(text), (value, text)
    return "kept"
