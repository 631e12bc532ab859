"""Output of the command line: text or JSON, with secrets masked and control characters escaped."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

import click
from click.exceptions import NoArgsIsHelpError

from ..text_width import text_width
from .layout import GAP, ColumnGroup, cell_lines, parts_of, wrapped

if TYPE_CHECKING:
    from ..secrets import Redactor

#: Columns of a terminal that does not say how many it has, and the fewest that output is made for.
_USUAL_WIDTH, _LEAST_WIDTH = 80, 20

STATUS_COLORS = {
    "success": "green",
    "done": "green",
    "ok": "green",
    "failure": "red",
    "dead": "red",
    "error": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "loading": "cyan",
    "warning": "yellow",
}


class Console:
    """Output of one command. Its redactor masks secrets in everything."""

    def __init__(self, *, is_json: bool = False, is_debug: bool = False) -> None:
        self.is_json = is_json
        self.is_debug = is_debug
        #: Of the command, once its options are read.
        self.context: click.Context | None = None
        self._redactor: Redactor | None = None
        self._json: IO[str] | None = None
        self._has_lost = False
        #: Whether the command has failed if its output on stdout is lost. Other commands tell by the exit code how a
        #: run ended, and their output is only a report of it.
        self.is_output_wanted = True
        self._has_lost_output = False

    @property
    def has_failed(self) -> bool:
        """Whether output is lost for which the command was given."""
        return self.is_output_wanted and self._has_lost_output

    # -- secrets -------------------------------------------------------------------------------------------------

    @property
    def redactor(self) -> Redactor:
        """Masks the secrets of the pipeline; without a pipeline, passwords of URLs."""
        if self._redactor is None:
            from ..secrets import Redactor

            self._redactor = Redactor()
        return self._redactor

    def hide(self, secrets: Iterable[str]) -> None:
        """Add secrets to mask."""
        self.redactor.add(secrets)

    # -- text ----------------------------------------------------------------------------------------------------

    def echo(self, text: str = "", *, err: bool = False, color: str | None = None) -> None:
        """Print text with its control characters escaped, all lines but the first indented."""
        shown = fitted(indented(clean(self.redactor.redact(text), keep="\n\t")), sys.stderr if err else sys.stdout)
        self._write(self.styled(shown, color, err=err), err=err)

    def echo_lines(self, text: str) -> None:
        """Print lines of our own as they are, also on a terminal: they hold no name from a database."""
        for line in text.splitlines():
            self._write(clean(self.redactor.redact(line), keep="\t"))

    def warn(self, text: str) -> None:
        """Print a warning on stderr, also with --json."""
        self._write_labelled("warning:", "yellow", text)

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Iterable[str] = ()) -> None:
        """Print aligned columns. A status has its colour; a column without values is left out.

        On a terminal a line is no longer than its width: cells are broken between words, names shortened in their
        middle, and columns that find no place come below, each time after the first one.
        """
        cells = [["" if value is None else clean(self.redactor.redact(str(value))) for value in row] for row in rows]
        kept = [place for place in range(len(headers)) if not cells or any(row[place] for row in cells)]
        shown = [[row[place] for place in kept] for row in (headers, *cells)]
        to_right = {place for place, each in enumerate(kept) if headers[each] in set(right)}
        for number, part in enumerate(parts_of(shown, to_right, terminal_width(sys.stdout))):
            if number:
                self._write("")
            for row in shown:
                self._write_row(row, part, to_right, is_header=row is shown[0])

    def _write_row(self, row: Sequence[str], part: ColumnGroup, to_right: Collection[int], *, is_header: bool) -> None:
        lines = {place: cell_lines(row[place], width) for place, width in part.widths.items()}
        for number in range(max(map(len, lines.values()))):
            parts = []
            for place, width in part.widths.items():
                text = lines[place][number] if number < len(lines[place]) else ""
                space = " " * (width - text_width(text))
                styled = self.styled(text, None if is_header else STATUS_COLORS.get(row[place]), bold=is_header)
                parts.append(space + styled if place in to_right else styled + space)
            self._write((" " * GAP).join(parts).rstrip())

    def styled(self, text: str, color: str | None = None, *, bold: bool = False, err: bool = False) -> str:
        """Return the text in colour if the stream is a terminal with colours."""
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
        """Keep stdout for JSON: from now on, output of user files and drivers goes to stderr."""
        if self._json is not None:
            return
        sys.stdout.flush()
        self._json = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def emit(self, document: Mapping[str, Any]) -> None:
        """Print one JSON document on one line."""
        text = json_line(self.redactor.redact_value(document))
        stream = self._json or sys.stdout
        try:
            stream.write(text + "\n")  # one write and a flush, so that readers see whole lines
            stream.flush()
        except (OSError, ValueError) as error:
            self._lose(stream, error)

    # -- errors --------------------------------------------------------------------------------------------------

    def fail(self, error: BaseException, *, exit_code: int | None = None) -> int:
        """Show an error and return its exit code."""
        from .errors import describe

        problem = describe(error, self.context)
        code = problem.exit_code if exit_code is None else exit_code
        if self.is_debug and not isinstance(error, click.ClickException | click.Abort | KeyboardInterrupt):
            self._write_traceback(error)
        if self.is_json:
            found = {"code": problem.code, "message": problem.message, **problem.details}
            self.emit({"type": "error", "error": found, "exit_code": code})
            return code
        if isinstance(error, NoArgsIsHelpError):  # without a command, show the help
            self._write(problem.text, err=True)
            return code
        if isinstance(error, click.Abort):
            self._write("", err=True)  # the cursor stands behind a question
        self._write_labelled(f"error[{problem.code}]:", "red", problem.text)
        if problem.hint:
            self._write(fitted(problem.hint, sys.stderr), err=True)
        return code

    def _write_labelled(self, label: str, color: str, text: str) -> None:
        shown = fitted(indented(f"{label} {clean(self.redactor.redact(text), keep=chr(10))}"), sys.stderr)
        self._write(self.styled(label, color, err=True) + shown.removeprefix(label), err=True)

    def _write_traceback(self, error: BaseException) -> None:
        import traceback

        text = "".join(traceback.format_exception(error)).rstrip()
        self._write(clean(self.redactor.redact(text), keep="\n\t"), err=True)

    def close(self) -> None:
        """Flush all output."""
        for stream in (self._json, sys.stdout, sys.stderr):
            if stream is not None:
                try:
                    stream.flush()
                except (OSError, ValueError) as error:
                    self._lose(stream, error)

    def _lose(self, stream: IO[str], error: Exception) -> None:
        """Stop writing to a stream that failed (no reader, full disk); the command continues."""
        _silence(stream)
        if isinstance(error, BrokenPipeError | ValueError):
            return
        self._has_lost_output |= stream is not sys.stderr
        if not self._has_lost:
            self._has_lost = True
            name = "stderr" if stream is sys.stderr else "stdout"
            self.warn(f"further output on {name} is lost: {error}")


def open_standard_streams() -> None:
    """Open closed standard streams (`>&-`) as /dev/null; else the next opened file would get their number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def has_color(stream: IO[str]) -> bool:
    """Whether a stream is a terminal with colours, and NO_COLOR is not set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def clean(text: str, keep: str = "") -> str:
    """Escape control characters: names from a database must not control the terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char in keep or char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def json_line(document: Any) -> str:
    """Write JSON on one line; what controls a terminal, ends a line or is half of a character is escaped."""
    text = json.dumps(document, ensure_ascii=False, default=_plain)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def indented(text: str) -> str:
    """Indent all lines but the first: a name from a database must not begin a line of its own in a log."""
    return text.replace("\n", "\n  ")


def terminal_width(stream: IO[str]) -> int | None:
    """Return how many columns the terminal has that a stream is written to; None: it is no terminal."""
    if not stream.isatty():
        return None
    said = os.environ.get("COLUMNS", "")
    try:
        columns = int(said) if said.isdecimal() else os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    return max(columns or _USUAL_WIDTH, _LEAST_WIDTH)


def fitted(text: str, stream: IO[str]) -> str:
    """Return a text whose lines are broken between words where a terminal would break them anywhere."""
    width = terminal_width(stream)
    if width is None:
        return text
    return "\n".join(line for each in text.split("\n") for line in _broken(each, width))


def _broken(line: str, width: int) -> list[str]:
    start = line[: len(line) - len(line.lstrip())]
    return [start + each for each in wrapped(line.removeprefix(start), width - len(start), indent="  ")]


def _silence(stream: IO[str]) -> None:
    """Redirect a stream without a reader to /dev/null, so that the interpreter's last flush does not fail."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        return


def _plain(value: Any) -> Any:
    """Return a value that JSON cannot represent as text."""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)
