"""Transformer blocks: declared renames, then the user's function, one batch or one record at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

from syncblocks.connectors.arrow import compute as pc
from syncblocks.connectors.arrow.type_names import type_text
from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.field_facts import facts_of
from syncblocks.connectors.stream import Stream
from syncblocks.connectors.struct_helpers import replace

from ..errors import SyncError
from .failed_function import FunctionFailed
from .inferred import check_inferred, check_levels

#: A user's function with its keyword arguments bound: DataFrame -> DataFrame.
Function = Callable[[Any], Any]
#: Content of a DataFrame: a batch of records, or one record in Mage's form.
Frames = Literal["batch", "record"]


class TransformError(SyncError):
    """A transformer's result cannot be loaded; the message has the column, the reason and the remedy."""

    code = "transform"


class Transformer:
    """One transformer block for one stream; remembers the schema of its output."""

    def __init__(
        self,
        block: str,
        functions: Sequence[Function],
        rename: Mapping[str, str],
        frames: Frames = "batch",
        *,
        kept_keys: str = "",
    ) -> None:
        """Create a block's transformer; `kept_keys`: why its functions may only return keys that they got."""
        self.block = block
        self._kept_keys = kept_keys
        self._frames = frames
        self._functions = functions
        self._rename = dict(rename)
        #: Schema of the output so far; None before the first batch.
        self.schema: pa.Schema | None = None

    def stream(self, stream: Stream) -> Stream:
        """Return the stream after the block's declared renames; keys are renamed too."""
        names = {old: new for old, new in self._rename.items() if old in stream.schema.names}
        if not names:
            return stream
        renamed = [names.get(name, name) for name in stream.schema.names]
        twice = sorted({name for name in renamed if renamed.count(name) > 1})
        if twice:
            raise TransformError(f"block {self.block!r}: rename gives two columns the name {twice[0]!r}")
        fields = [field.with_name(name) for field, name in zip(stream.schema, renamed, strict=True)]
        return replace(
            stream,
            schema=pa.schema(fields),
            key_properties=tuple(names.get(name, name) for name in stream.key_properties),
            unique_properties=tuple(names.get(name, name) for name in stream.unique_properties),
            read=replace(
                stream.read,
                bookmark_properties=tuple(names.get(name, name) for name in stream.read.bookmark_properties),
            ),
        )

    def apply(self, batch: pa.RecordBatch, stream: Stream) -> pa.RecordBatch:
        """Run the block on one batch.

        Args:
            batch: output of the previous block.
            stream: the stream before this block.

        Raises:
            TransformError: the result is no DataFrame, lacks a key column, or has a column whose type changed with
                loss.
            FunctionFailed: the user's function raised. Errors of connectors pass through unchanged.
        """
        declared = self.stream(stream)
        renamed = pa.RecordBatch.from_arrays(batch.columns, schema=_relabel(batch.schema, self._rename))
        if not self._functions:
            self.schema = renamed.schema
            return renamed
        table = self._by_batch(renamed) if self._frames == "batch" else self._by_record(renamed)
        missing = [
            key for key in (*declared.key_properties, *declared.unique_properties) if key not in table.schema.names
        ]
        if missing:
            raise TransformError(
                f"block {self.block!r} lost the key column {missing[0]!r} of stream {stream.name!r}; "
                f"it returned {', '.join(table.schema.names) or 'no column'}. Keep it, or rename it with `rename:`"
            )
        if self._kept_keys and declared.key_properties:
            _refuse_other_keys(renamed, table, declared, self.block, self._kept_keys)
        self.schema = _merge_schemas(self.schema, table.schema)
        return _conform(table, self.schema, self.block)

    def _by_batch(self, batch: pa.RecordBatch) -> pa.Table:
        return _to_table(self._called(_to_frame(batch)), batch.schema, self.block)

    def _by_record(self, batch: pa.RecordBatch) -> pa.Table:
        from syncblocks.connectors.arrow.text import is_json  # its kernels take time to load

        from .record_frames import SecondRow, by_record

        stored = pa.RecordBatch.from_arrays([_storage(column) for column in batch.columns], names=batch.schema.names)
        json_columns = {field.name for field in batch.schema if is_json(field.type)}
        try:
            columns = by_record(stored, json_columns, self._called)
        except SecondRow as error:
            raise TransformError(
                f"block {self.block!r} returned {error.rows} rows for one record: with `frames: record` it returns one "
                "row, or none, which leaves the record out. With `frames: batch` it gets many and returns any number"
            ) from None
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise TransformError(f"block {self.block!r}: a column holds values of mixed types: {error}") from error
        except (pa.ArrowException, OverflowError) as error:
            raise TransformError(
                f"block {self.block!r}: a column holds values for which there is no type: {error}; "
                "`json.dumps` or `str` makes them text"
            ) from error
        return _restored(columns, batch.schema)

    def _called(self, frame: Any) -> Any:
        for function in self._functions:
            frame = self._call(function, frame)
            _check_frame(frame, self.block)
            frame = _with_index(frame)
        return frame

    def _call(self, function: Function, frame: Any) -> Any:
        try:
            return function(frame)
        except (ConnectorError, KeyboardInterrupt):
            raise
        except BaseException as error:  # also SystemExit: a function that exits does not end the engine
            raise FunctionFailed(self.block, error, [str(name) for name in frame.columns]) from error


