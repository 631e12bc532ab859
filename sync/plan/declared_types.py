"""Declared types: a source that parses texts reads them; values of other sources are converted. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from syncblocks.connectors.arrow.flatten import marked, path_of
from syncblocks.connectors.field_facts import TypeOrigin, facts_of, with_facts
from syncblocks.connectors.stream import Stream
from syncblocks.connectors.struct_helpers import replace


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
        if kind is not None and facts_of(field).is_of_text:
            declared = with_facts(pa.field(field.name, kind, field.nullable), origin=TypeOrigin.DECLARED)
            field = marked(declared, path_of(field))
        elif kind is not None:
            others[field.name] = kind
        fields.append(field)
    return replace(stream, schema=pa.schema(fields)), others
