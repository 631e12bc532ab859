"""The parts of a pipeline file: source, transformers, destination, streams, callbacks.

Editors show the description of each key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, PrivateAttr, model_validator

from syncblocks.connectors.file_classes import short_name
from syncblocks.connectors.settings import Config

from .added_columns import AddColumns
from .base import Defaulting, Model, wrong
from .before_statements import BeforeStream
from .deletes import DeletesSetting
from .expect import ExpectSettings
from .filters import Checks, DeletedWhen, WarnChecks, Where
from .hooks import DEFAULT_STATUSES, KINDS, OTHER_STATUSES, Shell, Sql, Text, Urls, WebhookSettings
from .latest_by import LatestBySetting
from .masks import Mask
from .value_types import (
    AtOnce,
    Attempts,
    BookmarkOperators,
    BookmarkStart,
    Boolean,
    Count,
    Delay,
    Lookback,
    Name,
    Names,
    Nested,
    Pattern,
    Patterns,
    Query,
    Readers,
    RecordCount,
    RejectedLimit,
    SomeNames,
    Timeout,
)

#: Words of `on` that are not names of blocks.
RESERVED_PARENTS = ("source", "transformers", "destination", "stream", "pipeline")


class _Connection(Defaulting):
    block: Name = Field(default="", description="block_uuid; default: load_<connector> or export_<connector>.")
    connector: Name = Field(
        description="Name of the connector, e.g. postgres, duckdb, sqlite, csv, parquet, jsonl; or a class of your own "
        "in a Python file, ./numbers.py:Numbers."
    )
    config: Annotated[dict[str, Any], AfterValidator(Config)] = Field(
        default_factory=Config,
        repr=False,
        description="The connector's own settings, see docs/connectors.md. "
        "Secrets as {{ env_var('X') }} or {{ secret('x') }}.",
    )
    configuration: dict[Name, Any] = Field(
        default_factory=dict,
        repr=False,
        description="Any mapping; callbacks with this parent get it as the keyword argument `configuration`.",
    )

    concurrency: AtOnce | None = Field(
        default=None, description="Most streams that use this block at once, within the pipeline's concurrency."
    )

    def _with_default_block(self, prefix: str) -> None:
        if "block" not in self.model_fields_set:
            object.__setattr__(self, "block", prefix + short_name(self.connector))


class SourceBlock(_Connection):
    """The source (a data loader)."""

    nested: Nested | None = Field(
        default=None,
        description="Objects in records: text (default) makes one JSON column, {flatten: N} columns a__b down to N "
        "levels.",
    )

    def model_post_init(self, context: Any, /) -> None:
        """Name the block after its connector."""
        self._with_default_block("load_")


class DestinationBlock(_Connection):
    """The destination (a data exporter)."""

    naming: Literal["keep", "lower", "snake_case", "mage"] = Field(
        default="keep",
        description="Names of tables and columns: keep (default) takes the source's; or lower, snake_case, mage.",
    )

    #: Where it is one file: the file's place, and the only table.
    _file: str = PrivateAttr("")
    _table: str = PrivateAttr("")

    def model_post_init(self, context: Any, /) -> None:
        """Name the block after its connector."""
        self._with_default_block("export_")

    @property
    def file(self) -> str:
        """The place of the file that it is; empty: it is a folder, or no files."""
        return self._file

    @property
    def table(self) -> str:
        """The only table, of which the file is made; empty: there may be many."""
        return self._table

    def write_one_file(self, place: str, table: str) -> None:
        """Take a file's place instead of a folder's."""
        self._file, self._table = place, table


class TransformerBlock(Defaulting):
    """A transformer: renamed columns, and a function marked @transformer that changes records batch by batch."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["file"]}, {"required": ["rename"]}]})

    block: Name = Field(default="", description="block_uuid; default: the file's stem, else `rename`.")
    file: Name | None = Field(
        default=None,
        description="Python file; a relative path counts from the pipeline file's folder. Not needed with `rename`.",
    )
    streams: Patterns | None = Field(
        default=None, description="Only for these streams, names or globs; default: all of them."
    )
    when: Text | None = Field(
        default=None,
        description="Only for streams that meet this condition in the plan, such as env == 'prod'.",
    )
    rename: dict[Name, Name] = Field(
        default_factory=dict,
        description="Columns to rename, old: new; renamed before the function is called, keys too.",
    )
    frames: Literal["batch", "record"] = Field(
        default="batch",
        description="What a DataFrame holds: batch (default), many records; record, one record, as in Mage.",
    )
    configuration: dict[Name, Any] = Field(
        default_factory=dict,
        repr=False,
        description="Any mapping; the function and its callbacks get it as the keyword argument `configuration`.",
    )

    @model_validator(mode="after")
    def _does_something(self) -> TransformerBlock:
        if self.file is None and not self.rename:
            raise wrong("needs file or rename")
        if "block" not in self.model_fields_set:
            object.__setattr__(self, "block", "rename" if self.file is None else Path(self.file).stem)
        return self


