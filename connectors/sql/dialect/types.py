"""Types of one SQL system <-> Arrow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import pyarrow as pa

from ...field_facts import facts_of
from ..tables import Column, Wire


class Types(ABC):
    """Chooses column types for Arrow types, how values are transferred, and a common type of two."""

    @abstractmethod
    def column_type(self, column: pa.Field) -> str:
        """Return the DDL type of a new column for this field.

        It uses `native_type` if that comes from the same family of systems.

        Raises:
            FatalConnectorError: the system has no such type.
        """

    @abstractmethod
    def wire(self, column_type: str, arrow: pa.DataType) -> Wire:
        """Return how values of an Arrow type are transferred into a column (of `column_type`, or from the catalog)."""

    def key_type(self, column_type: str, texts: int) -> str:
        """Return the type of a key column, of a multi-column key if `texts`; default: indexes need no other type."""
        return column_type

    def new_key_type(self, column_type: str, key: Sequence[str]) -> str:
        """Return the final type of a key column in a new table, given the types of all its columns."""
        return self.key_type(column_type, len(key))

    @abstractmethod
    def arrow_of(self, column: Column) -> pa.DataType:
        """Return the Arrow type in which the column is read."""

    def kept_as(self, column_type: str, arriving: pa.DataType) -> tuple[pa.DataType, bool]:
        """Return the Arrow type of values stored in a column, and whether the system stores them as text.

        Default: the type in which the column is read. Differs where columns are read in another type than stored.
        """
        return self.arrow_of(Column(name="", type=column_type)), False

    def widen(self, before: str, after: str) -> str | None:
        """Return the type that holds both the table's and the stream's values; None: a person must decide.

        Returns `before` if the column holds every value of `after` already (the column stays).
        """
        return before if before == after else None

    def gives_form(self, held: str) -> bool:
        """Return whether values for an existing column travel in the column's type, which defines their form."""
        return False

    def is_text(self, column_type: str) -> bool:
        """Return true if a column has texts."""
        return bool(pa.types.is_string(self.arrow_of(Column(name="", type=column_type))))

    def to_double(self, before: str, after: str) -> str | None:
        """Return `after` if it is a double and the table has integers that could become doubles.

        The caller checks the table's own values before: see `Target`.
        """
        held, new = (self.arrow_of(Column(name="", type=kind)) for kind in (before, after))
        return after if pa.types.is_integer(held) and pa.types.is_float64(new) else None

    def values_as(self, before: str, after: str, name: str) -> str:
        """Write SQL that converts column values to the wider type; empty: the system's own cast.

        Args:
            before: the column's type from the catalog.
            after: the type from `widen`.
            name: the quoted column.
        """
        return ""

    def text_of(self, column_type: str, name: str) -> str | None:
        """Write SQL that converts column values to the texts of `arrow.text`.

        Args:
            column_type: from the catalog.
            name: the quoted column.

        Returns:
            None: the column cannot become text in place.
        """
        return None

    def widen_key(self, before: str, after: str, columns: int) -> str | None:
        """Do as `widen` for a column of a multi-column key; default: an index accepts every type of a table."""
        return self.widen(before, after)


def native_of(field: pa.Field, system: str) -> str:
    """Return a field's native type in a system; empty: the field comes from another system."""
    facts = facts_of(field)
    return facts.native_type if facts.native_system == system else ""


def made_of(field: pa.Field) -> pa.DataType:
    """Return the Arrow type for a new column: UUID even if the source reads it as text."""
    is_uuid = facts_of(field).native_type.lower() == "uuid" and pa.types.is_string(field.type)
    return pa.uuid() if is_uuid else field.type


__all__ = ["Types", "made_of", "native_of"]
