"""Bad lines among good ones: found by halving, and set aside (`on_rejected: keep`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ..rejected.halving import convert_by_halves
from ..rejected.records import rejection
from ..stream import Rejected
from .records import MalformedRecord, Parser


def sifted_lines(
    parser: Parser, block: bytes, numbers: Sequence[int], limit: int, source: str
) -> list[pa.RecordBatch | Rejected]:
    """Return the batches of the good lines, and what is kept of the bad ones.

    Args:
        parser: of the stream.
        block: its lines.
        numbers: of the lines that hold something.
        limit: more bad ones than this are not looked for.
        source: which file or tap the numbers count in.

    Raises:
        TooManyRejected: more than `limit` are bad.
        Wider: a good line needs a wider column.
    """
    texts = [text for text in block.split(b"\n") if text.strip()]

    def converts(lines: Any) -> pa.RecordBatch:
        try:
            return parser.parse(b"\n".join(lines.texts), lines.numbers)
        except MalformedRecord as bad:
            raise ValueError(str(bad)) from bad

    good, bad = convert_by_halves(_Lines(texts, numbers), converts, limit)
    events: list[pa.RecordBatch | Rejected] = [*good]
    if bad:
        places = [(texts[place], reason, f"{source}:{numbers[place]}") for place, reason in bad]
        events.append(Rejected(records=tuple(rejection(_kept(text), reason, where) for text, reason, where in places)))
    return events


def _kept(text: bytes) -> Any:
    """Return the record of a message, no digit lost; what is none as its text."""
    try:
        found = json.loads(text, parse_float=_number)
    except (ValueError, RecursionError):
        return text
    record = found.get("record", found) if isinstance(found, dict) else None
    return record if isinstance(record, dict) else text


def _number(text: str) -> float | str:
    return float(text) if repr(float(text)) == text else text


class _Lines:
    """Lines with a batch's `slice` and `num_rows`."""

    def __init__(self, texts: Sequence[bytes], numbers: Sequence[int]) -> None:
        self.texts, self.numbers, self.num_rows = texts, numbers, len(texts)

    def slice(self, start: int, size: int) -> _Lines:
        return _Lines(self.texts[start : start + size], self.numbers[start : start + size])


__all__ = ["sifted_lines"]
