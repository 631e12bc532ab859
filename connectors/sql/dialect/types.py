"""Types of one SQL system <-> Arrow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import pyarrow as pa

from ...field_facts import facts_of
from ..tables import Column, Wire


class Types(ABC):
    """Which columns are made for Arrow types, how their values arrive, and which type holds two."""

    @abstractmethod
    def column_type(self, column: pa.Field) -> str:
        """Return the DDL type for a column made for this field (`native_type` metadata of its own kin counts).

        Raises:
            FatalConnectorError: the system has no type for it.
        """

    @abstractmethod
    def wire(self, column_type: str, arrow: pa.DataType) -> Wire:
        """Say how values of an Arrow type travel into a column of a type (of `column_type`, or out of the catalog)."""

    def key_type(self, column_type: str, texts: int) -> str:
        """Return the type of a key's column, of several if `texts` says so; default: no index asks for another one."""
        return column_type

    def new_key_type(self, column_type: str, key: Sequence[str]) -> str:
        """Return the type that a new table's column of a key has in the end, beside the types of all columns of it."""
        return self.key_type(column_type, len(key))

    @abstractmethod
    def arrow_of(self, column: Column) -> pa.DataType:
        """Return the Arrow type in which the column is read."""

    def kept_as(self, column_type: str, arriving: pa.DataType) -> tuple[pa.DataType, bool]:
        """Say what values of an Arrow type are in a column of a type, and whether the system stores them as text.

        Default: what the column is read in. Differs where columns are read in another type than they have.
        """
        return self.arrow_of(Column(name="", type=column_type)), False

    def widen(self, before: str, after: str) -> str | None:
        """Return the type that holds both the table's values and the stream's; None: a person must decide.

        `before` where the column holds every value of `after` already (then nothing is altered).
        """
        return before if before == after else None

    def gives_form(self, held: str) -> bool:
        """Tell whether values that a column of the table holds travel in its type, which says how they are written."""
        return False

    def to_double(self, before: str, after: str) -> str | None:
        """Return `after` where it is a double and the table has integers, which may become doubles.

        The table's own values are looked at before: see `Target`.
        """
        held, new = (self.arrow_of(Column(name="", type=kind)) for kind in (before, after))
        return after if pa.types.is_integer(held) and pa.types.is_float64(new) else None

    def values_as(self, before: str, after: str, name: str) -> str:
        """Write the SQL that turns a column's values into those of its wider type; empty: the system does.

        Args:
            before: the column's type out of the catalog.
            after: the type that `widen` has returned.
            name: of the column, quoted.
        """
        return ""

    def text_of(self, column_type: str, name: str) -> str | None:
        """Write the SQL that turns a column's values into texts, in the forms of `arrow.text`.

        Args:
            column_type: out of the catalog.
            name: of the column, quoted.

        Returns:
            None: the column cannot become text in place.
        """
        return None

    def widen_key(self, before: str, after: str, columns: int) -> str | None:
        """Do as `widen` for a column of a key of some columns; default: an index takes each type that a table takes."""
        return self.widen(before, after)


def native_of(field: pa.Field, system: str) -> str:
    """Return the type that a field has in a system; empty: it comes from another one."""
    facts = facts_of(field)
    return facts.native_type if facts.native_system == system else ""


def made_of(field: pa.Field) -> pa.DataType:
    """Return the type that a new column is made for: a UUID also where its source reads it as text."""
    is_uuid = facts_of(field).native_type.lower() == "uuid" and pa.types.is_string(field.type)
    return pa.uuid() if is_uuid else field.type


__all__ = ["Types", "made_of", "native_of"]
