"""The catalog of a Mage pipeline as stream entries."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...config.added_columns import MAGE_COLUMNS
from ...config.naming import name_by
from .blocks import leftovers
from .connections import MageConnection
from .project import Project, entries_of, names_of, parts_of
from .values import template, value_of

_CATALOG = "data_integration_catalog.json"
#: The name of a stream in a `destination_table`.
STREAM_NAME = "{{ stream | table }}"
_STREAM = re.compile(r"variables\(\s*(['\"])stream\1\s*\)|(?<=\{\{)stream(?=\}\})|(?<=\{\{ )stream(?= \}\})")
_OWN_TABLE = re.compile(r"\{\{\s*(?:destination_table|variables\(\s*['\"]destination_table['\"]\s*\))\s*\}\}")
#: Keys of an entry with the columns that decide about records.
_DECIDING = ("key_properties", "unique_constraints", "bookmark_properties")
#: Keys of a stream that are brought over, or that say nothing about a run.
_READ = frozenset(
    (
        "tap_stream_id",
        "stream",
        "schema",
        "metadata",
        "replication_method",
        "replication_key",
        "key_properties",
        "bookmark_properties",
        "bookmark_property_operators",
        "unique_constraints",
        "unique_conflict_method",
        "destination_table",
        "auto_add_new_fields",
        "run_in_parallel",
        "table_name",
        "partition_keys",
        "disable_column_type_check",
        "database_name",
        "is_view",
        "parallel",
    )
)


def catalog_streams(
    project: Project, name: str, pipeline: Mapping[str, Any], source: MageConnection
) -> list[Mapping[str, Any]]:
    """Return the streams of a pipeline's catalog: in a file of its own, formerly in metadata.yaml or the source's."""
    path = f"pipelines/{name}/{_CATALOG}"
    places = (
        project.json(path) if project.path(path) is not None else {},
        pipeline.get("data_integration"),
        source.read,
    )
    found = (parts_of(parts_of(place).get("catalog")) for place in places)
    return entries_of(next((catalog.get("streams") for catalog in found if catalog), None))


def stream_id(stream: Mapping[str, Any]) -> str:
    """Return the name of a stream of Mage's."""
    return str(stream.get("tap_stream_id") or stream.get("stream"))


def entry_of(
    stream: Mapping[str, Any], source: MageConnection, destination: MageConnection, *, alone: bool, notes: list[str]
) -> dict[str, Any] | None:
    """Return the entry of one stream; None if Mage does not select it.

    Args:
        stream: the stream of Mage's catalog.
        source: the source.
        destination: the destination.
        alone: whether it is the catalog's only stream.
        notes: gets what differs.
    """
    metadata = {tuple(names_of(item.get("breadcrumb"))): parts_of(item.get("metadata")) for item in _metadata(stream)}
    if not metadata.get((), {"selected": True}).get("selected"):
        return None
    bare = stream_id(stream)
    where = f"stream {bare}"
    entry: dict[str, Any] = {"stream": source.stream_name(bare)}
    table = _table(stream, bare, source, destination, alone=alone, notes=notes)
    if table != bare or name_by("mage", bare) != bare:  # `naming` leaves a table alone that is named
        entry["destination_table"] = table
    entry |= _replication(stream, where, notes)
    columns = parts_of(parts_of(destination.settings.get("_streams")).get("columns"))
    # Mage fills these columns whatever the source has; one that decides about records must come from the source.
    deciding = {name for key in _DECIDING for name in entry.get(key, ())}
    has_mages = deciding.isdisjoint(MAGE_COLUMNS)
    added = {str(name): value for name, value in columns.items() if str(name) not in deciding}
    filled = {*added, *(MAGE_COLUMNS if has_mages else ())}
    if replaced := ", ".join(name for name in _properties(stream) if name in filled):
        notes.append(f"{where}: {replaced} of the source is left out: as in Mage, the column is filled anew")
    if kept := ", ".join(sorted(deciding & {*MAGE_COLUMNS, *map(str, columns)})):
        notes.append(f"{where}: {kept} comes from the source and is not filled anew, for it is a key or a bookmark")
    entry |= _columns(stream, metadata, filled)
    if has_mages:
        entry["mage_columns"] = True
    if added:
        entry["add_columns"] = {column: value_of(where, column, value, notes) for column, value in added.items()}
    notes += (f"{where}: {text}" for text in _differences(stream))
    notes += leftovers(where, stream, _READ)
    return entry


def _differences(stream: Mapping[str, Any]) -> Iterator[str]:
    """Say what stands in the place of settings that are left out."""
    kinds = parts_of(parts_of(stream.get("schema")).get("properties"))
    aliases = {name: names_of(parts_of(kind).get("aliases")) for name, kind in kinds.items()}
    if shown := ", ".join(f"{name}: {called[0]}" for name, called in aliases.items() if called):
        yield (
            f"aliases are left out: `rename: {{{shown}}}` of the transformer renames in place of its function, and "
            "keeps types and keys"
        )
    if keys := ", ".join(names_of(stream.get("partition_keys"))):
        yield (
            f"partition_keys are left out: `partition_by: [{keys}]` of a destination of files makes folders; a table "
            "in a database is parted by hand"
        )
    if stream.get("disable_column_type_check"):
        yield "types are checked here: `on_lossy` and `on_rejected` say what becomes of what does not fit"


