"""Dagster: a pipeline's streams as assets, from one line.

    defs = dagster.Definitions(assets=[syncblocks_assets("crm.yaml")])

The assets are one operation, so that a run stays one run. Any of them can be materialized alone; those that were
committed are materialized even if others fail.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import dagster as dg

from ..api import verify
from ..config import Pipeline, exact_pattern, load_pipeline
from ..errors import ConfigError, PipelineFailed
from ..run.results import RunResult
from .declared_streams import Declared, DeclaredStream, PipelineFile, declare
from .task_run import Ended, Event, OrchestratorTask, RecordsCommitted, Said, events_of, leftover, trigger_of

#: Names of the checks of an asset.
VERIFY, REJECTED = "verify", "rejected"

#: Tags of a run in place of a failed one: by Dagster's daemon, or by a person from its failed steps or assets.
_RETRIES = ("dagster/retry_number", "dagster/is_resume_retry", "dagster/is_asset_resume_retry")


def syncblocks_assets(
    pipeline: PipelineFile,
    *,
    streams: Sequence[str] | None = None,
    tags: Sequence[str] | None = None,
    name: str | None = None,
    group_name: str | None = None,
    asset_key: Callable[[str], dg.AssetKey] | None = None,
    source_key: Callable[[str], dg.AssetKey] | None = None,
    variables: Mapping[str, Any] | None = None,
    partitions_def: dg.PartitionsDefinition[str] | None = None,
    retry_policy: dg.RetryPolicy | None = None,
    pool: str | None = None,
) -> dg.AssetsDefinition:
    """Return an asset for each stream of a pipeline. Connects to nothing, and reads no secret.

    Args:
        pipeline: the pipeline file, or a mapping.
        streams: names or globs, only these; default: all.
        tags: only streams that have one of them; default: all.
        name: of the operation; default: the pipeline's.
        group_name: of the assets; default: the pipeline's.
        asset_key: stream -> its asset; default: the pipeline's name, then the parts of the stream's.
        source_key: stream -> the asset that it is read from; default: as `asset_key`, with `source` in the middle.
        variables: runtime variables, before those of the file.
        partitions_def: partitions of time; each is the interval of its runs.
        retry_policy: of the operation; a retry takes the streams that did not succeed.
        pool: of Dagster's concurrency.

    Raises:
        ConfigError: the file is wrong, or the names of its streams stand neither there nor in a catalog file.
    """
    declared = declare(pipeline, streams=streams, tags=tags)
    assets = _Assets(declared, asset_key, source_key)
    label = _identifier(name or declared.pipeline)

    @dg.multi_asset(
        name=label,
        specs=[assets.spec(stream, group_name or _identifier(declared.pipeline)) for stream in declared.streams],
        check_specs=[check for stream in declared.streams for check in assets.checks(stream)],
        can_subset=True,
        partitions_def=partitions_def,
        retry_policy=retry_policy,
        pool=pool,
    )
    def sync(context: dg.AssetExecutionContext) -> Iterator[Any]:
        window = context.partition_time_window if context.has_partition_key else None
        try:
            loaded = load_pipeline(
                pipeline,
                variables=variables,
                trigger=trigger_of("dagster", _first_run(context), label),
                interval=None if window is None else (window.start, window.end),
            )
            yield from _execute(context, assets, loaded, streams, tags)
        except ConfigError as error:  # another try would find the same
            raise dg.Failure(str(error), allow_retries=False) from error

    return sync


class _Assets:
    """The assets of a pipeline, and what is told of them."""

    def __init__(
        self,
        declared: Declared,
        asset_key: Callable[[str], dg.AssetKey] | None,
        source_key: Callable[[str], dg.AssetKey] | None,
    ) -> None:
        self.declared = declared
        self._key = asset_key or (lambda stream: dg.AssetKey([declared.pipeline, *stream.split(".")]))
        self._source_key = source_key or (lambda stream: dg.AssetKey([declared.pipeline, "source", *stream.split(".")]))
        self.streams = {self.key(stream.name): stream.name for stream in declared.streams}
        self.names = frozenset(self.streams.values())

    def key(self, stream: str) -> dg.AssetKey:
        """Return the asset of a stream."""
        return self._key(stream)

    def spec(self, stream: DeclaredStream, group_name: str) -> dg.AssetSpec:
        """Return the asset of a declared stream."""
        metadata: dict[str, Any] = {"stream": stream.name}
        if stream.columns:
            metadata["dagster/column_schema"] = _schema(
                {name: kind or "" for name, kind in stream.columns.items()}, stream.key_properties
            )
        return dg.AssetSpec(
            self.key(stream.name),
            deps=[self._source_key(stream.name)],
            group_name=group_name,
            metadata=metadata,
            tags={f"syncblocks/{_tag(tag)}": "" for tag in stream.tags},
            kinds={"syncblocks"},
        )

    def checks(self, stream: DeclaredStream) -> Iterator[dg.AssetCheckSpec]:
        """Yield the checks that the pipeline makes of a stream."""
        key = self.key(stream.name)
        if stream.is_verified:
            yield dg.AssetCheckSpec(VERIFY, asset=key, description="The destination holds what the source holds.")
        if stream.is_checked:
            yield dg.AssetCheckSpec(REJECTED, asset=key, description="No record was rejected.")

    def metadata(self, ended: Ended) -> dict[str, Any]:
        """Return what is known of a stream that has ended, without a query."""
        found = {name: value for name, value in ended.figures.items() if value is not None}
        found["dagster/table_name"] = found.pop("destination_table")
        if ended.columns:
            found["dagster/column_schema"] = _schema(ended.columns, ended.key_properties)
        if ended.sources:
            source = self._source_key(ended.stream)
            found["dagster/column_lineage"] = dg.TableColumnLineage(
                {new: [dg.TableColumnDep(asset_key=source, column_name=old)] for new, old in ended.sources.items()}
            )
        return found


def _execute(
    context: dg.AssetExecutionContext,
    assets: _Assets,
    pipeline: Pipeline,
    streams: Sequence[str] | None,
    tags: Sequence[str] | None,
) -> Iterator[Any]:
    selected = [assets.streams[key] for key in context.selected_asset_keys]
    if not selected:  # only checks
        yield from _verified(context, assets, pipeline)
        return
    if len(selected) < len(assets.streams):
        streams, tags = [exact_pattern(name) for name in selected], None
    task = OrchestratorTask(pipeline=pipeline, streams=streams, tags=tags, is_retry=_is_retry(context))
    # Closed with this generator: a run whose task is interrupted ends first.
    with closing(events_of(task)) as events:
        for event in events:
            yield from _told(context, assets, event)


def _is_retry(context: dg.AssetExecutionContext) -> bool:
    """Whether Dagster repeats the step by its policy, or the run; a person who executes all of it means a new run."""
    return bool(context.retry_number > 0 or _first_run(context) != context.run.run_id)


def _first_run(context: dg.AssetExecutionContext) -> str:
    """Return the run in whose place others were started, one after another; its root may be an earlier order."""
    run = context.run
    while any(tag in run.tags for tag in _RETRIES) and run.parent_run_id is not None:
        parent = context.instance.get_run_by_id(run.parent_run_id)
        if parent is None or parent.status is dg.DagsterRunStatus.SUCCESS:  # a tag that Dagster has handed on
            break
        run = parent
    return str(run.run_id)


def _told(context: dg.AssetExecutionContext, assets: _Assets, event: Event) -> Iterator[Any]:
    if isinstance(event, Said):
        context.log.log(event.level, event.text)
    elif isinstance(event, RecordsCommitted):
        found = {"records": event.records, "records_so_far": event.total, "bookmark": dict(event.bookmark or {})}
        yield dg.AssetObservation(assets.key(event.stream), metadata=found)
    elif isinstance(event, Ended):
        yield from _ended(context, assets, event)
    elif isinstance(event, RunResult):
        yield from _of_result(context, assets, event)


def _ended(context: dg.AssetExecutionContext, assets: _Assets, ended: Ended) -> Iterator[Any]:
    if ended.result.status != "success":
        return
    key, metadata = assets.key(ended.stream), assets.metadata(ended)
    if key not in context.selected_asset_keys:
        if ended.stream in assets.names:  # an earlier run of Dagster has asked for it
            return
        how = "write the catalog file anew with `syncblocks discover --save`"
        context.log.warning("%s is none of the declared streams: %s", ended.stream, how)
        yield dg.AssetMaterialization(key, metadata=metadata)
        return
    yield dg.MaterializeResult(asset_key=key, metadata=metadata)
    if dg.AssetCheckKey(key, REJECTED) in context.selected_asset_check_keys:
        yield dg.AssetCheckResult(
            asset_key=key,
            check_name=REJECTED,
            passed=not ended.result.records_rejected,
            metadata={"records_rejected": ended.result.records_rejected or 0},
        )


def _of_result(context: dg.AssetExecutionContext, assets: _Assets, result: RunResult) -> Iterator[Any]:
    for stream in result.streams:
        key = assets.key(stream.stream)
        if stream.verdict is not None and dg.AssetCheckKey(key, VERIFY) in context.selected_asset_check_keys:
            yield _verdict(key, stream.verdict, is_unequal=stream.is_unequal)
    if text := leftover(result):
        context.log.warning(text)
    try:
        result.raise_for_status()
    except PipelineFailed as error:
        raise dg.Failure(str(error), metadata={"run_id": result.run_id or 0}) from error


def _verified(context: dg.AssetExecutionContext, assets: _Assets, pipeline: Pipeline) -> Iterator[Any]:
    """Compare the streams whose check alone was asked for; how many records were rejected only a run tells."""
    keys = [check.asset_key for check in context.selected_asset_check_keys if check.name == VERIFY]
    if not keys:
        raise dg.Failure("the check `rejected` is made by a run: materialize the asset", allow_retries=False)
    for found in verify(pipeline, streams=[exact_pattern(assets.streams[key]) for key in keys]):
        yield _verdict(assets.key(found.stream), found.verdict, is_unequal=found.verdict in ("differs", "failed"))


def _verdict(key: dg.AssetKey, verdict: str, *, is_unequal: bool) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(asset_key=key, check_name=VERIFY, passed=not is_unequal, metadata={"verdict": verdict})


def _schema(columns: Mapping[str, str], keys: Sequence[str]) -> dg.TableSchema:
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name, kind or "string", constraints=dg.TableColumnConstraints(nullable=name not in keys))
            for name, kind in columns.items()
        ]
    )


def _identifier(name: str) -> str:
    """Return a name as Dagster takes it for operations and groups."""
    return "".join(char if char.isascii() and char.isalnum() else "_" for char in name)


def _tag(tag: str) -> str:
    return "".join(char if char.isascii() and (char.isalnum() or char in "_.-") else "_" for char in tag)[:63]


__all__ = ["syncblocks_assets"]
