"""Code as users write it: read by type checkers, run by nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, assert_type

from syncblocks import (
    Pipeline,
    PipelineFailed,
    Progress,
    RunResult,
    StreamResult,
    SyncError,
    cancel,
    count,
    discover,
    list_streams,
    load_pipeline,
    preview,
    run_pipeline,
    state,
    verify,
)
from syncblocks.callbacks import (
    BlockRun,
    ParentError,
    PipelineRun,
    callback,
    on_cancelled,
    on_failure,
    on_success,
    transformer,
)
from syncblocks.callbacks.testing import Called, Trial, call, make_event, try_file
from syncblocks.connectors.protocols import Destination, Source
from syncblocks.connectors.registry import make_destination, make_source
from syncblocks.connectors.stream import Block, Bookmark, Event, Stream


@callback
def bare(stream: str, destination_table: str) -> None: ...


@callback()
def empty(index: int | None, is_last_block_run: bool) -> str:
    return f"{index} {is_last_block_run}"


@callback("failure")
@callback("cancelled", fetch_inputs=False)
def stacked(__error: ParentError | None = None, **kwargs: Any) -> None:
    if __error is not None:
        assert_type(__error.message, str)
        assert_type(__error.block, str | None)


@on_success
@on_failure
@on_cancelled
def legacy(*, pipeline_run: PipelineRun, block_run: BlockRun) -> None:
    assert_type(pipeline_run.execution_date, datetime)
    assert_type(block_run.rows, int | None)


@transformer
def change(df: object) -> object:
    return df


# A mark keeps the function's type.
assert_type(bare("users", "users"), None)
assert_type(empty(0, True), str)


class Watch(Progress):
    def advanced(self, stream: str, *, records: int, size_bytes: int) -> None:
        self.records = records


def run() -> int:
    pipeline = load_pipeline("shop.yaml", variables={"region": "eu"}, trigger="207")
    assert_type(pipeline, Pipeline)
    try:
        result = run_pipeline(pipeline, streams=["public.*"], event={"id": 1}, progress=Watch())
    except SyncError as error:
        return len(error.code)
    assert_type(result, RunResult)
    for stream in result.streams:
        assert_type(stream.records, int | None)
    assert_type(result.streams["orders"], StreamResult)
    return result.exit_code


def look(shop: Mapping[str, Any]) -> int | None:
    pipeline = load_pipeline(shop, folder=Path("shop"))
    assert_type(list_streams(shop), tuple[str, ...])
    assert_type(discover("shop.yaml", streams=["a*"])[0], Stream)
    assert_type(preview(pipeline, "orders", limit=3).records, tuple[dict[str, Any], ...])
    assert_type(count(pipeline).streams[0].destination, int | None)
    assert_type(state(Path("shop.yaml")).is_copy, bool)
    assert_type([each.verdict for each in verify(pipeline, repair=True)], list[str])
    try:
        run_pipeline(shop).raise_for_status()
    except PipelineFailed:
        return cancel(pipeline)
    return None


def test_my_alert() -> None:
    called = call(Path("alerts.py"), "failure", make_event("failure", stream="orders", region="eu"))
    assert_type(called, list[Called])
    tried = try_file("alerts.py", statuses=["failure"], inline=True)
    assert_type(tried, list[Trial])
    assert_type(tried[0].outcome.ok, bool)


class Numbers:
    """The least that is a source."""

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None: ...

    def identity(self) -> str:
        return "numbers://"

    def check(self) -> None: ...

    def discover(self) -> Sequence[Stream]:
        return []

    def groups(self, streams: Sequence[Stream]) -> Sequence[Sequence[Stream]]:
        return [[stream] for stream in streams]

    def offers(self, stream: Stream) -> Sequence[str]:
        return ("arrow",)

    def count(self, stream: Stream) -> int:
        return 0

    def read(
        self, group: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None], wire: str = "arrow"
    ) -> Iterator[tuple[str, Event | Block]]:
        yield from ()

    def interrupt(self, stream: str) -> None: ...
    def close(self) -> None: ...


source: Source = Numbers({}, Path())
assert_type(make_source("csv", {"path": "data"}, Path()), Source)
assert_type(make_destination("duckdb", {"path": "w.duckdb"}, Path()), Destination)
