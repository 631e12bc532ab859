"""The files that a destination knows, column by column: there may be very many, and few of them are looked at.

The columns are made of buffers: `pa.array` of Python values imports pandas, which takes longer than a small run.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any, Self, overload

import pyarrow as pa

from .arrow import compute as pc
from .stream import FileRead

#: Of names that have bytes which are no text.
_TORN = "surrogateescape"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: In place of a time that is not known.
NO_TIME = -(1 << 63)


@dataclass(frozen=True, slots=True, eq=False)
class KnownFiles(Sequence[FileRead]):
    """Files that were read; the columns are those of `FileRead`, and equally long."""

    #: As bytes.
    paths: pa.Array
    sizes: pa.Array
    #: ISO texts in UTC, with microseconds; empty: unknown.
    modified: pa.Array
    etags: pa.Array

    @classmethod
    def of(cls, files: Collection[Sequence[Any]]) -> Self:
        """Return the columns of some files, each of which is a `FileRead` or its first four values; NULL is empty."""
        if isinstance(files, cls):
            return files
        # `zip(*files)` makes an object a file, through which Python's collector then goes.
        paths, sizes, modified, etags = ([file[place] for file in files] for place in range(4))
        return cls(texts_of(paths), integers_of([int(size) for size in sizes]), texts_of(modified), texts_of(etags))

    @classmethod
    def together(cls, parts: Sequence[KnownFiles]) -> KnownFiles:
        """Return the files of all parts; of one path the last part has the entry that counts."""
        held = [part for part in parts if len(part)]
        if len(held) < 2:
            return held[0] if held else cls.of(())
        rest = cls.together(held[1:])
        stays = pc.invert(pc.is_in(held[0].paths, value_set=rest.paths))
        columns = ((getattr(held[0], name), getattr(rest, name)) for name in ("paths", "sizes", "modified", "etags"))
        return cls(*(pa.concat_arrays([before.filter(stays), after]) for before, after in columns))

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[FileRead]:
        paths, modified, etags = (
            [value.decode(errors=_TORN) for value in column.to_pylist()]
            for column in (self.paths, self.modified, self.etags)
        )
        return map(FileRead, paths, self.sizes.to_pylist(), modified, etags)

    @overload
    def __getitem__(self, place: int) -> FileRead: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[FileRead]: ...
    def __getitem__(self, place: int | slice) -> FileRead | Sequence[FileRead]:
        return list(self)[place]

    def times(self) -> pa.Array:
        """Return microseconds since 1970, `NO_TIME` where the text is none."""
        texts = self.modified.cast(pa.string())
        is_there = pc.not_equal(texts, pc.constant(""))
        try:
            times = pc.if_else(is_there, texts, pa.nulls(len(texts), pa.string())).cast(pa.timestamp("us", "UTC"))
        except pa.ArrowInvalid:
            return integers_of([_microseconds(text) for text in texts.to_pylist()])
        return pc.coalesce(times.cast(pa.int64()), pc.constant(NO_TIME))


def texts_of(texts: Sequence[str | None]) -> pa.Array:
    """Return texts as bytes; None is empty."""
    known = [text or "" for text in texts]
    data = "".join(known)
    parts: Sequence[str | bytes] = known if data.isascii() else [text.encode(errors=_TORN) for text in known]
    offsets = array("i", accumulate(map(len, parts), initial=0))
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data.encode(errors=_TORN))]
    return pa.Array.from_buffers(pa.binary(), len(parts), buffers)


def integers_of(values: Sequence[int]) -> pa.Array:
    """Return integers of 64 bits."""
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(array("q", values))])


def _microseconds(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return NO_TIME
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - _EPOCH) // timedelta(microseconds=1)


__all__ = ["NO_TIME", "KnownFiles", "integers_of", "texts_of"]
