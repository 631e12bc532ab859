"""Load the marked functions of a user's file. The only place that executes a user's file.

The file is compiled by path under a private module name, so neither its name nor its folder's can replace another
module. It can import helper modules beside it; all other modules come first.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NoReturn

from msgspec import Struct

from syncblocks.user_files import executing, helpers_beside

from .binding import Binding, BindingError, bind
from .decorator import DECORATORS, MARKS, Mark
from .errors import CallbackLoadError, first_line, nearest
from .imported_files import imported_files
from .kwargs import RESERVED, STATUSES_WITH_DATA, TRANSFORMER_KWARGS, fillable
from .mage import mage_modules

#: `__input`, and imports of a module that only the run knows.
_NAMES_INPUT = re.compile(rb"(?<![0-9A-Za-z_])(__input|__import__|import_module)(?![0-9A-Za-z_])")


class CallbackFunction(Struct, frozen=True, kw_only=True):
    """One function of a callback file."""

    #: The function's name; a second function of the same name is `name#2`.
    name: str
    statuses: frozenset[str]
    #: `fetch_inputs` of the decorator: True, False, or None if not given.
    fetch_inputs: bool | None
    #: Whether it is marked by on_success, on_failure or on_cancelled only.
    is_legacy: bool
    binding: Binding
    function: Callable[..., Any]
    #: Line of the decorator.
    line: int

    def needs_data(self, status: str, parent: str) -> bool:
        """Tell whether a call for this status of this parent needs the parent's data."""
        return self.binding.needs is not None and status in STATUSES_WITH_DATA and parent != "pipeline"


class TransformerFunction(Struct, frozen=True, kw_only=True):
    """The function of a transformer file."""

    name: str
    binding: Binding
    function: Callable[..., Any]
    #: Columns to rename before the call, old: new.
    rename_columns: Mapping[str, str]
    line: int


class CallbackFile(Struct, frozen=True, kw_only=True):
    """The marked functions of a user's file."""

    path: Path
    #: In calling order: legacy marks first, then in definition order.
    functions: tuple[CallbackFunction, ...]
    transformers: tuple[TransformerFunction, ...]
    #: Functions marked by `@test`, by name. No run calls them.
    tests: Mapping[str, Callable[..., Any]]


def load_file(
    path: Path,
    *,
    variables: Iterable[str] = (),
    parents: Collection[str] | None = None,
    expects: Literal["callback", "transformer"] | None = None,
) -> CallbackFile:
    """Execute a callback or transformer file and return its marked functions.

    Args:
        path: the file.
        variables: names of the pipeline's runtime variables, which are keyword arguments too.
        parents: `on` of the callback block, if known; a parameter that these parents cannot fill is an error.
        expects: kind of functions that the file must have; default: any.

    Raises:
        CallbackLoadError: the file is missing, does not load, marks no function of the expected kind, or has a
            function with an unfillable parameter.
    """
    return read_marks(execute(path), variables=variables, parents=parents, expects=expects)


class ExecutedFile(Struct, frozen=True, kw_only=True):
    """A user's file after execution, before its functions are bound."""

    path: Path
    marks: tuple[Mark, ...]
    #: Whether the file, or a file of the project that it imports, may use `__input`.
    mentions_input: bool


