"""Objects as columns: `a` with `b` in it becomes the column `a__b`, down to some levels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ..errors import ConnectorConfigError
from ..field_facts import facts_of, with_facts

SEPARATOR = "__"

#: The names from a record down to a value.
Path = tuple[str, ...]


def column_of(path: Path) -> str:
    """Return the name of a value's column."""
    return SEPARATOR.join(path)


def path_of(field: pa.Field) -> Path:
    """Return where a column's values are within a record."""
    return facts_of(field).path or (field.name,)


def has_place(field: pa.Field) -> bool:
    """Tell whether it is certain where a column's values are within a record."""
    return SEPARATOR not in field.name or bool(facts_of(field).path)


def names_of(field: pa.Field) -> list[str]:
    """Return a column's name, and those of the objects that it is in."""
    path = path_of(field)
    return [field.name, *(column_of(path[:size]) for size in range(1, len(path)))]


def marked(field: pa.Field, path: Path) -> pa.Field:
    """Return a column with the mark of where its values are."""
    return field if len(path) == 1 else with_facts(field, path=path)


def collision(where: str, first: Path, second: Path) -> str:
    """Return the message for two values that would be one column."""
    one, other = (".".join(json.dumps(name, ensure_ascii=False) for name in path) for path in (first, second))
    return (
        f"{where}: `nested: {{flatten: ...}}` would give two columns the name {column_of(first)!r}: {one} and "
        f"{other}. Flatten fewer levels, or use `nested: text`"
    )


class Paths:
    """The columns of a stream, each with where its values are; two places are never one column."""

    def __init__(self, fields: Sequence[pa.Field] = (), perhaps: Sequence[str] = ()) -> None:
        """Begin with some columns; `perhaps`: of others, whose values may be in objects."""
        self.of: dict[str, Path] = {}
        #: Names that stand for objects, whose values are other columns.
        self.parents: set[str] = set()
        for field in fields:
            self.add(field.name, path_of(field))
        for name in perhaps:
            parts = name.split(SEPARATOR)
            self.parents.update(SEPARATOR.join(parts[:size]) for size in range(1, len(parts)))

    def add(self, name: str, path: Path) -> Path:
        """Add a column, and return where the column of that name is: elsewhere, if two places would be one."""
        if (known := self.of.get(name)) is not None:
            return known
        self.of[name] = path
        self.parents.update(column_of(path[:size]) for size in range(1, len(path)))
        return path


def flat_values(
    record: Mapping[str, Any], levels: int, opened: Callable[[Any], Mapping[str, Any] | None], before: Path = ()
) -> Iterator[tuple[Path, Any]]:
    """Yield a record's values, those of objects on their own; `opened` returns an object's values, None: it is none."""
    for name, value in record.items():
        path = (*before, name)
        inner = opened(value) if levels else None
        if inner is None:
            yield path, value
        else:
            yield from flat_values(inner, levels - 1, opened, path)


def flat_schema(schema: pa.Schema, levels: int, where: str) -> pa.Schema:
    """Return the columns of a schema whose structs are flattened.

    Raises:
        ConnectorConfigError: two columns would have one name.
    """
    if not levels or not any(pa.types.is_struct(kind) for kind in schema.types):
        return schema
    found: dict[str, tuple[Path, pa.Field]] = {}
    for field in schema:
        for path, leaf in _leaves(field, (field.name,), levels):
            name = column_of(path)
            if name in found:
                raise ConnectorConfigError(collision(where, found[name][0], path), key="nested")
            found[name] = path, marked(leaf.with_name(name), path)
    return pa.schema([leaf for _, leaf in found.values()])


def _leaves(field: pa.Field, path: Path, levels: int) -> Iterator[tuple[Path, pa.Field]]:
    kind = field.type
    if not levels or not is_object(kind):
        yield path, field
        return
    for place in range(kind.num_fields):
        inner = kind.field(place)
        yield from _leaves(inner.with_nullable(inner.nullable or field.nullable), (*path, inner.name), levels - 1)


def is_object(kind: pa.DataType) -> bool:
    """Tell whether values of a type have names that are columns."""
    if not pa.types.is_struct(kind) or not kind.num_fields:
        return False
    names = [kind.field(place).name for place in range(kind.num_fields)]
    return all(names) and len(set(names)) == len(names)


def leaf_of(batch: pa.RecordBatch, path: Path) -> pa.Array | None:
    """Return the values at a path within structs, NULL where an object on the way is; None: there is no such path."""
    import pyarrow.compute as pc  # the plan reads names only, and its kernels take time to load

    place = batch.schema.get_field_index(path[0])
    if place < 0:
        return None
    column = batch.column(place)
    for name in path[1:]:
        if not pa.types.is_struct(column.type) or column.type.get_field_index(name) < 0:
            return None
        column = pc.struct_field(column, [column.type.get_field_index(name)])
    return column


__all__ = [
    "SEPARATOR",
    "Path",
    "Paths",
    "collision",
    "column_of",
    "flat_schema",
    "flat_values",
    "has_place",
    "is_object",
    "leaf_of",
    "marked",
    "names_of",
    "path_of",
]
