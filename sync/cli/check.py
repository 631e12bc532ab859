"""`syncblocks check`: check the file, and that source, destination and run store can be reached. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import formatting
from .console import Console
from .options import common, file_argument, open_pipeline, variable_option

if TYPE_CHECKING:
    from ..config import Pipeline
    from ..session.session import Session


@click.command("check", short_help="Check the file, and that all can be reached.")
@common
@variable_option
@file_argument
def check_command(console: Console, file: Path | None, variables: tuple[tuple[str, Any], ...]) -> int:
    """Check the file and everything it names, and that source, destination and run store can be reached.

    Writes nothing. Exit code 2 if the configuration is wrong, 1 if something cannot be reached.
    """
    from ..session.inspection import opened

    pipeline = open_pipeline(console, file, variables)
    with opened(pipeline) as session:
        places = _places(pipeline, session)
        results = [_result(name, place, check) for name, place, check in places]
        warnings = list(session.code.misspelt)
    is_ok = all(result["ok"] for result in results)
    code = max((result.pop("exit_code") for result in results), default=0)
    if console.is_json:
        console.emit(
            {"type": "check", "pipeline": pipeline.pipeline, "ok": is_ok, "checks": results, "warnings": warnings}
        )
        return int(code)
    console.table(
        ["what", "where", "result"],
        [[result["name"], result["place"], "ok" if result["ok"] else "error"] for result in results],
    )
    for warning in warnings:
        console.warn(warning)
    for result in results:
        if not result["ok"]:
            console.echo(f"error: {result['name']}: {result['error']}", err=True, color="red")
    return int(code)


def _places(pipeline: Pipeline, session: Session) -> list[tuple[str, str, Callable[[], Any]]]:
    functions = {(item.callback_block, item.function) for item in session.code.subscriptions}
    return [
        ("file", str(pipeline.path), lambda: None),
        ("callbacks", formatting.plural(len(functions), "function"), lambda: None),
        ("source", session.source.identity(), session.source.check),
        ("destination", session.destination.identity(), session.destination.check),
        ("run store", pipeline.store_url, lambda: _check_store(pipeline)),
    ]


def _check_store(pipeline: Pipeline) -> None:
    from ..session.inspection import existing_store

    with existing_store(pipeline) as store:
        if store is not None:
            store.latest_run(pipeline.pipeline)


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
