"""`syncblocks tap` and `syncblocks target`: our connectors as Singer plugins, for Singer and Meltano."""

from __future__ import annotations

import click

from .console import Console

_PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@click.command(
    "tap", short_help="Read with a connector as a Singer tap.", context_settings=_PASSED_ON, add_help_option=False
)
@click.argument("name", metavar="NAME")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="--config FILE [--discover|--state|--catalog]")
@click.pass_obj
def tap_command(console: Console, name: str, arguments: tuple[str, ...]) -> int:
    """Read with a connector of ours as a Singer tap: messages on stdout, log on stderr.

    NAME is the connector (postgres, csv, ...); `syncblocks tap NAME --help` shows what singer-sdk's taps take.
    """
    return _run("tap", name, arguments)


@click.command(
    "target",
    short_help="Write with a connector as a Singer target.",
    context_settings=_PASSED_ON,
    add_help_option=False,
)
@click.argument("name", metavar="NAME")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="--config FILE [--input FILE]")
@click.pass_obj
def target_command(console: Console, name: str, arguments: tuple[str, ...]) -> int:
    """Write with a connector of ours as a Singer target: messages on stdin, states on stdout once committed.

    NAME is the connector (postgres, duckdb, ...); `syncblocks target NAME --help` shows what it takes.
    """
    return _run("target", name, arguments)


def _run(kind: str, name: str, arguments: tuple[str, ...]) -> int:
    if name in ("--help", "-h"):
        command = tap_command if kind == "tap" else target_command
        with click.Context(command, info_name=f"syncblocks {kind}") as context:
            click.echo(command.get_help(context))
        return 0
    from syncblocks.connectors.singer.plugins import run_plugin

    try:
        run_plugin(kind, name, arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
