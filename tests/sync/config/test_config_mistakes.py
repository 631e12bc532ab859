"""Every mistake in a pipeline file is one error with file, line, key, what is allowed and the nearest match."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from syncblocks.sync.config import load_pipeline
from syncblocks.sync.errors import ConfigError

BASE = """\
pipeline: crm
variables: {region: eu}
source:
  connector: sqlite
  config: {path: a.db}
transformers:
  - file: clean.py
destination:
  connector: duckdb
streams:
  - stream: "*"
  - stream: users
    key_properties: [id]
callbacks:
  - file: alerts.py
    on: [source]
"""

INC = "replication_method: INCREMENTAL"

# Each: what is replaced in BASE, by what; the error's line, key, a part of its message, the nearest match.
MISTAKES: list[tuple[str, str, int, str, str, str | None]] = [
    # unknown keys
    ("pipeline: crm", "pipelin: crm", 1, "pipelin", "unknown key", "pipeline"),
    ("pipeline: crm", "Concurrency: 1", 1, "Concurrency", "unknown key", "concurrency"),
    ("pipeline: crm", "sources: {}", 1, "sources", "unknown key", "source"),
    ("pipeline: crm", "zzz: 1", 1, "zzz", "unknown key", None),
    ("  connector: sqlite", "  conector: sqlite", 4, "source.conector", "unknown key", "connector"),
    ("  connector: duckdb", "  connector: duckdb\n  conf: {}", 10, "destination.conf", "unknown key", "config"),
    ("  - file: clean.py", "  - fil: clean.py", 7, "transformers[0].fil", "unknown key", "file"),
    (
        "    key_properties: [id]",
        "    on_bad_record: quarantine",
        13,
        "streams[1].on_bad_record",
        "is now called `on_rejected`",
        None,
    ),
    ("    key_properties: [id]", "    max_bad_records: 1", 13, "streams[1].max_bad_records", "is now called", None),
    (
        "    key_properties: [id]",
        "    keyproperties: [id]",
        13,
        "streams[1].keyproperties",
        "unknown key",
        "key_properties",
    ),
    ("    on: [source]", "    events: [source]", 16, "callbacks[0].events", "unknown key", None),
    ("[id]", "[id]\n    columns: {exclud: [a]}", 14, "streams[1].columns.exclud", "unknown key", "exclude"),
    # missing and empty
    ("source:\n  connector: sqlite\n  config: {path: a.db}", "", 1, "source", "is required", None),
    ("destination:\n  connector: duckdb", "destination:", 8, "destination", "is empty", None),
    ("  connector: sqlite\n", "", 3, "source.connector", "is required", None),
    ("connector: sqlite", "connector:", 4, "source.connector", "must be text", None),
    ("connector: sqlite", 'connector: " "', 4, "source.connector", "is empty", None),
    ("  - file: clean.py", "  - block: x", 7, "transformers[0]", "needs file or rename", None),
    ("  - file: clean.py", "  - rename: {}", 7, "transformers[0]", "needs file or rename", None),
    ("  - stream: users\n    key", "  - key", 12, "streams[1].stream", "is required", None),
    ("pipeline: crm", 'pipeline: ""', 1, "pipeline", "is empty", None),
    ("    on: [source]", "    on: []", 16, "callbacks[0].on", "empty list", None),
    ("    on: [source]", "    streams: []", 16, "callbacks[0].streams", "empty list", None),
    # entries of one name
    (
        "[id]",
        "[id]\n  - stream: users\n    key_properties: [id]",
        14,
        "streams[2]",
        "what streams[1] says: leave one of them out",
        None,
    ),
    (
        "[id]",
        "[id]\n    destination_table: a\n  - stream: users\n    destination_table: b",
        16,
        "streams[2].destination_table",
        "a second pipeline file",
        None,
    ),
    # kinds
    ("connector: sqlite", "connector: 1", 4, "source.connector", "put it in quotes", None),
    ("connector: sqlite", "connector: true", 4, "source.connector", "put it in quotes", None),
    ("stream: users", "stream: 2.5", 12, "streams[1].stream", "put it in quotes", None),
    ("stream: users", "stream: [users]", 12, "streams[1].stream", "not a list", None),
    ("[id]", "id", 13, "streams[1].key_properties", "put it in [ ]", None),
    ("[id]", "[id, 2]", 13, "streams[1].key_properties[1]", "put it in quotes", None),
    ("[id]", "[id, id]", 13, "streams[1].key_properties", "there twice", None),
    ("[id]", '[""]', 13, "streams[1].key_properties[0]", "is empty", None),
    ("on: [source]", "on: source", 16, "callbacks[0].on", "put it in [ ]", None),
    ("source:\n  connector: sqlite\n  config: {path: a.db}", "source: sqlite", 3, "source", "must be a mapping", None),
    ("config: {path: a.db}", "config: [a.db]", 5, "source.config", "must be a mapping", None),
    ("{region: eu}", "[eu]", 2, "variables", "must be a mapping", None),
    ("  - file: clean.py", "  clean.py", 6, "transformers", "must be a list", None),
    ("pipeline: crm", "allow_blocks_to_fail: 1", 1, "allow_blocks_to_fail", "true or false", None),
    ("pipeline: crm", 'allow_blocks_to_fail: "true"', 1, "allow_blocks_to_fail", "true or false", None),
    ("[id]", "[id]\n    selected: 0", 14, "streams[1].selected", "true or false", None),
    ("pipeline: crm", "retries: 1.5", 1, "retries", "whole number", None),
    ("pipeline: crm", 'retries: "1"', 1, "retries", "whole number", None),
    ("pipeline: crm", "drain_s: soon", 1, "drain_s", "must be a number", None),
    # what YAML readers differ on
    ("stream: users", "stream: no", 12, "streams[1].stream", "a boolean", None),
    ("pipeline: crm", "allow_blocks_to_fail: yes", 1, "allow_blocks_to_fail", "true or false", None),
    ("{region: eu}", "{region: NO}", 2, "variables.region", "a boolean", None),
    ("{region: eu}", "{day: 2024-01-01}", 2, "variables.day", "a date", None),
    ("{region: eu}", "{at: 2024-01-01T10:00:00Z}", 2, "variables.at", "a date", None),
    ("{region: eu}", "{zip: 01234}", 2, "variables.zip", "octal", None),
    ("{region: eu}", "{at: 12:30}", 2, "variables.at", "base-60", None),
    ("{region: eu}", "{n: 1_000}", 2, "variables.n", "underscores", None),
    ("{region: eu}", "{n: 12e3}", 2, "variables.n", "decimal point", None),
    ("{region: eu}", "{n: .nan}", 2, "variables.n", "JSON", None),
    ("{region: eu}", "{n: 1.0e999}", 2, "variables.n", "too large", None),
    ("{path: a.db}", "{path: a.db, header: on}", 5, "source.config.header", "a boolean", None),
    # ranges
    ("pipeline: crm", "concurrency: 0", 1, "concurrency", "auto or a whole number", None),
    ("pipeline: crm", "concurrency: true", 1, "concurrency", "auto or a whole number", None),
    ("pipeline: crm", "concurrency: many", 1, "concurrency", "auto or a whole number", None),
    ("pipeline: crm", "retries: -1", 1, "retries", "at least 0", None),
    ("pipeline: crm", "timeout_s: 0", 1, "timeout_s", "more than 0", None),
    ("pipeline: crm", "drain_s: 1000000", 1, "drain_s", "at most 86400", None),
    ("    on: [source]", "    attempts: 0", 16, "callbacks[0].attempts", "at least 1", None),
    ("    on: [source]", "    timeout_s: -1", 16, "callbacks[0].timeout_s", "more than 0", None),
    ("[id]", "[id]\n    retries: 1001", 14, "streams[1].retries", "at most 1000", None),
    ("pipeline: crm", "spool_limit: 2 gigs", 1, "spool_limit", "2GB", None),
    ("pipeline: crm", "spool_limit: -1", 1, "spool_limit", "2GB", None),
    ("pipeline: crm", "memory: lots", 1, "memory", "must be a size such as 2GB", None),
    ("pipeline: crm", "memory: 63MB", 1, "memory", "at least 64MB", None),
    ("pipeline: crm", "memry: 512MB", 1, "memry", "unknown key", "memory"),
    ("{path: a.db}", "{path: a.db}\n  concurrency: 0", 6, "source.concurrency", "at least 1", None),
    # words
    (
        "[id]",
        "[id]\n    replication_method: incrementl",
        14,
        "streams[1].replication_method",
        "not allowed",
        "INCREMENTAL",
    ),
    ("[id]", "[id]\n    write_disposition: MERGE", 14, "streams[1].write_disposition", "not allowed", "merge"),
    (
        "[id]",
        "[id]\n    unique_conflict_method: update",
        14,
        "streams[1].unique_conflict_method",
        "not allowed",
        "UPDATE",
    ),
    # connectors, blocks, parents
    ("connector: sqlite", "connector: sqlit", 4, "source.connector", "no such source connector: 'sqlit'", "sqlite"),
    ("connector: duckdb", "connector: ducdb", 9, "destination.connector", "no such destination connector", "duckdb"),
    (
        "connector: sqlite",
        "connector: sqlserver",
        4,
        "source.connector",
        'write `connector: sqlalchemy` with `config: {url: "mssql+pyodbc://USER:***@HOST/DATABASE?driver=',
        None,
    ),
    ("connector: sqlite", "connector: tap-x", 4, "source.connector", "`config: {pip: tap-x}`", None),
    ("connector: sqlite", "connector: Redshift", 4, "source.connector", "`pip install sqlalchemy-redshift`", None),
    ("connector: duckdb", "connector: snowflake", 9, "destination.connector", "`connector: sqlalchemy` with", None),
    (
        "connector: duckdb",
        "connector: bigquery",
        9,
        "destination.connector",
        "`connector: singer` with `config: {target: target-bigquery}`",
        None,
    ),
    ("connector: sqlite", "connector: sqlite\n  block: pipeline", 5, "source.block", "reserved", None),
    (
        "- file: clean.py",
        "- file: clean.py\n    block: load_sqlite",
        8,
        "transformers[0].block",
        "source has the same",
        None,
    ),
    ("- file: alerts.py", "- file: clean.py", 15, "callbacks[0].block", "transformers[0] has the same", None),
    (
        "  - file: alerts.py",
        "  - file: alerts.py\n  - file: sub/alerts.py",
        16,
        "callbacks[1].block",
        "callbacks[0] has",
        None,
    ),
    ("connector: duckdb", "connector: duckdb\n  block: transformers", 10, "destination.block", "reserved", None),
    ("on: [source]", "on: [source, load_sqlit]", 16, "callbacks[0].on[1]", "no such parent", "load_sqlite"),
    ("on: [source]", "on: [streams]", 16, "callbacks[0].on[0]", "no such parent", "stream"),
    ("on: [source]", "on: [alerts]", 16, "callbacks[0].on[0]", "no such parent", None),
    ("on: [source]", "on: [source, load_sqlite]", 16, "callbacks[0].on[1]", "called twice", None),
    ("on: [source]", "on: [clean, transformers]", 16, "callbacks[0].on[1]", "called twice", None),
    ("transformers:\n  - file: clean.py\n", "", 0, "", "", None),
    # files
    ("file: clean.py", "file: claen.py", 7, "transformers[0].file", "no such file", "clean.py"),
    ("file: alerts.py", "file: sub/alert.py", 15, "callbacks[0].file", "no such file", "sub/alerts.py"),
    ("file: alerts.py", "file: nowhere/alerts.py", 15, "callbacks[0].file", "no such file", None),
    ("file: alerts.py", "file: sub", 15, "callbacks[0].file", "is a folder", None),
    ("file: alerts.py", "file: notes.txt", 15, "callbacks[0].file", "not a Python file", None),
    # streams
    ('  - stream: "*"\n  - stream: users\n    key_properties: [id]\n', "", 10, "streams", "is empty", None),
    (
        "[id]",
        "[id]\n    selected: false\n  - {stream: a, selected: 1}",
        15,
        "streams[2].selected",
        "true or false",
        None,
    ),
    ("[id]", f"[id]\n    {INC}", 14, "streams[1].replication_method", "needs bookmark_properties", None),
    ("[id]", f"[id]\n    {INC}\n    bookmark_properties: []", 15, "streams[1].bookmark_properties", "needs", None),
    ("[id]", f"[id]\n    {INC}\n    bookmark_properties: null", 15, "streams[1].bookmark_properties", "needs", None),
    (
        "[id]",
        f"[id]\n    {INC}\n    bookmark_properties: [t]\n    write_disposition: replace",
        16,
        "streams[1].write_disposition",
        "use merge, append, or FULL_TABLE",
        None,
    ),
    ("[id]", "[]\n    write_disposition: merge", 13, "streams[1].key_properties", "a merge needs keys", None),
    ("stream: users", 'stream: "user[s"', 12, "streams[1].stream", "never closed", None),
    ("[id]", "[id]\n    columns: {}", 14, "streams[1].columns", "include, exclude or mask", None),
    ("[id]", "[id]\n    columns: {include: []}", 14, "streams[1].columns.include", "empty list", None),
    (
        "- file: clean.py",
        "- file: clean.py\n    rename: {a: x, b: x}",
        8,
        "transformers[0].rename.b",
        "same name",
        None,
    ),
    ("- file: clean.py", "- file: clean.py\n    rename: {a: 1}", 8, "transformers[0].rename.a", "in quotes", None),
    # run store
    ("pipeline: crm", "store: runs.db", 1, "store", "must be a URL", None),
    ("pipeline: crm", "store: sqlite://", 1, "store", "must name a file", None),
    ("pipeline: crm", "store: 'sqlite:///:memory:'", 1, "store", "must name a file", None),
    ("pipeline: crm", "store: postgresq://h/d", 1, "store", "no such kind of run store", "postgresql"),
    ("pipeline: crm", "store: mysql://h/d", 1, "store", "no such kind of run store", None),
    ("pipeline: crm", "store: 5", 1, "store", "put it in quotes", None),
    # interpolation
    ("path: a.db", "path: \"{{ env_var('GONE') }}\"", 5, "source.config.path", "not set", None),
    ("path: a.db", "path: \"{{ env_var('CRM_UR') }}\"", 5, "source.config.path", "not set", "CRM_URL"),
    ("path: a.db", "path: \"{{ variables('regio') }}\"", 5, "source.config.path", "no variable 'regio'", "region"),
    ("path: a.db", "path: \"{{ secret('gone') }}\"", 5, "source.config.path", "no secret 'gone'", None),
    ("path: a.db", "path: \"{{ secret('../x') }}\"", 5, "source.config.path", "not a name of a secret", None),
    ("path: a.db", 'path: {{ env_var("X") }}', 5, "source.config.path", "path: \"{{ env_var('X') }}\"", None),
    ("path: a.db", "path: {{ env_var('X', 'hidden') }}", 5, "source.config.path", 'path: "{{ ... }}"', None),
    ("path: a.db", "path: {{ env_var('X') }}/a.db", 5, "source.config.path", "path: \"{{ env_var('X') }}\"", None),
    ("path: a.db", 'path: "${CRM_URL}"', 5, "source.config.path", "write path: \"{{ env_var('CRM_URL') }}\"", None),
    ("path: a.db", 'path: "a/${X}.db"', 5, "source.config.path", "write {{ env_var('X') }} in its place", None),
    ("path: a.db", 'path: "{{ env.X }}"', 5, "source.config.path", "write {{ env_var('X') }}", None),
    ("path: a.db", "path: \"{{ env_vr('X') }}\"", 5, "source.config.path", "not defined", "env_var"),
    ("path: a.db", 'path: "{{ dss }}"', 5, "source.config.path", "not defined", "ds"),
    ("path: a.db", 'path: "{{ stream }}"', 5, "source.config.path", "not known here", None),
    ("path: a.db", 'path: "{{ pipeline.nam }}"', 5, "source.config.path", "has no 'nam'", "name"),
    ("path: a.db", 'path: "{{ ds"', 5, "source.config.path", "not a valid template", None),
    ("path: a.db", 'path: "{% for a in b %}{% endfor %}"', 5, "source.config.path", "not a", None),
    ("path: a.db", 'path: "{% if ds %}x{% endif %}"', 5, "source.config.path", "statements", None),
    ("path: a.db", 'path: "{{ ds.__class__ }}"', 5, "source.config.path", "attributes are not allowed", None),
    ("path: a.db", "path: \"{{ 'x' * 999999999 }}\"", 5, "source.config.path", "mul is not allowed", None),
    ("path: a.db", 'path: "{{ ds | lowr }}"', 5, "source.config.path", "no filter", "lower"),
    ("{region: eu}", "{a: \"{{ variables('region') }}\"}", 2, "variables.a", "never made from another", None),
    ("{region: eu}", "{a: {$template: x}}", 2, "variables.a", "is reserved", None),
    # what is read without a load of the file
    ("pipeline: crm", 'pipeline: "crm_{{ env }}"', 1, "pipeline", "takes no template", None),
    ("pipeline: crm", "schedule: {every: \"{{ variables('region') }}\"}", 1, "schedule.every", "takes no tem", None),
    ("pipeline: crm", "tags: [a, \"{{ secret('gone') }}\"]", 1, "tags[1]", "takes no template", None),
    ("pipeline: crm", 'schedule:\n  cron: "0 22-2 * * *"', 2, "schedule.cron", "hour '22-2'", "0 22-23,0-2 * * *"),
    ("pipeline: crm", "schedule:\n  cron: 5", 2, "schedule.cron", "must be text", None),
    ("pipeline: crm", "schedule:\n  every: 15", 2, "schedule.every", "a span of time from 1s", "15m"),
    ("pipeline: crm", "schedule:\n  every: 900", 2, "schedule.every", "a span of time from 1s", "900s"),
    ("pipeline: crm", "schedule:\n  every: 0s", 2, "schedule.every", "a span of time from 1s", None),
    ("pipeline: crm", "schedule:\n  every: 1.5s", 2, "schedule.every", "a span of time from 1s", None),
    (
        "pipeline: crm",
        "schedule:\n  every: 1h\n  timezone: Europe/Berln",
        3,
        "schedule.timezone",
        "no time zone 'Europe/Berln'",
        "Europe/Berlin",
    ),
    ("pipeline: crm", "schedule:\n  every: 1h\n  timezone: ../x", 3, "schedule.timezone", "no time zone", None),
    ("pipeline: crm", "schedule:\n  every: 1h\n  mised: all", 3, "schedule.mised", "unknown key", "missed"),
    ("pipeline: crm", "schedule:\n  every: 1h\n  missed: al", 3, "schedule.missed", "not allowed", "all"),
    ("pipeline: crm", "history: {}", 1, "history", "needs `keep`, `keep_runs` or both", None),
    ("pipeline: crm", "history: 90d", 1, "history", "must be a mapping", None),
    ("pipeline: crm", "history:\n  keep: 90", 2, "history.keep", "a span of time from 1h to 3650d", "90d"),
    ("pipeline: crm", "history:\n  keep: 5m", 2, "history.keep", "a span of time from 1h to 3650d", None),
    ("pipeline: crm", "history:\n  keep_runs: 0", 2, "history.keep_runs", "must be at least 1", None),
    ("pipeline: crm", "history:\n  keep: 1d\n  keep_run: 5", 3, "history.keep_run", "unknown key", "keep_runs"),
    ("pipeline: crm", "history: {keep: \"{{ variables('region') }}\"}", 1, "history.keep", "takes no tem", None),
    ("pipeline: crm", "schedule: {timezone: UTC}", 1, "schedule", "needs `cron` or `every`", None),
    ("pipeline: crm", 'schedule: {cron: "@daily", every: 1h}', 1, "schedule", "needs `cron` or `every`", None),
    ("pipeline: crm", "schedule: {every: 1h, interval: 5}", 1, "schedule.interval", "is here `every`", None),
    ("pipeline: crm", "expect: 1h", 1, "expect", "must be a mapping", None),
    ("pipeline: crm", "expect: {}", 1, "expect", "is empty", None),
    ("pipeline: crm", "expect:\n  evry: 1h", 2, "expect.evry", "unknown key", "every"),
    ("pipeline: crm", "expect:\n  every: 30s", 2, "expect.every", "a span of time from 1m", None),
    ("pipeline: crm", "expect:\n  every: 900", 2, "expect.every", "a span of time from 1m", "900s"),
    ("pipeline: crm", "expect:\n  freshness: 1h", 2, "expect.freshness", "is here `every`", None),
    ("pipeline: crm", "expect:\n  rows: {min: 0}", 2, "expect.rows.min", "must be at least 1", None),
    ("pipeline: crm", "expect:\n  rows: {min: 1, inn: 1d}", 2, "expect.rows.inn", "unknown key", "in"),
    ("pipeline: crm", "expect: {within: 1h}", 1, "expect", "`within` needs `schedule`", None),
    ("pipeline: crm", 'expect: {every: "{{ ds }}"}', 1, "expect.every", "takes no template", None),
    ("[id]", "[id]\n    expect: {within: 1h}", 14, "streams[1].expect", "`within` needs `schedule`", None),
    ("[id]", "[id]\n    expect: {rows: {mim: 1}}", 14, "streams[1].expect.rows.mim", "unknown key", "min"),
    ("pipeline: crm", "runbook: wiki/crm", 1, "runbook", "must be a URL", None),
    ("pipeline: crm", "run_timeout_s: 0", 1, "run_timeout_s", "must be more than 0", None),
    (
        "[id]",
        '[id]\n    destination_table: "{% raw %}{{ x }}{% endraw %}"',
        14,
        "streams[1].destination_table",
        "template itself",
        None,
    ),
    (
        "[id]",
        '[id]\n    destination_table: "{{ stream }}{{ x }}"',
        14,
        "streams[1].destination_table",
        "not defined",
        None,
    ),
    # values and operators of other tools
    (
        "[id]",
        "[id]\n    rename: {a: b}",
        14,
        "streams[1].rename",
        "is here `rename` of an entry of `transformers`",
        None,
    ),
    ("[id]", "[id]\n    null_bookmarks: exclude", 14, "streams[1].null_bookmarks", "not allowed", "never"),
    ("[id]", "[id]\n    on_schema_change: error", 14, "streams[1].on_schema_change", "not allowed", "freeze"),
    ("pipeline: crm", "before: analyze x", 1, "before", "for example `before: [{connection: source, sql: ", None),
    ("pipeline: crm", "before: [{conection: source, sql: x}]", 1, "before[0].conection", "unknown key", "connection"),
    (
        "connector: duckdb",
        "connector: mine.py",
        9,
        "destination.connector",
        "name your own class with its file: ./mine.py:CLASS",
        None,
    ),
    ("connector: duckdb", "connector: DuckDB", 9, "destination.connector", "no such destination connector", "duckdb"),
    ("file: alerts.py", "slack: T/B/x", 15, "callbacks[0].slack", "`slack` of other tools is here `notify`", None),
    ("file: alerts.py", "webhook: http://x", 15, "callbacks[0].webhook", 'for example `webhook: {url: "https', None),
    ("[id]", "[id]\n    columns: [id]", 14, "streams[1].columns", "for example `columns: {include: ", None),
    ("[id]", "[id]\n    write_disposition: upsert", 14, "streams[1].write_disposition", "not allowed", "merge"),
    ("[id]", "[id]\n    write_disposition: overwrite", 14, "streams[1].write_disposition", "not allowed", "replace"),
    ("[id]", "[id]\n    replication_method: full", 14, "streams[1].replication_method", "not allowed", "FULL_TABLE"),
    ("[id]", "[id]\n    where: {a: {'=>': 1}}", 14, "streams[1].where", "did you mean '>='? (one of", None),
    ("[id]", "[id]\n    where: {a: {'<>': 1}}", 14, "streams[1].where", "did you mean '!='? (one of", None),
    ("[id]", "[id]\n    when: env = 'prod'", 14, "streams[1].when", "compare two values by `==`, not by `=`", None),
    # YAML
    ("pipeline: crm", "pipeline: crm\npipeline: x", 2, "pipeline", "given twice, first in line 1", None),
    ("[id]", "[id]\n    key_properties: [x]", 14, "streams[1].key_properties", "given twice", None),
    (
        "pipeline: crm",
        "pipeline: a: b",
        1,
        "",
        "not valid YAML: a text that holds a colon and a space needs quotes",
        None,
    ),
    (
        "  connector: sqlite",
        "  connector sqlite\n  config: {}",
        4,
        "",
        "not valid YAML: a key needs a colon and a space",
        None,
    ),
    ("  - stream: users", "  -stream: users", 12, "", "a dash and a space (`- item`)", None),
    (
        "  connector: sqlite",
        "  connector: sqlite\n   config: {}",
        5,
        "",
        "this line is indented more than the line above",
        None,
    ),
    ("    key_properties", "   key_properties", 13, "", "the indent of this line matches no line above", None),
    ("[id]", "[id]\n    types: {a: text\n    limit: 3", 14, "", "a `{` is not closed", None),
    ("pipeline: crm", 'pipeline: "c:\\data"', 1, "", "in double quotes a backslash begins an escape", None),
    ("pipeline: crm", 'pipeline: "c:\\xy"', 1, "", "in double quotes a backslash begins an escape", None),
    ("pipeline: crm", "pipeline: *.csv", 1, "", "begins with `*` or `&` needs quotes", None),
    ("[id]", "[id]\n    types: {a: decimal(12, 2)}", 14, "streams[1].types.a", "put the value of 'a' in quotes", None),
    (
        "  connector: sqlite",
        "\tconnector: sqlite",
        4,
        "",
        "a tab cannot indent YAML: use spaces:   connector: ...",
        None,
    ),
    ("pipeline: crm", "pipeline: 'crm", 1, "", "not valid YAML", None),
    ("pipeline: crm", "pipeline: *gone", 1, "pipeline", "refers to nothing", None),
    ("pipeline: crm", "pipeline: !!python/name:os.system x", 1, "pipeline", "is not allowed", None),
    ("pipeline: crm", "? [a, b]\n: c", 1, "", "a key must be text", None),
    ("pipeline: crm", "<<: x", 1, "", "needs a mapping", None),
    ("    on: [source]", "---\na: b", 16, "", "only one YAML document", None),
    ("pipeline: crm", 'pipeline: "a\\0b"', 1, "pipeline", "NUL", None),
    ("pipeline: crm", "pipeline: a\x07b", 1, "", "U+0007", None),
    ("pipeline: crm", f"pipeline: {'9' * 50}", 1, "pipeline", "too large", None),
    ("pipeline: crm", f"pipeline: {'[' * 60}{']' * 60}", 1, "*", "levels deep", None),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for name in ("clean.py", "alerts.py", "sub/alerts.py", "notes.txt"):
        (tmp_path / name).write_text("")
    return tmp_path


def failure(path: Path, **arguments: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_pipeline(path, environ={"CRM_URL": "x", "SYNCBLOCKS_SECRETS_DIR": "/nonexistent"}, **arguments)  # type: ignore[arg-type]
    return caught.value


def test_the_base_of_all_mistakes_is_right(folder: Path) -> None:
    (folder / "p.yaml").write_text(BASE)
    assert load_pipeline(folder / "p.yaml").pipeline == "crm"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        # a folder of zones
        ("schedule: {every: 1h, timezone: Europe}", "there is no time zone 'Europe'"),
    ],
)
def test_what_has_no_meaning_is_refused(folder: Path, line: str, said: str) -> None:
    (folder / "p.yaml").write_text(BASE + line)
    assert said in str(failure(folder / "p.yaml"))


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "message", "nearest"),
    [mistake for mistake in MISTAKES if mistake[2]],
    ids=lambda value: re.sub(r"\W+", "_", value)[:40] if isinstance(value, str) else None,
)
def test_a_mistake_is_one_error_with_its_place(
    folder: Path, old: str, new: str, line: int, key: str, message: str, nearest: str | None
) -> None:
    path = folder / "p.yaml"
    assert old in BASE
    path.write_text(BASE.replace(old, new, 1))
    error = failure(path)
    assert message in error.message
    assert (error.path, error.line, error.nearest) == (str(path), line, nearest)
    assert key == "*" or (error.key or "") == key
    text = str(error)
    assert text.startswith(f"{path}:{line}: ")
    assert "\n" not in text
    if nearest is not None:  # before what is allowed, which may be a long list
        assert f"; did you mean {nearest!r}?" in re.split("(?: A|; a)llowed: ", text)[0]


def test_unknown_words_come_with_what_is_allowed(folder: Path) -> None:
    (folder / "p.yaml").write_text(BASE.replace("on: [source]", "on: [x]"))
    assert failure(folder / "p.yaml").allowed == (
        "load_sqlite", "clean", "export_duckdb", "source", "transformers", "destination", "stream", "pipeline",
    )  # fmt: skip
    (folder / "p.yaml").write_text(BASE.replace("[id]", "[id]\n    write_disposition: upsert"))
    error = failure(folder / "p.yaml")
    assert error.allowed == ("append", "replace", "merge", "replace_range", "history")
    assert "'upsert'" in error.message
    (folder / "p.yaml").write_text(BASE.replace("sqlite", "nothing"))
    assert {"csv", "duckdb", "postgres", "sqlite"} <= set(failure(folder / "p.yaml").allowed)


def test_of_many_allowed_keys_the_nearest_three_are_shown(folder: Path) -> None:
    (folder / "p.yaml").write_text(BASE.replace("[id]", "[id]\n    write_dispositon: merge"))
    error = failure(folder / "p.yaml")
    shown = str(error).partition("Allowed: ")[2]
    assert shown.startswith("write_disposition, ")
    assert shown.endswith(f" and {len(error.allowed) - 3} more, see docs/pipeline.md")
    assert shown.count(",") == 3


def test_transformers_as_a_parent_need_a_transformer(folder: Path) -> None:
    text = BASE.replace("transformers:\n  - file: clean.py\n", "").replace("[source]", "[transformers]")
    (folder / "p.yaml").write_text(text)
    error = failure(folder / "p.yaml")
    assert (error.line, error.key) == (14, "callbacks[0].on[0]")
    assert "no transformers" in error.message


def test_streams_must_be_there_and_select_something(folder: Path) -> None:
    path = folder / "p.yaml"
    head = "source: {connector: csv}\ndestination: {connector: csv}\n"
    for rest, line, message in (
        ("", 1, "is required"),
        ("streams:", 3, "must be a list"),
        ("streams: []", 3, "is empty"),
        ("streams: all", 3, "put it in [ ]"),
        ("streams:\n- {stream: a, selected: false}", 3, "selected: false"),
    ):
        path.write_text(head + rest)
        error = failure(path)
        assert (error.line, error.key) == (line, "streams")
        assert message in error.message


def test_an_incremental_entry_may_get_its_bookmark_from_another_entry_for_the_same_streams(folder: Path) -> None:
    path = folder / "p.yaml"
    path.write_text(BASE.replace("[id]", f"[id]\n    {INC}\n  - {{stream: 'u*', bookmark_properties: [t]}}"))
    assert load_pipeline(path).streams[1].bookmark_properties is None
    path.write_text(BASE.replace("[id]", f"[id]\n    {INC}\n  - {{stream: orders, bookmark_properties: [t]}}"))
    assert failure(path).key == "streams[1].replication_method"


def test_all_mistakes_of_a_file_come_in_one_go(folder: Path) -> None:
    text = BASE.replace("  connector: sqlite", "  conector: sqlit")
    text = text.replace("connector: duckdb", "connector: duckdb\n  config: {password: \"{{ env_var('NO') }}\"}")
    text = text.replace("[id]", "[id]\n    lookback: many\n    replication_method: INCREMENTAL")
    (folder / "p.yaml").write_text(text.replace("file: alerts.py", "file: alert.py").replace("[source]", "[sorce]"))
    error = failure(folder / "p.yaml")
    assert [(each.line, each.key) for each in (error, *error.others)] == [
        (10, "destination.config.password"),
        (4, "source.conector"),
        (15, "streams[1].lookback"),
        (3, "source.connector"),
        (19, "callbacks[0].on[0]"),
        (18, "callbacks[0].file"),
        (16, "streams[1].replication_method"),
    ]
    shown = str(error).splitlines()
    assert shown[0] == "7 mistakes:"
    assert [line.partition(":")[0].strip() for line in shown[1:]] == [str(folder / "p.yaml")] * 7
    assert "did you mean 'sqlite'?" in shown[4]


def test_a_mistake_of_a_key_makes_no_second_one(folder: Path) -> None:
    for old, new in (
        ("    key_properties: [id]", "    bookmark_propertis: [id]\n    replication_method: INCREMENTAL"),
        ("    key_properties: [id]", "    write_disposition: INCREMENTAL"),
        ("file: alerts.py", "file: 3"),
        ("connector: sqlite", "connector: \"{{ env_var('NO') }}\""),
    ):
        (folder / "p.yaml").write_text(BASE.replace(old, new))
        assert failure(folder / "p.yaml").others == ()


def test_a_word_of_other_tools_makes_no_second_mistake(folder: Path) -> None:
    text = BASE.replace("  connector: duckdb", "  type: duckdb").replace("- stream: users", "- name: users")
    (folder / "p.yaml").write_text(text.replace("source:", "source_:"))
    error = failure(folder / "p.yaml")
    assert [each.key for each in (error, *error.others)] == ["source_", "destination.type", "streams[1].name"]


def test_a_file_of_mistakes_ends_at_ten(folder: Path) -> None:
    (folder / "p.yaml").write_text(BASE + "".join(f"key_{number}: 1\n" for number in range(1000)))
    assert len(failure(folder / "p.yaml").others) == 9


@pytest.mark.parametrize(
    ("given", "key", "said"),
    [
        ({"streams": [{"stream": "a", "mode": "incremental"}]}, "streams[0].mode", "`replication_method`"),
        ({"streams": [{"stream": "a", "primry_key": "id"}]}, "streams[0].primry_key", "`key_properties`"),
        ({"defaults": {}}, "defaults", '`stream: "*"`'),
        ({"source": {"connector": "csv", "path": "in"}}, "source.path", "`config: {path: ...}`"),
        ({"destination": {"type": "duckdb"}}, "destination.type", "`connector`"),
        ({"source": "csv"}, "source", "`source: {connector: csv,"),
        (
            {"streams": [{"stream": "a", "disable_column_type_check": True}]},
            "streams[0].disable_column_type_check",
            "`on_lossy` of columns, `on_rejected: keep` of single records",
        ),
        (
            {"streams": [{"stream": "a", "auto_add_new_fields": True}]},
            "streams[0].auto_add_new_fields",
            "`on_schema_change`",
        ),
        (
            {"streams": [{"stream": "a", "run_in_parallel": True}]},
            "streams[0].run_in_parallel",
            "`concurrency` of the pipeline",
        ),
        (
            {"streams": [{"stream": "a", "partition_keys": ["x"]}]},
            "streams[0].partition_keys",
            "`partition_by` in the `config` of a destination of files",
        ),
        ({"streams": [{"stream": "a", "source_options": {}}]}, "streams[0].source_options", "the `config` of `source`"),
        (
            {"streams": [{"stream": "a", "target_options": {}}]},
            "streams[0].target_options",
            "the `config` of `destination`",
        ),
        (
            {"streams": [{"stream": "a", "initial_value": 1}]},
            "streams[0].initial_value",
            "`where`, or `syncblocks state set` before the first run",
        ),
        ({"streams": [{"stream": "a", "lag": 3}]}, "streams[0].lag", "`lookback`, in seconds"),
        ({"streams": [{"stream": "a", "hard_delete": True}]}, "streams[0].hard_delete", "`deleted_when`"),
        ({"streams": [{"stream": "a", "dedup_sort": "desc"}]}, "streams[0].dedup_sort", "`latest_by`"),
        (
            {"streams": [{"stream": "a", "schema_contract": "freeze"}]},
            "streams[0].schema_contract",
            "`on_schema_change`",
        ),
        ({"streams": [{"stream": "a", "range": "1,2"}]}, "streams[0].range", "`run --interval-start --interval-end`"),
        ({"streams": [{"stream": "a", "write_mode": "append"}]}, "streams[0].write_mode", "`write_disposition`"),
        ({"streams": [{"stream": "a", "load_method": "append"}]}, "streams[0].load_method", "`write_disposition`"),
        (
            {"streams": [{"stream": "a", "destination_sync_mode": "append"}]},
            "streams[0].destination_sync_mode",
            "`write_disposition`",
        ),
        (
            {"streams": [{"stream": "a", "replication-key": "at"}]},
            "streams[0].replication-key",
            "`bookmark_properties`",
        ),
        ({"streams": [{"stream": "a", "table_name": "t"}]}, "streams[0].table_name", "`destination_table`"),
        ({"streams": [{"stream": "a", "post_sql": "x"}]}, "streams[0].post_sql", "`sql`"),
        ({"streams": [{"stream": "a", "pre_sql": "x"}]}, "streams[0].pre_sql", "`before`"),
        ({"streams": [{"stream": "a", "offset": 3}]}, "streams[0].offset", "`query`"),
        (
            {"streams": [{"stream": "a", "files": ["a"]}]},
            "streams[0].files",
            "`streams` in the `config` of a source of files",
        ),
        ({"streams": [{"stream": "a", "flatten": True}]}, "streams[0].flatten", "`nested: {flatten: N}`"),
        ({"streams": [{"stream": "a", "naming": "x"}]}, "streams[0].naming", "`naming` of `destination`"),
        ({"streams": [{"stream": "a", "chunk_size": 9}]}, "streams[0].chunk_size", "`parallel_reads`"),
        (
            {"streams": [{"stream": "a", "selected_fields": ["a"]}]},
            "streams[0].selected_fields",
            "`columns: {include: [...]}`",
        ),
        ({"streams": [{"stream": "a", "description": "x"}]}, "streams[0].description", "a comment"),
        ({"streams": [{"stream": "a", "columns": {"id": "bigint"}}]}, "streams[0].columns.id", "`types: {id: ...}`"),
        (
            {"streams": [{"stream": "a", "write_disposition": {"disposition": "merge", "strategy": "scd2"}}]},
            "streams[0].write_disposition",
            "or 'history', not a mapping",
        ),
        (
            {"streams": [{"stream": "a", "destination_table": "raw.{stream_table}"}]},
            "streams[0].destination_table",
            "`{stream_table}` of Sling is here `{{ stream | table }}`",
        ),
        ({"version": 1}, "version", "nothing: leave it out"),
        ({"type": "integration"}, "type", "nothing: leave it out"),
        ({"schedule": "@daily"}, "schedule", "cron"),
        ({"triggers": []}, "triggers", "cron"),
        ({"blocks": []}, "blocks", "`source`, `transformers`, `destination`"),
        ({"retry_config": {}}, "retry_config", "`retries` and `retry_delay_s`"),
        ({"dataset_name": "x"}, "dataset_name", "`schema` in the `config` of `destination`"),
        ({"executor_type": "k8s"}, "executor_type", "`executor`"),
        ({"primary_key": "id"}, "primary_key", "of an entry of `streams`"),
        ({"write_disposition": "merge"}, "write_disposition", "belongs in an entry of `streams`"),
        ({"variables_dir": "x"}, "variables_dir", "`store`"),
        ({"log_level": "x"}, "log_level", "--debug"),
        ({"connections": {}}, "connections", "`source` and `destination`"),
        ({"dest_table": "x"}, "dest_table", "of an entry of `streams`"),
        ({"source": {"connector": "filesystem"}}, "source.connector", "`connector: csv`"),
        ({"source": {"connector": "s3"}}, "source.connector", "`path: s3://BUCKET/FOLDER`"),
        ({"source": {"connector": "sql_database"}}, "source.connector", "`connector: postgres`"),
        ({"source": {"connector": "rest_api"}}, "source.connector", "`connector: singer`"),
        ({"source": {"connector": "excel"}}, "source.connector", "save the sheet as CSV"),
        ({"source": {"connector": "stripe"}}, "source.connector", "`connector: singer`"),
        ({"source": {"connector": "csv", "uuid": "load"}}, "source.uuid", "`block`"),
        ({"source": {"connector": "csv", "upstream_blocks": []}}, "source.upstream_blocks", "leave it out"),
        ({"source": {"connector": "csv", "callback_blocks": ["a"]}}, "source.callback_blocks", "`callbacks`"),
        ({"transformers": [{"uuid": "clean"}]}, "transformers[0].uuid", "`block`"),
        ({"transformers": [{"type": "transformer"}]}, "transformers[0].type", "leave it out"),
        ({"transformers": [{"upstream_blocks": []}]}, "transformers[0].upstream_blocks", "in the order of the list"),
        ({"callbacks": [{"uuid": "alerts"}]}, "callbacks[0].uuid", "`block`"),
        ({"callbacks": [{"language": "python"}]}, "callbacks[0].language", "leave it out"),
        ({"callbacks": [{"on_failure": "x"}]}, "callbacks[0].on_failure", "`status: [failure]`"),
        ({"callbacks": [{"webhook_url": "x"}]}, "callbacks[0].webhook_url", "`webhook: {url: ...}`"),
        ({"streams": ["*"]}, "streams[0]", '`- stream: "*"`'),
        ({"streams": {"*": None}}, "streams", '`- stream: "*"`'),
        ({"callbacks": ["a.py"]}, "callbacks[0]", "file: callbacks/name.py"),
    ],
)
def test_words_and_forms_of_other_tools_are_answered_with_ours(given: dict[str, Any], key: str, said: str) -> None:
    whole = {
        "pipeline": "crm",
        "source": {"connector": "csv", "config": {"path": "in"}},
        "destination": {"connector": "duckdb", "config": {"path": "a.duckdb"}},
        "streams": [{"stream": "a"}],
    }
    with pytest.raises(ConfigError) as caught:
        load_pipeline(whole | given)
    mistakes = {error.key: str(error) for error in (caught.value, *caught.value.others)}
    assert said in mistakes[key]
    assert "allowed:" not in mistakes[key]
