"""Errors of the engine, sorted by what the caller does about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, ClassVar

#: A longer list of allowed keys is not shown whole.
_SHORT_LIST = 8


class SyncError(Exception):
    """Root. A message says what was wrong, where, and what would be right; it never contains a secret."""

    #: Short stable name, shown by the command line and in its JSON.
    code: ClassVar[str] = "sync"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a pool of processes hand it over: subclasses take other arguments than the message."""
        return _as_pickled, (type(self), self.args, self.__dict__)


def _as_pickled(kind: type[SyncError], args: tuple[Any, ...], facts: dict[str, Any]) -> SyncError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(facts)
    return error


class ConfigError(SyncError):
    """The pipeline file is wrong; nothing was run, created or written."""

    code: ClassVar[str] = "config"

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        line: int | None = None,
        key: str | None = None,
        allowed: Sequence[str] = (),
        nearest: str | None = None,
        others: Sequence[ConfigError] = (),
        listed_in: str = "",
    ) -> None:
        super().__init__(message)
        #: Path of the file, as the caller gave it.
        self.path = path
        #: Line number, from 1.
        self.line = line
        #: Place in the file, such as `streams[2].stream`.
        self.key = key
        self.allowed = tuple(allowed)
        self.nearest = nearest
        #: The page that lists `allowed`; the message then has the nearest three of a long list.
        self.listed_in = listed_in
        #: Further mistakes that were found in the same go.
        self.others = tuple(others)

    def __str__(self) -> str:
        """Return `file:line: key: message; did you mean ...? Allowed: ...`; of several mistakes a line each."""
        if not self.others:
            return self._line()
        found = (self, *self.others)
        # The same choice is told once.
        lines = [each._line(each.allowed != before.allowed) for before, each in pairwise(found)]
        return "\n  ".join((f"{len(found)} mistakes:", self._line(), *lines))

    def _line(self, with_allowed: bool = True) -> str:
        where = "" if self.path is None else f"{self.path}:{'' if self.line is None else f'{self.line}:'} "
        key = f"{self.key}: " if self.key else ""
        # First, since the list may be long.
        nearest = f"; did you mean {self.nearest!r}?" if self.nearest is not None else ""
        allowed = f"{' A' if nearest else '; a'}{self._choice()}" if self.allowed and with_allowed else ""
        return f"{where}{key}{self.message}{nearest}{allowed}"

    def _choice(self) -> str:
        if not self.listed_in or len(self.allowed) <= _SHORT_LIST:
            return f"llowed: {', '.join(self.allowed)}"
        import difflib  # here: most runs do not need it

        word = (self.key or "").rpartition(".")[2]
        near = difflib.get_close_matches(word.lower(), self.allowed, n=3, cutoff=0)
        return f"llowed: {', '.join(near)} and {len(self.allowed) - len(near)} more, see {self.listed_in}"


class Mistake(ConfigError):
    """The pipeline file or the command is wrong by itself, whatever source and destination hold."""


@contextmanager
def mistakes() -> Iterator[None]:
    """Raise each ConfigError within as a `Mistake`."""
    try:
        yield
    except ConfigError as error:
        mistake = Mistake(error.message)
        mistake.__dict__.update(error.__dict__)
        raise mistake from error.__cause__


class StateError(SyncError):
    """The ledger or the run store cannot be used: another source, a newer version, wrong credentials."""

    code: ClassVar[str] = "state"


class StoreUnreachable(StateError):
    """The run store cannot be reached, or fails: its server is down, its disk is full, it may not be written."""

    code: ClassVar[str] = "store"


class ExecutorError(SyncError):
    """The cluster that was to run the streams cannot be reached, or takes no work."""

    code: ClassVar[str] = "executor"


class AlreadyRunning(SyncError):
    """Another run of the same pipeline is active; wait for it (`--wait`) or cancel it."""

    code: ClassVar[str] = "already_running"

    def __init__(self, pipeline: str, run_id: int, owner: str) -> None:
        super().__init__(
            f"pipeline {pipeline!r} is already running: run {run_id}, {owner}; "
            f"wait for it with --wait or end it with `syncblocks runs cancel {run_id}`"
        )
        self.pipeline = pipeline
        self.run_id = run_id
        self.owner = owner


class TryLater(SyncError):
    """A stream of a mapped run must wait: another task has it, or the attempt before is still open."""

    code: ClassVar[str] = "try_later"

    def __init__(self, message: str, *, after_s: float) -> None:
        super().__init__(message)
        #: Seconds after which it is worth another try.
        self.after_s = after_s


class RunFinished(StateError):
    """A run is to be taken over, and is finished."""

    def __init__(self, run_id: int) -> None:
        super().__init__(f"run {run_id} is finished: there is nothing to take over")


class NotLatest(StateError):
    """A run is to be tried again, and its pipeline has a later one."""

    def __init__(self, pipeline: str, run_id: int, latest: int) -> None:
        super().__init__(f"run {run_id} is not the latest of pipeline {pipeline!r}: that is run {latest}")


class NothingToRetry(SyncError):
    """The latest run of the pipeline has succeeded; what it still had to deliver is delivered."""


class PipelineFailed(SyncError):
    """A pipeline run ended as failure or cancelled (`RunResult.raise_for_status`)."""

    code: ClassVar[str] = "pipeline_failed"


def nearest_match(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known word most similar to `word`, ignoring case; None if none is as similar as `cutoff` (0 to 1)."""
    import difflib  # here: most runs do not need it

    by_lower: dict[str, str] = {}
    for name in known:
        by_lower.setdefault(name.lower(), name)
    # A long text (a file pasted as a name) is not a misspelling, and comparing it takes seconds.
    if len(word) > 200:
        return None
    matches = difflib.get_close_matches(word.lower(), list(by_lower)[:1000], n=1, cutoff=cutoff)
    return by_lower[matches[0]] if matches else None
