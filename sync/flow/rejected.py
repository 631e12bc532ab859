"""Finds the records that a destination rejected among the sent records, by their values.

A destination may return values in another form (`1.50` for `1.5`), and does not report the row.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from syncblocks.connectors.arrow import compute as pc
from syncblocks.connectors.rejected.records import rejections
from syncblocks.connectors.stream import RejectedRecord

_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")


def places_of(batches: Iterable[pa.RecordBatch], refused: Sequence[RejectedRecord]) -> set[tuple[int, int]] | None:
    """Return batch and row of each rejected record; None if they are ambiguous."""
    records = [json.loads(each.record) for each in refused]
    if not all(isinstance(record, dict) for record in records):
        return None
    names = sorted(set.intersection(*(set(record) for record in records)))
    wanted = Counter(_key(record, names) for record in records)
    found: dict[tuple[Any, ...], list[tuple[tuple[int, int], str]]] = defaultdict(list)
    for number, batch in enumerate(batches):
        if not set(names) <= set(batch.schema.names):
            return None
        for row in _candidates(batch, records, names):
            text = rejections(batch.slice(row, 1), "")[0].record
            key = _key(json.loads(text), names)
            if key in wanted:
                found[key].append(((number, row), text))
    places: set[tuple[int, int]] = set()
    for key, count in wanted.items():
        rows = found[key]
        # Of fully equal records, any one may be removed.
        if not names or len(rows) < count or (len(rows) > count and len({text for _, text in rows}) > 1):
            return None
        places.update(place for place, _ in rows[-count:])
    return places


def _candidates(batch: pa.RecordBatch, records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[int]:
    """Return the rows whose integers and texts equal those of a rejected record."""
    mask = pa.array([True] * batch.num_rows, pa.bool_())
    for name in names:
        column = batch.column(name)
        if pa.types.is_integer(column.type) or pa.types.is_string(column.type):
            texts = column.cast(pa.string())
            values = pa.array([None if record[name] is None else str(record[name]) for record in records], pa.string())
            mask = pc.and_(mask, pc.is_in(texts, value_set=values))
    return list(pc.indices_nonzero(mask).to_pylist())


def _key(record: Mapping[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(_plain(record[name]) for name in names)


def _plain(value: Any) -> Any:
    """Return one common form for values that systems write differently."""
    if isinstance(value, bool | int | float) or (isinstance(value, str) and _NUMBER.fullmatch(value)):
        return Decimal(str(int(value) if isinstance(value, bool) else value)).normalize()
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return value
        return (moment if moment.tzinfo is None else moment.astimezone(UTC)).isoformat()
    return json.dumps(value, sort_keys=True)
