"""Formats whose files say the types of their columns: files of one stream get types that hold those of each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import pyarrow as pa

from ..arrow.conform import shown
from ..arrow.text import checked_json, first_invalid, from_text, is_bytes, is_text, to_text
from ..arrow.times import counts, first_outside_day
from ..arrow.type_names import type_text, yaml_text
from ..arrow.unified import both_held, is_held
from ..errors import FatalConnectorError
from .formats import plain, unfit
from .paths import DataFile
from .settings import FileSourceSettings


class TypedFormat(ABC):
    """A format that has types; `types` of the settings casts."""

    def __init__(self, settings: FileSourceSettings) -> None:
        self._settings = settings

    @abstractmethod
    def own_schema(self, file: DataFile) -> pa.Schema:
        """Return a file's columns, objects flattened down to its levels."""

    @abstractmethod
    def nanoseconds(self, file: DataFile, names: Sequence[str]) -> frozenset[str]:
        """Return those of some columns of nanoseconds that have a digit below the microsecond; reads all values."""

    def names(self, file: DataFile) -> list[str]:
        """Return the names of a file's columns."""
        return list(self.own_schema(file).names)

    def schema(self, files: Sequence[DataFile], budget_bytes: int) -> pa.Schema:
        """Return the columns of all files."""
        schema = self.own_schema(files[0]) if files else pa.schema([])
        for file in files[1:]:
            own = self.own_schema(file)
            # Wider than each of them; a value that the cast would change is an error when it is read.
            schema = schema if own.equals(schema) else self._united(schema, own, file)
        return schema

    def _united(self, schema: pa.Schema, own: pa.Schema, file: DataFile) -> pa.Schema:
        """Return the columns of some files and one more; a column that only one side has may be NULL."""
        fields = [self._both(field, own, file) for field in schema]
        there = set(schema.names)
        return pa.schema([*fields, *(field.with_nullable(True) for field in own if field.name not in there)])

    def _both(self, field: pa.Field, own: pa.Schema, file: DataFile) -> pa.Field:
        place = own.get_field_index(field.name)
        if place < 0:
            return field.with_nullable(True)
        other, kind = own.field(place), field.type
        if self._settings.type_of(field.name) is None and not kind.equals(other.type):
            try:
                kind = both_held(kind, other.type)
            except pa.ArrowException as error:
                raise FatalConnectorError(
                    f"{file.label} differs from the other files of its stream: column {field.name!r} is "
                    f"{type_text(kind)} in them and {type_text(other.type)} in this file; `config.types: "
                    f"{{{yaml_text(field.name)}: string}}` reads it as text",
                    key="types",
                ) from error
        return field.with_type(kind).with_nullable(field.nullable or other.nullable)

    def refuse_other_types(self, file: DataFile, own: pa.Schema, wanted: pa.Schema) -> None:
        """Raise for a file that was written since the stream's types were found, and has other types."""
        for field in wanted:
            place = own.get_field_index(field.name)
            if (
                place < 0
                or self._settings.type_of(field.name) is not None
                or is_held(own.field(place).type, field.type)
            ):
                continue
            raise FatalConnectorError(
                f"{file.label}: column {shown(field.name)} was {type_text(field.type)} when the run was planned, "
                f"and is {type_text(own.field(place).type)} now: run again"
            )

    def fitted(self, file: DataFile, batch: pa.RecordBatch, wanted: pa.Schema) -> pa.RecordBatch:
        """Return a file's records with the wanted columns; one that the file lacks is NULL.

        Raises:
            FatalConnectorError: with the first value that is none of its column's type.
        """
        columns = []
        present = dict(zip(batch.schema.names, batch.columns, strict=True))
        for field in wanted:
            column = present.get(field.name)
            if column is None:
                columns.append(pa.nulls(batch.num_rows, field.type))
                continue
            if not is_bytes(field.type):
                _demand_values(file, field, column)
            casts = partial(_cast, field=field, is_said=self._settings.type_of(field.name) is not None)
            try:
                columns.append(casts(column))
            except (pa.ArrowException, ValueError) as error:
                place = first_invalid(column, casts)
                raise unfit(file.label, field, column[place].as_py()) from error
            if pa.types.is_decimal(field.type):
                _demand_digits(file, field, columns[-1])
        if not columns:
            return pa.RecordBatch.from_struct_array(pa.array([{}] * batch.num_rows, pa.struct([])))
        return pa.record_batch(columns, schema=wanted)

    def number_texts(self, file: DataFile, columns: Sequence[str]) -> Iterator[Mapping[str, pa.Array]]:
        """Yield nothing: all types are known."""
        return iter(())

    def stored(self, schema: pa.Schema) -> pa.Schema:
        """Return the columns without encodings."""
        return plain(schema)


def _demand_values(file: DataFile, field: pa.Field, column: pa.Array) -> None:
    """Raise for a text or a time, also within other values, that is none: Parquet's readers do not look."""
    if pa.types.is_time(column.type):
        place = first_outside_day(column)
        if place is not None:
            raise _no_values(
                file, field, f"{counts(column)[place]} {column.type.unit} is not a time of day", column.type
            )
        return
    if not (is_text(column.type) or pa.types.is_nested(column.type) or pa.types.is_dictionary(column.type)):
        return
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise _no_values(file, field, str(error), column.type) from error


def _demand_digits(file: DataFile, field: pa.Field, column: pa.Array) -> None:
    """Raise for a decimal that has more digits than its type says: Parquet's readers do not look."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        wider = f"decimal({38 if pa.types.is_decimal128(field.type) else 76},{field.type.scale})"
        reason = f'{error}; `config.types: {{{yaml_text(field.name)}: "{wider}"}}` reads it'
        raise _no_values(file, field, reason, field.type) from error


def _no_values(file: DataFile, field: pa.Field, reason: str, kind: pa.DataType) -> FatalConnectorError:
    return FatalConnectorError(
        f"{file.label}: column {field.name!r} contains values that are not {type_text(kind)}: {reason}; correct "
        "the program that writes the file, or exclude the column with `columns: {exclude: "
        f"[{yaml_text(field.name)}]}}`",
    )


def _cast(column: pa.Array, field: pa.Field, *, is_said: bool) -> pa.Array:
    kind = field.type
    if column.type.equals(kind):
        return column
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if is_text(column.type) and is_bytes(kind) and not is_said:  # other files of the stream have it as bytes
        return column.cast(kind)
    if is_text(column.type) and not is_text(kind):
        return checked_json(from_text(column.cast(pa.string()), kind, is_empty_null=False))
    if is_text(kind):
        return to_text(column, field.name).cast(kind)
    return column.cast(kind)


__all__ = ["TypedFormat"]
