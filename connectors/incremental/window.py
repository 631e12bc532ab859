"""What of an INCREMENTAL stream is read from a bookmark, which each kind of source says in its own way."""

from __future__ import annotations

import pyarrow as pa
from msgspec import Struct

from ..read_spec import NullBookmarks
from ..stream import Bookmark, Stream
from .bookmarks import BOUNDARY, bookmark_values, leaves_out_incomplete, lower_bound

#: Key of a boundary: all records at the bookmark were read; of a stream that reads only what is above it.
PASSED = "passed"


class Window(Struct, frozen=True, kw_only=True):
    """From where records are read, and what becomes of those with an incomplete bookmark (NULL or NaN)."""

    #: The bookmark properties, most significant first.
    fields: tuple[pa.Field, ...]
    #: The bookmark; None: there is no value yet.
    start: tuple[pa.Scalar, ...] | None
    #: Records at or past this are read: the bookmark, or the first of its values less the `lookback`; None: all are.
    lower: tuple[pa.Scalar, ...] | None
    #: Records with an incomplete bookmark are read.
    reads_incomplete: bool
    #: They are left out. If neither holds, one of them fails the stream.
    leaves_out_incomplete: bool
    #: Records at the bookmark are left out: all that were there were read, or a person has set it.
    is_exclusive: bool

    @classmethod
    def of(cls, stream: Stream, bookmark: Bookmark | None) -> Window:
        """Return what a run reads that goes on from a bookmark; None: from scratch."""
        start, boundary = bookmark_values(stream, bookmark), (bookmark or {}).get(BOUNDARY)
        is_left_out = leaves_out_incomplete(stream, bookmark)
        return cls(
            fields=tuple(stream.schema.field(name) for name in stream.read.bookmark_properties),
            start=start,
            lower=lower_bound(stream, start),
            reads_incomplete=not is_left_out and stream.read.null_bookmarks is not NullBookmarks.FAIL,
            leaves_out_incomplete=is_left_out,
            is_exclusive=stream.read.is_above_bookmark and (not boundary or bool(boundary.get(PASSED))),
        )

    def adds_incomplete(self, *, is_asked: bool = False) -> bool:
        """Tell whether records with an incomplete bookmark are asked for beside those from the lower bound on.

        They come first: a run that goes on from a checkpoint does not read them again. Where they fail the stream, it
        is `incremental` that refuses them, unless the source asks before it reads whether there are any (`is_asked`).
        """
        fails = not (self.reads_incomplete or self.leaves_out_incomplete)
        return self.reads_incomplete or (fails and self.lower is not None and not is_asked)


__all__ = ["PASSED", "Window"]