def execute(path: Path) -> ExecutedFile:
    """Execute a user's file.

    Raises:
        CallbackLoadError: it is missing or raises; has the last line of this file that was reached.
    """
    path = path.absolute()
    try:
        source = path.read_bytes()
    except OSError as error:
        raise CallbackLoadError(path, None, f"cannot be read: {error.strerror or error}") from error
    try:
        code = compile(source, str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise CallbackLoadError(path, getattr(error, "lineno", None), f"is not valid Python: {reason}") from error

    digest = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    module = ModuleType(f"_syncblocks_{digest}_{path.stem}")
    marks: list[Mark] = []
    namespace = vars(module)
    namespace["__file__"] = str(path)
    namespace[MARKS] = marks
    namespace |= DECORATORS
    with executing, helpers_beside(path), mage_modules(), _no_exit():
        # Dataclasses and type hints of the user's file look up their module here.
        sys.modules[module.__name__] = module
        try:
            exec(code, namespace)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also SystemExit: a file that exits does not end the engine
            raise _load_error(path, error) from error
        mentions_input = _mentions_input(path, source)
    return ExecutedFile(path=path, marks=tuple(marks), mentions_input=mentions_input)


def _mentions_input(path: Path, source: bytes) -> bool:
    """Return true if a file, or a file of the project that it imports, may use `__input`."""
    if _NAMES_INPUT.search(source):
        return True
    try:
        return any(map(_NAMES_INPUT.search, imported_files(path, source)))
    except RecursionError:
        return True  # in doubt, the data is fetched


def read_marks(
    executed: ExecutedFile,
    *,
    variables: Iterable[str] = (),
    parents: Collection[str] | None = None,
    expects: Literal["callback", "transformer"] | None = None,
) -> CallbackFile:
    """Bind the marked functions of an executed file; arguments and errors are those of `load_file`."""
    path, names = executed.path, frozenset(variables)
    callbacks: list[CallbackFunction] = []
    transformers: list[TransformerFunction] = []
    for name, marks in _by_name(_of_blocks(executed.marks)).items():
        if any(mark.status is None for mark in marks):
            transformers.append(_bound_transformer(executed, name, marks, names))
        else:
            callbacks.append(_bound(executed, name, marks, names, parents))

    if expects == "callback" and not callbacks:
        raise CallbackLoadError(path, None, "marks no function with @callback")
    if expects == "transformer" and len(transformers) != 1:
        found = ", ".join(item.name for item in transformers) or "no function"
        raise CallbackLoadError(path, None, f"marks {found} with @transformer; exactly one function is needed")
    if not callbacks and not transformers:
        raise CallbackLoadError(path, None, "marks no function with @callback or @transformer")
    callbacks.sort(key=lambda function: not function.is_legacy)
    return CallbackFile(
        path=path,
        functions=tuple(callbacks),
        transformers=tuple(transformers),
        tests=tests_of(executed),
    )


def tests_of(executed: ExecutedFile) -> dict[str, Callable[..., Any]]:
    """Return the functions that are marked by `@test`, by name."""
    tests = _by_name(mark for mark in executed.marks if mark.is_test)
    return {name: marks[0].function for name, marks in tests.items()}


def read_function(executed: ExecutedFile, name: str, *, variables: Iterable[str]) -> CallbackFunction | None:
    """Bind one callback function of an executed file; None if there is no function of that name."""
    marks = _by_name(_of_blocks(executed.marks)).get(name)
    if marks is None or any(mark.status is None for mark in marks):
        return None
    return _bound(executed, name, marks, frozenset(variables), None)


def _bound(
    executed: ExecutedFile,
    name: str,
    marks: list[Mark],
    variables: frozenset[str],
    parents: Collection[str] | None,
) -> CallbackFunction:
    function, line = marks[0].function, min(mark.line for mark in marks)
    statuses = frozenset(mark.status for mark in marks if mark.status is not None)
    is_legacy = all(mark.is_legacy for mark in marks)
    fetch_inputs = _fetch_inputs(marks)
    can_fill = fillable(statuses=statuses, parents=None if parents is None else frozenset(parents))
    _refuse_uncallable(executed.path, line, name, function)
    try:
        binding = bind(
            function,
            known=RESERVED,
            variables=variables,
            fillable=can_fill | (variables - RESERVED),
            file_mentions_input=executed.mentions_input,
            fetch_inputs=fetch_inputs,
            is_legacy=is_legacy,
        )
    except BindingError as error:
        raise CallbackLoadError(executed.path, line, f"function {name!r}: {error}") from error
    return CallbackFunction(
        name=name,
        statuses=statuses,
        fetch_inputs=fetch_inputs,
        is_legacy=is_legacy,
        binding=binding,
        function=function,
        line=line,
    )


def _bound_transformer(
    executed: ExecutedFile, name: str, marks: list[Mark], variables: frozenset[str]
) -> TransformerFunction:
    function, line = marks[0].function, min(mark.line for mark in marks)
    _refuse_uncallable(executed.path, line, name, function)
    if inspect.iscoroutinefunction(_body(function)):
        raise CallbackLoadError(
            executed.path,
            line,
            f"function {name!r} is `async def`: a transformer is a plain function, which may call asyncio.run",
        )
    try:
        binding = bind(function, known=TRANSFORMER_KWARGS, variables=variables)
    except BindingError as error:
        raise CallbackLoadError(executed.path, line, f"function {name!r}: {error}") from error
    if binding.positional is None:
        raise CallbackLoadError(
            executed.path, line, f"function {name!r} has no positional parameter to receive the DataFrame"
        )
    return TransformerFunction(
        name=name, binding=binding, function=function, rename_columns=dict(marks[0].rename_columns or {}), line=line
    )


def _of_blocks(marks: Iterable[Mark]) -> Iterator[Mark]:
    return (mark for mark in marks if not mark.is_test)


def _by_name(marks: Iterable[Mark]) -> dict[str, list[Mark]]:
    """Name the marked functions, in definition order; a second function of a name becomes `name#2`."""
    named: dict[str, list[Mark]] = {}
    for gathered in _by_function(marks):
        base = name = _name(gathered[0].function)
        number = 1
        while name in named:
            number += 1
            name = f"{base}#{number}"
        named[name] = gathered
    return named


def _by_function(marks: Iterable[Mark]) -> list[list[Mark]]:
    """Group stacked marks by function, in definition order. By identity: a callable need not be hashable."""
    gathered: dict[int, list[Mark]] = {}
    for mark in marks:
        gathered.setdefault(id(mark.function), []).append(mark)
    return list(gathered.values())


def _fetch_inputs(marks: Iterable[Mark]) -> bool | None:
    """Return `fetch_inputs` of the mark for a status with data; other statuses never have data."""
    said = [mark.fetch_inputs for mark in marks if mark.status in STATUSES_WITH_DATA]
    return next((value for value in said if value is not None), None)


def _name(function: Callable[..., Any]) -> str:
    while not hasattr(function, "__name__") and hasattr(function, "func"):
        function = function.func  # functools.partial
    return str(getattr(function, "__name__", type(function).__name__))


def _refuse_uncallable(path: Path, line: int, name: str, function: Callable[..., Any]) -> None:
    owner = getattr(function, "__qualname__", "").rpartition(".")[0]
    if owner and not owner.endswith("<locals>") and inspect.isfunction(function):
        raise CallbackLoadError(path, line, f"{name!r} is a method of {owner}: mark a function instead")
    body = _body(function)
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        raise CallbackLoadError(path, line, f"function {name!r} contains `yield`: calling it would do nothing")


def _body(function: Callable[..., Any]) -> Any:
    """Return the code that a call executes: `__call__` of an object that has it, else the function itself."""
    is_object = not inspect.isroutine(function) and not isinstance(function, partial)
    return type(function).__call__ if is_object else function


class ExitCalled(BaseException):
    """The file called `os._exit`."""


@contextmanager
def _no_exit() -> Iterator[None]:
    """Make `os._exit` in the file raise: otherwise the syncing process would end silently, with the file's exit code.

    Other threads, and processes that the file forks, do end.
    """
    ends, thread, process = os._exit, threading.get_ident(), os.getpid()

    def refuse(status: int) -> NoReturn:
        if (threading.get_ident(), os.getpid()) != (thread, process):
            ends(status)
        raise ExitCalled(f"the file calls os._exit({status})")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = ends


def _load_error(path: Path, error: BaseException) -> CallbackLoadError:
    if isinstance(error, CallbackLoadError):
        return error
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = lines[-1] if lines else None
    hint = ""
    if isinstance(error, NameError):
        hint = nearest(error.name or "", DECORATORS)
        if error.name in DECORATORS:  # only the file itself has the decorators
            hint = f"; a module that is imported needs `from syncblocks import {error.name}`"
    return CallbackLoadError(path, line, f"does not load: {first_line(error)}{hint}")