class Columns(Model):
    """The columns of a stream that are read, and how."""

    include: SomeNames | None = Field(default=None, description="Only these columns, in this order.")
    exclude: Names | None = Field(default=None, description="All columns but these.")
    mask: Mask | None = Field(
        default=None,
        description="Columns, names or globs, whose values are hidden: hash (by mask_key), {keep_last: n} or null.",
    )


class StreamEntry(Model):
    """Settings of the streams that a name or pattern matches. Later entries refine earlier ones.

    A key that is not given changes nothing. A key that is null sets the default again (`model_fields_set` tells the two
    apart).
    """

    stream: Pattern = Field(description="Name of a stream, or a glob: public.users, public.*")
    query: Query | None = Field(
        default=None,
        description="A SELECT in the source's SQL; its result is the stream. You choose its name in `stream`.",
    )
    where: Where | None = Field(
        default=None,
        description="Only records that match: a column with a value, a list, or operators, e.g. {status: [open, late], "
        'amount: {">=": 10}}.',
    )
    limit: RecordCount | None = Field(
        default=None,
        description="Most records of a run: of FULL_TABLE for a first try, of INCREMENTAL the next ones after the "
        "bookmark. `verify` then only counts. Default: all.",
    )
    min_records: RecordCount | None = Field(
        default=None,
        description="Fewer records than so many fail the stream before anything is written; of FULL_TABLE. "
        "Default: none may be there.",
    )
    checks: Checks | None = Field(
        default=None,
        description="Conditions as in `where` that each written record must meet; one that fails is a "
        'rejected record: {rating: [PG, R], amount: {">=": 0}, name: {max_length: 100}, zip: {matches: "^[0-9]{5}$"}, '
        "unique: [customer_id, day]}.",
    )
    warn_checks: WarnChecks | None = Field(
        default=None,
        description="Conditions as in `checks`; failing records are written, and the run says how many.",
    )
    tags: SomeNames | None = Field(
        default=None, description="Your own labels, by which `--tag` finds the stream: [hourly, finance]."
    )
    selected: Boolean | None = Field(default=None, description="false leaves out the matched streams.")
    when: Text | None = Field(
        default=None,
        description="Only in runs that meet this condition in the plan, such as hr == '03' or region == 'eu'.",
    )
    expect: ExpectSettings | None = Field(
        default=None, description="When the stream is late, and when it has moved too few records."
    )
    destination_table: Name | None = Field(
        default=None,
        description="Table to write; may name a schema. Default: the stream's name without its schema. "
        "A template may name the stream: raw_{{ stream | table }} (`table` takes the schema off).",
    )
    replication_method: Literal["FULL_TABLE", "INCREMENTAL", "LOG_BASED"] | None = Field(
        default=None,
        description="FULL_TABLE (default) reads all records, INCREMENTAL new ones, LOG_BASED every change.",
    )
    bookmark_properties: Names | None = Field(
        default=None, description="Columns whose highest value is kept; needed for INCREMENTAL."
    )
    bookmark_property_operators: BookmarkOperators | None = Field(
        default=None,
        description='{updated_at: ">"} reads only records above the bookmark; ">=" (default) also those at it.',
    )
    bookmark_start: BookmarkStart | None = Field(
        default=None,
        description="Value of `:bookmark` in a `query` as long as there is no bookmark: '2024-01-01'.",
    )
    null_bookmarks: Literal["fail", "once", "always", "never"] | None = Field(
        default=None,
        description="Records whose bookmark is NULL: fail (default), once (read from scratch only), "
        "always (read in every run; needs merge), never (left out).",
    )
    lookback: Lookback | None = Field(
        default=None,
        description="INCREMENTAL reads again from this far below the bookmark: seconds for times and dates, else a "
        "number; needs merge.",
    )
    key_properties: Names | None = Field(
        default=None, description="Columns that identify a record; default: the primary key found by discovery."
    )
    unique_constraints: SomeNames | None = Field(
        default=None,
        description="Columns by which records are merged, in place of key_properties, which stay the primary key; "
        "together they are UNIQUE in a table that is made.",
    )
    latest_by: LatestBySetting | None = Field(
        default=None,
        description="Of the records of a key the one with the highest value of this column counts, also if it is the "
        "table's; default: the one that arrives last. {column: at, order: ascending}: the lowest. Needs merge, history "
        "or replace_range.",
    )
    deleted_when: DeletedWhen | None = Field(
        default=None,
        description="A record that meets this condition is deleted in the table, by its key, and not written: "
        "{is_deleted: true}, {op: [D, d]}, {deleted_at: {is_null: false}}. Needs merge.",
    )
    unique_conflict_method: Literal["UPDATE", "IGNORE", "UPDATE_ONLY"] | None = Field(
        default=None,
        description="For records whose key is already there: UPDATE (default) or IGNORE. UPDATE_ONLY, of merge: "
        "records whose key is not there are left out.",
    )
    write_disposition: Literal["append", "replace", "merge", "replace_range", "history"] | None = Field(
        default=None,
        description="append, replace, merge, replace_range, or history (keeps every version of a record); default: "
        "FULL_TABLE replace, INCREMENTAL merge with keys, else append.",
    )
    replace_existing: Boolean | None = Field(
        default=None,
        description="For replace: false leaves the stream out of a run if its table exists; default: true.",
    )
    range_column: Name | None = Field(
        default=None,
        description="For replace_range: the column of the range that is deleted and written anew.",
    )
    valid_from: Literal["bookmark"] | None = Field(
        default=None,
        description="For history: bookmark takes the times of versions from the records' bookmark; default: the run's "
        "execution_date.",
    )
    deletes: DeletesSetting | None = Field(
        default=None,
        description="Records that the source no longer has: ignore (default), hard (deletes them), soft (marks them "
        "in _deleted_at), or {mode: hard, every: 1d, limit: 10%}; needs merge, or soft and history, whose versions "
        "end.",
    )
    changed_files: Literal["append", "ignore"] | None = Field(
        default=None,
        description="Of a stream that reads new files (bookmark_properties: [_file_modified]): a file that has "
        "changed is appended once more, or stays as it was read. Default: merge reads it again, append fails.",
    )
    optional: Boolean | None = Field(
        default=None,
        description="true: skip the stream if the source has no file for it; default: that is an error. "
        "With true, a synced stream that a glob no longer finds is not reported.",
    )
    nested: Nested | None = Field(default=None, description="As the source's, for these streams.")
    before: BeforeStream | None = Field(
        default=None,
        description="Statements that run before each try reads the stream: [{sql: ..., connection: destination}].",
    )
    columns: Columns | None = Field(default=None, description="Columns to include, exclude or mask.")
    types: dict[Name, Name] | None = Field(
        default=None,
        description="Types of columns, whatever the source says or was found: {total: decimal(18,2), zip: string}.",
    )
    decode: dict[Name, Literal["base64", "hex"]] | None = Field(
        default=None, description="Text columns that hold encoded bytes: {payload: base64} or hex."
    )
    add_columns: AddColumns | None = Field(
        default=None,
        description="New columns with one value per run: column: value, or {value, type, on_update: keep}.",
    )
    mage_columns: Boolean | None = Field(
        default=None,
        description="true adds Mage's columns: _mage_created_at (kept on update) and _mage_updated_at.",
    )
    fill_new_columns: Boolean | None = Field(
        default=None,
        description="true: old records get the values of a column that is new at the source; needs INCREMENTAL and "
        "merge.",
    )
    on_schema_change: Literal["evolve", "widen", "freeze", "ignore"] | None = Field(
        default=None,
        description="When the source's columns change: evolve (default) changes the destination's table too, widen "
        "also makes text of a column that cannot hold what comes, freeze fails the stream before anything is written, "
        "ignore leaves out new columns.",
    )
    on_lossy: Literal["fail", "cast", "text"] | None = Field(
        default=None, description="As the pipeline's, for these streams."
    )
    on_rejected: Literal["fail", "keep"] | None = Field(
        default=None,
        description="Records that do not fit: fail (default), or keep them in _syncblocks_rejected, "
        "in the destination table's schema.",
    )
    max_rejected: RejectedLimit | None = Field(
        default=None,
        description="With on_rejected: keep: more rejected records than this (default 1000) fail the stream. "
        "A share such as 5% counts the records of one commit, from 100 records on.",
    )
    retries: Count | None = Field(default=None, description="As the pipeline's, for these streams.")
    retry_delay_s: Delay | None = Field(default=None, description="As the pipeline's, for these streams.")
    timeout_s: Timeout | None = Field(default=None, description="As the pipeline's, for these streams.")
    parallel_reads: Readers | None = Field(default=None, description="As the pipeline's, for these streams.")
    verify: Boolean | None = Field(default=None, description="As the pipeline's, for these streams.")