def naming_of(streams: Iterable[Mapping[str, Any]], destination: MageConnection, notes: list[str]) -> dict[str, Any]:
    """Return the `naming` that makes the names of columns which Mage's destination makes of those of its streams."""
    if destination.kind not in ("postgresql", "mysql"):
        return {}
    wanted = {name: _mages_name(name, destination) for stream in streams for name in _properties(stream)}
    for naming in ("keep", "lower", "mage"):
        if all(name_by(naming, name) == made for name, made in wanted.items()):
            return {} if naming == "keep" else {"naming": naming}
    shown = ", ".join(f"{name}: {made}" for name, made in wanted.items() if name != made)
    notes.append(
        f"columns keep their names, but Mage writes other ones: `rename: {{{shown}}}` of a transformer does, too"
    )
    return {}


def _mages_name(name: str, destination: MageConnection) -> str:
    made = re.sub(r"\W", "_", name.lower() if destination.settings.get("lower_case", True) else name)
    is_free = destination.kind == "postgresql" and destination.settings.get("allow_reserved_words", False)
    return f"_{made}" if not is_free and name_by("mage", made) != made.lower() else made


def _properties(stream: Mapping[str, Any]) -> list[str]:
    return list(parts_of(parts_of(stream.get("schema")).get("properties")))


def _metadata(stream: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return entries_of(stream.get("metadata"))


def _table(
    stream: Mapping[str, Any],
    bare: str,
    source: MageConnection,
    destination: MageConnection,
    *,
    alone: bool,
    notes: list[str],
) -> str:
    """Return the destination table: a pattern wins, then the stream's own, then the destination's `table`."""
    pattern = parts_of(source.settings.get("_patterns")).get("destination_table")
    if pattern:
        own = str(stream.get("destination_table") or bare)
        text = _OWN_TABLE.sub(lambda _: own, _STREAM.sub(STREAM_NAME.strip("{} "), str(pattern)))
        return template("_patterns.destination_table", text, notes)
    table = destination.settings.get("table")
    if table and not stream.get("destination_table") and not alone:
        notes.append(
            f"stream {bare}: the destination's `table: {table}` is left out, for each stream has its own table"
        )
        table = None
    return str(stream.get("destination_table") or table or bare)


def _replication(stream: Mapping[str, Any], where: str, notes: list[str]) -> dict[str, Any]:
    method = str(stream.get("replication_method") or "FULL_TABLE")
    unique, keys = names_of(stream.get("unique_constraints")), names_of(stream.get("key_properties"))
    entry: dict[str, Any] = {"replication_method": method}
    bookmarks = names_of(stream.get("bookmark_properties")) or names_of(stream.get("replication_key"))
    if bookmarks and method == "INCREMENTAL":
        entry["bookmark_properties"] = bookmarks
        entry |= _operators(stream, bookmarks, where, notes)
    elif method == "INCREMENTAL":
        notes.append(f"{where}: INCREMENTAL needs bookmark_properties, and Mage's catalog has none: name them")
    elif bookmarks:
        notes.append(f"{where}: bookmark_properties are left out, which {method} does not use")
    if unique or keys:
        entry["key_properties"] = keys or unique
    if unique and keys and unique != keys:
        entry["unique_constraints"] = unique
    if unique and stream.get("unique_conflict_method"):
        entry["unique_conflict_method"] = stream["unique_conflict_method"]
    if unique:
        entry["write_disposition"] = "merge"
    elif method == "FULL_TABLE":
        entry["write_disposition"] = "replace"
        notes.append(f"{where}: Mage adds all records again at each run; here the table is replaced")
    else:
        entry["write_disposition"] = "append"
    if method == "LOG_BASED":
        notes.append(f"{where}: LOG_BASED reads PostgreSQL only; else choose INCREMENTAL")
    return entry


def _operators(
    stream: Mapping[str, Any], bookmarks: Sequence[str], where: str, notes: list[str]
) -> dict[str, Mapping[str, str]]:
    given = parts_of(stream.get("bookmark_property_operators"))
    above = {name: ">" for name in bookmarks if given.get(name) == ">"}
    others = [f"{name}: {given[name]}" for name in bookmarks if given.get(name) not in (None, "", ">", ">=")]
    notes += (f"{where}: bookmark_property_operators {each!r} is left out: here are > and >=" for each in others)
    return {"bookmark_property_operators": above} if above else {}


def _columns(
    stream: Mapping[str, Any], metadata: Mapping[tuple[str, ...], Mapping[str, Any]], filled: Collection[str]
) -> dict[str, Any]:
    """Return the columns that Mage reads, but for those that are filled anew.

    They are those of the catalog; new ones come only with `auto_add_new_fields`.
    """
    names = _properties(stream)
    left_out = [name for name in names if name in filled or _is_left_out(metadata.get(("properties", name), {}))]
    if stream.get("auto_add_new_fields"):
        return {"columns": {"exclude": left_out}} if left_out else {}
    return {"columns": {"include": [name for name in names if name not in left_out]}} if names else {}


def _is_left_out(metadata: Mapping[str, Any]) -> bool:
    inclusion = metadata.get("inclusion")
    return inclusion == "unsupported" or (inclusion != "automatic" and metadata.get("selected") is False)
