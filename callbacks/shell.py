"""Run a command; it gets the event on stdin, never as part of the command."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from .errors import HookFailed

#: A word that can be a program's name.
_PROGRAM = re.compile(r"[\w./+-]+")

#: Exit code of a shell for a missing program.
_NOT_FOUND = 127


def run(
    command: str | Sequence[str], event: Mapping[str, Any], *, folder: str, variables: Mapping[str, str] | None = None
) -> None:
    """Run a command to its end; its output goes to this process's output.

    Args:
        command: text for /bin/sh, or a program and its arguments.
        event: written to its stdin, as JSON on one line.
        folder: its working folder.
        variables: added to its environment.

    Raises:
        HookFailed: it cannot be started, or its exit code is not 0.
    """
    arguments = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
    environment = {**os.environ, **{name: _plain(value) for name, value in (variables or {}).items()}}
    try:
        process = subprocess.Popen(arguments, stdin=subprocess.PIPE, cwd=folder, env=environment)
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError) and error.filename == arguments[0]:
            raise HookFailed(f"shell: {_missing(arguments[0])}") from None
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise HookFailed(f"shell: the command cannot be started: {reason}") from None
    with process:
        # A command need not read all of its input.
        with suppress(BrokenPipeError):
            process.communicate(json.dumps(event, separators=(",", ":")).encode() + b"\n")
        code = process.wait()
    if code == _NOT_FOUND and isinstance(command, str) and (program := _unknown_program(command, folder, environment)):
        raise HookFailed(f"shell: {_missing(program)}")
    if code:
        raise HookFailed(f"shell: {_ended(code)}")


def _missing(program: str) -> str:
    return f"the shell finds no program {program[:100]!r}; install it, or write its full path"


def _unknown_program(command: str, folder: str, environment: Mapping[str, str]) -> str | None:
    """Return the first program of a command that the shell does not find; None: it cannot be determined."""
    for part in re.split(r"[;&|()\n]+", command):
        word = next((word for word in part.split() if "=" not in word), "")
        if not _PROGRAM.fullmatch(word):
            continue
        asked = ["/bin/sh", "-c", 'command -v -- "$1"', "sh", word]
        if subprocess.run(asked, capture_output=True, check=False, cwd=folder, env=environment).returncode:
            return word
    return None


def _ended(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"the command was killed by {signal.Signals(-code).name}"
    hint = "; the shell did not find a program" if code == _NOT_FOUND else ""
    return f"the command ended with exit code {code}{hint}"


def _plain(value: str) -> str:
    """Escape characters that an environment variable cannot contain."""
    return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
