"""Records of MySQL in both of its protocols, damaged behind the headers of their packets."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from syncblocks.connectors.mysql.failures import BrokenAnswer
from syncblocks.connectors.mysql.packets import MARGIN
from syncblocks.connectors.mysql.records import RecordKind, decode, decode_texts
from tests.fuzz.loop import damaged, touch

#: Types of the protocol: numbers, times, texts.
TYPES = (1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 16, 246, 252, 253, 254)


def block(payloads: list[bytes]) -> tuple[Any, Any, Any]:
    """Return payloads as `Packets` hands them out."""
    stream = b"".join(len(each).to_bytes(3, "little") + b"\0" + each for each in payloads)
    bounds = np.cumsum([0, *(4 + len(each) for each in payloads)])
    return np.frombuffer(stream + bytes(MARGIN), np.uint8), bounds[:-1] + 4, bounds[1:]


def fuzzer(_prepared: str) -> Callable[[random.Random], str]:
    return once


def once(chance: random.Random) -> str:
    columns = chance.randrange(1, 12)
    kinds = [_kind(chance) for _ in range(columns)]
    is_text = chance.random() < 0.4
    payloads = [_record(kinds, chance, is_text=is_text) for _ in range(chance.randrange(1, 6))]
    place = chance.randrange(len(payloads))
    payloads[place] = damaged(payloads[place], chance) or b"\0"
    try:
        arrays = (decode_texts if is_text else decode)(*block(payloads), kinds)
    except (BrokenAnswer, pa.ArrowInvalid) as error:  # a text that is no number, which the session tells of
        return type(error).__name__
    for array in arrays:
        if isinstance(array, pa.Array):
            touch(pa.RecordBatch.from_arrays([array], names=["c"]))
    return "read"


def _kind(chance: random.Random) -> RecordKind:
    kind = chance.choice(TYPES)
    return RecordKind(kind, chance.random() < 0.3, kind >= 246)


def _record(kinds: list[RecordKind], chance: random.Random, *, is_text: bool) -> bytes:
    values = [_value(kind, chance, is_text=is_text) for kind in kinds]
    if is_text:
        return b"".join(values)
    nulls = bytearray((len(kinds) + 9) // 8)
    for place in range(len(kinds)):
        if chance.random() < 0.2:
            nulls[(place + 2) // 8] |= 1 << (place + 2) % 8
            values[place] = b""
    return b"\0" + bytes(nulls) + b"".join(values)


def _value(kind: RecordKind, chance: random.Random, *, is_text: bool) -> bytes:
    number = kind.code
    if not is_text and number < 246 and number != 16:
        if number in (7, 10, 11, 12):
            size = chance.choice((0, 8, 12) if number == 11 else (0, 4, 7, 11))
            return bytes([size]) + chance.randbytes(size)
        return chance.randbytes({1: 1, 2: 2, 13: 2, 3: 4, 4: 4, 9: 4}.get(number, 8))
    text = chance.choice((b"", b"12", b"-1.5", b"2024-02-29 10:00:00", chance.randbytes(9), b"x" * 300))
    length = len(text)
    return (bytes([length]) if length < 0xFB else b"\xfc" + length.to_bytes(2, "little")) + text
