"""The files that a destination knows, column by column: there may be very many, and few of them are looked at."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self, overload

import pyarrow as pa

from .stream import FileRead

_TORN = "surrogateescape"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, eq=False)
class KnownFiles(Sequence[FileRead]):
    """Files that were read; the columns are those of `FileRead`, and equally long."""

    #: Bytes, if a name has bytes that are no text.
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
        texts = (pa.array(column, pa.string()).fill_null("") for column in (modified, etags))
        return cls(names_of(paths), pa.array(map(int, sizes), pa.int64()), *texts)

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, place: int) -> FileRead: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[FileRead]: ...
    def __getitem__(self, place: int | slice) -> FileRead | Sequence[FileRead]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        path, size, modified, etag = (
            column[place].as_py() for column in (self.paths, self.sizes, self.modified, self.etags)
        )
        return FileRead(path.decode(errors=_TORN) if isinstance(path, bytes) else path, size, modified, etag)

    def times(self) -> pa.Array:
        """Return microseconds since 1970, NULL where the text is no time."""
        import pyarrow.compute as pc  # the plan reads names only, and its kernels take time to load

        texts = pc.replace_with_mask(self.modified, pc.equal(self.modified, ""), pa.scalar(None, pa.string()))
        try:
            return texts.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
        except pa.ArrowInvalid:
            return pa.array([_microseconds(text) for text in self.modified.to_pylist()], pa.int64())


def names_of(names: Sequence[str]) -> pa.Array:
    """Return names of files: texts, or bytes if one of them has bytes that are no text."""
    try:
        return pa.array(names, pa.string())
    except UnicodeEncodeError:
        return pa.array([name.encode(errors=_TORN) for name in names], pa.binary())


def _microseconds(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - _EPOCH) // timedelta(microseconds=1)


__all__ = ["KnownFiles", "names_of"]
