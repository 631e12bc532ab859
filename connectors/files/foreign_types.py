"""Types of Parquet and Arrow files that are read as they are stored, which `plan` says."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pyarrow as pa
import pyarrow.parquet

from ..arrow.conform import shown
from ..arrow.type_names import type_text
from ..field_facts import with_facts
from .formats import plain

_NAME = b"ARROW:extension:name"
_INTERVAL = (
    "a Parquet INTERVAL, and is read as its 12 bytes: let the program that writes the file write a text or a number"
)
_VARIANT = (
    "a Parquet VARIANT, which cannot be decoded, and is read as a struct of bytes: if you need its values, let "
    "the program that writes the file write JSON"
)


def own_columns(schema: pa.Schema) -> pa.Schema:
    """Return the columns of a file without encodings, and in the types that they are stored in.

    A process that has imported pandas knows its extension types, another one does not.
    """
    return pa.schema([_stored(field, made) for field, made in zip(schema, plain(schema), strict=True)])


def parquet_columns(opened: pyarrow.parquet.ParquetFile) -> pa.Schema:
    """Return the columns of a Parquet file: its enums are texts, which Arrow takes for bytes."""
    leaves = (opened.schema.column(place) for place in range(len(opened.schema)))
    kinds = [(leaf.converted_type, leaf.path) for leaf in leaves]
    schema = own_columns(opened.schema_arrow)
    if any(kind == "ENUM" for kind, _ in kinds):
        enums = iter([kind == "ENUM" for kind, _ in kinds])
        schema = pa.schema([field.with_type(_with_texts(field.type, enums)) for field in schema])
    intervals = {path for kind, path in kinds if kind == "INTERVAL"}
    return pa.schema([_said(field, _INTERVAL) if field.name in intervals else field for field in schema])


def with_texts(batch: pa.RecordBatch, own: pa.Schema, enums: Collection[str]) -> pa.RecordBatch:
    """Return a batch whose columns of enums, and of what holds some, are in their own types, which have texts."""
    columns = {
        name: column.cast(own.field(name).type) if name in enums else column
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    return pa.record_batch(columns) if columns and enums else batch


def _stored(field: pa.Field, made: pa.Field) -> pa.Field:
    kind = made.type
    if isinstance(kind, pa.JsonType | pa.UuidType):
        return made
    name = (field.metadata or {}).get(_NAME, b"").decode(errors="replace")
    if isinstance(kind, pa.BaseExtensionType):
        name, kind = kind.extension_name, kind.storage_type
    if name:
        return _said(made.with_type(kind), f"of the unknown type {name}, and is read as {type_text(kind)}")
    return _said(made, _VARIANT) if _is_variant(kind) else made


def _said(field: pa.Field, what: str) -> pa.Field:
    return with_facts(field, notice=f"column {shown(field.name)} is {what}")


def _is_variant(kind: pa.DataType) -> bool:
    """Tell a struct that is stored as a VARIANT is: Arrow does not say that it is one."""
    found = {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {}
    if found.pop("metadata", None) != pa.binary() or found.get("value", pa.binary()) != pa.binary():
        return False
    return bool(found) and found.keys() <= {"value", "typed_value"}


def _with_texts(kind: pa.DataType, enums: Iterator[bool]) -> pa.DataType:
    """Return a type with texts for those of its bytes that are enums, told in the order of Parquet's columns."""
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        _with_texts(kind.storage_type, enums)
        return kind
    if types.is_struct(kind):
        return pa.struct([field.with_type(_with_texts(field.type, enums)) for field in kind])
    if types.is_map(kind):
        key, item = (field.with_type(_with_texts(field.type, enums)) for field in (kind.key_field, kind.item_field))
        return pa.map_(key, item)
    if types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_with_texts(kind.value_type, enums)))
    if types.is_nested(kind):
        _with_texts(kind.value_type, enums)
        return kind
    return pa.string() if next(enums, False) else kind


__all__ = ["own_columns", "parquet_columns", "with_texts"]