class CallbackBlock(Defaulting):
    """A callback block: functions of a file, or a hook (notify, webhook, shell, sql), called after block runs."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [kind]} for kind in KINDS]})

    block: Name = Field(
        default="", description="block_uuid; default: the file's stem, else the kind: notify, webhook, shell or sql."
    )
    file: Name | None = Field(
        default=None, description="Python file; a relative path counts from the pipeline file's folder."
    )
    notify: Urls | None = Field(
        default=None, repr=False, description="Apprise URLs: slack://..., mailto://...; needs syncblocks[notify]."
    )
    webhook: WebhookSettings | None = Field(default=None, description="POST of the event as JSON.")
    shell: Shell | None = Field(
        default=None,
        repr=False,
        description="Text for /bin/sh, a list of a program and its arguments, or {command: ..., env: ...}; "
        "gets the event as JSON on stdin.",
    )
    sql: Sql | None = Field(
        default=None, description="A statement that the destination runs; `:stream` is a bound parameter."
    )
    title: Text | None = Field(default=None, description="Of notify: a template over the event.")
    message: Text | None = Field(
        default=None, description="Of notify: a template over the event, such as {{ stream }}: {{ block_run.rows }}."
    )
    on: SomeNames = Field(
        default=("stream",),
        description="Parents: block_uuids, source, transformers, destination, stream (default) or pipeline.",
    )
    status: SomeNames | None = Field(
        default=None,
        description="Statuses that call it; not with file, whose functions declare theirs. "
        "Default: success; of notify success, failure and cancelled.",
    )
    when: Text | None = Field(
        default=None, description="Only if the event meets this condition, such as is_last_block_run."
    )
    streams: Patterns | None = Field(
        default=None, description="Only for these streams, names or globs; default: all of them."
    )
    timeout_s: Timeout = Field(default=60, description="Seconds until a call is ended and tried again.")
    attempts: Attempts = Field(default=5, description="Calls of a delivery until it is dead.")

    @model_validator(mode="after")
    def _has_one_kind(self) -> CallbackBlock:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if not given:
            raise wrong(f"needs one of {', '.join(KINDS)}")
        if len(given) > 1:
            raise wrong(f"has {' and '.join(given)}: give each a callback block of its own")
        if "block" not in self.model_fields_set:
            object.__setattr__(self, "block", given[0] if self.file is None else Path(self.file).stem)
        return self

    @property
    def kind(self) -> str:
        """Return file, notify, webhook, shell or sql."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def statuses(self) -> tuple[str, ...]:
        """Statuses for which a hook is called."""
        return DEFAULT_STATUSES.get(self.kind, OTHER_STATUSES) if self.status is None else self.status
