"""The pipeline file as a value: its settings, and the line of each setting."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, PrivateAttr

from syncblocks.connectors.settings import resolve_path

from .before_statements import BeforePipeline
from .blocks import CallbackBlock, DestinationBlock, SourceBlock, StreamEntry, TransformerBlock
from .executor import Executor, ExecutorSettings
from .head_keys import DEFAULT_STORE, HeadKeys
from .masks import MaskKey
from .private_folder import private_folder, tick_folder
from .remedies import IN_FILE, Ways
from .value_types import Boolean, Concurrency, Count, Delay, Memory, Name, Readers, Size, Timeout, as_list

if TYPE_CHECKING:
    from ..errors import ConfigError
    from .query_values import QueryValue
    from .templates import TemplateValues
    from .yaml_document import Document, Loc

DEFAULT_SPOOL_LIMIT = 2_000_000_000


class Origin(NamedTuple):
    """How a pipeline was loaded: the file, the time, and the values of its templates."""

    document: Document
    scope: TemplateValues
    execution_date: datetime
    #: Whether the caller has given it: else it is when the file was loaded.
    is_dated: bool
    interval: tuple[datetime, datetime] | None
    #: Where a template uses it.
    of_interval: tuple[Loc, ...]
    #: Place of a stream's entry -> the values of templates in its query.
    query_values: Mapping[Any, tuple[QueryValue, ...]]
    trigger: str
    references: Mapping[str, Any]
    #: Variables given by the caller, without those of an earlier run.
    overrides: Mapping[str, Any]
    secret_values: frozenset[str]
    #: Where a secret is written in the file itself.
    written_secrets: tuple[Loc, ...]
    warnings: tuple[str, ...]
    #: Where the files of transformers, callbacks and the catalog are, if not in the pipeline's folder.
    code_folder: Path | None
    #: How messages name what mends a mistake.
    ways: Ways = IN_FILE


class Pipeline(HeadKeys):
    """One pipeline: source, transformers, destination, streams and callbacks.

    `load_pipeline` makes it of a file or mapping. One made by hand checks the types of its values (pydantic's
    `ValidationError`); all else, its templates too, is checked and filled in by the function that it is given to.
    """

    variables: dict[str, Any] = Field(
        default_factory=dict,
        repr=False,
        description="Runtime variables (JSON values): kwargs of callbacks and transformers, and {{ variables('x') }}.",
    )
    concurrency: Concurrency = Field(default="auto", description="Streams at once; 1: strictly in order.")
    allow_blocks_to_fail: Boolean = Field(default=False, description="true: a failed stream does not stop the others.")
    retries: Count = Field(default=0, description="Further tries of a stream, after errors that may pass.")
    retry_delay_s: Delay = Field(default=10, description="Seconds between two attempts at a stream.")
    timeout_s: Timeout | None = Field(
        default=None, description="Longest time for a stream, in seconds; it is then cancelled."
    )
    run_timeout_s: Timeout | None = Field(
        default=None, description="Longest time for an attempt of the whole run, in seconds; it is then cancelled."
    )
    stream_names: Literal["full", "bare"] = Field(
        default="full",
        description="How callbacks, transformers and templates name a stream: full (default) with its schema, bare "
        "without, as Mage does.",
    )
    discovery_timeout_s: Timeout | None = Field(
        default=3600, description="Longest time for discovery, in seconds, with the installation of the source."
    )
    catalog: Name | None = Field(
        default=None,
        description="A catalog file, as `discover --save` writes it: keys and types of columns where streams declare "
        "none.",
    )
    mask_key: MaskKey | None = Field(
        default=None,
        repr=False,
        description="Key of the hashes that mask columns: a secret of at least 32 bytes, {{ secret('mask_key') }}.",
    )
    verify: Boolean = Field(
        default=False, description="true: after each run, compare source and destination as `syncblocks verify` does."
    )
    on_lossy: Literal["fail", "cast", "text"] = Field(
        default="fail",
        description="For columns that the destination cannot keep exactly: fail (default) refuses them before anything "
        "runs, cast cuts off what does not fit, text keeps every value in full as text.",
    )
    parallel_reads: Readers = Field(
        default=1,
        description="Readers of one large FULL_TABLE stream, each of a range; 1: one reader.",
    )
    executor: Executor = Field(
        default_factory=ExecutorSettings,
        description="Where streams run: threads (default), or dask: tcp://HOST:PORT, tls://HOST:PORT or local.",
    )
    drain_s: Delay = Field(default=120, description="Seconds that a finished run waits for the delivery of callbacks.")
    spool_limit: Size = Field(
        default=DEFAULT_SPOOL_LIMIT,
        description="Most data of one stream that is kept for callbacks, e.g. 2GB (default); beyond it they get None.",
    )
    memory: Memory | None = Field(
        default=None,
        description="Memory limit for the buffers of a run, e.g. 512MB; default: a quarter of the machine's memory.",
    )
    before: BeforePipeline = Field(
        default=(),
        description="Statements that run before an attempt's first stream: [{sql: ..., connection: source}].",
    )
    source: SourceBlock = Field(description="The source of the records.")
    transformers: Annotated[tuple[TransformerBlock, ...], BeforeValidator(as_list)] = Field(
        default=(), description="Transformers of the records, in order."
    )
    destination: DestinationBlock = Field(description="The destination of the records.")
    streams: Annotated[tuple[StreamEntry, ...], BeforeValidator(as_list)] = Field(
        description="Streams to sync, in run order; globs allowed, later entries refine earlier ones."
    )
    callbacks: Annotated[tuple[CallbackBlock, ...], BeforeValidator(as_list)] = Field(
        default=(), description="Callback blocks, in the order in which their functions are called."
    )

    _origin: Origin = PrivateAttr()
    _is_loaded: bool = PrivateAttr(default=False)

    @property
    def is_loaded(self) -> bool:
        """Whether `load_pipeline` has made it; only then it has a folder, a date and its templates filled in."""
        return self._is_loaded

    @property
    def path(self) -> Path | None:
        """Absolute path of the pipeline file; None: it was given as a mapping."""
        path = self._origin.document.path
        return None if path is None else self.folder / Path(path).name

    @property
    def given(self) -> Path | Mapping[str, Any]:
        """What it was loaded from: the file, or the mapping."""
        return self.path or self._origin.document.value

    @property
    def folder(self) -> Path:
        """Folder of the pipeline file, or the one given with a mapping; relative paths start here."""
        return self._origin.scope.folder

    @property
    def environ(self) -> Mapping[str, str]:
        """Environment for `env_var` and `secret`: that of the process, or the one it was loaded with."""
        return self._origin.scope.environ

    @property
    def execution_date(self) -> datetime:
        """When the pipeline run started: aware, UTC."""
        return self._origin.execution_date

    @property
    def is_dated(self) -> bool:
        """Whether the execution date was given, and is not just when the file was loaded."""
        return self._origin.is_dated

    @property
    def interval(self) -> tuple[datetime, datetime] | None:
        """Start and end, aware, of what the run is for; None: nothing that has a start and an end."""
        return self._origin.interval

    @property
    def needs_interval(self) -> bool:
        """Whether a template uses the interval."""
        return bool(self._origin.of_interval)

    @property
    def reads_by_interval(self) -> bool:
        """Whether a stream or the source uses the interval."""
        is_used = any(loc[0] == "streams" for loc in self._origin.of_interval) or self.has_config_of_interval
        return is_used or any(entry.range_column not in (None, "_file") for entry in self.streams)

    @property
    def has_config_of_interval(self) -> bool:
        """Whether a template in the `config` of the source uses the interval."""
        return any(loc[:2] == ("source", "config") for loc in self._origin.of_interval)

    def during(self, interval: tuple[datetime, datetime]) -> Pipeline:
        """Return the same pipeline for an interval; none of its templates may use one."""
        assert not self.needs_interval, "they are filled in when the file is loaded"
        made = self.model_copy()
        made._origin = self._origin._replace(interval=interval)
        return made

    def check_interval(self) -> None:
        """Raise a ConfigError if a template uses the interval and there is none."""
        if self._origin.interval is None and self.needs_interval:
            raise self.error(
                self._origin.of_interval[0],
                "needs an interval. Set --interval-start and --interval-end",
            )

    def said_of_interval(self, loc: Loc) -> str:
        """Return what the file says at a place, as JSON, if a template there uses the interval; else an empty text."""
        if not any(each[: len(loc)] == loc for each in self._origin.of_interval):
            return ""
        found: Any = self._origin.document.value
        for part in loc:
            found = found[part]
        return json.dumps(found)

    def query_values(self, place: int) -> tuple[QueryValue, ...]:
        """Return the values of the templates in the query of one entry of `streams`."""
        return self._origin.query_values.get(place, ())

    @property
    def trigger(self) -> str:
        """Trigger id; "0" if none was given."""
        return self._origin.trigger

    @property
    def execution_partition(self) -> str:
        """`<trigger id>/<YYYYMMDDTHHMMSS>`."""
        return str(self._origin.scope.defaults["execution_partition"])

    @property
    def env(self) -> str:
        """Name of the environment: `$ENV`, else `dev`."""
        return str(self._origin.scope.defaults["env"])

    def called(self, stream: str) -> str:
        """Return what callbacks, transformers and templates call a stream, see `stream_names`."""
        return stream.rpartition(".")[2] if self.stream_names == "bare" else stream

    def configuration(self, block: str) -> Mapping[str, Any]:
        """Return the `configuration` of a source, transformer or destination by its block_uuid; else an empty one."""
        blocks: tuple[SourceBlock | TransformerBlock | DestinationBlock, ...]
        blocks = (self.source, *self.transformers, self.destination)
        return next((each.configuration for each in blocks if each.block == block), {})

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
        """The variables in stored form: a value from env_var or secret is `{"$template": ...}`."""
        return self._origin.references

    @property
    def variable_overrides(self) -> Mapping[str, Any]:
        """The variables given by the caller, without those of an earlier run."""
        return self._origin.overrides

    @property
    def raw_variables(self) -> Mapping[str, Any]:
        """The file's variables with their templates unfilled."""
        found = self._origin.document.value.get("variables")
        return found if isinstance(found, dict) else {}

    @property
    def secret_values(self) -> frozenset[str]:
        """Secrets, which must never be written anywhere; pass them to a `Redactor`."""
        return self._origin.secret_values

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings, as `file:line: key: text`."""
        return self._origin.warnings

    @property
    def store_url(self) -> str:
        """URL of the run store or its default; SQLite paths are absolute."""
        return self.store or f"sqlite:///{resolve_path(DEFAULT_STORE.removeprefix('sqlite:///'), self.folder)}"

    @property
    def ways(self) -> Ways:
        """How messages name what mends a mistake."""
        return self._origin.ways

    @property
    def spool_folder(self) -> Path:
        """Folder of the spool files: shared by all machines, else beside the run store, or in the pipeline's folder."""
        if self.spool_url is not None and self._origin.code_folder is not None:
            return self._origin.code_folder.parent / "spool"  # on a worker, for its own user
        if self.executor.spool is not None and self.spool_url is None:
            return self.resolve(self.executor.spool)
        return private_folder(self.store_url, self.folder) / "spool"

    def tick_log(self, number: int) -> Path:
        """Return the file for the output of a tick's process."""
        return tick_folder(self.store_url, self.folder) / f"{number}.log"

    @property
    def spool_url(self) -> str | None:
        """Where spool files go from the spool folder, if machines share an object store."""
        spool = self.executor.spool
        return spool.rstrip("/") if spool is not None and "://" in spool else None

    def raw(self, loc: Loc) -> Any:
        """Return the file's value at a place, templates unfilled; None if there is none."""
        value: Any = self._origin.document.value
        for part in loc:
            value = value.get(part) if isinstance(value, dict) else value[int(part)]
        return value

    @property
    def scope(self) -> TemplateValues:
        """The values of the file's templates."""
        return self._origin.scope

    def resolve(self, path: str) -> Path:
        """Return an absolute path; relative paths start at the pipeline file's folder."""
        return resolve_path(path, self.folder)

    def code_path(self, path: str) -> Path:
        """Return the absolute path of a transformer, callback or catalog file."""
        return resolve_path(path, self._origin.code_folder or self.folder)

    @property
    def written_secrets(self) -> tuple[Loc, ...]:
        """The places at which a secret is written in the file itself, not taken from elsewhere by a template."""
        return self._origin.written_secrets

    def where(self, loc: Loc) -> tuple[str | None, int]:
        """Return file and line of a place such as ("streams", 2, "stream"), or of the nearest place around it."""
        document = self._origin.document
        return document.path, document.line(loc)

    def error(self, loc: Loc, message: str, **more: Any) -> ConfigError:
        """Return an error that names a place of the file and shows no secret; `more`: see `Document.error`."""
        from ..secrets import Redactor

        return self._origin.document.error(loc, Redactor(self.secret_values).redact(message), **more)
