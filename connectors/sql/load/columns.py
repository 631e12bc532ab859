"""A stream's columns in its table: their names, their types, the key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from ...errors import FatalConnectorError
from ...field_facts import facts_of, yields_to_table
from ...stream import Load, Stream
from ...struct_helpers import replace
from ...write_spec import WriteDisposition
from ..dialect.dialect import Dialect
from ..tables import Column, Table, Wire


class StreamColumns:
    """Names and types of one load's columns; follows the stream's schema, which may change during the load."""

    def __init__(self, dialect: Dialect, load: Load, wire: str) -> None:
        self._dialect = dialect
        self._key_properties = load.stream.key_properties
        self._wire = wire
        self._is_merge = load.write.disposition in (WriteDisposition.MERGE, WriteDisposition.HISTORY)
        self._unique_properties = load.stream.unique_properties if self._is_merge else ()
        self._has_key = load.write.disposition is not WriteDisposition.APPEND
        #: The stream, with its current schema.
        self.stream = load.stream
        #: Column of the stream -> column of the table.
        self.names: dict[str, str] = {}
        #: The names that the ledger keeps, see `LedgerRow.columns`.
        self.known: Mapping[str, str] = load.columns
        #: Column of the existing table -> its type.
        self._held: dict[str, str] = {}
        self._name((), remember=False)

    def follow(self, stream: Stream, table: Table | None) -> None:
        """Take a changed schema, and name its columns as an existing table does."""
        self.stream = stream
        self._held = {} if table is None else {column.name: column.type for column in table.columns}
        self._name(tuple(self._held), remember=True)

    def _name(self, held: Sequence[str], *, remember: bool) -> None:
        self.names = self._dialect.naming.column_names(self.stream.schema.names, held, self.known)
        if remember:
            self.known = self._dialect.naming.remembered(self.names, self.known)

    def wire_of(self, column_type: str, field: pa.Field) -> Wire:
        """Return how a field's values are transferred into a column of a type."""
        return self._dialect.types.wire(column_type, field.type)

    def planned(self) -> dict[str, tuple[Column, Wire]]:
        """Return the target's definition of each column, and how its values are transferred."""
        keys = {*self._key_properties, *self._unique_properties} if self._has_key else set()
        planned = {}
        for field in self.stream.schema:
            kind = self._type_of(field)
            if field.name in keys:
                kind = self._dialect.types.key_type(kind, len(keys))
            wire = Wire(type=kind, arrow=field.type) if self._wire != "arrow" else self.wire_of(kind, field)
            is_nullable = (field.nullable or not self._dialect.facts.keeps_not_null) and field.name not in keys
            column = Column(
                name=self.names[field.name],
                type=kind,
                is_nullable=is_nullable,
                is_relaxed=facts_of(field).relaxed,
                becomes_text=facts_of(field).becomes_text,
                first_values=facts_of(field).first_values,
            )
            planned[column.name] = (column, wire)
        return planned

    def _type_of(self, field: pa.Field) -> str:
        held = self._held.get(self.names[field.name], "")
        own, types = self._dialect.types.column_type(field), self._dialect.types
        if held and (yields_to_table(field) or (types.gives_form(held) and types.widen(held, own) == held)):
            return held
        return own

    def required(self, columns: Sequence[Column]) -> list[Column]:
        """Return the columns, with NOT NULL added to the columns of the key."""
        keys = {*self.key(), *self.merge_key()}
        return [
            replace(column, is_nullable=False, is_key=True) if column.name in keys else column for column in columns
        ]

    def key(self) -> list[str]:
        """Return the key's columns by their names in the table; an append has none.

        Raises:
            FatalConnectorError: the stream lacks a column of the key, or a merge has no key.
        """
        if not self._has_key:
            return []
        missing = [name for name in self._key_properties if name not in self.names]
        if missing or (self._is_merge and not self._key_properties):
            raise FatalConnectorError(
                f"key_properties {', '.join(missing)}: the stream has no such columns"
                if missing
                else "a merge needs key_properties: name the columns that identify a record, or append",
                stream=self.stream.name,
            )
        return [self.names[name] for name in self._key_properties]

    def merge_key(self) -> list[str]:
        """Return the columns by which records are merged, by their names in the table; raises as `key` does."""
        key = self.key()
        missing = [name for name in self._unique_properties if name not in self.names]
        if missing:
            raise FatalConnectorError(
                f"unique_constraints {', '.join(missing)}: the stream has no such columns", stream=self.stream.name
            )
        return [self.names[name] for name in self._unique_properties] or key


__all__ = ["StreamColumns"]
