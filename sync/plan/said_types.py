"""Types that the pipeline says: read by the source where it parses texts, else made of what it reads. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from syncblocks.connectors.arrow.flatten import marked, path_of
from syncblocks.connectors.stream import GUESSED, SAID, UNSEEN, Stream
from syncblocks.connectors.values import replace

#: Marks of columns whose values a file has as texts.
_IN_TEXTS = frozenset({GUESSED, UNSEEN, SAID})


def with_types(stream: Stream, types: Mapping[str, pa.DataType]) -> tuple[Stream, dict[str, pa.DataType]]:
    """Return the stream with the types that its source reads by itself, and the types of other columns.

    Args:
        stream: as the source offers it.
        types: what the pipeline says, by the source's names.
    """
    if not types:
        return stream, {}
    fields, others = [], {}
    for field in stream.schema:
        kind = types.get(field.name)
        if kind is not None and not _IN_TEXTS.isdisjoint(field.metadata or ()):
            field = marked(pa.field(field.name, kind, field.nullable, {SAID: b"1"}), path_of(field))
        elif kind is not None:
            others[field.name] = kind
        fields.append(field)
    return replace(stream, schema=pa.schema(fields)), others
