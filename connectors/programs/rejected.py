"""Parse a tap's lines and keep those that do not fit as rejected records (`on_rejected: keep`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ..rejected.halving import convert_by_halves
from ..rejected.records import rejection
from ..stream import Rejected
from .records import Envelope, MalformedRecord, Parser, at


def parse_or_reject(
    parser: Parser, block: bytes, numbers: Sequence[int], limit: int, source: str
) -> list[pa.RecordBatch | Rejected]:
    """Parse lines by halves; return the batches, then one event of the rejected lines.

    Args:
        parser: the parser of the stream.
        block: lines of the stream.
        numbers: the numbers of the lines that are not blank.
        limit: stop after more rejected lines than this.
        source: the file or tap in which the numbers count.

    Raises:
        TooManyRejected: more than `limit` lines are rejected.
        Wider: a line that fits needs a wider column.
    """
    texts = [text for text in block.split(b"\n") if text.strip()]
    without_values: dict[int, str] = {}

    def convert(lines: Any) -> pa.RecordBatch:
        try:
            return parser.parse(b"\n".join(lines.texts), lines.numbers)
        except MalformedRecord as error:
            without_values[error.line] = error.without_values
            raise ValueError(str(error)) from error

    batches, rejected = convert_by_halves(_Lines(texts, numbers), convert, limit)
    events: list[pa.RecordBatch | Rejected] = [*batches]
    if rejected:
        found = (
            rejection(
                _kept(texts[place], parser.envelope),
                reason,
                f"{source}:{(line := numbers[place])}",
                without_values[line],
            )
            for place, reason in rejected
        )
        events.append(Rejected(records=tuple(found)))
    return events


def _kept(text: bytes, envelope: Envelope | None) -> Any:
    """Return the record of a RECORD message with all digits; of another line its text."""
    try:
        found = json.loads(text, parse_float=_number)
    except (ValueError, RecursionError):
        return text
    record = at(found, envelope.record) if envelope is not None else found
    return record if isinstance(record, dict) else text


def _number(text: str) -> float | str:
    return float(text) if repr(float(text)) == text else text


class _Lines:
    """Lines that `convert_by_halves` takes."""

    def __init__(self, texts: Sequence[bytes], numbers: Sequence[int]) -> None:
        self.texts, self.numbers, self.num_rows = texts, numbers, len(texts)

    def slice(self, start: int, size: int) -> _Lines:
        return _Lines(self.texts[start : start + size], self.numbers[start : start + size])


__all__ = ["parse_or_reject"]
