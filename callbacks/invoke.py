"""Call one function of a callback file in this process; used by the child process and the inline mode."""

from __future__ import annotations

import builtins
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CoroutineType
from typing import Any

from .call_result import Answer
from .errors import CallbackLoadError, first_line
from .kwargs import RESERVED, hydrate
from .loader import CallbackFunction, ExecutedFile, execute, read_function
from .unrepresentable_times import without_odd_times

# Own references, since the user's function may replace them.
globals()["__builtins__"] = dict(vars(builtins))

#: Modules that `read_data` imports.
DATA_MODULES = ("pyarrow", "pandas")

_TEXT_LIMIT = 16 * 1024
_VALUE_LIMIT = 1000
_OWN_FOLDER = str(Path(__file__).parent)


class FunctionCache:
    """Cache of the functions of callback files; each file is executed once."""

    def __init__(self) -> None:
        self._files: dict[Path, ExecutedFile] = {}
        self._bound: dict[tuple[Path, str, frozenset[str]], CallbackFunction] = {}

    def find(self, path: Path, name: str, variables: frozenset[str]) -> CallbackFunction | None:
        """Return a function, or None if its file marks no function of that name.

        Raises:
            CallbackLoadError: the file does not load; the next call tries again.
        """
        found = self._bound.get((path, name, variables))
        if found is None:
            executed = self._files.get(path)
            if executed is None:
                executed = self._files[path] = execute(path)
            found = read_function(executed, name, variables=variables)
            if found is not None:
                self._bound[path, name, variables] = found
        return found


def perform(functions: FunctionCache, request: Mapping[str, Any], after: Callable[[], None] = lambda: None) -> Answer:
    """Call a function (`file`, `function`, `kwargs`, `data`, `wants_value`) or a hook (`hook`).

    `after` runs as soon as the function has returned or raised.
    """
    if "hook" in request:
        from .hooks import run_hook

        return run_hook(request["hook"])
    append_folder(request["file"])
    return invoke(
        functions,
        request["file"],
        request["function"],
        request["kwargs"],
        request["data"],
        after=after,
        wants_value=request.get("wants_value", False),
    )


def invoke(
    functions: FunctionCache,
    file: str,
    name: str,
    recorded: Mapping[str, Any],
    data: str | None,
    *,
    after: Callable[[], None] = lambda: None,
    wants_value: bool = False,
) -> Answer:
    """Call a function with recorded kwargs. Any error, also SystemExit, is part of the answer.

    Args:
        data: path of the Arrow IPC file with the parent's output; read only if the function needs it.
        after: runs as soon as the function has returned or raised.
        wants_value: whether the answer includes the function's result.
    """
    path = Path(file)
    if not path.exists():
        return Answer(kind="missing", error=f"callback file {file} does not exist any more")
    try:
        function = functions.find(path, name, frozenset(recorded) - RESERVED)
    except CallbackLoadError as error:
        return Answer(kind="load", error=str(error))
    if function is None:
        return Answer(kind="missing", error=f"callback file {file} marks no function {name!r} any more")

    notes: list[str] = []
    wanted = data if function.binding.needs is not None else None
    try:
        frame = None if wanted is None else read_data(wanted, notes.append)
        args, kwargs = function.binding.arguments(hydrate(recorded), frame)
        value = call(function.function, args, kwargs, after)
        shown = show(value) if wants_value else None
    except BaseException as error:  # a function that calls sys.exit must not end the process
        return Answer(kind="raised", error=describe(error, file), notes=tuple(notes))
    return Answer(kind="returned", notes=tuple(notes), value=shown)


def call(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    after: Callable[[], None] = lambda: None,
) -> Any:
    """Call a function; run the coroutine of an async function."""
    result = _call(function, args, kwargs, after)
    if isinstance(result, CoroutineType):
        import asyncio

        return _call(asyncio.run, (result,), {}, after)
    return result


def _call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], after: Callable[[], None]
) -> Any:
    try:
        return function(*args, **kwargs)
    finally:
        try:
            after()
        except BaseException:  # from a profile or trace function, which the interpreter has already removed
            after()


def read_data(path: str, note: Callable[[str], None]) -> Any:
    """Read an Arrow IPC file as a DataFrame, by memory map, or by its URL on an object store.

    Returns:
        A DataFrame with Arrow-backed dtypes; None, and a note, if the file is missing, truncated or unreadable. Times
        that Python cannot hold are None, with a note.
    """
    try:
        import pandas as pd
        import pyarrow as pa

        with _opened(path) as source:
            table = pa.ipc.open_file(source).read_all()
        table.validate()
        table = without_odd_times(table, note)
        return table.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
    except FileNotFoundError:
        note(f"the parent's data is None: it was deleted after the last delivery ({path})")
        return None
    except Exception as error:
        note(f"the parent's data could not be read, so it is None: {type(error).__name__}: {error}")
        return None


def _opened(path: str) -> Any:
    if "://" in path:
        import fsspec  # only streams on other machines write data to such a URL

        return fsspec.open(path, "rb")
    import pyarrow as pa

    return pa.memory_map(path)


def show(value: Any, limit: int = _VALUE_LIMIT) -> str:
    """Return a value's `repr`, cut to `limit` characters; never raises."""
    try:
        text = repr(value)
    except Exception as error:
        return f"<{type(value).__name__}, its repr raised {type(error).__name__}>"
    return text if len(text) <= limit else f"{text[:limit]}..."


def describe(error: BaseException, file: str) -> str:
    """Return `Type: message, at FILE:LINE` of the user's file, then the traceback from that file on."""
    try:
        text = "".join(traceback.format_exception(type(error), error, _user_frames(error, file)))
    except BaseException as broken:
        text = f"<its traceback raised {type(broken).__name__}>"
    first, *rest = _cut(first_line(error), _TEXT_LIMIT // 2).split("\n")
    return "\n".join([f"{first}{_place(error, file)}", *rest, _cut(text, _TEXT_LIMIT)])


def _place(error: BaseException, file: str) -> str:
    """Return file and line of the last call in the user's file."""
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == file]
    return f", at {file}:{lines[-1]}" if lines else ""


def _user_frames(error: BaseException, file: str) -> Any:
    """Return the traceback from the first frame of the user's file."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != file:
        frames = frames.tb_next
    if frames is not None:
        return frames
    # Raised before the user's first line, for example by a wrong signature.
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OWN_FOLDER):
        frames = frames.tb_next
    return frames


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"...{text[-limit:]}"


def append_folder(file: str) -> None:
    """Allow a callback file to import modules beside it; the standard library and installed modules come first."""
    folder = str(Path(file).absolute().parent)
    if folder not in sys.path:
        sys.path.append(folder)
