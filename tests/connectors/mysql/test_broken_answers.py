"""A server that is broken, or hostile, is told so: no answer of its makes us crash, hang or read what is not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pymysql")

from syncblocks.connectors.mysql.failures import BrokenAnswer
from syncblocks.connectors.mysql.packets import MARGIN, Packets
from syncblocks.connectors.mysql.records import RecordKind, decode, decode_texts

ROOT = Path(__file__).parents[3]
TRIES = 10_000 if os.environ.get("SYNCBLOCKS_FAULTS") == "full" else 500

TEXT, NUMBER, MOMENT, SPAN = (
    RecordKind(253, False, True),
    RecordKind(8, False, False),
    RecordKind(12, False, False),
    RecordKind(11, False, False),
)


def block(*payloads: bytes) -> tuple[Any, Any, Any]:
    """Return payloads as `Packets` hands them out."""
    stream = b"".join(len(each).to_bytes(3, "little") + b"\0" + each for each in payloads)
    bounds = np.cumsum([0, *(4 + len(each) for each in payloads)])
    return np.frombuffer(stream + bytes(MARGIN), np.uint8), bounds[:-1] + 4, bounds[1:]


#: More than the three bytes that follow; the longest ones are negative, or make a sum overflow.
EIGHT_BYTES = [each.to_bytes(8, "little") for each in (6, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)]


@pytest.mark.parametrize(
    "length", [b"\x05", b"\xfa", b"\xfc\xff\xff", b"\xfd\xff\xff\xff", *(b"\xfe" + each for each in EIGHT_BYTES)]
)
def test_a_length_past_the_packet_is_refused(length: bytes) -> None:
    good, bad = b"\0\0\4good", b"\0\0" + length + b"bad"
    for payloads in ((bad,), (bad, good), (good, bad), (good, bad, good)):
        with pytest.raises(BrokenAnswer):
            decode(*block(*payloads), [TEXT])
        with pytest.raises(BrokenAnswer):
            decode_texts(*block(*(each[2:] for each in payloads)), [TEXT])


@pytest.mark.parametrize(
    ("payload", "kinds"),
    [
        (b"\0", [NUMBER]),
        (b"\0\0" + bytes(7), [NUMBER]),
        (b"\0\0" + bytes(9), [NUMBER]),
        (b"\0\0", [NUMBER] * 4),
        (b"\0" + bytes(40), [NUMBER] * 4000),
        (b"\0\0\xfb", [TEXT]),
        (b"\0\0\xff", [TEXT]),
        (b"\0\0\x05" + bytes(5), [MOMENT]),
        (b"\0\0\x0b" + bytes(7), [MOMENT]),
        (b"\0\0\x0c\0\xff\xff\xff\xff" + bytes(7), [SPAN]),
    ],
)
def test_a_record_that_is_not_as_long_as_its_packet_is_refused(payload: bytes, kinds: list[RecordKind]) -> None:
    with pytest.raises(BrokenAnswer):
        decode(*block(payload), kinds)


@pytest.mark.parametrize("is_text", [False, True])
@pytest.mark.parametrize("ending", [b"", b"\xff\1", b"\xfe" + bytes(9)])
def test_an_end_that_is_none_is_refused(ending: bytes, is_text: bool) -> None:
    stream = b"".join(len(each).to_bytes(3, "little") + b"\0" + each for each in (b"\0\0\1x", ending, b"\xfe\0\0\0\0"))
    with pytest.raises(BrokenAnswer):
        list(Packets(stream, lambda view: 0, is_text=is_text))
