"""The command line: `syncblocks`. The only room that prints; each command imports what it needs when it is called."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

import click

from .console import Console, open_standard_streams

#: Blocks beyond this are the system's again as soon as they are freed; those of usual batches are smaller.
_LARGE_BYTES = 8 << 20

#: Objects after which garbage is looked for, and after how many times among the older ones; at first after more.
_COLLECT, _COLLECT_FIRST = (50_000, 20, 50), 250_000

#: Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

#: Command -> the module that holds it, as a function of the same name. In the order in which help shows them.
COMMANDS = {
    "init": "init",
    "run": "run",
    "sync": "sync",
    "plan": "plan",
    "check": "check",
    "discover": "discover",
    "preview": "preview",
    "count": "count",
    "verify": "verify",
    "runs": "runs",
    "state": "state",
    "callbacks": "callbacks",
    "schema": "schema",
    "tap": "singer",
    "target": "singer",
}


class Group(click.Group):
    """A group of commands that names the nearest one for a word it does not know."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say what was meant."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            known = self.list_commands(ctx)
            import difflib

            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such command {name!r}.{hint} There are: {', '.join(known)}.", ctx)
        return super().resolve_command(ctx, args)


class LazyGroup(Group):
    """The root: imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{COMMANDS[cmd_name]}", __name__)
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command


def _show_version(ctx: click.Context, _option: click.Parameter, is_wanted: bool) -> None:
    if is_wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"syncblocks {version('syncblocks')}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Show the version."
)
def root() -> None:
    """Sync streams from a source to a destination: every row once, every callback delivered.

    A pipeline is one YAML file. FILE may be left out where the current folder holds exactly one.

    \b
    Exit codes: 0 done; 1 a stream failed or was cancelled, or source or destination cannot be reached;
    2 nothing ran: the configuration or the command is wrong, or the pipeline is already running;
    3 synced, but a callback is dead or still due; 130/143 interrupted.
    """


def invoke(args: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    console = Console(is_json="--json" in args, is_debug="--debug" in args)
    try:
        returned: Any = root.main(list(args), prog_name="syncblocks", standalone_mode=False, obj=console)
        code = returned if isinstance(returned, int) else 0
    except Exception as error:  # everything becomes one message and an exit code
        code = console.fail(error)
    except KeyboardInterrupt as error:
        code = console.fail(error)
    console.close()
    return code


def main() -> None:
    """Entry point of the console script."""
    open_standard_streams()
    _collect_after_imports()
    # Arrow's own allocator keeps what it has once had, for each thread: 70 MB of four that read a CSV file.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    _return_large_blocks()
    code = invoke(sys.argv[1:])
    if "pyarrow" not in sys.modules and threading.active_count() == 1:
        sys.exit(code)
    # A thread may be left: one that was given up and hangs in a driver, or one of Arrow's that reads ahead. When the
    # interpreter ends it takes such threads down in a way that aborts the process, exit code and all. Everything is
    # closed by now, so that what others registered for the end is all that is left to do.
    _leave(code)


def _collect_after_imports() -> None:
    """Look for garbage later than usual, and the first time only when there is more than a small run makes.

    Imports make a hundred thousand objects and no garbage: looking for it is a twentieth of a small run's time.
    """

    def then(_phase: str, _info: dict[str, int]) -> None:
        gc.set_threshold(*_COLLECT)
        gc.callbacks.remove(then)

    gc.callbacks.append(then)
    gc.set_threshold(_COLLECT_FIRST, *_COLLECT[1:])


def _return_large_blocks() -> None:
    """Let glibc give each freed block of a wide record back to the system.

    By itself it keeps more and more, up to twice the largest block that was freed, and that for each thread.
    """
    import ctypes

    with suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE_BYTES)


def _leave(code: int) -> NoReturn:
    """End the process with this exit code, whatever its threads do."""
    try:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code)