def _refuse_other_keys(given: pa.RecordBatch, table: pa.Table, stream: Stream, block: str, why: str) -> None:
    """Refuse keys that a function changed or created."""
    keys = list(stream.key_properties)
    before = pa.table([_storage(given.column(name)) for name in keys], names=keys)
    after = pa.table([_storage(table.column(name).combine_chunks()) for name in keys], names=keys)
    other = after
    if before.schema.types == after.schema.types:
        other = after.join(before, keys, join_type="left anti", use_threads=False)
    if other.num_rows:
        shown = ", ".join(f"{name} = {value!r}" for name, value in other.slice(0, 1).to_pylist()[0].items())
        raise TransformError(
            f"block {block!r} returned {other.num_rows} record(s) of stream {stream.name!r} with a key ({shown}) that "
            f"no record of the batch had: {why}"
        )


def declared_stream(stream: Stream, transformers: Sequence[Transformer]) -> Stream:
    """Return a stream after all declared renames of its transformers."""
    for transformer in transformers:
        stream = transformer.stream(stream)
    return stream


def _relabel(schema: pa.Schema, rename: Mapping[str, str]) -> pa.Schema:
    return pa.schema([field.with_name(rename.get(field.name, field.name)) for field in schema])


def _to_frame(batch: pa.RecordBatch) -> Any:
    import pandas as pd

    columns = [_storage(column) for column in batch.columns]
    table = pa.Table.from_arrays(columns, names=batch.schema.names)
    return table.to_pandas(types_mapper=pd.ArrowDtype)


def _storage(column: pa.Array) -> pa.Array:
    """Return extension types (uuid, json) as types that pandas knows; `_restore` converts them back."""
    kind = column.type
    if not isinstance(kind, pa.BaseExtensionType):
        return column
    if kind.extension_name == "arrow.uuid":
        return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())
    return column.storage


def _kind(value: Any) -> str:
    """Describe a function's result that is not a DataFrame, with the remedy."""
    package, _, _ = type(value).__module__.partition(".")
    name = type(value).__name__ if package == "builtins" else f"{package}.{type(value).__name__}"
    if value is None:
        return f"{name} (is `return df` missing?)"
    for method in ("to_pandas", "to_frame"):
        if hasattr(value, method):
            return f"{name} (is `.{method}()` missing?)"
    return f"{name} (is `pd.DataFrame(...)` missing?)" if isinstance(value, list | dict) else name


def _check_frame(frame: Any, block: str) -> None:
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise TransformError(f"block {block!r} returned {_kind(frame)} instead of a pandas DataFrame")
    if not all(isinstance(name, str) for name in frame.columns):
        odd = next(name for name in frame.columns if not isinstance(name, str))
        raise TransformError(f"block {block!r} returned a column named {odd!r}; names must be strings")
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise TransformError(f"block {block!r} returned two columns named {twice!r}")


def _with_index(frame: Any) -> Any:
    """Turn a named index (`set_index`, `groupby`) into columns, since pandas does not."""
    named = [name for name in frame.index.names if name is not None and name not in frame.columns]
    return frame.reset_index(level=named) if named else frame


