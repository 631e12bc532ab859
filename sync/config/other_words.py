"""What other tools call a setting, and what it is here: the hint where a file has a key of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .yaml_document import Loc

_MODE = "`replication_method` (FULL_TABLE or INCREMENTAL) and `write_disposition`"
_BOOKMARK = "`bookmark_properties`, a list, with `replication_method: INCREMENTAL`"
_KEY = "`key_properties`, a list"
_TABLE = "`destination_table`"

_OF_STREAM = {
    "name": "`stream`",
    "table": "`stream` in the source, `destination_table` in the destination",
    "source_table": "`stream`",
    "tap_stream_id": "`stream`",
    "mode": _MODE,
    "sync_mode": _MODE,
    "disposition": "`write_disposition`",
    "incremental_strategy": "`write_disposition`",
    "merge_strategy": "`write_disposition`",
    "primary_key": _KEY,
    "primary_keys": _KEY,
    "merge_key": _KEY,
    "unique_key": _KEY,
    "keys": _KEY,
    "key": _KEY,
    "update_key": _BOOKMARK,
    "incremental": _BOOKMARK,
    "incremental_key": _BOOKMARK,
    "replication_key": _BOOKMARK,
    "cursor": _BOOKMARK,
    "cursor_field": _BOOKMARK,
    "bookmark": _BOOKMARK,
    "object": _TABLE,
    "target": _TABLE,
    "target_table": _TABLE,
    "dest_table": _TABLE,
    "select": "`columns: {include: [...]}` or `columns: {exclude: [...]}`",
    "exclude": "`columns: {exclude: [...]}`",
    "include": "`columns: {include: [...]}`",
    "sql": "`query`",
    "filter": "`where`, a mapping",
    "disabled": "`selected: false`",
    "enabled": "`selected`",
    "delete_missing": "`deletes`",
    "mask": "`columns: {mask: ...}`",
    "rename": "`rename` of an entry of `transformers`",
    "transforms": "`transformers` of the pipeline",
    "callbacks": "`callbacks` of the pipeline, with `streams`",
    "hooks": "`before` of the stream, and `callbacks` of the pipeline",
    "schema": "a part of `stream: schema.table`; the destination's is in its `config`",
}

_OF_PIPELINE = {
    "name": "`pipeline`",
    "target": "`destination`",
    "dest": "`destination`",
    "sink": "`destination`",
    "tables": "`streams`",
    "resources": "`streams`",
    "defaults": 'a first entry of `streams` with `stream: "*"`, which later entries refine',
    "hooks": "`callbacks`; `before` for statements ahead of the read",
    "notifications": "`callbacks`",
    "env": "`variables`",
    "vars": "`variables`",
    "threads": "`concurrency`",
    "workers": "`concurrency`",
    "transforms": "`transformers`",
    "state": "nothing to set: bookmarks are kept in the destination",
}

_OF_BLOCK = {
    "type": "`connector`",
    "name": "`connector`; the block's own name is `block`",
    "credentials": "`config`",
    "settings": "`config`",
    "options": "`config`",
    "connection": "`connector` and `config`",
    "variant": "`config`",
}


_OF_STATEMENT = {
    "source": "`connection: source`, with the statement in `sql`",
    "destination": "`connection: destination`, with the statement in `sql`",
    "statement": "`sql`",
    "query": "`sql`",
    "on": "`connection`",
    "side": "`connection`",
}


def project_of_others(raw: Mapping[str, Any], path: str) -> str:
    """Say what brings a file of another tool over; empty: it is none."""
    if "source" in raw:
        return ""
    if "plugins" in raw:
        return f"is a Meltano project: `syncblocks init --from-meltano {path}` writes its pipeline files"
    if "blocks" in raw:
        return "is a pipeline of Mage: `syncblocks init --from-mage PROJECT` writes its pipeline file"
    return ""


#: Setting -> values of it in other tools -> what they are here.
_VALUES = {
    "write_disposition": {
        "upsert": "merge",
        "incremental": "merge",
        "overwrite": "replace",
        "full-refresh": "replace",
        "full_refresh": "replace",
        "truncate": "replace",
        "insert": "append",
        "delete-insert": "merge",
        "delete_insert": "merge",
        "delete+insert": "replace_range",
        "scd2": "history",
        "snapshot": "append",
    },
    "replication_method": {
        "full": "FULL_TABLE",
        "full-refresh": "FULL_TABLE",
        "full_refresh": "FULL_TABLE",
        "snapshot": "FULL_TABLE",
        "cdc": "LOG_BASED",
        "key_based": "INCREMENTAL",
    },
    "on_schema_change": {"error": "freeze", "fail": "freeze", "add": "evolve", "discard_value": "ignore"},
    "on_rejected": {"error": "fail", "raise": "fail", "ignore": "keep", "quarantine": "keep", "skip": "keep"},
    "null_bookmarks": {"raise": "fail", "include": "always", "exclude": "never", "ignore": "never", "skip": "never"},
}


def value_of_others(loc: Loc, word: str | None) -> str | None:
    """Return what a value of other tools is here; None: it is no such value."""
    return _VALUES.get(str(loc[-1]), {}).get((word or "").lower())


_OF_CALLBACK = {
    "name": "`block`",
    "path": "`file`",
    "python": "`file`",
    "function": "`file`, whose marked functions are called",
    "slack": "`notify`",
    "email": "`notify`",
    "http": "`webhook`",
    "url": "`webhook: {url: ...}`",
    "command": "`shell`",
    "script": "`file` of Python, or `shell`",
    "query": "`sql`",
    "parents": "`on`",
    "upstream_blocks": "`on`",
    "events": "`status`",
    "text": "`message`",
    "condition": "`when`",
    "timeout": "`timeout_s`",
    "retries": "`attempts`",
}

_OF_TRANSFORMER = {
    "name": "`block`",
    "path": "`file`",
    "python": "`file`",
    "function": "`file`, whose marked function is called",
    "condition": "`when`",
}


def words_of_others(loc: Loc) -> Mapping[str, str]:
    """Return other tools' names of the settings at a place -> what they are here."""
    match loc:
        case ():
            return _OF_PIPELINE
        case ("streams", int()):
            return _OF_STREAM
        case ("source" | "destination",):
            return _OF_BLOCK
        case ("callbacks", int()):
            return _OF_CALLBACK
        case ("transformers", int()):
            return _OF_TRANSFORMER
        case ("before", int()) | ("streams", int(), "before", int()):
            return _OF_STATEMENT
        case _:
            return {}


def shape_of(loc: Loc) -> str:
    """Return how the value at a place is written, as an example; empty where the kind says it all."""
    match loc:
        case ("source",):
            return "for example `source: {connector: csv, config: {path: data}}`"
        case ("destination",):
            return "for example `destination: {connector: duckdb, config: {path: warehouse.duckdb}}`"
        case ("streams",):
            return 'for example `- stream: orders`, or `- stream: "*"` for all'
        case ("streams", int()):
            return 'for example `- stream: orders`, or `- stream: "*"` for all'
        case ("callbacks", int(), "webhook"):
            return 'for example `webhook: {url: "https://example.com/events"}`'
        case ("before", *_) | ("streams", int(), "before", *_):
            return "for example `before: [{connection: source, sql: analyze orders}]`"
        case ("streams", int(), "columns"):
            return "for example `columns: {include: [id, name]}` or `columns: {exclude: [note]}`"
        case ("callbacks" | "transformers", int()):
            return f"for example `- {{block: name, file: {loc[0]}/name.py}}`"
        case _:
            return ""
