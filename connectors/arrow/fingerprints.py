"""Fingerprints of values: 128 bits for the values that a record has in some columns, computed column by column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from . import compute as pc
from .text import is_text

if TYPE_CHECKING:
    import numpy as np

#: Two independent seeds, one for each half of a fingerprint.
_SEEDS = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)
_FACTOR = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_WORD = 8


def has_fingerprint(kind: pa.DataType) -> bool:
    """Return true if values of a type have a fingerprint. Lists, structs, maps and intervals have none."""
    storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    return not (pa.types.is_nested(storage) or pa.types.is_interval(storage))


def fingerprints(columns: Sequence[pa.Array]) -> tuple[np.ndarray, np.ndarray]:
    """Return both halves of the fingerprint of each record.

    Args:
        columns: arrays without NULL and of the same length, each of a type that `has_fingerprint`.
    """
    import numpy as np  # only streams with `unique` need it

    halves = [np.full(len(columns[0]), seed, np.uint64) for seed in _SEEDS]
    for column in columns:
        words, starts, lengths = _bytes(column)
        for place, half in enumerate(halves):
            halves[place] = _mixed(_hashed(words, starts, lengths, half))
    return halves[0], halves[1]


def _hashed(words: np.ndarray, starts: np.ndarray, lengths: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """Hash the bytes of each value, one word of all values at a time."""
    import numpy as np

    found = _mixed(begin ^ lengths.astype(np.uint64))
    active = np.flatnonzero(lengths > 0)
    offset = 0
    while len(active):
        left = np.minimum(lengths[active] - offset, _WORD).astype(np.uint64)
        mask = np.uint64(0xFFFF_FFFF_FFFF_FFFF) >> (np.uint64(64) - left * np.uint64(8))
        found[active] = _mixed(found[active] ^ (words[starts[active] + offset] & mask))
        offset += _WORD
        active = active[lengths[active] > offset]
    return found


def _mixed(values: np.ndarray) -> np.ndarray:
    """Scatter each bit over the whole word. Source: the finalizer of splitmix64."""
    import numpy as np

    values = values + np.uint64(_SEEDS[0])
    values = (values ^ (values >> np.uint64(30))) * np.uint64(_FACTOR[0])
    values = (values ^ (values >> np.uint64(27))) * np.uint64(_FACTOR[1])
    mixed: np.ndarray = values ^ (values >> np.uint64(31))
    return mixed


def _bytes(column: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the word that begins at each byte of the values, and the place and the length of each value."""
    import numpy as np

    texts = _texts(column)
    if not len(texts):
        return np.zeros(1, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64)
    _, offset_buffer, data = texts.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64, len(texts) + 1, texts.offset * 8)
    # A copy with a word of zeros at its end, because the last word of the last value ends there.
    raw = np.zeros(int(offsets[-1] - offsets[0]) + _WORD, np.uint8)
    if data is not None:
        raw[: len(raw) - _WORD] = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]
    words: Any = np.ndarray((len(raw) - _WORD + 1,), "<u8", raw, strides=(1,))
    return words, offsets[:-1] - offsets[0], np.diff(offsets)


def _texts(column: pa.Array) -> pa.Array:
    """Return values as texts or bytes with large offsets. Values of one type are equal if their texts are."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    kind, types = column.type, pa.types
    if types.is_dictionary(kind):
        return _texts(pc.cast(column, kind.value_type))
    if is_text(kind) or types.is_string_view(kind):
        return pc.cast(column, pa.large_string())
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return pc.cast(column, pa.large_binary())
    if types.is_floating(kind):  # -0.0 equals 0.0
        column = pc.add(pc.cast(column, pa.float64()), pc.constant(0.0))
    elif types.is_temporal(kind):
        # As numbers, because Arrow cannot write the infinite times of databases as text.
        column = column.view(pa.int32() if kind.bit_width == 32 else pa.int64())
    return pc.cast(column, pa.large_string())


class Seen:
    """The fingerprints of all records so far: 16 bytes for each of them."""

    def __init__(self) -> None:
        #: Sorted by the first half. Each part has at least twice the size of the next one.
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []

    def repeats(self, columns: Sequence[pa.Array]) -> pa.Array:
        """Return a mask of the records that repeat values of this or of an earlier call, and note the other records.

        Args:
            columns: as for `fingerprints`.
        """
        import numpy as np

        first, second = fingerprints(columns)
        order = np.argsort(first, kind="stable")
        first, second = first[order], second[order]
        is_repeat = np.zeros(len(order), bool)
        is_repeat[1:] = (first[1:] == first[:-1]) & (second[1:] == second[:-1])
        for known, rest in self._parts:
            places = np.minimum(np.searchsorted(known, first), len(known) - 1)
            is_repeat |= (known[places] == first) & (rest[places] == second)
        self._add(first[~is_repeat], second[~is_repeat])
        mask = np.zeros(len(order), np.uint8)
        mask[order] = is_repeat
        return pc.cast(pa.Array.from_buffers(pa.uint8(), len(mask), [None, pa.py_buffer(mask)]), pa.bool_())

    def _add(self, first: np.ndarray, second: np.ndarray) -> None:
        import numpy as np

        while self._parts and len(self._parts[-1][0]) < 2 * len(first):
            known, rest = self._parts.pop()
            first, second = np.concatenate((known, first)), np.concatenate((rest, second))
            order = np.argsort(first, kind="stable")
            first, second = first[order], second[order]
        if len(first):
            self._parts.append((first, second))


__all__ = ["Seen", "fingerprints", "has_fingerprint"]
