"""The catalog of a connector: the streams that it offers, and the configured catalog of a read. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import pyarrow as pa

from ..errors import ConnectorConfigError, FatalConnectorError
from ..programs.types import columns_of
from ..read_spec import ReadSpec, ReplicationMethod
from ..stream import Stream

Entry = Mapping[str, Any]


def entries_of(catalog: Any, label: str) -> list[dict[str, Any]]:
    """Return the streams of a CATALOG message.

    Raises:
        FatalConnectorError: it is no catalog.
    """
    found = catalog.get("streams") if isinstance(catalog, Mapping) else None
    if not isinstance(found, list):
        raise FatalConnectorError(f"{label}: its catalog has no list of streams", connector="airbyte")
    for entry in found:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"]:
            raise FatalConnectorError(f"{label}: a stream of its catalog has no name", connector="airbyte")
    names = [name_of(entry) for entry in found]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise FatalConnectorError(f"{label}: its catalog has stream {double!r} twice", connector="airbyte")
    return found


def name_of(entry: Entry) -> str:
    """Return a stream's name, with its namespace if it has one."""
    return f"{entry['namespace']}.{entry['name']}" if entry.get("namespace") else str(entry["name"])


def schema_of(entry: Entry) -> Mapping[str, Any]:
    """Return the JSON Schema of a stream's records."""
    found = entry.get("json_schema")
    return found if isinstance(found, Mapping) else {}


def adjusted(
    entries: Sequence[dict[str, Any]], schema: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """Return the entries with the schemas of the pipeline file.

    Raises:
        ConnectorConfigError: a pattern matches no stream.
    """
    changed = list(entries)
    for pattern, columns in schema.items():
        hits = [place for place, each in enumerate(changed) if fnmatchcase(name_of(each), pattern)]
        if not hits:
            known = ", ".join(name_of(each) for each in entries[:20])
            raise ConnectorConfigError(
                f"config of connector 'airbyte': schema: {pattern!r} matches no stream; the connector has {known}",
                connector="airbyte",
                key="schema",
            )
        for place in hits:
            declared = schema_of(changed[place])
            properties = {**(declared.get("properties") or {}), **columns}
            changed[place] = {**changed[place], "json_schema": {**declared, "properties": properties}}
    return changed


def streams_of(entries: Sequence[Entry]) -> list[Stream]:
    """Return the streams that are offered."""
    return [_stream(entry) for entry in entries]


def is_incremental(entry: Entry) -> bool:
    """Tell whether a stream can go on from a state."""
    return "incremental" in (entry.get("supported_sync_modes") or ())


def _stream(entry: Entry) -> Stream:
    name = name_of(entry)
    columns = columns_of(schema_of(entry))
    known = {column.name for column in columns}
    keys = _keys(entry, known)
    cursor = _path(entry.get("default_cursor_field"))
    goes_on = is_incremental(entry) and bool(entry.get("source_defined_cursor") or cursor)
    unreadable = "" if columns else f"stream {name!r}: its schema has no columns; name them by `schema` of the config"
    return Stream(
        name=name,
        schema=pa.schema([column.field(nullable=column.name not in keys) for column in columns]),
        key_properties=keys,
        read=ReadSpec(
            method=ReplicationMethod.INCREMENTAL if goes_on else ReplicationMethod.FULL_TABLE,
            bookmark_properties=tuple(cursor) if goes_on and len(cursor) == 1 and cursor[0] in known else (),
        ),
        keeps_own_bookmark=True,
        unreadable=unreadable,
        unreadable_without_values=unreadable,
    )


def _keys(entry: Entry, known: set[str]) -> tuple[str, ...]:
    """Return the key; none if a part of it is no column."""
    paths = entry.get("source_defined_primary_key") or ()
    keys = [path[0] for path in map(_path, paths) if len(path) == 1]
    return tuple(keys) if len(keys) == len(paths) and known.issuperset(keys) else ()


def _path(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def configured_catalog(entries: Sequence[Entry], streams: Sequence[Stream]) -> dict[str, Any]:
    """Return the catalog that a read is started with."""
    by_name = {name_of(entry): entry for entry in entries}
    return {"streams": [_configured(by_name[stream.name], stream) for stream in streams]}


def _configured(entry: Entry, stream: Stream) -> dict[str, Any]:
    is_whole = stream.read.method is ReplicationMethod.FULL_TABLE
    cursor = list(stream.read.bookmark_properties) or _path(entry.get("default_cursor_field"))
    keys = [[name] for name in stream.key_properties] or entry.get("source_defined_primary_key") or []
    return {
        "stream": dict(entry),
        "sync_mode": "full_refresh" if is_whole else "incremental",
        "destination_sync_mode": "append",
        "cursor_field": [] if is_whole else cursor,
        "primary_key": keys,
    }


def demand_readable(entries: Sequence[Entry], streams: Sequence[Stream]) -> None:
    """Raise for a stream that cannot be read as the pipeline file says.

    Raises:
        ConnectorConfigError: it is to be read INCREMENTAL, and the connector cannot.
    """
    by_name = {name_of(entry): entry for entry in entries}
    for stream in streams:
        entry = by_name.get(stream.name)
        if entry is None or stream.read.method is ReplicationMethod.FULL_TABLE:
            continue
        if stream.read.method is ReplicationMethod.LOG_BASED or not is_incremental(entry):
            raise ConnectorConfigError(
                f"stream {stream.name!r}: the connector reads it FULL_TABLE only, not {stream.read.method.value}",
                connector="airbyte",
                stream=stream.name,
            )
