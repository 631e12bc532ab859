"""A tap's catalog: read the streams that the tap offers, and write the catalog of a run. Pure."""

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import pyarrow as pa

from ..errors import ConnectorConfigError, FatalConnectorError
from ..programs.line_stream import too_many
from ..programs.types import columns_of
from ..read_spec import ReadSpec, ReplicationMethod
from ..stream import Stream

Entry = Mapping[str, Any]


def parse_catalog(text: bytes, label: str) -> list[dict[str, Any]]:
    """Return the entries of a catalog.

    Raises:
        FatalConnectorError: the text is no catalog.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FatalConnectorError(f"{label}: the catalog is not JSON: {error}", connector="singer") from error
    entries = found.get("streams") if isinstance(found, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise FatalConnectorError(f"{label}: the catalog has no list of streams", connector="singer")
    for entry in entries:
        if not isinstance(name_of(entry), str) or not isinstance(entry.get("schema"), dict):
            raise FatalConnectorError(f"{label}: a stream in the catalog has no name or no schema", connector="singer")
    return entries


def name_of(entry: Entry) -> Any:
    """Return a stream's name: its tap_stream_id, which is unique."""
    return entry.get("tap_stream_id") or entry.get("stream")


def names_of(entries: Sequence[Entry]) -> dict[str, tuple[str, ...]]:
    """Return for each stream its unambiguous names in messages and STATE."""
    wanted: dict[str, list[str]] = {}
    for entry in entries:
        name = name_of(entry)
        schema, table = root_metadata(entry).get("schema-name"), entry.get("table_name") or entry.get("stream")
        called = [name, entry.get("stream"), entry.get("stream_alias"), f"{schema}-{table}" if schema else None]
        wanted[name] = [each for each in dict.fromkeys(called) if isinstance(each, str) and each]
    users: dict[str, list[str]] = {}
    for name, called in wanted.items():
        for each in called:
            users.setdefault(each, []).append(name)
    return {
        name: tuple(each for each in called if each == name or (users[each] == [name] and each not in wanted))
        for name, called in wanted.items()
    }


def root_metadata(entry: Entry) -> dict[str, Any]:
    """Return the metadata of the stream itself."""
    return _metadata(entry, ())


def _metadata(entry: Entry, breadcrumb: Sequence[str]) -> dict[str, Any]:
    for item in entry.get("metadata") or ():
        if isinstance(item, Mapping) and tuple(item.get("breadcrumb") or ()) == tuple(breadcrumb):
            found = item.get("metadata")
            return dict(found) if isinstance(found, Mapping) else {}
    return {}


def adjusted(
    entries: Sequence[dict[str, Any]],
    metadata: Mapping[str, Mapping[str, Any]],
    schema: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> list[dict[str, Any]]:
    """Return the entries with metadata and schemas from the pipeline file.

    Raises:
        ConnectorConfigError: a pattern matches no stream.
    """
    changed: list[dict[str, Any]] = copy.deepcopy(list(entries))
    for key, patterns in (("metadata", metadata), ("schema", schema)):
        for pattern, changes in patterns.items():
            hits = [entry for entry in changed if _matches(pattern, name_of(entry))]
            if not hits:
                raise _no_match(pattern, changed, key)
            for entry in hits:
                if key == "metadata":
                    _set_metadata(entry, (), changes)
                else:
                    entry["schema"]["properties"] = {**(entry["schema"].get("properties") or {}), **changes}
    return changed


def _set_metadata(entry: dict[str, Any], breadcrumb: Sequence[str], changes: Mapping[str, Any]) -> None:
    items = entry.get("metadata")
    if not isinstance(items, list):
        items = entry["metadata"] = []
    for item in items:
        if tuple(item.get("breadcrumb") or ()) == tuple(breadcrumb):
            item["metadata"] = {**(item.get("metadata") or {}), **changes}
            return
    items.append({"breadcrumb": list(breadcrumb), "metadata": dict(changes)})


def streams_of(entries: Sequence[Entry], select: Sequence[str], max_columns: int = sys.maxsize) -> list[Stream]:
    """Return the streams that are offered, tables before views.

    Raises:
        ConnectorConfigError: a pattern of `select` matches no stream.
    """
    chosen = _Selection(select, entries)
    streams = [_stream(entry, chosen, max_columns) for entry in entries if chosen.takes(name_of(entry))]
    return sorted(streams, key=lambda stream: stream.is_view)


def _stream(entry: Entry, chosen: _Selection, max_columns: int) -> Stream:
    name, root = name_of(entry), root_metadata(entry)
    keys = _names(entry.get("key_properties") or root.get("table-key-properties") or root.get("view-key-properties"))
    method, bookmarks = _replication(entry, root)
    fields: list[pa.Field] = []
    unreadable = ""
    for column in columns_of(entry["schema"]):
        inclusion = _metadata(entry, ("properties", column.name)).get("inclusion")
        is_automatic = inclusion == "automatic" or column.name in keys or column.name in bookmarks
        if inclusion != "unsupported" and (is_automatic or chosen.takes(name, column.name)):
            try:
                fields.append(column.field(nullable=column.name not in keys))
            except UnicodeEncodeError:
                unreadable = f"stream {name!r}: the name of column {column.name!r} contains half a surrogate pair"
    if len(fields) > max_columns:
        unreadable = f"stream {name!r}: {too_many(max_columns)}"
    if unreadable:
        fields = []
    known = {field.name for field in fields}
    return Stream(
        name=name,
        schema=pa.schema(fields),
        unreadable=unreadable,
        unreadable_without_values=unreadable,
        key_properties=keys if set(keys) <= known else (),
        read=ReadSpec(method=method, bookmark_properties=tuple(each for each in bookmarks if each in known)),
        keeps_own_bookmark=True,
        is_view=bool(entry.get("is_view") or root.get("is-view")),
        estimated_records=_count(root.get("row-count")),
        locator=_locator(entry, root),
    )


def _replication(entry: Entry, root: Mapping[str, Any]) -> tuple[ReplicationMethod, tuple[str, ...]]:
    method = root.get("replication-method") or entry.get("replication_method") or root.get("forced-replication-method")
    key = root.get("replication-key") or entry.get("replication_key")
    if isinstance(method, Mapping):
        method = method.get("replication-method")
    name = str(method or "").upper()
    if name in ("INCREMENTAL", "LOG_BASED"):
        valid = _names(root.get("valid-replication-keys"))
        keys = _names(key) or (valid if len(valid) == 1 else ())
        # LOG_BASED goes on from the tap's own state: for the engine, INCREMENTAL without a column.
        return ReplicationMethod.INCREMENTAL, () if name == "LOG_BASED" else keys
    return ReplicationMethod.FULL_TABLE, ()


def _locator(entry: Entry, root: Mapping[str, Any]) -> dict[str, Any]:
    schema = root.get("schema-name") or root.get("database-name")
    table = entry.get("table_name") or root.get("table-name")
    return {"table": table} if schema and isinstance(table, str) and table else {}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list | tuple) else ()