def _to_table(frame: Any, before: pa.Schema, block: str) -> pa.Table:
    """Convert back to Arrow; an unchanged column keeps its field and so its native type."""
    columns = {}
    for name in frame.columns:
        is_untyped = frame[name].dtype == object
        try:
            if is_untyped:
                check_levels(frame[name])
            column = pa.Array.from_pandas(frame[name])
            if isinstance(column.type, pa.BaseExtensionType) and column.type.extension_name.startswith("pandas."):
                raise pa.ArrowNotImplementedError(str(frame[name].dtype))  # the storage has ordinals of periods
            if is_untyped:
                check_inferred(frame[name], column.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise TransformError(f"block {block!r}: column {name!r} holds values of mixed types: {error}") from error
        except (pa.ArrowException, OverflowError) as error:
            raise TransformError(
                f"block {block!r}: column {name!r} holds values for which there is no type: {error}; "
                "`.astype(str)` makes them text"
            ) from error
        columns[name] = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return _restored(columns, before)


def _restored(found: Mapping[str, pa.Array], before: pa.Schema) -> pa.Table:
    """Return columns as a table; a source column gets its field and native type back if the type holds its values."""
    columns, fields = [], []
    for name, column in found.items():
        former = before.field(name) if name in before.names else None
        column, field = _restore(name, column, former)
        if not _keeps_native(column, field):
            field = field.remove_metadata()
        columns.append(column)
        fields.append(field.with_nullable(True))  # the function's result for a later batch is unknown
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _restore(name: str, column: pa.Array, former: pa.Field | None) -> tuple[pa.Array, pa.Field]:
    if former is None:
        return column, pa.field(name, column.type)
    if column.type == former.type:
        return column, former
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), former.type), former
    if isinstance(former.type, pa.BaseExtensionType):
        try:
            return _wrap(column, former.type), former
        except (pa.ArrowException, ValueError):
            return column, pa.field(name, column.type, former.nullable)
    try:  # pandas' own dtypes (object, datetime64[ns]) with the same values: no change of type
        if _is_same_family(column.type, former.type):
            return _cast(column, former.type), former
    except pa.ArrowException:
        return column, pa.field(name, column.type, former.nullable)
    return column, pa.field(name, column.type, former.nullable)


def _keeps_native(column: pa.Array, field: pa.Field) -> bool:
    """Return whether values still have the source's type: a UUID may have become another text."""
    is_uuid = facts_of(field).native_type.lower() == "uuid" and pa.types.is_string(column.type)
    if not is_uuid:
        return True
    from syncblocks.connectors.arrow.text import UUID_TEXT  # its kernels take time to load, and few streams have UUIDs

    return pc.all(pc.match_substring_regex(column, UUID_TEXT)).as_py() is not False


def _wrap(column: pa.Array, kind: Any) -> pa.Array:
    if kind.extension_name == "arrow.uuid":
        import uuid

        raw = [None if value is None else uuid.UUID(str(value)).bytes for value in column.to_pylist()]
        return pa.ExtensionArray.from_storage(kind, pa.array(raw, kind.storage_type))
    return pa.ExtensionArray.from_storage(kind, column.cast(kind.storage_type))


def _cast(column: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    """Cast without loss: rounding to a narrower float, and gaining or losing a time zone, are errors."""
    types = pa.types
    if types.is_timestamp(kind) and types.is_timestamp(column.type) and (kind.tz is None) != (column.type.tz is None):
        raise pa.ArrowInvalid("one has a time zone, the other none")
    made = column.cast(kind)
    if types.is_floating(kind) and types.is_floating(column.type):
        back = made.cast(column.type)
        is_same = pc.or_(pc.equal(back, column), pc.and_(pc.is_nan(back), pc.is_nan(column)))
        if pc.all(is_same).as_py() is False:
            raise pa.ArrowInvalid(f"a value would be rounded to {kind}")
    return made


def _is_same_family(got: pa.DataType, former: pa.DataType) -> bool:
    families = (
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_decimal,
        pa.types.is_timestamp,
        pa.types.is_date,
        pa.types.is_time,
        lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
        lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind),
    )
    return any(family(got) and family(former) for family in families)


def _merge_schemas(before: pa.Schema | None, now: pa.Schema) -> pa.Schema:
    """Return the known columns plus new ones; a column that was always NULL has no type and is left out."""
    fields = {field.name: field for field in before or ()}
    for field in now:
        if field.name not in fields and not pa.types.is_null(field.type):
            fields[field.name] = field
    return pa.schema(list(fields.values()))


def _conform(table: pa.Table, schema: pa.Schema, block: str) -> pa.RecordBatch:
    columns = []
    for field in schema:
        if field.name not in table.schema.names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table.column(field.name)
        if column.type != field.type:
            try:
                column = _cast(column, field.type)
            except pa.ArrowException as error:
                raise TransformError(
                    f"block {block!r}: column {field.name!r} was {type_text(field.type)} in an earlier batch and is "
                    f"{type_text(column.type)} now: {error}. Set its type in the function, e.g. "
                    f"df[{field.name!r}].astype(...)"
                ) from error
        columns.append(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)
    return pa.RecordBatch.from_arrays(columns, schema=schema)
