"""Messages and exit codes of errors."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.exceptions import NoArgsIsHelpError, NoSuchOption
from msgspec import Struct, field

if TYPE_CHECKING:
    from ..errors import ConfigError

UNREACHABLE = 1
NOTHING_RAN = 2
INTERRUPTED = 130


_STREAMS = "Name streams by --stream."
_FILE = "The pipeline file has no option before it: `syncblocks run FILE`."
_PLACES = "Both places have no option before them: `syncblocks sync SRC DST`."
_TABLE = "Did you mean '--destination-table'?"
_KEY = "Did you mean '--key'?"
_BOOKMARK = "Did you mean '--incremental'?"
_MODE = "Did you mean '--mode'?"
_SCHEMA = (
    "Of one stream, `--destination-table SCHEMA.TABLE`; of all, `schema` of the destination's `config` in the file."
)
_CONCURRENCY = "Did you mean '--concurrency'?"

#: Options of other tools -> what to say instead.
_OTHER_OPTIONS = {
    "--dry-run": "`syncblocks plan` shows what a run would do.",
    "-n": "`syncblocks plan` shows what a run would do.",
    "--select": _STREAMS,
    "--streams": _STREAMS,
    "--source-table": _STREAMS,
    "--src-stream": _STREAMS,
    "--table": _STREAMS,
    "--tables": _STREAMS,
    "--verbose": "--debug shows more.",
    "-v": "--debug shows more.",
    "-y": "Did you mean '--yes'?",
    "--config": _FILE,
    "-c": _FILE,
    "-f": _FILE,
    "-r": _FILE,
    "--file": _FILE,
    "--replication": _FILE,
    "--source-uri": _PLACES,
    "--dest-uri": _PLACES,
    "--src-conn": _PLACES,
    "--tgt-conn": _PLACES,
    "--threads": _CONCURRENCY,
    "--workers": _CONCURRENCY,
    "--log-level": "--debug shows more.",
}

#: The same of `sync`, in whose file the rest can be said.
_OTHER_OPTIONS_OF_SYNC = {
    "--dest-table": _TABLE,
    "--target-table": _TABLE,
    "--tgt-object": _TABLE,
    "--primary-key": _KEY,
    "--cursor": _BOOKMARK,
    "--incremental-key": _BOOKMARK,
    "--update-key": _BOOKMARK,
    "--incremental-strategy": _MODE,
    "--strategy": _MODE,
    "--append": _MODE,
    "--replace": _MODE,
    "--replication-method": _BOOKMARK,
    "--schema": _SCHEMA,
    "--dest-schema": _SCHEMA,
    "--dataset-name": _SCHEMA,
    "--full-refresh": "A table is replaced by default; of a file, `syncblocks run FILE --full-refresh`.",
    "--interval-start": "`syncblocks run FILE --interval-start` has it, with the file that `sync` writes.",
    "--interval-end": "`syncblocks run FILE --interval-end` has it, with the file that `sync` writes.",
    "--columns": "Say `types` of the stream in the file that `sync` writes.",
    "--sql-exclude-columns": "Say `columns` of the stream in the file that `sync` writes.",
    "--limit": "Say `limit` of the stream in the file that `sync` writes.",
    "--sql-limit": "Say `limit` of the stream in the file that `sync` writes.",
    "--query": "Say `query` of the stream in the file that `sync` writes.",
    "--where": "Say `where` of the stream in the file that `sync` writes.",
    "--src-options": "Say it in `config` of `source` in the file that `sync` writes.",
    "--tgt-options": "Say it in `config` of `destination` in the file that `sync` writes.",
}


class Problem(Struct, frozen=True, kw_only=True):
    """An error as the command line shows it."""

    #: Short stable name.
    code: str
    #: The message without its place.
    message: str
    exit_code: int
    #: The message with its place and advice, for people.
    text: str
    #: Attributes of the error, for programs.
    details: dict[str, Any] = field(default_factory=dict)
    #: What to do, if `text` does not say it.
    hint: str = ""


def describe(error: BaseException, context: click.Context | None = None) -> Problem:
    """Return code, exit code and texts of an error; `context`: of the command that it ended."""
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return _problem("interrupted", "interrupted", INTERRUPTED)
    if isinstance(error, click.ClickException):
        return _usage(error)
    for sort in (partial(_config, context=context), _engine, _connector, _callbacks):
        problem = sort(error)
        if problem is not None:
            return problem
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return _problem("io", f"{place}{error.strerror or error}", UNREACHABLE)
    lack = _lack(error)
    if lack is not None:
        return lack
    message = f"{type(error).__name__}: {error}"
    return _problem("internal", message, 1, hint="This is a bug of syncblocks; --debug shows where it is.")


def _lack(error: BaseException) -> Problem | None:
    """Return what the machine refuses, which is no fault of the program; None: it refused nothing."""
    if isinstance(error, MemoryError):
        hint = "Set `memory` or `concurrency` of the pipeline lower, or give the process more (the container's limit)."
        return _problem("memory", "out of memory", UNREACHABLE, hint=hint)
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        hint = "Set `concurrency` of the pipeline lower, or raise the limits of threads and memory (ulimit -u, -v)."
        return _problem("threads", "the system refuses to start another thread", UNREACHABLE, hint=hint)
    return None


def _problem(code: str, message: str, exit_code: int, *, hint: str = "", **details: Any) -> Problem:
    known = {key: value for key, value in details.items() if value not in (None, "", ())}
    return Problem(code=code, message=message, exit_code=exit_code, text=message, details=known, hint=hint)


def _usage(error: click.ClickException) -> Problem:
    context = getattr(error, "ctx", None)
    if isinstance(error, NoArgsIsHelpError):
        return Problem(code="usage", message="a command is missing", exit_code=NOTHING_RAN, text=error.format_message())
    hint = "" if context is None else f"Try '{context.command_path} --help'."
    message = error.format_message().replace("valid integer range", "whole number")
    if isinstance(error, NoSuchOption) and (other := _other_option(error.option_name, context)):
        message = f"No such option {error.option_name!r}. {other}"
    if "extra argument" in message and "(target-" in message:
        hint = f"Tap and target are `connector: singer` of a pipeline file: `syncblocks init` writes one. {hint}"
    elif "extra argument" in message and context is not None and _takes_streams(context):
        hint = f"{_expanded(context) or _STREAMS} {hint}"
    return _problem("usage", message, NOTHING_RAN, hint=hint)


def _other_option(name: str, context: click.Context | None) -> str:
    """Return what to say of an option of other tools; empty: it is none."""
    if context is not None and context.command.name == "sync" and name in _OTHER_OPTIONS_OF_SYNC:
        return _OTHER_OPTIONS_OF_SYNC[name]
    return _OTHER_OPTIONS.get(name, "")


def _takes_streams(context: click.Context | None) -> bool:
    # `callbacks test` takes the stream of a made-up event.
    return context is not None and context.command.name != "test" and has_option(context, "--stream")


def _expanded(context: click.Context | None, message: str = "") -> str:
    """Say that the shell has replaced a pattern, where a named stream (that the message speaks of) is a file's name."""
    if context is None or not has_option(context, "--stream"):
        return ""
    name = next(each.name for each in context.command.params if "--stream" in each.opts)
    given = context.params.get(name or "") or ()
    for value in [given] if isinstance(given, str) else given:
        if value and Path(value).exists() and (not message or repr(value) in message):
            pattern = shlex.quote(f"{value[0]}*")
            return (
                f"{value!r} is a file in this folder: the shell puts file names in the place of a pattern that is not "
                f"quoted. Write --stream {pattern}."
            )
    return ""


