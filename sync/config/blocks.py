"""The pipeline file as values. What each key means stands in its description, which editors show."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

from syncblocks.connectors.settings import resolve_path

from .base import Defaulting, Model, wrong
from .hooks import DEFAULT_STATUSES, KINDS, OTHER_STATUSES, Command, Sql, Text, Urls, WebhookSettings
from .values import (
    AtOnce,
    Attempts,
    Bad,
    Boolean,
    Concurrency,
    Count,
    Delay,
    Lookback,
    Memory,
    Name,
    Names,
    Pattern,
    Patterns,
    Size,
    SomeNames,
    Timeout,
    Ways,
    as_list,
)

if TYPE_CHECKING:
    from ..errors import ConfigError
    from .templates import Scope
    from .yaml_document import Document, Loc

#: Names in `on` that are no block's.
RESERVED_PARENTS = ("source", "transformers", "destination", "stream", "pipeline")

DEFAULT_STORE = "sqlite:///.syncblocks/store.db"
DEFAULT_SPOOL_LIMIT = 2_000_000_000


class _Connection(Defaulting):
    block: Name = Field(default="", description="block_uuid; default: load_<connector> or export_<connector>.")
    connector: Name = Field(description="Name of the connector, e.g. postgres, duckdb, sqlite, csv, parquet, jsonl.")
    config: dict[str, Any] = Field(
        default_factory=dict,
        repr=False,
        description="The connector's own settings, see docs/connectors.md. "
        "Secrets as {{ env_var('X') }} or {{ secret('x') }}.",
    )

    concurrency: AtOnce | None = Field(
        default=None, description="Most streams at once that use it, whatever the pipeline's own concurrency says."
    )

    def _with_default_block(self, prefix: str) -> None:
        if "block" not in self.model_fields_set:
            object.__setattr__(self, "block", prefix + self.connector)


class SourceBlock(_Connection):
    """Where records come from (a data loader)."""

    def model_post_init(self, context: Any, /) -> None:
        """Name the block after its connector."""
        self._with_default_block("load_")


class DestinationBlock(_Connection):
    """Where records go to (a data exporter)."""

    def model_post_init(self, context: Any, /) -> None:
        """Name the block after its connector."""
        self._with_default_block("export_")


class TransformerBlock(Defaulting):
    """Changes records on their way: a function marked @transformer, one batch at a time."""

    block: Name = Field(default="", description="block_uuid; default: the file's stem.")
    file: Name = Field(description="Python file; a relative path counts from the pipeline file's folder.")
    streams: Patterns | None = Field(
        default=None, description="Only for these streams, names or globs; default: all of them."
    )
    rename: dict[Name, Name] = Field(
        default_factory=dict,
        description="Columns to rename, old: new; done before the function is called, and keys follow.",
    )

    def model_post_init(self, context: Any, /) -> None:
        """Name the block after its file."""
        if "block" not in self.model_fields_set:
            object.__setattr__(self, "block", Path(self.file).stem)


class Columns(Model):
    """Which columns of a stream are read."""

    include: SomeNames | None = Field(default=None, description="Only these columns.")
    exclude: Names | None = Field(default=None, description="All columns but these.")


class StreamEntry(Model):
    """What holds for the streams that a name or pattern matches. Later entries refine earlier ones.

    A key that is not given refines nothing; a key that is given as null sets the default again
    (`model_fields_set` tells the two apart).
    """

    stream: Pattern = Field(description="Name of a stream, or a glob: public.users, public.*")
    selected: Boolean | None = Field(default=None, description="false leaves out what the entry matches.")
    destination_table: Name | None = Field(
        default=None,
        description="Table to write; may name a schema. Default: the stream's name without its schema. "
        "A template may name the stream: raw_{{ stream | table }} (`table` takes the schema off).",
    )
    replication_method: Literal["FULL_TABLE", "INCREMENTAL", "LOG_BASED"] | None = Field(
        default=None, description="FULL_TABLE (default) reads all, INCREMENTAL what is new; LOG_BASED is not built yet."
    )
    bookmark_properties: Names | None = Field(
        default=None, description="Columns whose highest value seen is kept; needed for INCREMENTAL."
    )
    null_bookmarks: Literal["fail", "once", "always", "never"] | None = Field(
        default=None,
        description="Records whose bookmark is NULL: fail (default), once (read from scratch only), "
        "always (read in every run; needs merge), never (left out).",
    )
    lookback: Lookback | None = Field(
        default=None,
        description="INCREMENTAL reads again from so much below the bookmark: seconds of times and dates, "
        "else a number; needs merge.",
    )
    key_properties: Names | None = Field(
        default=None, description="Columns that identify a record; default: the primary key found by discovery."
    )
    unique_conflict_method: Literal["UPDATE", "IGNORE"] | None = Field(
        default=None, description="For records whose key is already there: UPDATE (default) or IGNORE."
    )
    write_disposition: Literal["append", "replace", "merge"] | None = Field(
        default=None,
        description="append, replace or merge; default: FULL_TABLE replace, INCREMENTAL merge with keys, else append.",
    )
    columns: Columns | None = Field(default=None, description="Columns to include or exclude.")
    on_schema_change: Literal["evolve", "freeze", "ignore"] | None = Field(
        default=None,
        description="When the source's columns change: evolve (default) changes the destination's table too, freeze "
        "fails the stream before anything is written, ignore leaves out new columns.",
    )
    on_lossy: Literal["fail", "cast", "text"] | None = Field(
        default=None, description="As the pipeline's, for these streams."
    )
    on_rejected: Literal["fail", "keep"] | None = Field(
        default=None,
        description="Records that do not fit: fail (default), or keep them in _syncblocks_rejected, "
        "in the destination table's schema.",
    )
    max_rejected: Bad | None = Field(
        default=None, description="More rejected records than this (default 1000) fail a stream that keeps them."
    )
    retries: Count | None = Field(default=None, description="As the pipeline's, for these streams.")
    retry_delay_s: Delay | None = Field(default=None, description="As the pipeline's, for these streams.")
    timeout_s: Timeout | None = Field(default=None, description="As the pipeline's, for these streams.")
    parallel_reads: Ways | None = Field(default=None, description="As the pipeline's, for these streams.")
    verify: Boolean | None = Field(default=None, description="As the pipeline's, for these streams.")


class CallbackBlock(Defaulting):
    """What is called after block runs: functions of a file, or one of notify, webhook, shell, sql."""

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
    shell: Command | None = Field(
        default=None,
        repr=False,
        description="Text for /bin/sh, or a list of a program and its arguments; gets the event as JSON on stdin.",
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
        description="When it is called; not with file, whose functions say so themselves. "
        "Default: success; of notify success, failure and cancelled.",
    )
    when: Text | None = Field(
        default=None, description="Only if this condition over the event is true, such as is_last_block_run."
    )
    streams: Patterns | None = Field(
        default=None, description="Only for these streams, names or globs; default: all of them."
    )
    timeout_s: Timeout = Field(default=60, description="Seconds after which a call is ended and tried again.")
    attempts: Attempts = Field(default=5, description="How often a delivery is tried before it is dead.")

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
        """When a hook is called."""
        return DEFAULT_STATUSES.get(self.kind, OTHER_STATUSES) if self.status is None else self.status


class Origin(NamedTuple):
    """Where a pipeline came from: the file, the moment, and what filled its templates."""

    document: Document
    scope: Scope
    execution_date: datetime
    trigger: str
    references: Mapping[str, Any]
    #: Variables that were given in place of the file's: not those of an earlier run.
    overrides: Mapping[str, Any]
    secret_values: frozenset[str]
    warnings: tuple[str, ...]


class Pipeline(Defaulting):
    """One pipeline: a source, transformers, a destination, the streams and the callbacks. Made by `load_pipeline`."""

    pipeline: Name = Field(default="", description="pipeline_uuid; default: the file's stem.")
    variables: dict[str, Any] = Field(
        default_factory=dict,
        repr=False,
        description="Runtime variables (JSON values): kwargs of callbacks and transformers, and {{ variables('x') }}.",
    )
    concurrency: Concurrency = Field(default="auto", description="Streams at once; 1: strictly in order.")
    allow_blocks_to_fail: Boolean = Field(default=False, description="true: a failed stream does not stop the others.")
    retries: Count = Field(default=0, description="Per stream, for errors that a repetition can mend.")
    retry_delay_s: Delay = Field(default=10, description="Seconds between two tries of a stream.")
    timeout_s: Timeout | None = Field(default=None, description="Per stream; past it the stream is cancelled.")
    verify: Boolean = Field(
        default=False, description="true: after each run, compare source and destination as `syncblocks verify` does."
    )
    on_lossy: Literal["fail", "cast", "text"] = Field(
        default="fail",
        description="For columns that the destination cannot keep exactly: fail (default) refuses them before anything "
        "runs, cast cuts off what does not fit, text keeps every value in full as text.",
    )
    parallel_reads: Ways = Field(
        default=1,
        description="Readers of one large FULL_TABLE stream at once, each of a range; 1: it is read as a whole.",
    )
    drain_s: Delay = Field(
        default=120, description="Seconds that a finished run still waits for callbacks to be delivered."
    )
    store: Name | None = Field(
        default=None,
        repr=False,
        description=f"URL of the run store; default {DEFAULT_STORE}; a Postgres URL for many machines.",
    )
    spool_limit: Size = Field(
        default=DEFAULT_SPOOL_LIMIT,
        description="Most data of one stream that is kept for callbacks, e.g. 2GB (default); beyond it they get None.",
    )
    memory: Memory | None = Field(
        default=None,
        description="What the buffers of a run may hold together, e.g. 512MB; default: a quarter of the machine's.",
    )
    source: SourceBlock = Field(description="Where records come from.")
    transformers: Annotated[tuple[TransformerBlock, ...], BeforeValidator(as_list)] = Field(
        default=(), description="What changes records on their way, in order."
    )
    destination: DestinationBlock = Field(description="Where records go to.")
    streams: Annotated[tuple[StreamEntry, ...], BeforeValidator(as_list)] = Field(
        description="What is synced, in run order; globs allowed, later entries refine earlier ones."
    )
    callbacks: Annotated[tuple[CallbackBlock, ...], BeforeValidator(as_list)] = Field(
        default=(), description="Callback blocks, in the order in which their functions are called."
    )

    _origin: Origin = PrivateAttr()

    @property
    def path(self) -> Path:
        """Absolute path of the pipeline file."""
        return self.folder / Path(self._origin.document.path).name

    @property
    def folder(self) -> Path:
        """Folder of the pipeline file, from which relative paths count."""
        return self._origin.scope.folder

    @property
    def execution_date(self) -> datetime:
        """When the pipeline run started: aware, UTC."""
        return self._origin.execution_date

    @property
    def trigger(self) -> str:
        """Trigger id; "0" if none was given."""
        return self._origin.trigger

    @property
    def execution_partition(self) -> str:
        """`<trigger id>/<YYYYMMDDTHHMMSS>`."""
        return str(self._origin.scope.defaults["execution_partition"])

    @property
    def ds(self) -> str:
        """Date of the execution date, `2023-04-26`."""
        return str(self._origin.scope.defaults["ds"])

    @property
    def hr(self) -> str:
        """Hour of the execution date, `20`."""
        return str(self._origin.scope.defaults["hr"])

    @property
    def variable_references(self) -> Mapping[str, Any]:
        """The variables as they may be stored: what came from env_var or secret is `{"$template": ...}`."""
        return self._origin.references

    @property
    def variable_overrides(self) -> Mapping[str, Any]:
        """The variables that were given when the file was loaded; those of an earlier run are not among them."""
        return self._origin.overrides

    @property
    def raw_variables(self) -> Mapping[str, Any]:
        """What the file says of its variables, before templates were filled."""
        found = self._origin.document.value.get("variables")
        return found if isinstance(found, dict) else {}

    @property
    def secret_values(self) -> frozenset[str]:
        """What must never be written anywhere: feed it to a `Redactor`."""
        return self._origin.secret_values

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed but unwise, as `file:line: key: text`."""
        return self._origin.warnings

    @property
    def store_url(self) -> str:
        """URL of the run store, default included; SQLite paths are absolute."""
        return self.store or f"sqlite:///{resolve_path(DEFAULT_STORE.removeprefix('sqlite:///'), self.folder)}"

    @property
    def spool_folder(self) -> Path:
        """Where data for callbacks lies: beside the run store; in the pipeline's folder where the store is a server."""
        url = self.store_url
        if url.startswith("sqlite:///"):
            return Path(url.removeprefix("sqlite:///")).parent / "spool"
        return self.folder / ".syncblocks" / "spool"

    def raw(self, loc: Loc) -> Any:
        """Return what the file says at a place, before templates were filled; None where it says nothing."""
        value: Any = self._origin.document.value
        for part in loc:
            value = value.get(part) if isinstance(value, dict) else value[int(part)]
        return value

    @property
    def scope(self) -> Scope:
        """What the file's templates were filled with."""
        return self._origin.scope

    def resolve(self, path: str) -> Path:
        """Return an absolute path; relative ones count from the pipeline file's folder."""
        return resolve_path(path, self.folder)

    def where(self, loc: Loc) -> tuple[str, int]:
        """Return file and line of a place such as ("streams", 2, "stream"), or of what is around it."""
        document = self._origin.document
        return document.path, document.line(loc)

    def error(
        self, loc: Loc, message: str, *, allowed: tuple[str, ...] = (), nearest: str | None = None
    ) -> ConfigError:
        """Make an error that names a place of the file and shows no secret."""
        from .secrets import Redactor

        message = Redactor(self.secret_values).redact(message)
        return self._origin.document.error(loc, message, allowed=allowed, nearest=nearest)
