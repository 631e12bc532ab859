"""Renames columns by the destination's `naming`, after the transformers."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from syncblocks.connectors.stream import Stream
from syncblocks.connectors.struct_helpers import replace

from ..config.naming import KEEP, collision, name_by, one_named
from .transform import Transformer, TransformError


class ColumnNaming(Transformer):
    """Renames all columns, including those that a transformer's function created."""

    def __init__(self, naming: str, block: str) -> None:
        super().__init__(block, (), {})
        self._naming = naming

    def stream(self, stream: Stream) -> Stream:
        """Return the stream with the destination's names; keys and bookmark_properties too.

        Raises:
            TransformError: two columns would get the same name.
        """
        return replace(
            stream,
            schema=self._named(stream.schema),
            key_properties=self._names(stream.key_properties),
            unique_properties=self._names(stream.unique_properties),
            read=replace(stream.read, bookmark_properties=self._names(stream.read.bookmark_properties)),
        )

    def apply(self, batch: pa.RecordBatch, stream: Stream) -> pa.RecordBatch:
        """Rename the columns of one batch; see `stream`."""
        self.schema = self._named(batch.schema)
        return pa.RecordBatch.from_arrays(batch.columns, schema=self.schema)

    def _named(self, schema: pa.Schema) -> pa.Schema:
        if found := one_named(self._naming, schema.names):
            raise TransformError(collision("columns", self._naming, *found))
        return pa.schema([field.with_name(name_by(self._naming, field.name)) for field in schema])

    def _names(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(name_by(self._naming, name) for name in names)


def naming_steps(naming: str, block: str) -> list[ColumnNaming]:
    """Return the step of a destination block; none if names stay as they are."""
    return [] if naming == KEEP else [ColumnNaming(naming, block)]
