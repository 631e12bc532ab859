"""What the tests of the run store share: plans, outcomes, other processes, and a reader that is not the store."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from syncblocks.callbacks.protocols import Delivery, Outcome
from syncblocks.connectors.struct_helpers import replace
from syncblocks.sync.clock import Clock
from syncblocks.sync.store import Store
from syncblocks.sync.store.model import (
    AttemptPlan,
    BlockOutcome,
    BlockPlan,
    ErrorInfo,
    PipelineRun,
    RecordedCallback,
    StateCopy,
    StreamOutcome,
    StreamPlan,
    Subscription,
)

DATE = datetime(2023, 4, 26, 20, 28, 17, 335254, tzinfo=UTC)
LOADER, EXPORTER = "load", "export"
OK = Outcome(ok=True, error=None, output="", duration_s=0.01, kind="returned")
RAISED = Outcome(ok=False, error="ValueError: no", output="printed\n", duration_s=0.01, kind="raised")


class FixedClock(Clock):
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def move(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class AnyCallbacks:
    """A pipeline file that has every callback block."""

    def __init__(self, attempts: int = 3) -> None:
        self.attempts = attempts

    def complete(self, delivery: Delivery, digest: str | None) -> Delivery:
        assert digest == f"of {delivery.callback_block}"
        file = f"/somewhere/{delivery.callback_block}.py"
        return replace(delivery, file=file, attempts=self.attempts, timeout_s=7.0)


#: For outboxes that deliver.
CALLBACKS = AnyCallbacks()


#: Parameters of a fixture over `store_url_of`; the marker lets `-m "not postgres"` leave the server's out.
STORES = ("sqlite", pytest.param("postgres", marks=pytest.mark.postgres))


def store_url_of(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a store that is not there yet, of the kind that the fixture's parameter names."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    return str(request.getfixturevalue("postgres_url"))


def stream_plan(name: str, *transformers: str) -> StreamPlan:
    return StreamPlan(
        stream=name,
        destination_table=f"table_{name}",
        blocks=(
            BlockPlan(LOADER, "data_loader"),
            *(BlockPlan(block, "transformer") for block in transformers),
            BlockPlan(EXPORTER, "data_exporter"),
        ),
        config={"of": name},
    )


def attempt_plan(
    streams: Iterable[StreamPlan],
    parents: Sequence[str] = (LOADER, EXPORTER, "stream", "pipeline"),
    *,
    allow_blocks_to_fail: bool = False,
    callback_blocks: Sequence[str] = ("alerts",),
    functions: Sequence[str] = ("tell",),
) -> AttemptPlan:
    """Return a plan whose callback blocks want to hear of everything."""
    return AttemptPlan(
        streams=tuple(streams),
        subscriptions=tuple(
            Subscription(
                callback_block=block, function=function, parent=parent, status=status, needs_data=status == "success"
            )
            for block in callback_blocks
            for function in functions
            for parent in parents
            for status in ("success", "failure", "cancelled")
        ),
        callbacks=tuple(RecordedCallback(block=block, digest=f"of {block}") for block in callback_blocks),
        allow_blocks_to_fail=allow_blocks_to_fail,
        extra={"more": [1, None]},
    )


def begin(store: Store, plan: AttemptPlan, pipeline: str = "p", **options: Any) -> PipelineRun:
    run = store.begin_run(pipeline, execution_date=DATE, trigger="207", **options)
    store.begin_attempt(run.id, plan)
    return run


def outcome(
    plan: StreamPlan, status: str = "success", *, failed_block: str | None = None, state: StateCopy | None = None
) -> StreamOutcome:
    """End all blocks alike; with `failed_block` that one fails, those before succeed, those behind are cancelled."""
    statuses = [status] * len(plan.blocks)
    if failed_block is not None:
        place = [block.block for block in plan.blocks].index(failed_block)
        statuses = ["success"] * place + ["failure"] + ["cancelled"] * (len(plan.blocks) - place - 1)
    return StreamOutcome(
        stream=plan.stream,
        blocks=tuple(
            BlockOutcome(
                block=block.block,
                status=ended,
                rows=3,
                size_bytes=40,
                bookmark_before={"id": 1},
                bookmark_after={"id": 4},
                schema_changes=({"column": "c", "change": "added"},),
                error=error_info(plan.stream, block.block) if ended == "failure" else None,
                data=f"/spool/{plan.stream}/{block.block}.arrow",
            )
            for block, ended in zip(plan.blocks, statuses, strict=True)
        ),
        state=state,
    )


def error_info(stream: str | None = None, block: str | None = None) -> ErrorInfo:
    return ErrorInfo(
        type="ValueError", message=f"{stream} broke", traceback="Traceback ...", stream=stream, block=block
    )


def lease(store: Store, block: str = "alerts", pipeline: str = "p") -> Delivery:
    """Lease what must be due."""
    found = store.outbox(pipeline, CALLBACKS).lease(block)
    assert isinstance(found, Delivery), found
    return found


def deliver_all(outbox: Any, block: str = "alerts") -> list[Delivery]:
    """Deliver whatever is due, and succeed."""
    delivered = []
    while isinstance(found := outbox.lease(block), Delivery):
        json.dumps(dict(found.kwargs))
        delivered.append(found)
        assert outbox.mark(found, OK) == "done"
    return delivered


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Ask the database itself, past the store."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            rows: list[tuple[Any, ...]] = connection.execute(statement).fetchall()
            connection.commit()
            return rows
    import psycopg

    with psycopg.connect(url) as connection:
        cursor = connection.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []
