"""The command line `syncblocks`. Only this package prints. Each command imports its modules when it is called."""

from __future__ import annotations

import atexit
import importlib
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from ..own_process import set_up_process
from .console import Console, open_standard_streams

#: Command -> its module. In the order of the help.
COMMANDS = {
    "init": "init",
    "run": "run",
    "sync": "sync",
    "fill": "fill",
    "plan": "plan",
    "check": "check",
    "discover": "discover",
    "preview": "preview",
    "count": "count",
    "verify": "verify",
    "recover": "recover",
    "runs": "runs",
    "schedule": "schedule",
    "serve": "serve",
    "status": "status",
    "token": "token",
    "state": "state",
    "log": "log",
    "callbacks": "callbacks",
    "transformers": "transformers",
    "connectors": "connectors",
    "schema": "schema",
    "tap": "singer",
    "target": "singer",
}


#: Commands of other tools, and of a group that is left out -> the command.
_OTHER_WORDS = {
    "add": "init",
    "adopt": "state adopt",
    "cancel": "runs cancel",
    "config": "check",
    "conns": "check",
    "copy": "sync",
    "el": "sync",
    "elt": "sync",
    "help": "--help",
    "history": "runs list",
    "info": "state show",
    "ingest": "sync",
    "invoke": "run",
    "list": "runs list",
    "load": "sync",
    "logs": "runs show",
    "pause": "schedule pause",
    "pipeline": "state show",
    "replay": "callbacks replay",
    "replicate": "sync",
    "reset": "state reset",
    "resume": "schedule resume",
    "retry": "runs retry",
    "rewind": "state rewind",
    "cron": "schedule next",
    "daemon": "serve",
    "scheduler": "serve",
    "server": "serve",
    "next": "schedule next",
    "schedules": "schedule next",
    "select": "discover",
    "show": "runs show",
    "late": "status",
    "freshness": "status",
    "monitor": "status",
    "start": "run",
    "login": "token link",
    "tokens": "token list",
    "streams": "discover",
    "test": "callbacks test",
    "validate": "check",
    "version": "--version",
}

#: The same of commands in a group.
_OTHER_WORDS_IN = {"state": {"clear": "reset", "edit": "set", "get": "show", "list": "show", "ls": "show"}}


class Group(click.Group):
    """A group of commands that suggests the nearest command for an unknown word."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command, or raise with the nearest one."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            known = self.list_commands(ctx)
            import difflib

            words = _OTHER_WORDS if ctx.parent is None else _OTHER_WORDS_IN.get(self.name or "", {})
            other = words.get(name)
            near = [other] if other else difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such command {name!r}.{hint} There are: {', '.join(known)}.", ctx)
        return super().resolve_command(ctx, args)


class LazyGroup(Group):
    """The root group: imports a command's module when the command is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
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
    Exit codes:
      0  done
      1  a stream failed or was cancelled, or a database cannot be reached
      2  nothing ran: the configuration or the command is wrong,
         or the pipeline is already running
      3  synced, but a callback is dead or still due
      130, 143, 129  interrupted
    """


def invoke(args: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    console = Console(is_json="--json" in args, is_debug="--debug" in args)
    stdout = sys.stdout
    try:
        returned: Any = root.main(list(args), prog_name="syncblocks", standalone_mode=False, obj=console)
        code = returned if isinstance(returned, int) else 0
    except BrokenPipeError:  # click writes completions
        code = 0
    except SystemExit:  # click writes help; if nobody reads it, it replaces the stream and raises this
        if sys.stdout is stdout:
            raise
        code = 0
    except Exception as error:  # each error becomes one message and an exit code
        code = console.fail(error)
    except KeyboardInterrupt as error:
        code = console.fail(error)
    console.close()
    return code or int(console.has_failed)


def main() -> None:
    """Entry point of the console script."""
    open_standard_streams()
    set_up_process()
    # Arrow's own allocator keeps freed memory for each thread: 70 MB for four threads that read a CSV file.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    code = invoke(sys.argv[1:])
    if "pyarrow" not in sys.modules and threading.active_count() == 1:
        sys.exit(code)
    # A thread may still run: an abandoned one that hangs in a driver, or a read-ahead thread of Arrow. The interpreter
    # would abort the process when it ends such a thread, and lose the exit code. Everything is closed by now; only the
    # exit handlers are left.
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End the process with this exit code, even if threads still run."""
    try:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code)
