"""Objects of JSON as columns: of records that are parsed one by one, and in Arrow's schema for a block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from ..arrow.flatten import Path, Paths, collision, column_of, flat_values
from ..errors import ConnectorError
from .paths import DataFile

_OPEN = ord("{")
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def json_objects(value: Any) -> Mapping[str, Any] | None:
    """Return the values of an object; None: it is none."""
    return value if type(value) is dict else None


def raw_objects(value: Any) -> Mapping[str, Any] | None:
    """Do so for a value that is not read yet."""
    return _members.decode(value) if memoryview(value)[0] == _OPEN else None


def flattened(
    file: DataFile,
    records: Iterable[dict[str, Any]],
    paths: Paths,
    is_raw: bool,
    error: type[ConnectorError],
) -> Iterator[dict[str, Any]]:
    """Yield records with a value for each column, down to the levels that the file says.

    Raises:
        ConnectorError: of the type `error`; two values would be one column.
    """
    opened = raw_objects if is_raw else json_objects
    for record in records:
        if not file.levels and not paths.parents:
            for name in record.keys() - paths.of.keys():
                paths.add(name, (name,))
            yield record
            continue
        flat: dict[str, Any] = {}
        for path, value in flat_values(record, file.levels, opened):
            name = column_of(path)
            if name in paths.parents and (value is None or (is_raw and bytes(value) == b"null")):
                continue  # of an object that is NULL, no column has a value
            if (known := paths.add(name, path)) != path:
                raise error(collision(file.label, known, path), key="nested")
            flat[name] = value
        yield flat


def nested_schema(columns: Sequence[tuple[Path, pa.DataType]]) -> pa.Schema | None:
    """Return the schema of the records that have some values; None: a name stands for objects, and for other values."""
    tree = tree_of(columns)
    return None if tree is None else pa.schema(_fields(tree))


def tree_of(columns: Sequence[tuple[Path, Any]]) -> dict[str, Any] | None:
    """Return name -> kind of its values, or a dict for an object; None: a name is both a value and an object."""
    tree: dict[str, Any] = {}
    for path, kind in columns:
        inner: Any = tree
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                return None
        if path[-1] in inner:
            return None
        inner[path[-1]] = kind
    return tree


def _fields(tree: Mapping[str, Any]) -> list[pa.Field]:
    return [pa.field(name, pa.struct(_fields(kind)) if isinstance(kind, dict) else kind) for name, kind in tree.items()]


def has_only(schema: pa.Schema, levels: int, known: frozenset[str]) -> bool:
    """Tell whether a block has known columns only, and none twice."""
    names = [column_of(path) for field in schema for path in _paths(field, levels)]
    return known.issuperset(names) and len(set(names)) == len(names)


def _paths(field: pa.Field, levels: int, before: Path = ()) -> Iterator[Path]:
    path = (*before, field.name)
    if not levels or not pa.types.is_struct(field.type):
        yield path
        return
    for place in range(field.type.num_fields):
        yield from _paths(field.type.field(place), levels - 1, path)


__all__ = ["Path", "flattened", "has_only", "nested_schema", "tree_of"]
