"""The catalog file and the streams that are found: its text, its types and keys, and how the two differ. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import yaml

from syncblocks.connectors.field_facts import facts_of, is_unseen
from syncblocks.connectors.stream import Stream

if TYPE_CHECKING:
    from ..config.catalog_file import CatalogFile, CatalogStream

_HEAD = """\
# Streams, keys and types of columns, as `syncblocks discover --save` found them. A run reads this file where the
# pipeline says `catalog: {name}`. A column without a type has the one that is found.
"""


def catalog_text(streams: Sequence[Stream], name: str) -> str:
    """Write the catalog file of some streams."""
    found = {
        stream.name: {
            **({"is_view": True} if stream.is_view else {}),
            **({"key_properties": list(stream.key_properties)} if stream.key_properties else {}),
            "columns": {field.name: _type_of(field) for field in stream.schema},
        }
        for stream in streams
    }
    text = yaml.safe_dump({"streams": found}, sort_keys=False, allow_unicode=True, width=120)
    return _HEAD.format(name=name) + text


def with_catalog(settings: Mapping[str, Any], stream: Stream, catalog: CatalogFile | None) -> Mapping[str, Any]:
    """Return a stream's settings with the keys and types of the catalog file, where they say nothing themselves."""
    kept = None if catalog is None else catalog.streams.get(stream.name)
    if kept is None:
        return settings
    names = set(stream.schema.names)
    types = {column: kind for column, kind in kept.columns.items() if kind is not None and column in names}
    merged = {**settings, "types": {**types, **(settings.get("types") or {})}}
    if settings.get("key_properties") is None and kept.key_properties and names.issuperset(kept.key_properties):
        merged["key_properties"] = kept.key_properties
    return merged


def catalog_differences(stream: Stream, catalog: CatalogFile | None) -> tuple[str, ...]:
    """Say how a stream differs from what the catalog file has of it, one phrase for each difference."""
    if catalog is None or stream.unreadable:
        return ()
    kept = catalog.streams.get(stream.name)
    if kept is None:
        return (f"{catalog.name} does not have the stream",)
    found = [f"{catalog.name}: {difference}" for difference in _differences(stream, kept)]
    return tuple(found)


def _differences(stream: Stream, kept: CatalogStream) -> list[str]:
    found = []
    for field in stream.schema:
        own, said = _type_of(field), kept.columns.get(field.name)
        if field.name not in kept.columns:
            found.append(f"column {field.name!r} is new ({own or field.type})")
        elif said is not None and own is not None and said != own:
            found.append(f"column {field.name!r} is {said}, found is {own}")
    found += [f"column {name!r} is gone" for name in kept.columns if name not in stream.schema.names]
    if kept.key_properties != stream.key_properties:
        found.append(f"keys are ({', '.join(kept.key_properties)}), found are ({', '.join(stream.key_properties)})")
    return found


def _type_of(field: pa.Field) -> str | None:
    """Return the name of a column's type; None: it has no name, or nobody knows it yet."""
    from syncblocks.connectors.arrow.type_names import type_name

    return None if is_unseen(field) or facts_of(field).is_undecided else type_name(field.type)
