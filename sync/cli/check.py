"""`syncblocks check`: check the file, what it names and what a run needs. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import formatting
from .console import Console
from .options import Moments, common, file_argument, moment_options, open_pipeline, variable_option

if TYPE_CHECKING:
    from syncblocks.connectors.log_based import LogLook
    from syncblocks.connectors.protocols import Destination, Source

    from ..config import Pipeline
    from ..plan.policy import Configured
    from ..session.session import PipelineSession


@click.command("check", short_help="Check the file, the connections and the privileges.")
@common
@variable_option
@moment_options
@file_argument
def check_command(console: Console, file: Path | None, variables: tuple[tuple[str, Any], ...], moments: Moments) -> int:
    """Check the file and everything it names, that all can be reached, and what a run needs.

    A run needs its streams, their keys and bookmark columns, types that the destination keeps, and the privileges to
    write; the GRANT that is missing is printed. Writes nothing. Exit code 2 if the configuration is wrong, 1 if
    something cannot be reached or written. A Dask cluster is connected to; workers of `dask: local` are not started.
    """
    from syncblocks.connectors.log_based import LogLook

    from ..session.inspection import opened

    pipeline = open_pipeline(console, file, variables, **moments._asdict())
    with opened(pipeline) as session:
        places = _places(pipeline, session)
        results = [_result(name, place, check) for name, place, check in places]
        warnings, log = list(session.code.misspelt), LogLook()
        if all(result["ok"] for result in results):
            needs, more, log = _needs_of_a_run(session)
            results += needs
            warnings += more
    is_ok = all(result["ok"] for result in results)
    code = max((result.pop("exit_code") for result in results), default=0)
    if console.is_json:
        found = {"checks": results, "warnings": warnings, "log_retained_bytes": log.retained_bytes}
        console.emit({"type": "check", "pipeline": pipeline.pipeline, "ok": is_ok, **found})
        return int(code)
    console.table(
        ["what", "where", "result"],
        [[result["name"], result["place"], "ok" if result["ok"] else "error"] for result in results],
    )
    for note in log.notes:
        console.echo(note)
    for warning in warnings:
        console.warn(warning)
    for result in results:
        if not result["ok"]:
            console.echo(f"error: {result['name']}: {result['error']}", err=True, color="red")
    return int(code)


def _places(pipeline: Pipeline, session: PipelineSession) -> list[tuple[str, str, Callable[[], Any]]]:
    functions = {(item.callback_block, item.function) for item in session.code.subscriptions}
    executor = pipeline.executor
    return [
        ("file", str(pipeline.path), lambda: None),
        ("callbacks", formatting.plural(len(functions), "function"), lambda: None),
        ("source", session.source_address, lambda: _check_place(pipeline, "source", session.source)),
        (
            "destination",
            session.destination_address,
            lambda: _check_place(pipeline, "destination", session.destination),
        ),
        ("run store", pipeline.store_url, lambda: _check_store(pipeline)),
        *([("executor", str(executor), lambda: _check_executor(session))] if executor.is_elsewhere else []),
    ]


def _needs_of_a_run(session: PipelineSession) -> tuple[list[dict[str, Any]], list[str], LogLook]:
    """Check what a run needs beyond connections, and return warnings of what it may miss, and of the log.

    After a mistake, what comes behind it would fail for the same one.
    """
    from syncblocks.connectors.log_based import LogLook

    from ..errors import ConfigError
    from ..plan.plan import missing_warnings
    from ..plan.reading import hidden_warnings
    from ..run.limits import limit_warnings
    from ..session.inspection import existing_store, selected_streams
    from ..session.session import make_plan

    pipeline = session.pipeline
    selected: list[Configured] = []
    warnings, log = list[str](), LogLook()

    def check_plan() -> None:
        nonlocal log
        with existing_store(pipeline) as store:
            plan = make_plan(session, store, is_of_run=False, limits_log=True)
        if refused := [each for each in plan.streams if each.verdict.refusal]:
            raise ConfigError("; ".join(f"stream {each.name!r}: {each.verdict.refusal}" for each in refused))
        warnings.extend(hidden_warnings(plan.streams))
        warnings.extend(limit_warnings(session, plan))
        log = plan.log
        warnings.extend([*missing_warnings(plan.missing), *plan.unreadable, *log.warnings])

    results = list[dict[str, Any]]()
    for name, place, check in (
        ("streams", session.source_address, lambda: selected.extend(selected_streams(session))),
        ("privileges", session.destination_address, lambda: _check_privileges(session, selected)),
        ("plan", "types, keys and bookmarks", check_plan),
    ):
        results.append(_result(name, place, check))
        if not results[-1]["ok"]:
            break
    return results, warnings, log


def _check_privileges(session: PipelineSession, selected: Sequence[Configured]) -> None:
    from syncblocks.connectors.errors import FatalConnectorError

    knows = session.destination_can.knows_privileges
    if knows is None:
        return
    missing = knows.missing_privileges({stream.destination_table: stream.write.disposition for stream in selected})
    if missing:
        statements = "\n".join(f"{statement};" for statement in missing)
        raise FatalConnectorError(
            f"the database user lacks privileges that a run needs; an administrator runs:\n{statements}"
        )


def _check_place(pipeline: Pipeline, role: str, connector: Source | Destination) -> None:
    from ..session.inspection import placed_errors

    with placed_errors(pipeline, role):
        connector.check()


def _check_store(pipeline: Pipeline) -> None:
    from ..errors import StoreUnreachable
    from ..session.inspection import existing_store
    from ..store import Store

    # First: what a store lacks to be read may be among them.
    if missing := Store.missing_privileges(pipeline.store_url):
        statements = "\n".join(f"{statement};" for statement in missing)
        raise StoreUnreachable(
            f"the user of the run store lacks privileges that a run needs; an administrator runs:\n{statements}"
        )
    Store.demand_writable(pipeline.store_url)
    with existing_store(pipeline) as store:
        if store is not None:
            store.latest_run(pipeline.pipeline)


def _check_executor(session: PipelineSession) -> None:
    from ..run.executors.opening import check_engine

    check_engine(session)


def _result(name: str, place: str, check: Callable[[], Any]) -> dict[str, Any]:
    from syncblocks.connectors.errors import ConnectorError

    from ..errors import SyncError
    from .errors import describe

    try:
        check()
    except (ConnectorError, SyncError) as error:
        problem = describe(error)
        return {
            "name": name,
            "place": place,
            "ok": False,
            "code": problem.code,
            "error": problem.text,
            "exit_code": problem.exit_code,
        }
    return {"name": name, "place": place, "ok": True, "error": None, "exit_code": 0}
