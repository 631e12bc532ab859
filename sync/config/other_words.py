"""What other tools call a setting, and what it is here: the hint where a file has a key of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .yaml_document import Loc

_MODE = "`replication_method` (FULL_TABLE or INCREMENTAL) and `write_disposition`"
_BOOKMARK = "`bookmark_properties`, a list, with `replication_method: INCREMENTAL`"
_KEY = "`key_properties`, a list"
_TABLE = "`destination_table`"
_COLUMNS = "`columns: {include: [...]}`"
_DISPOSITION = "`write_disposition`"
_INTERVAL = "`run --interval-start --interval-end`, with `write_disposition: replace_range` and `range_column`"
_FORMAT = "the `connector`, such as parquet"
_FILES = "`streams` in the `config` of a source of files: patterns, each one stream"
_FOLDERS = "`partition_by` in the `config` of a destination of files"
_BATCH = "`checkpoint_records` in the `config` of `source`"
_SCHEMA = "`schema` in the `config` of `destination`"
_START = "`where`, or `syncblocks state set` before the first run"
_COMMENT = "a comment: `# ...`"
_REFRESH = "`syncblocks run --full-refresh`"
_BEFORE = "`before`, with `connection: destination`"
_AFTER = "`sql` of an entry of `callbacks`"
_NOTHING = "nothing: leave it out"
_STARTS = "nothing: leave it out; cron, systemd or an orchestrator starts `syncblocks run`"

_OF_STREAM = {
    "name": "`stream`",
    "table": "`stream` in the source, `destination_table` in the destination",
    "table_name": _TABLE,
    "alias": _TABLE,
    "source_table": "`stream`",
    "tap_stream_id": "`stream`",
    "mode": _MODE,
    "sync_mode": _MODE,
    "disposition": _DISPOSITION,
    "incremental_strategy": _DISPOSITION,
    "merge_strategy": _DISPOSITION,
    "destination_sync_mode": _DISPOSITION,
    "load_method": _DISPOSITION,
    "write_mode": _DISPOSITION,
    "on_conflict": "`unique_conflict_method`",
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
    "replication-key": _BOOKMARK,
    "cursor": _BOOKMARK,
    "cursor_field": _BOOKMARK,
    "bookmark": _BOOKMARK,
    "object": _TABLE,
    "target": _TABLE,
    "target_table": _TABLE,
    "dest_table": _TABLE,
    "select": "`columns: {include: [...]}` or `columns: {exclude: [...]}`",
    "exclude": "`columns: {exclude: [...]}`",
    "include": _COLUMNS,
    "fields": _COLUMNS,
    "selected_fields": _COLUMNS,
    "sql": "`query`",
    "filter": "`where`, a mapping",
    "disabled": "`selected: false`",
    "enabled": "`selected`",
    "delete_missing": "`deletes`",
    "hard_delete": "`deleted_when` for records marked as deleted, `deletes` for missing records",
    "dedup_sort": "`latest_by`",
    "schema_contract": "`on_schema_change` of columns, `on_rejected` of single records",
    "auto_add_new_fields": "`on_schema_change`: `evolve`, the default, or `ignore`",
    "disable_column_type_check": "`on_lossy` of columns, `on_rejected: keep` of single records",
    "run_in_parallel": "`concurrency` of the pipeline",
    "partition_keys": _FOLDERS,
    "partition_by": _FOLDERS,
    "initial_value": _START,
    "start_date": _START,
    "end_value": '`where`, such as `{updated_at: {"<": "2024-02-01"}}`',
    "lag": "`lookback`, in seconds",
    "range": _INTERVAL,
    "interval_start": _INTERVAL,
    "interval_end": _INTERVAL,
    "backfill": f"{_REFRESH}, or `syncblocks state rewind`",
    "full_refresh": f"{_REFRESH}; for each run `replication_method: FULL_TABLE`",
    "source_options": "the `config` of `source`, and keys of the stream itself",
    "target_options": "the `config` of `destination`, and keys of the stream itself",
    "chunk_size": "`parallel_reads`; a batch chooses its size",
    "batch_size": _BATCH,
    "batch_limit": _BATCH,
    "offset": "a `query`",
    "files": _FILES,
    "single": _FILES,
    "format": _FORMAT,
    "file_format": _FORMAT,
    "table_format": _FORMAT,
    "flatten": "`nested: {flatten: N}`",
    "max_table_nesting": "`nested`; a list stays one column",
    "naming": "`naming` of `destination`",
    "column_casing": "`naming` of `destination`",
    "pre_sql": _BEFORE,
    "pre_hook": _BEFORE,
    "post_sql": _AFTER,
    "post_hook": _AFTER,
    "load_schema": _SCHEMA,
    "target_schema": _SCHEMA,
    "dataset_name": _SCHEMA,
    "namespace": "a part of `stream: schema.table`",
    "description": _COMMENT,
    "aliases": "`rename` of an entry of `transformers`",
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
    "state": "nothing: leave it out; bookmarks are kept in the destination",
    "state_backend": "nothing: leave it out; bookmarks are kept in the destination",
    "version": _NOTHING,
    "type": _NOTHING,
    "project": _NOTHING,
    "progress": _NOTHING,
    "data_integration": _NOTHING,
    "run_pipeline_in_one_process": _NOTHING,
    "uuid": "`pipeline`",
    "description": _COMMENT,
    "schedules": "`schedule`",
    "cron": "`schedule: {cron: ...}`",
    "triggers": _STARTS,
    "blocks": "`source`, `transformers`, `destination` and `callbacks`",
    "plugins": "`source` and `destination`",
    "connections": "`source` and `destination`, each with `connector` and `config`",
    "jobs": "a pipeline file for each",
    "conditionals": "`when` of a stream, a transformer or a callback",
    "on_success": "`callbacks`",
    "on_failure": "`callbacks`",
    "retry_config": "`retries` and `retry_delay_s`",
    "notification_config": "`notify` of an entry of `callbacks`",
    "executor_type": "`executor`: `threads`, or a cluster of Dask",
    "executor_config": "`executor`: `threads`, or a cluster of Dask",
    "variables_dir": "`store`, where runs are kept",
    "environments": "`{{ env_var('NAME') }}` where a value differs",
    "secrets": "`{{ secret('NAME') }}` where a value is needed",
    "dev_mode": _REFRESH,
    "full_refresh": _REFRESH,
    "dataset_name": _SCHEMA,
    "log_level": "`syncblocks run --debug`",
    "logging": "`syncblocks run --debug`",
}

#: Keys of Mage's blocks that each block of ours does without.
_OF_MAGE = {
    "uuid": "`block`",
    "language": _NOTHING,
    "color": _NOTHING,
    "executor_type": _NOTHING,
    "executor_config": _NOTHING,
    "has_callback": _NOTHING,
    "all_upstream_blocks_executed": _NOTHING,
    "downstream_blocks": "nothing: leave it out; blocks run in the order of the file",
    "upstream_blocks": "nothing: leave it out; blocks run in the order of the file",
    "callback_blocks": "`callbacks` of the pipeline, whose `on` names the block",
    "retry_config": "`retries` and `retry_delay_s` of the pipeline",
}

_OF_BLOCK = _OF_MAGE | {
    "type": "`connector`",
    "name": "`connector`; the block's own name is `block`",
    "credentials": "`config`",
    "settings": "`config`",
    "options": "`config`",
    "connection": "`connector` and `config`",
    "variant": "`config`",
}


_OF_SCHEDULE = {
    "crontab": "`cron`",
    "schedule_interval": "`cron` or `every`",
    "interval": "`every`",
    "tz": "`timezone`",
    "catchup": "`missed`",
    "start_date": _NOTHING,
}

#: Words of dbt's `freshness` and of other monitors.
_OF_EXPECT = {
    "freshness": "`every`",
    "max_age": "`every`",
    "warn_after": "`every`",
    "error_after": "`every`",
    "sla": "`within`",
    "volume": "`rows`",
    "min_rows": "`rows: {min: ...}`",
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
    if "target" in raw and isinstance(raw.get("source"), str):
        return (
            "is a replication of Sling, whose keys have other names here: `syncblocks sync SRC DST` writes a pipeline "
            'file, and the page "Coming from Sling, dlt and ingestr" has each key'
        )
    if any(isinstance(raw.get(role), str) for role in ("source", "destination")) and len(raw.keys() - _MAGE_BLOCK) == 0:
        return "is a block of a Mage pipeline: `syncblocks init --from-mage PROJECT` writes the pipeline file"
    if "source" in raw:
        return ""
    if "plugins" in raw:
        return f"is a Meltano project: `syncblocks init --from-meltano {path}` writes its pipeline files"
    if "blocks" in raw:
        return f"is a pipeline of Mage: `syncblocks init --from-mage {_project(path)}` writes its pipeline file"
    if raw.keys() & {"project_type", "project_uuid", "remote_variables_dir"}:
        return f"is a project of Mage: `syncblocks init --from-mage {Path(path).parent}` writes pipeline files"
    if "default" in raw and "streams" not in raw:
        return "holds connections of Mage: each belongs in the `config` of `source` or `destination` of a pipeline file"
    return ""


#: Keys of a block of a Mage pipeline, a file of its own. A pipeline file has `streams` in any case.
_MAGE_BLOCK = {"source", "destination", "config", "catalog"}


def _project(path: str) -> str:
    """Return the folder of the Mage project that a pipeline's metadata.yaml is in."""
    folder = Path(path).parent.parent
    return str(folder.parent) if folder.name == "pipelines" else "PROJECT"