def has_option(context: click.Context, name: str) -> bool:
    """Tell whether the command of a context has an option."""
    return any(name in each.opts for each in context.command.params)


def _config(error: BaseException, context: click.Context | None) -> Problem | None:
    from ..errors import ConfigError

    if not isinstance(error, ConfigError):
        return None
    others = [{"message": other.message, **_place(other)} for other in error.others]
    return Problem(
        code=error.code,
        message=error.message,
        exit_code=NOTHING_RAN,
        text=str(error),
        details=_place(error) | ({"others": others} if others else {}),
        hint=_hint(error, context),
    )


def _engine(error: BaseException) -> Problem | None:
    from ..errors import SyncError

    if isinstance(error, SyncError):
        # Ledger or run store cannot be reached, or a tested function raised; after most other errors nothing ran.
        exit_code = 1 if error.code in ("ledger", "store", "transformer", "transform") else NOTHING_RAN
        return _problem(error.code, str(error), exit_code)
    return None


def _hint(error: ConfigError, context: click.Context | None) -> str:
    if error.key == "--stream":
        return _expanded(context, error.message)
    file = None if context is None else context.params.get("file")
    # The second name that the shell has put there is taken for the pipeline file.
    is_other = isinstance(file, Path) and file.suffix not in (".yaml", ".yml") and error.path == str(file)
    return _expanded(context) if is_other else ""


def _place(error: ConfigError) -> dict[str, Any]:
    details = {
        "path": error.path,
        "line": error.line,
        "key": error.key,
        "allowed": list(error.allowed) or None,
        "nearest": error.nearest,
    }
    return {key: value for key, value in details.items() if value is not None}


def _connector(error: BaseException) -> Problem | None:
    from syncblocks.connectors.errors import ConnectorConfigError, ConnectorError

    if not isinstance(error, ConnectorError):
        return None
    is_config = isinstance(error, ConnectorConfigError)
    return _problem(
        "connector_config" if is_config else "connector",
        str(error),
        NOTHING_RAN if is_config else UNREACHABLE,
        connector=error.connector,
        stream=error.stream,
        key=error.key,
    )


def _callbacks(error: BaseException) -> Problem | None:
    from syncblocks.callbacks.errors import CallbackError

    if not isinstance(error, CallbackError):
        return None
    return _problem("callback", str(error), NOTHING_RAN)
