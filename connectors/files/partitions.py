"""Levels of folders in which the files of a table are: Hive's `region=eu`, and `at_year=2024` of `year(at)`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from ..arrow.text import is_nested, to_text
from ..arrow.type_names import type_text
from ..errors import ConnectorConfigError
from .manifest import quote
from .paths import HIVE_NULL

_CALL = re.compile(r"(year|month|day)\((.+)\)", re.DOTALL)
_FORMS = {"year": "%Y", "month": "%Y-%m", "day": "%Y-%m-%d"}


class Partition(Struct, frozen=True):
    """One level of folders."""

    column: str
    #: `year`, `month` or `day` of a time, in UTC; empty: the value itself.
    part: str = ""

    @classmethod
    def parse(cls, text: str) -> Partition:
        """Return what a text of the settings says: a column, or `year(column)`."""
        found = _CALL.fullmatch(text)
        return cls(found[2].strip(), found[1]) if found else cls(text)

    @property
    def name(self) -> str:
        """Return the name of the column that the folders make."""
        return f"{self.column}_{self.part}" if self.part else self.column

    def demand(self, schema: pa.Schema) -> None:
        """Raise `ConnectorConfigError` if a table of these columns cannot be partitioned so."""
        place = schema.get_field_index(self.column)
        if place < 0:
            listed = ", ".join(schema.names[:20])
            raise ConnectorConfigError(
                f"partition_by: column {self.column!r} does not exist; the columns are {listed}", key="partition_by"
            )
        kind = schema.field(place).type
        is_time = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
        if (self.part and not is_time) or is_nested(kind):
            what = f"not a time, which {self.part}() needs" if self.part else "not usable as a folder name"
            raise ConnectorConfigError(
                f"partition_by: column {self.column!r} is {type_text(kind)}, {what}", key="partition_by"
            )

    def folders(self, batch: pa.RecordBatch) -> pa.Array:
        """Return the name of each record's folder."""
        column = batch.column(self.column)
        if self.part:
            kind = column.type
            if pa.types.is_timestamp(kind) and kind.tz is not None:
                column = column.cast(pa.timestamp(kind.unit, "UTC")).cast(pa.timestamp(kind.unit))
            column = pc.strftime(column.cast(pa.timestamp("s"), safe=False), format=_FORMS[self.part])
        texts = to_text(column, self.column).cast(pa.string()).dictionary_encode()
        start = f"{quote(self.name)}="
        names = [start + (quote(value) if value else "") for value in texts.dictionary.to_pylist()]
        found = pa.array(names, pa.string()).take(texts.indices)
        return pc.fill_null(found, start + HIVE_NULL)


def parse_partitions(said: Sequence[str]) -> tuple[Partition, ...]:
    """Return the levels of folders.

    Raises:
        ValueError: two levels would have one name.
    """
    found = tuple(map(Partition.parse, said))
    names = [each.name.casefold() for each in found]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise ValueError(f"two folder levels have the name {twice!r}")
    return found


__all__ = ["Partition", "parse_partitions"]