#: Setting -> values of it in other tools -> what they are here.
_VALUES = {
    "write_disposition": {
        "upsert": "merge",
        "append_dedup": "merge",
        "append-dedup": "merge",
        "append-only": "append",
        "append_only": "append",
        "full": "replace",
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
    "on_schema_change": {
        "error": "freeze",
        "fail": "freeze",
        "add": "evolve",
        "append_new_columns": "evolve",
        "sync_all_columns": "evolve",
        "discard_value": "ignore",
    },
    "unique_conflict_method": {
        "merge": "UPDATE",
        "overwrite": "UPDATE",
        "replace": "UPDATE",
        "upsert": "UPDATE",
        "insert": "IGNORE",
        "insert_only": "IGNORE",
        "nothing": "IGNORE",
        "skip": "IGNORE",
    },
    "on_rejected": {"error": "fail", "raise": "fail", "ignore": "keep", "quarantine": "keep", "skip": "keep"},
    "null_bookmarks": {"raise": "fail", "include": "always", "exclude": "never", "ignore": "never", "skip": "never"},
}


def value_of_others(loc: Loc, word: str | None) -> str | None:
    """Return what a value of other tools is here; None: it is no such value."""
    return _VALUES.get(str(loc[-1]), {}).get((word or "").lower())


_OF_CALLBACK = _OF_MAGE | {
    "type": _NOTHING,
    "webhook_url": "`webhook: {url: ...}`",
    "on_success": "`status: [success]`",
    "on_failure": "`status: [failure]`",
    "retry_config": "`attempts`",
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

_OF_TRANSFORMER = _OF_MAGE | {
    "type": _NOTHING,
    "upstream_blocks": "nothing: leave it out; transformers run in the order of the list",
    "name": "`block`",
    "path": "`file`",
    "python": "`file`",
    "function": "`file`, whose marked function is called",
    "condition": "`when`",
}


_OF_WHOLE = {word: f"{ours}, of an entry of `streams`" for word, ours in _OF_STREAM.items()} | _OF_PIPELINE

#: Variable of Sling in a table's name -> what it is here.
_OF_TABLE = {
    "stream_table": "`{{ stream | table }}`",
    "stream_name": "`{{ stream }}`",
    "stream_schema": "an entry for each schema, with its name",
    "target_schema": "`schema` in the `config` of `destination`",
    "object_name": "`{{ stream | table }}`",
}


def table_of_others(table: str) -> str:
    """Say what a variable of other tools in a table's name is here; empty: there is none."""
    for word, ours in _OF_TABLE.items():
        if f"{{{word}}}" in table:
            return f"`{{{word}}}` of Sling is here {ours}"
    return ""


def words_of_others(loc: Loc) -> Mapping[str, str]:
    """Return other tools' names of the settings at a place -> what they are here."""
    match loc:
        case ():
            return _OF_WHOLE
        case ("streams", int()):
            return _OF_STREAM
        case ("source" | "destination",):
            return _OF_BLOCK
        case ("callbacks", int()):
            return _OF_CALLBACK
        case ("schedule",):
            return _OF_SCHEDULE
        case ("expect",) | ("streams", int(), "expect"):
            return _OF_EXPECT
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
        case ("schedule",):
            return 'for example `schedule: {cron: "*/15 * * * *", timezone: Europe/Berlin}`'
        case ("expect",) | ("streams", int(), "expect"):
            return "for example `expect: {every: 1h, rows: {min: 1, in: 1d}}`"
        case (*_, "expect", "rows"):
            return "for example `rows: {min: 1, in: 1d}`"
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
