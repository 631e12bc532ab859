from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from syncblocks.callbacks import BlockRun, ParentError, PipelineRun
from syncblocks.callbacks.kwargs import (
    RESERVED,
    IntegrationKwargs,
    PipelineKwargs,
    StandardKwargs,
    build_kwargs,
    hydrate,
)
from syncblocks.callbacks.testing import make_event

DATE = datetime(2023, 4, 26, 20, 28, 17, 335254, tzinfo=UTC)


def event(**overrides: Any) -> dict[str, Any]:
    return {
        "block_uuid": "alerts",
        "parent_block_uuid": "export_warehouse",
        "execution_date": DATE,
        "trigger": "207",
        "pipeline_uuid": "fire_etl",
        "pipeline_run": {"id": 2357, "status": "success", "attempt": 1, "started_at": DATE},
        "variables": {"region": "eu", "stream": "not this one"},
        "stream": "stripe_transactions",
        "destination_table": "dim_users_v1",
        "index": 0,
        "is_last_block_run": True,
        "block_run": {"uuid": "export_warehouse:stripe_transactions", "status": "success", "started_at": DATE},
        "attempts": 1,
        "idempotency_key": "ab" * 16,
        **overrides,
    }


def test_the_recorded_form_is_plain_json_and_has_the_seeds_samples() -> None:
    recorded = build_kwargs(event())
    assert json.loads(json.dumps(recorded)) == recorded
    assert recorded["ds"] == "2023-04-26"
    assert recorded["hr"] == "20"
    assert recorded["execution_partition"] == "207/20230426T202817"
    assert recorded["event"] == {}
    assert recorded["retry"] == {"attempts": 1}


def test_ds_hr_and_partition_are_those_of_utc() -> None:
    east = DATE.astimezone(timezone(timedelta(hours=9)))
    recorded = build_kwargs(event(execution_date=east.isoformat(), trigger=None))
    assert (recorded["ds"], recorded["hr"], recorded["execution_partition"]) == (
        "2023-04-26",
        "20",
        "0/20230426T202817",
    )


def test_variables_are_flat_and_reserved_names_win() -> None:
    recorded = build_kwargs(event())
    assert recorded["region"] == "eu"
    assert recorded["stream"] == "stripe_transactions"
    assert recorded["pipeline_run"]["variables"] == {"region": "eu", "stream": "not this one"}
    assert "block_runs" not in build_kwargs(event(variables={"block_runs": 1}))


def test_hydrating_makes_aware_dates_and_objects() -> None:
    kwargs = hydrate(build_kwargs(event()))
    assert kwargs["execution_date"] == DATE
    assert kwargs["execution_date"].tzinfo is UTC
    run = kwargs["pipeline_run"]
    assert repr(run) == "PipelineRun(id=2357, pipeline_uuid=fire_etl, execution_date=2023-04-26 20:28:17.335254+00:00)"
    assert (run.id, run.status, run.attempt, run.started_at) == (2357, "success", 1, DATE)
    assert run.variables["region"] == "eu"
    assert kwargs["block_run"].uuid == "export_warehouse:stripe_transactions"
    assert kwargs["block_run"].started_at == DATE


def test_a_failure_carries_an_exception() -> None:
    details = {"type": "KeyError", "message": "id", "traceback": "...", "stream": "users", "block": "clean"}
    error = hydrate(build_kwargs(event(error=details)))["__error"]
    assert isinstance(error, ParentError)
    assert str(error) == "id"
    assert {name: getattr(error, name) for name in details} == details
    assert "__error" not in build_kwargs(event())


def test_a_pipeline_event_has_no_integration_kwargs() -> None:
    runs = [{"uuid": "a:b", "status": "failure", "ended_at": DATE, "some_later_key": 1}]
    recorded = build_kwargs(event(parent_block_uuid="pipeline", block_runs=runs, never_started=["orders"]))
    assert not recorded.keys() & {"stream", "destination_table", "index", "is_last_block_run", "block_run"}
    kwargs = hydrate(json.loads(json.dumps(recorded)))
    assert kwargs["block_runs"] == [BlockRun(uuid="a:b", status="failure", ended_at=DATE)]
    assert kwargs["never_started"] == ["orders"]


def test_the_objects_are_frozen() -> None:
    kwargs = hydrate(make_event())
    for value in (kwargs["pipeline_run"], kwargs["block_run"]):
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.status = "failure"
    assert isinstance(kwargs["pipeline_run"], PipelineRun)


def test_the_tables_hold_exactly_the_contracts_names() -> None:
    assert set(IntegrationKwargs.__annotations__) == {"stream", "destination_table", "index", "is_last_block_run"}
    assert {"__input", "__error"} < set(StandardKwargs.__annotations__)
    names = {*StandardKwargs.__annotations__, *IntegrationKwargs.__annotations__, *PipelineKwargs.__annotations__}
    assert names == RESERVED


@pytest.mark.parametrize(
    ("attempt", "trigger", "name"), [(1, None, "cli"), (1, "0", "cli"), (1, "nightly", "nightly"), (2, "207", "retry")]
)
def test_trigger_name_says_what_started_the_attempt(attempt: int, trigger: str | None, name: str) -> None:
    recorded = build_kwargs(event(trigger=trigger, pipeline_run={"id": 7, "attempt": attempt}))
    assert (recorded["trigger_name"], recorded["pipeline_run_id"]) == (name, 7)


def test_the_logger_writes_to_the_output_of_the_call_with_tags(capsys: pytest.CaptureFixture[str]) -> None:
    logger = hydrate(build_kwargs(event()))["logger"]
    logger.info("%d records", 3, table="users")
    try:
        raise KeyError("id")
    except KeyError:
        logger.exception("failed")
    first, second, *_, last = capsys.readouterr().out.splitlines()
    assert (first, second, last) == ("INFO 3 records table='users'", "ERROR failed", "KeyError: 'id'")
