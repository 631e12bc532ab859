"""The keyword arguments of callbacks: names, recorded form (plain JSON), and the objects that functions receive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, NotRequired, TypedDict

from .logger import UserLogger

#: Every status of `@callback`, and when it fires.
STATUSES: Mapping[str, str] = {
    "success": "the parent succeeded",
    "failure": "the parent failed, once, after its last retry",
    "cancelled": "the parent had started and was cancelled",
    "retry": "an attempt at the stream failed and will be repeated; numbered, at once",
    "schema_changed": "a commit added or changed columns of the destination table; numbered, at once",
    "recovered": "in addition to success: the first success of a stream after a failure",
    "crashed": "in addition to failure: a process died and could not close the run; recovery reports it",
}

#: Statuses with `__error`.
STATUSES_WITH_ERROR = frozenset({"failure", "retry", "crashed"})

#: Statuses with the parent's data.
STATUSES_WITH_DATA = frozenset({"success"})


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PipelineRun:
    """The current run, as callbacks see it."""

    #: Counted by the run store.
    id: int
    pipeline_uuid: str
    #: When the run started; constant within the run, also over its attempts.
    execution_date: datetime
    #: success, failure, cancelled or running; the final status in the events of the run's last stream.
    status: str | None = None
    #: From 1.
    attempt: int = 1
    started_at: datetime | None = None
    #: Runtime variables.
    variables: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"PipelineRun(id={self.id}, pipeline_uuid={self.pipeline_uuid}, execution_date={self.execution_date})"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRun:
    """The parent's block run: the execution of one block for one stream."""

    #: `<block>:<stream>`, such as `export_warehouse:public.users`. Do not parse it: names may contain a colon.
    uuid: str
    status: str
    #: None if recovery cannot know it.
    rows: int | None = None
    #: Rejected records that are kept (`on_rejected: keep`).
    rows_rejected: int | None = None
    #: Records deleted, marked or ended because the source no longer has them (`deletes`).
    rows_deleted: int | None = None
    #: Records that another record of the same commit replaced, because both have the same key (merge). `None` if they
    #: are not counted.
    rows_replaced: int | None = None
    #: Numbers of the connector's log lines: `{"warn": 2, "error": 1}`. `None` if there were none.
    warnings: Mapping[str, int] | None = None
    bytes: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    bookmark_before: Any = None
    bookmark_after: Any = None
    schema_changes: Any = None
    block: str | None = None
    stream: str | None = None


