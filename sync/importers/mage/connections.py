"""Sources and destinations: Mage's YAML of a block -> connector and config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from .blocks import BLOCK_KEYS, block_file, leftovers, own_configuration
from .project import Project, parts_of
from .values import value_of

#: Mage's name -> connector, and its settings -> ours.
_POSTGRES = {"host": "host", "port": "port", "username": "user", "password": "password", "database": "dbname"}
_MYSQL = {**_POSTGRES, "database": "database"}
_CONNECTORS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "postgresql": ("postgres", {**_POSTGRES, "schema": "schema"}),
    "mysql": ("mysql", _MYSQL),
    "duckdb": ("duckdb", {"file_path": "path"}),
}
#: Mage's sources and destinations that a Singer tap or target of the same system serves.
_TAPS = {name: f"tap-{name}" for name in ("github", "hubspot", "salesforce", "stripe", "zendesk", "chargebee")}
_TARGETS = {name: f"target-{name}" for name in ("snowflake", "bigquery", "redshift", "clickhouse")}

#: Settings of Mage that say what is so here anyway.
_AS_HERE: Mapping[str, Any] = {"connection_method": "direct", "skip_schema_creation": False, "ssh_port": 22}


#: Settings that streams read: what tables and columns are called, and columns that each table gets.
_OF_TABLES = ("_patterns", "_streams", "table", "lower_case", "use_lowercase", "allow_reserved_words")


class MageConnection(Struct, frozen=True, kw_only=True):
    """A source or destination."""

    #: Mage's name of it, such as postgresql.
    kind: str
    #: Its part of the pipeline file.
    document: Mapping[str, Any]
    #: Mage's file of it.
    read: Mapping[str, Any]

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return Mage's settings."""
        return parts_of(self.read.get("config"))

    def stream_name(self, name: str) -> str:
        """Return the name that a stream of Mage's source has here."""
        config = self.document["config"]
        if self.kind == "postgresql":
            return f"{config.get('schema') or 'public'}.{name}"
        return f"{config.get('database')}.{name}" if self.kind == "mysql" else name


def source_of(project: Project, block: Mapping[str, Any], notes: list[str]) -> MageConnection:
    """Return the source of a data loader's block."""
    return _connection(project, block, "source", notes)


def destination_of(project: Project, block: Mapping[str, Any], notes: list[str]) -> MageConnection:
    """Return the destination of a data exporter's block."""
    return _connection(project, block, "destination", notes)


def _connection(project: Project, block: Mapping[str, Any], role: str, notes: list[str]) -> MageConnection:
    uuid = str(block.get("uuid"))
    read = project.yaml(block_file(block))
    kind = str(read.get(role))
    settings = {str(key): value for key, value in parts_of(read.get("config")).items()}
    notes += leftovers(f"{uuid}: {role} file", read, {role, "config", "catalog"})
    connector, config = _translated(uuid, role, kind, settings, notes)
    document = {"block": uuid, "connector": connector, "config": config, **own_configuration(block, notes)}
    notes += leftovers(f"block {uuid}", block, BLOCK_KEYS)
    return MageConnection(kind=kind, document=document, read=read)


def _translated(
    uuid: str, role: str, kind: str, settings: dict[str, Any], notes: list[str]
) -> tuple[str, dict[str, Any]]:
    """Return connector and config."""
    if kind in _CONNECTORS:
        connector, names = _CONNECTORS[kind]
        known = {names[key]: value for key, value in settings.items() if key in names and value not in (None, "")}
        config = {key: value_of(uuid, key, value, notes) for key, value in known.items()}
        read = {*names, *_OF_TABLES}
        if settings.get("skip_schema_creation") is True:
            config["create_schemas"] = False
            read.add("skip_schema_creation")
        limit = settings.get("batch_fetch_limit")
        if role == "source" and type(limit) is int and limit > 0:
            config["checkpoint_records"] = limit
            read.add("batch_fetch_limit")
        rest = {key: value for key, value in settings.items() if key not in _AS_HERE or value != _AS_HERE[key]}
        notes += leftovers(f"{uuid}: config", rest, read)
        return connector, config
    config = {key: value_of(uuid, key, value, notes) for key, value in settings.items() if key not in _OF_TABLES}
    tap = (_TAPS if role == "source" else _TARGETS).get(kind)
    if tap is None:
        notes.append(f"{uuid}: there is no connector for Mage's {kind!r}: name one by hand (`syncblocks connectors`)")
        return kind, config
    notes.append(f"{uuid}: Mage's {kind!r} comes as {tap}: check the names of its settings, and where pip finds it")
    return "singer", {"tap" if role == "source" else "target": tap, "pip": tap, "config": config}
