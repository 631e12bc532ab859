"""`syncblocks callbacks test`: call a callback function or a hook with a made-up or a recorded event."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from syncblocks.connectors.struct_helpers import asdict

from . import formatting
from .completion import complete_blocks, complete_streams
from .console import Console
from .options import common, open_pipeline, variable_option
from .pipeline_file import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syncblocks.callbacks.protocols import Outcome
    from syncblocks.callbacks.trial import Trial

    from ..config import CallbackBlock, Pipeline

#: Values of `--status`; a test compares them with syncblocks.callbacks.kwargs, which the help does not import.
STATUSES = ("success", "failure", "cancelled", "retry", "schema_changed", "recovered", "crashed")

inline_option = click.option("--inline", is_flag=True, help="Call in this process: breakpoint() has the terminal.")


@click.command("test")
@common
@inline_option
@click.option("--key", metavar="KEY", help="Take the recorded event of this delivery from the pipeline's store.")
@click.option(
    "--pipeline", "pipeline_file", type=click.Path(path_type=Path), metavar="FILE.yaml", help="Its variables."
)
@variable_option
@click.option("--data", type=click.Path(path_type=Path), metavar="FILE", help="Rows: .parquet, .csv, .jsonl or .arrow.")
@click.option("--parent", metavar="NAME", help="A block_uuid, source, transformers, destination, stream or pipeline.")
@click.option("--stream", metavar="NAME", help="Stream of the event.", shell_complete=complete_streams)
@click.option("--status", "statuses", multiple=True, type=click.Choice(STATUSES), help="Default: all it serves.")
@click.option("--function", metavar="NAME", help="Only this function.")
@click.option("--block", metavar="NAME", help="The hook to call, of a pipeline file.", shell_complete=complete_blocks)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.py|FILE.yaml")
def test_command(
    console: Console,
    file: Path,
    block: str | None,
    function: str | None,
    statuses: tuple[str, ...],
    stream: str | None,
    parent: str | None,
    data: Path | None,
    variables: tuple[tuple[str, Any], ...],
    pipeline_file: Path | None,
    key: str | None,
    inline: bool,
) -> int:
    """Call the functions of a callback file, or a hook of a pipeline file, with a made-up or a recorded event.

    Functions need no pipeline file. Each function is called as in a run: in a child process, with its deadline. Shows
    its arguments, output, result or error, and keyword arguments that do not exist. Functions marked by @test are
    called with the data. A hook really sends, runs or writes. Exit code 1 if a function or a hook failed.
    """
    from syncblocks.callbacks.trial import try_file

    from ..delivery.masked_output import masked_output
    from ..errors import StateError

    if file.suffix.lower() in SUFFIXES:
        if key or function or data or inline or pipeline_file:
            raise click.UsageError("a hook takes only --block, --status, --stream, --parent and --variable")
        hooks = open_pipeline(console, file, variables)
        return _test_hook(console, hooks, block, statuses, parent, partial(_made_up_for_hook, hooks, stream))
    if block is not None:
        raise click.UsageError("--block names a hook of a pipeline file; of a callback file, name the --function")
    if key is not None and (statuses or stream or parent):
        raise click.UsageError("--key uses the recorded event: leave out --status, --stream and --parent")
    pipeline = None
    if pipeline_file is not None or key is not None:
        pipeline = open_pipeline(console, pipeline_file, variables)
    with (
        masked_output(console.redactor),
        _event(pipeline, file, key, stream, parent, dict(variables)) as (event, parents, timeout_s, recorded),
    ):
        try:
            trials = try_file(
                file,
                statuses=statuses if recorded is None else (recorded[0],),
                function=function,
                event=event,
                data=data if data is not None or recorded is None else recorded[1],
                parents=parents,
                timeout_s=timeout_s,
                inline=inline,
            )
            tests = _tests(file, recorded[1] if recorded is not None and data is None else data, function)
        except (LookupError, ValueError) as error:
            raise StateError(str(error)) from error
    code = 0 if all(trial.outcome.ok for trial in trials) and not any(tests.values()) else 1
    if console.is_json:
        calls = [_trial_document(trial) for trial in trials]
        console.emit({"type": "callback_test", "file": str(file), "calls": calls, "tests": tests, "exit_code": code})
        return code
    for trial in trials:
        _show_trial(console, trial)
    show_tests(console, tests)
    return code


def _tests(file: Path, data: Path | None, function: str | None) -> dict[str, str | None]:
    """Call the functions marked by `@test` with the data, unless one function was asked for."""
    from syncblocks.callbacks.loader import execute, tests_of
    from syncblocks.callbacks.output_tests import run_tests
    from syncblocks.callbacks.trial import sample_or_file

    path = file.absolute()
    tests = {} if function is not None else tests_of(execute(path))
    return run_tests(tests, lambda: sample_or_file(data).to_pandas(), path)


def show_tests(console: Console, tests: Mapping[str, str | None]) -> None:
    """Show what functions marked by `@test` have said."""
    for name, failed in tests.items():
        console.echo(f"test {name}: {failed or 'passed'}", color="red" if failed else "green")


Event = Callable[[str], dict[str, Any]]


@contextmanager
def _event(
    pipeline: Pipeline | None,
    file: Path,
    key: str | None,
    stream: str | None,
    parent: str | None,
    variables: dict[str, Any],
) -> Iterator[tuple[Event, list[str] | None, float, tuple[str, Path | None] | None]]:
    """Yield the maker of events, `on` and the deadline, and status and data of a recorded event."""
    from syncblocks.callbacks.made_up_events import make_event

    block = None if pipeline is None else _block_of(pipeline, file)
    timeout_s = 60.0 if block is None else float(block.timeout_s)
    if pipeline is None:
        parents = None if parent is None else [parent]
        yield (
            lambda status: make_event(status, stream or "users", parent=parent or "stream", **variables),
            parents,
            timeout_s,
            None,
        )
        return
    if key is not None:
        status, kwargs, data = _recorded(pipeline, key)
        yield lambda _: {**kwargs, **variables}, None, timeout_s, (status, data)
        return
    name, on = _parent(pipeline, parent or (block.on[0] if block is not None else "stream"))
    parents = list(block.on) if block is not None and parent is None else [on]
    yield lambda status: _made_up(pipeline, block, status, stream, name), parents, timeout_s, None


def _made_up(
    pipeline: Pipeline, block: CallbackBlock | None, status: str, stream: str | None, parent: str
) -> dict[str, Any]:
    """Return a made-up event of this pipeline."""
    from syncblocks.callbacks.kwargs import RESERVED
    from syncblocks.callbacks.made_up_events import make_event

    from ..config import is_glob, render_destination_table

    entries = {entry.stream: entry for entry in pipeline.streams}
    name = stream or next((entry for entry in entries if not is_glob(entry)), "users")
    template = entries[name].destination_table if name in entries else None
    table = name.rpartition(".")[2] if template is None else render_destination_table(template, pipeline, name)
    date = pipeline.execution_date.isoformat()
    event = make_event(
        status,
        pipeline.called(name),
        parent=parent,
        destination_table=table,
        execution_date=date,
        execution_partition=pipeline.execution_partition,
        block_uuid="callback_under_test" if block is None else block.block,
        pipeline_uuid=pipeline.pipeline,
        env=pipeline.env,
        configuration=dict(pipeline.configuration(parent)),
        **{key: value for key, value in pipeline.variables.items() if key not in RESERVED | {"status", "parent"}},
    )
    event["pipeline_run"] |= {"pipeline_uuid": pipeline.pipeline, "execution_date": date}
    return event


def _made_up_for_hook(
    pipeline: Pipeline, stream: str | None, block: CallbackBlock, status: str, parent: str
) -> dict[str, Any]:
    """Return a made-up event in recorded form: secret variables are references."""
    from syncblocks.callbacks.kwargs import RESERVED

    references = dict(pipeline.variable_references)
    event = _made_up(pipeline, block, status, stream, _parent(pipeline, parent)[0])
    flat = {name: value for name, value in references.items() if name not in RESERVED}
    return event | flat | {"pipeline_run": event["pipeline_run"] | {"variables": references}}


def _recorded(pipeline: Pipeline, start: str) -> tuple[str, dict[str, Any], Path | None]:
    """Return status, kwargs and data of a delivery."""
    from syncblocks.callbacks.kwargs import RESERVED

    from ..config import resolve_references
    from ..errors import StateError
    from ..run.redelivery import current_callbacks
    from ..session.inspection import existing_store

    with existing_store(pipeline) as store:
        if store is None:
            raise StateError(f"pipeline {pipeline.pipeline!r} has not run yet: there is no recorded event")
        deliveries = store.outbox(pipeline.pipeline, current_callbacks(pipeline)).deliveries
        record = deliveries.find(start)
        delivery = deliveries.recorded(record.key)
    variables = {name: value for name, value in delivery.kwargs.items() if name not in RESERVED}
    kwargs = {**delivery.kwargs, **resolve_references(variables, pipeline)}
    data = Path(delivery.data) if delivery.data is not None and Path(delivery.data).exists() else None
    return record.status, kwargs, data


def _block_of(pipeline: Pipeline, file: Path) -> CallbackBlock | None:
    blocks = ((block, block.file) for block in pipeline.callbacks)
    return next((block for block, path in blocks if path and pipeline.resolve(path) == file.absolute()), None)


def _parent(pipeline: Pipeline, word: str) -> tuple[str, str]:
    """Return the block_uuid of a word of `on`, and the word."""
    from ..errors import ConfigError, nearest_match

    transformers = [block.block for block in pipeline.transformers]
    meaning = {
        "source": pipeline.source.block,
        "destination": pipeline.destination.block,
        "stream": pipeline.destination.block,
        "pipeline": "pipeline",
        **({"transformers": transformers[0]} if transformers else {}),
        **{name: name for name in (pipeline.source.block, *transformers, pipeline.destination.block)},
    }
    if word not in meaning:
        raise ConfigError(
            f"the pipeline has no parent {word!r}",
            key="--parent",
            allowed=tuple(meaning),
            nearest=nearest_match(word, tuple(meaning)),
        )
    return meaning[word], word


def _show_trial(console: Console, trial: Trial) -> None:
    show_outcome(console, f"{trial.function} ({trial.status})", trial.outcome)
    console.echo(f"  data: {trial.data}")
    console.echo("  received:" if trial.received else "  received: no keyword arguments")
    width = max(map(len, trial.received), default=0)
    for name, value in trial.received.items():
        console.echo(f"    {name:{width}}  {value}")
    for unknown in trial.unknown:
        console.warn(f"{trial.function}: {unknown}")


def show_outcome(console: Console, what: str, outcome: Outcome) -> None:
    how = f"returned {outcome.value}" if outcome.ok else outcome.kind
    console.echo(
        f"{what}: {how} after {formatting.duration(outcome.duration_s)}", color="green" if outcome.ok else "red"
    )
    show_indented(console, "error", outcome.error)
    show_indented(console, "output", outcome.output)


def show_indented(console: Console, what: str, text: str | None) -> None:
    if text and text.strip():
        console.echo(f"  {what}:")
        for line in text.rstrip().splitlines():
            console.echo(f"    {line}")


def _trial_document(trial: Trial) -> dict[str, Any]:
    return {
        "function": trial.function,
        "status": trial.status,
        "received": dict(trial.received),
        "data": trial.data,
        "unknown": [asdict(unknown) for unknown in trial.unknown],
        **asdict(trial.outcome),
    }


def _test_hook(
    console: Console,
    pipeline: Pipeline,
    name: str | None,
    statuses: Sequence[str],
    parent: str | None,
    make_event: Callable[[CallbackBlock, str, str], dict[str, Any]],
) -> int:
    """Call one hook of a pipeline file, once for each status; return 1 if a call fails.

    Args:
        console: the output.
        pipeline: the pipeline file.
        name: the callback block; None: the only hook.
        statuses: statuses of the events; empty: those that the hook serves.
        parent: a word of `on`; None: the block's first.
        make_event: returns the event of a block, a status and a parent.
    """
    from ..run.redelivery import try_hook

    number = _hook_number(pipeline, name)
    block = pipeline.callbacks[number]
    calls: list[tuple[str, Outcome]] = []
    for status in statuses or _hook_statuses(pipeline, block):
        event = make_event(block, status, parent or block.on[0])
        calls.append((status, try_hook(pipeline, number, status, event)))
    code = 0 if all(outcome.ok for _, outcome in calls) else 1
    if console.is_json:
        found = [{"callback_block": block.block, "status": status, **asdict(outcome)} for status, outcome in calls]
        console.emit({"type": "callback_test", "pipeline": pipeline.pipeline, "calls": found, "exit_code": code})
        return code
    for status, outcome in calls:
        took = formatting.duration(outcome.duration_s)
        said = "its condition is false, so it was not called" if outcome.kind == "skipped" else f"done after {took}"
        said = said if outcome.ok else f"{outcome.kind} after {took}"
        console.echo(f"{block.block}.{block.kind} ({status}): {said}", color="green" if outcome.ok else "red")
        for what, text in (("error", outcome.error), ("output", outcome.output)):
            for line in (text or "").rstrip().splitlines():
                console.echo(f"  {what}: {line}")
    return code


def _hook_number(pipeline: Pipeline, name: str | None) -> int:
    from ..errors import ConfigError, nearest_match

    hooks = {block.block: place for place, block in enumerate(pipeline.callbacks) if block.kind != "file"}
    if name is None and len(hooks) == 1:
        return next(iter(hooks.values()))
    if name is not None and name in hooks:
        return hooks[name]
    files = {block.block: block.file for block in pipeline.callbacks if block.kind == "file"}
    if name in files:
        raise click.UsageError(f"{name} is functions: `syncblocks callbacks test {files[name]}` calls them")
    if not hooks:
        raise ConfigError(
            f"{pipeline.pipeline} has no hooks (notify, webhook, shell, sql); to call functions name their .py "
            "file, and the pipeline by --pipeline",
            key="--block",
        )
    raise ConfigError(
        "name the hook to call" if name is None else f"the pipeline has no hook {name!r}",
        key="--block",
        allowed=tuple(hooks),
        nearest=None if name is None else nearest_match(name, tuple(hooks)),
    )


def _hook_statuses(pipeline: Pipeline, block: CallbackBlock) -> list[str]:
    from ..delivery.subscriptions import load_user_code

    subscriptions = load_user_code(pipeline).subscriptions
    return list(dict.fromkeys(one.status for one in subscriptions if one.callback_block == block.block))
