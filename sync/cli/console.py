"""Where all output goes: text or one JSON document, redacted, without control characters, without a traceback."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

import click
from click.exceptions import NoArgsIsHelpError

if TYPE_CHECKING:
    from ..config.secrets import Redactor

STATUS_COLORS = {
    "success": "green",
    "done": "green",
    "ok": "green",
    "failure": "red",
    "dead": "red",
    "error": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "warning": "yellow",
}


class Console:
    """Output of one command. Everything that is shown passes its redactor."""

    def __init__(self, *, is_json: bool = False, is_debug: bool = False) -> None:
        self.is_json = is_json
        self.is_debug = is_debug
        self._redactor: Redactor | None = None
        self._json: IO[str] | None = None
        self._has_lost = False

    # -- what must not be shown ----------------------------------------------------------------------------------

    @property
    def redactor(self) -> Redactor:
        """Knows the secrets of the pipeline; masks passwords of URLs before there is one."""
        if self._redactor is None:
            from ..config.secrets import Redactor

            self._redactor = Redactor()
        return self._redactor

    def hide(self, secrets: Iterable[str]) -> None:
        """Learn what must never be shown."""
        self.redactor.add(secrets)

    # -- text ----------------------------------------------------------------------------------------------------

    def echo(self, text: str = "", *, err: bool = False, color: str | None = None) -> None:
        """Print text; its control characters are shown, not sent to the terminal."""
        self._write(self.styled(clean(self.redactor.redact(text), keep="\n\t"), color, err=err), err=err)

    def warn(self, text: str) -> None:
        """Print a warning on stderr; with --json too."""
        label = self.styled("warning:", "yellow", err=True)
        self._write(f"{label} {clean(self.redactor.redact(text), keep=chr(10))}", err=True)

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Iterable[str] = ()) -> None:
        """Print aligned columns; a cell that is a status has its colour, columns without any value are left out."""
        cells = [["" if value is None else clean(self.redactor.redact(str(value))) for value in row] for row in rows]
        kept = [place for place in range(len(headers)) if not cells or any(row[place] for row in cells)]
        to_right = set(right)
        widths = {place: max([_width(headers[place]), *(_width(row[place]) for row in cells)]) for place in kept}

        def line(row: Sequence[str], *, is_header: bool = False) -> str:
            parts = []
            for place in kept:
                space = " " * (widths[place] - _width(row[place]))
                color = None if is_header else STATUS_COLORS.get(row[place])
                shown = self.styled(row[place], color, bold=is_header)
                parts.append(space + shown if headers[place] in to_right else shown + space)
            return "  ".join(parts).rstrip()

        self._write(line(headers, is_header=True))
        for row in cells:
            self._write(line(row))

    def styled(self, text: str, color: str | None = None, *, bold: bool = False, err: bool = False) -> str:
        """Return the text in colour where the stream is a terminal that wants it."""
        if not (color or bold) or not has_color(sys.stderr if err else sys.stdout):
            return text
        return click.style(text, fg=color, bold=bold)

    def _write(self, text: str, *, err: bool = False) -> None:
        stream = sys.stderr if err else sys.stdout
        try:
            stream.write(text + "\n")
            stream.flush()
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        except OSError as error:
            self._lose(stream, error)

    # -- JSON ----------------------------------------------------------------------------------------------------

    def claim_stdout(self) -> None:
        """Keep stdout for JSON alone: whatever a user's file or a driver prints goes to stderr from now on."""
        if self._json is not None:
            return
        sys.stdout.flush()
        self._json = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def emit(self, document: Mapping[str, Any]) -> None:
        """Print one JSON document on one line."""
        text = json.dumps(self.redactor.redact_value(document), ensure_ascii=False, default=_plain)
        stream = self._json or sys.stdout
        try:
            # In one piece, and at once: whoever reads along sees whole lines. Lone surrogates have no UTF-8.
            stream.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")
            stream.flush()
        except (OSError, ValueError) as error:
            self._lose(stream, error)

    # -- errors --------------------------------------------------------------------------------------------------

    def fail(self, error: BaseException, *, exit_code: int | None = None) -> int:
        """Show an error, once, and return the exit code that it means."""
        from .errors import describe

        problem = describe(error)
        code = problem.exit_code if exit_code is None else exit_code
        if self.is_debug and not isinstance(error, click.ClickException | click.Abort | KeyboardInterrupt):
            self._write_traceback(error)
        if self.is_json:
            found = {"code": problem.code, "message": problem.message, **problem.details}
            self.emit({"type": "error", "error": found, "exit_code": code})
            return code
        if isinstance(error, NoArgsIsHelpError):  # whoever says nothing asks what there is
            self._write(problem.text, err=True)
            return code
        label = self.styled(f"error[{problem.code}]:", "red", err=True)
        self._write(f"{label} {clean(self.redactor.redact(problem.text), keep=chr(10))}", err=True)
        if problem.hint:
            self._write(problem.hint, err=True)
        return code

    def _write_traceback(self, error: BaseException) -> None:
        import traceback

        self._write(self.redactor.redact("".join(traceback.format_exception(error)).rstrip()), err=True)

    def close(self) -> None:
        """Hand everything over to whoever reads."""
        for stream in (self._json, sys.stdout, sys.stderr):
            if stream is not None:
                try:
                    stream.flush()
                except (OSError, ValueError) as error:
                    self._lose(stream, error)

    def _lose(self, stream: IO[str], error: Exception) -> None:
        """Give a stream up that takes no more (nobody reads, the disk is full): the work goes on."""
        _silence(stream)
        if not isinstance(error, BrokenPipeError | ValueError) and not self._has_lost:
            self._has_lost = True
            name = "stderr" if stream is sys.stderr else "stdout"
            self.warn(f"what is said on {name} is lost from here on: {error}")


def open_standard_streams() -> None:
    """Lead those that are closed (`>&-`) nowhere: the next file opened would have their number, and what is printed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def has_color(stream: IO[str]) -> bool:
    """Whether a stream is a terminal that shows colours, and the user wants them (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def clean(text: str, keep: str = "") -> str:
    """Return the text with control characters spelled out: names come from databases, and terminals obey them."""
    if text.isprintable():
        return text
    return "".join(
        char if char in keep or char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) != 0 for char in text)


def _silence(stream: IO[str]) -> None:
    """Lead a stream that nobody reads to nowhere, so that the interpreter's own last flush does not fail."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        return


def _plain(value: Any) -> Any:
    """What JSON has no form for."""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)