class ParentError(Exception):
    """The error of the parent block, given as `__error`. str() is the original message."""

    def __init__(
        self,
        message: str,
        *,
        type: str = "Exception",
        traceback: str = "",
        stream: str | None = None,
        block: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        #: Name of the original exception's class.
        self.type = type
        #: Traceback of the original, as text.
        self.traceback = traceback
        self.stream = stream
        self.block = block


# In the functional form, since a class body would mangle `__input` and `__error`.
StandardKwargs = TypedDict(
    "StandardKwargs",
    {
        # Callback block's uuid.
        "block_uuid": str,
        # Parent block's uuid, not the block run's.
        "parent_block_uuid": str,
        # Date of execution_date: '2023-04-26'.
        "ds": str,
        # Hour of execution_date: '20'.
        "hr": str,
        # When the pipeline run started, aware UTC; constant within a run.
        "execution_date": datetime,
        # `<trigger id>/<YYYYMMDDTHHMMSS>`: '207/20230426T202817'.
        "execution_partition": str,
        # Event that triggered the run, else {}.
        "event": dict[str, Any],
        # The run as an object.
        "pipeline_run": PipelineRun,
        # Its id.
        "pipeline_run_id": int,
        # What started the attempt: "cli", "retry", or the trigger id.
        "trigger_name": str,
        # Name of the environment: $ENV, else "dev".
        "env": str,
        # `configuration` of the parent block.
        "configuration": dict[str, Any],
        # The run's data interval; None if it has none.
        "interval_start_datetime": datetime | None,
        "interval_end_datetime": datetime | None,
        "interval_seconds": float | None,
        "interval_start_datetime_previous": datetime | None,
        # Writes to the call's output.
        "logger": UserLogger,
        "pipeline_uuid": str,
        # {parent_block_uuid: DataFrame} or {}; `df_1` is a second name of the parent.
        "__input": dict[str, Any],
        # failure, retry and crashed only.
        "__error": NotRequired[ParentError],
        # {'attempts': n}, this call included.
        "retry": dict[str, int],
        # The parent's block run; not for the parent `pipeline`.
        "block_run": NotRequired[BlockRun],
        # Same for every delivery of the same event to the same function.
        "idempotency_key": str,
    },
)


class IntegrationKwargs(TypedDict):
    """Additional keyword arguments if the parent is a block or a stream."""

    #: Source stream.
    stream: str
    #: Destination table of the stream.
    destination_table: str
    #: Position of the parent block run in the order in which block runs of its type ended in this attempt, from 0;
    #: None for `retry` and `schema_changed`, whose block run has not ended.
    index: int | None
    #: True for the last block run of that block type.
    is_last_block_run: bool


class PipelineKwargs(TypedDict):
    """Additional keyword arguments if the parent is `pipeline`."""

    #: All block runs of the attempt.
    block_runs: list[BlockRun]
    #: Names of streams that never started.
    never_started: list[str]
    #: Sums over the attempt: streams, success, failure, cancelled, rows, bytes.
    totals: dict[str, int]
    #: One dict for each failed stream: stream, block, type, message.
    failed_streams: list[dict[str, Any]]
    #: Names of synced streams that the source no longer offers.
    missing_streams: list[str]


_INTEGRATION = frozenset(IntegrationKwargs.__annotations__)
_PIPELINE = frozenset(PipelineKwargs.__annotations__)

#: Names that hide a runtime variable of the same name.
RESERVED = frozenset(StandardKwargs.__annotations__) | _INTEGRATION | _PIPELINE

#: The run's data interval; None if it has none.
INTERVAL = (
    "interval_start_datetime",
    "interval_end_datetime",
    "interval_seconds",
    "interval_start_datetime_previous",
)

#: Keyword arguments of transformers, in addition to runtime variables.
TRANSFORMER_KWARGS = frozenset(
    {
        "stream",
        "destination_table",
        "block_uuid",
        "pipeline_uuid",
        "pipeline_run",
        "ds",
        "hr",
        "execution_date",
        "execution_partition",
        "event",
        "pipeline_run_id",
        "trigger_name",
        "env",
        "configuration",
        *INTERVAL,
        "logger",
        # Number of the call for this stream, from 0.
        "index",
        # {_start_date, _end_date, _execution_date}.
        "query",
    }
)


def fillable(*, statuses: frozenset[str], parents: frozenset[str] | None) -> frozenset[str]:
    """Return the names that events of these statuses and parents can fill.

    Args:
        statuses: statuses that the function serves.
        parents: `on` of the callback block; None if unknown: any parent.
    """
    names = RESERVED
    if not statuses & STATUSES_WITH_ERROR:
        names = names - {"__error"}
    if parents is not None and parents <= {"pipeline"}:
        names = names - _INTEGRATION - {"block_run"}
    if parents is not None and "pipeline" not in parents:
        names = names - _PIPELINE
    return names


def build_kwargs(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recorded keyword arguments of one delivery; no side effects.

    Args:
        event: JSON values. Needed: `block_uuid`, `parent_block_uuid`, `execution_date` (ISO text or datetime),
            `pipeline_run` (a mapping with at least `id`), `pipeline_uuid`, `idempotency_key`, `attempts`.
            Needed of a block's or stream's event: `stream`, `destination_table`, `index`, `is_last_block_run`,
            `block_run`; of an event of `pipeline`: `block_runs`, `never_started` (`totals`, `failed_streams`,
            `missing_streams` if known).
            Optional: `interval` (start, end), `trigger` ("0") or `execution_partition`, `event` ({}), `variables` ({}),
            `error` (a mapping with type, message, traceback, stream, block).

    `env` and `configuration` have their defaults: who calls the function sets them by the pipeline file.

    Returns:
        Plain JSON, from which `hydrate` makes a function's kwargs.
    """
    date = _aware(event["execution_date"])
    partition = event.get("execution_partition") or f"{event.get('trigger') or '0'}/{date:%Y%m%dT%H%M%S}"
    variables = dict(event.get("variables") or {})
    run = {
        "pipeline_uuid": event["pipeline_uuid"],
        "execution_date": date.isoformat(),
        "variables": variables,
        **{key: _plain(value) for key, value in event["pipeline_run"].items()},
    }
    recorded: dict[str, Any] = {
        **{name: value for name, value in variables.items() if name not in RESERVED},
        "block_uuid": event["block_uuid"],
        "parent_block_uuid": event["parent_block_uuid"],
        "ds": f"{date:%Y-%m-%d}",
        "hr": f"{date:%H}",
        "execution_date": date.isoformat(),
        "execution_partition": partition,
        "event": event.get("event") or {},
        "pipeline_run": run,
        "pipeline_run_id": run["id"],
        "trigger_name": trigger_name(run.get("attempt"), event.get("trigger")),
        "env": "dev",
        "configuration": {},
        **dict.fromkeys(INTERVAL),
        **({} if event.get("interval") is None else interval_values(*event["interval"])),
        "pipeline_uuid": event["pipeline_uuid"],
        "retry": {"attempts": event["attempts"]},
        "idempotency_key": event["idempotency_key"],
    }
    if event["parent_block_uuid"] == "pipeline":
        recorded["block_runs"] = [_plain_mapping(block_run) for block_run in event["block_runs"]]
        recorded["never_started"] = list(event["never_started"])
        recorded["totals"] = dict(event.get("totals") or {})
        recorded["failed_streams"] = list(event.get("failed_streams") or ())
        recorded["missing_streams"] = list(event.get("missing_streams") or ())
    else:
        recorded |= {name: event[name] for name in IntegrationKwargs.__annotations__}
        recorded["block_run"] = _plain_mapping(event["block_run"])
    if event.get("error"):
        recorded["__error"] = dict(event["error"])
    return recorded


def with_variables(recorded: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    """Add variables that a run does not know to recorded keyword arguments; no side effects.

    They were added to the pipeline file after the run began. The run's own values stay.
    """
    run = recorded["pipeline_run"]
    flat = {name: value for name, value in variables.items() if name not in RESERVED}
    return {**flat, **recorded, "pipeline_run": {**run, "variables": {**variables, **(run.get("variables") or {})}}}


def interval_values(start: datetime, end: datetime) -> dict[str, Any]:
    """Return an interval in recorded form, by the names of `INTERVAL`; the previous one has the same length."""
    length = end - start
    values = (start.isoformat(), end.isoformat(), length.total_seconds(), (start - length).isoformat())
    return dict(zip(INTERVAL, values, strict=True))


def trigger_name(attempt: int | None, trigger: str | None) -> str:
    """Return what started an attempt: `cli`, `retry`, or the trigger id."""
    if (attempt or 1) > 1:
        return "retry"
    return "cli" if trigger in (None, "", "0") else trigger


def hydrate(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Turn recorded keyword arguments into a function's arguments, without `__input`; no side effects."""
    kwargs = {**recorded, "logger": UserLogger()}
    if "execution_date" in kwargs:
        kwargs["execution_date"] = _aware(kwargs["execution_date"])
    for name in INTERVAL:
        if isinstance(kwargs.get(name), str):
            kwargs[name] = _aware(kwargs[name])
    if "pipeline_run" in kwargs:
        kwargs["pipeline_run"] = _made(PipelineRun, kwargs["pipeline_run"])
    if kwargs.get("block_run") is not None:
        kwargs["block_run"] = _made(BlockRun, kwargs["block_run"])
    if "block_runs" in kwargs:
        kwargs["block_runs"] = [_made(BlockRun, block_run) for block_run in kwargs["block_runs"]]
    if "__error" in kwargs:
        error = kwargs["__error"]
        kwargs["__error"] = ParentError(
            error.get("message") or "",
            type=error.get("type") or "Exception",
            traceback=error.get("traceback") or "",
            stream=error.get("stream"),
            block=error.get("block"),
        )
    return kwargs


def _made(cls: type[Any], record: Mapping[str, Any]) -> Any:
    """Return a value from its record; unknown keys of a newer version are left out."""
    values = {item.name: record[item.name] for item in fields(cls) if item.name in record}
    for name in ("execution_date", "started_at", "ended_at"):
        if values.get(name) is not None:
            values[name] = _aware(values[name])
    return cls(**values)


def _aware(value: str | datetime) -> datetime:
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    # Without a zone it is UTC: SQLite returns stored times so.
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _plain(value: Any) -> Any:
    return _aware(value).isoformat() if isinstance(value, datetime) else value


def _plain_mapping(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _plain(value) for key, value in record.items()}