def selected_catalog(entries: Sequence[Entry], streams: Sequence[Stream]) -> dict[str, Any]:
    """Return the catalog that selects these streams and columns, in both conventions."""
    by_name = {stream.name: stream for stream in streams}
    written = []
    for entry in copy.deepcopy(list(entries)):
        made = dict(entry)
        stream = by_name.get(name_of(made))
        _write_selection(made, stream)
        written.append(made)
    return {"streams": written}


def _write_selection(entry: dict[str, Any], stream: Stream | None) -> None:
    entry["selected"] = stream is not None
    if isinstance(entry["schema"], dict):
        entry["schema"]["selected"] = stream is not None
    _set_metadata(entry, (), {"selected": stream is not None})
    if stream is None:
        return
    declared = str(root_metadata(entry).get("replication-method") or entry.get("replication_method") or "").upper()
    method: str = stream.read.method.value
    if method == "INCREMENTAL" and declared == "LOG_BASED" and not stream.read.bookmark_properties:
        method = "LOG_BASED"
    changes: dict[str, Any] = {"replication-method": method}
    entry["replication_method"] = method
    if method == "INCREMENTAL" and stream.read.bookmark_properties:
        changes["replication-key"] = entry["replication_key"] = stream.read.bookmark_properties[0]
    _set_metadata(entry, (), changes)
    if stream.key_properties and not entry.get("key_properties"):
        entry["key_properties"] = list(stream.key_properties)
        if root_metadata(entry).get("is-view"):
            _set_metadata(entry, (), {"view-key-properties": list(stream.key_properties)})
    for name, spec in (entry["schema"].get("properties") or {}).items():
        is_wanted = name in stream.schema.names
        if isinstance(spec, dict):
            spec["selected"] = is_wanted
        _set_metadata(entry, ("properties", name), {"selected": is_wanted})


class _Selection:
    """Patterns such as `users`, `users.*`, `!users.secret` that select streams and columns."""

    def __init__(self, patterns: Sequence[str], entries: Sequence[Entry]) -> None:
        self._takes: list[tuple[str, str]] = []
        self._leaves: list[tuple[str, str]] = []
        names = [name_of(entry) for entry in entries]
        for pattern in patterns:
            rules = self._leaves if pattern.startswith("!") else self._takes
            rule = _rule(pattern.removeprefix("!"), names)
            if not any(fnmatchcase(name, rule[0]) for name in names):
                raise _no_match(pattern, entries, "select")
            rules.append(rule)

    def takes(self, stream: str, column: str | None = None) -> bool:
        """Tell whether a stream, or one of its columns, is selected."""
        if column is None:
            is_left = any(fnmatchcase(stream, each) and part == "*" for each, part in self._leaves)
            return not is_left and (not self._takes or any(fnmatchcase(stream, each) for each, _ in self._takes))
        is_left = any(fnmatchcase(stream, each) and fnmatchcase(column, part) for each, part in self._leaves)
        is_taken = any(fnmatchcase(stream, each) and fnmatchcase(column, part) for each, part in self._takes)
        return not is_left and (not self._takes or is_taken)


def _rule(pattern: str, names: Sequence[str]) -> tuple[str, str]:
    """Take `stream.column` apart; a stream's own name may hold dots, written as they are or as `\\.`."""
    if pattern in names:
        return pattern, "*"
    parts = re.split(r"(?<!\\)\.", pattern)
    whole = [part.replace("\\.", ".") for part in parts]
    for cut in range(len(whole) - 1, 0, -1):
        stream = ".".join(whole[:cut])
        if any(fnmatchcase(name, stream) for name in names):
            return stream, ".".join(whole[cut:])
    return ".".join(whole), "*"


def _matches(pattern: str, name: str) -> bool:
    return pattern == name or fnmatchcase(name, pattern)


def _no_match(pattern: str, entries: Sequence[Entry], key: str) -> ConnectorConfigError:
    known = ", ".join(str(name_of(entry)) for entry in entries[:20])
    return ConnectorConfigError(
        f"config of connector 'singer': {key}: {pattern!r} matches no stream; the tap has {known}",
        connector="singer",
        key=key,
    )
