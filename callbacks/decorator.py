"""The decorators `@callback`, `@transformer`, and the legacy `@on_success`, `@on_failure`, `@on_cancelled`.

A decorator adds a mark to a list that the loader puts into the namespace of the user's file. So a function is called
only for the file that marks it; importing a marked helper marks nothing. Outside of the loader, such as in a unit test
of the user, a decorator returns the function unchanged.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, TypeVar, overload

from msgspec import Struct

from .errors import CallbackLoadError, choice
from .kwargs import STATUSES

#: Name of the list of marks in the namespace of a user's file.
MARKS = "__syncblocks_marks__"

#: Decorators of Mage's templates for other kinds of blocks.
OTHERS_OF_MAGE = (
    "condition",
    "custom",
    "data_exporter",
    "data_integration_catalog",
    "data_integration_config",
    "data_integration_destination",
    "data_integration_query",
    "data_integration_selected_streams",
    "data_integration_source",
    "data_loader",
    "data_source",
    "extension",
    "preprocesser_functions",
    "sensor",
    "streaming_sink",
    "streaming_source",
)

Function = TypeVar("Function", bound=Callable[..., Any])


class Mark(Struct, frozen=True, kw_only=True):
    """One decorator on one function."""

    function: Callable[..., Any]
    #: Status for which the function is called; None for a transformer or a test.
    status: str | None
    #: Argument of the decorator: True, False, or None if not given.
    fetch_inputs: bool | None = None
    is_legacy: bool = False
    #: Whether it marks a test of the output, which no run calls.
    is_test: bool = False
    #: For a transformer: columns to rename, old: new.
    rename_columns: Mapping[str, str] | None = None
    #: Line of the decorator in the user's file.
    line: int


@overload
def callback(status: Function, /) -> Function: ...
@overload
def callback(status: str = "success", *, fetch_inputs: bool | None = None) -> Callable[[Function], Function]: ...
def callback(status: Any = "success", *others: Any, fetch_inputs: bool | None = None, **unknown: Any) -> Any:
    """Call the decorated function when its parent block gets this status.

    Args:
        status: "success" (also by bare `@callback`), "failure", "cancelled", ... Stack decorators for several.
        others: not allowed; taken only to explain in the error how to write several statuses.
        fetch_inputs: False: the parent's data is never read; positional data parameters get None and `__input` is
            `{}`. True: a function without positional parameters gets the data as `__input`.
        unknown: not allowed; taken only for the error.

    Raises:
        CallbackLoadError: the status is unknown, or another argument is given.
    """
    caller = sys._getframe(1)
    if callable(status):
        return _note(caller, status, "success")
    for name in unknown:
        raise _error(caller, f"@callback has no argument {name!r}; allowed: status, fetch_inputs")
    several = (*status, *others) if isinstance(status, list | tuple | set) else (status, *others)
    if len(several) > 1:
        lines = " and ".join(f"`@callback({one!r})`" for one in several)
        raise _error(caller, f"@callback takes one status: write {lines}, one above the other")
    if not isinstance(status, str) or status not in STATUSES:
        raise _error(
            caller,
            f"unknown callback status {status!r}{choice(str(status), STATUSES)}",
        )
    if fetch_inputs not in (None, True, False):
        raise _error(caller, f"fetch_inputs is {fetch_inputs!r}; allowed: True, False")

    def mark(function: Function) -> Function:
        return _note(sys._getframe(1), function, status, fetch_inputs=fetch_inputs)

    return mark


def on_success(function: Function) -> Function:
    """Legacy form of `@callback('success')`: keyword arguments only, called before the others."""
    return _note(sys._getframe(1), function, "success", is_legacy=True)


def on_failure(function: Function) -> Function:
    """Legacy form of `@callback('failure')`: keyword arguments only, called before the others."""
    return _note(sys._getframe(1), function, "failure", is_legacy=True)


def on_cancelled(function: Function) -> Function:
    """Legacy form of `@callback('cancelled')`: keyword arguments only, called before the others."""
    return _note(sys._getframe(1), function, "cancelled", is_legacy=True)


def output_test(function: Function, /) -> Function:
    """`@test`: mark a function that `transformers test` calls with the result, and `callbacks test` with the data."""
    return _note(sys._getframe(1), function, None, is_test=True)


def left_alone(function: Any = None, /, *arguments: Any, **settings: Any) -> Any:
    """Return the function unchanged: a Mage decorator for functions that are not called here."""
    return function if callable(function) else lambda marked: marked


@overload
def transformer(function: Function, /) -> Function: ...
@overload
def transformer(*, rename_columns: Mapping[str, str] | None = None) -> Callable[[Function], Function]: ...
def transformer(function: Any = None, /, *, rename_columns: Any = None, **unknown: Any) -> Any:
    """Mark the function of a transformer file. It gets a pandas DataFrame and returns one, batch by batch.

    Args:
        function: of the bare `@transformer`.
        rename_columns: columns to rename before the function is called, old: new; as `rename:` of the pipeline file.
        unknown: not allowed; taken only for the error.

    Raises:
        CallbackLoadError: another argument is given, or one of a wrong type.
    """
    caller = sys._getframe(1)
    if callable(function):
        return _note(caller, function, None)
    for name in unknown:
        raise _error(caller, f"@transformer has no argument {name!r}; allowed: rename_columns")
    if function is not None:
        raise _error(caller, f"a decorator marks a function, not {function!r}")
    _check_names(caller, rename_columns)

    def mark(function: Function) -> Function:
        return _note(sys._getframe(1), function, None, rename_columns=rename_columns)

    return mark


#: Names in the namespace of a user's file.
DECORATORS: Mapping[str, Callable[..., Any]] = {
    "callback": callback,
    "on_success": on_success,
    "on_failure": on_failure,
    "on_cancelled": on_cancelled,
    "transformer": transformer,
    "test": output_test,
    **dict.fromkeys(OTHERS_OF_MAGE, left_alone),
}


def _check_names(caller: FrameType, rename_columns: Any) -> None:
    if rename_columns is None:
        return
    if not isinstance(rename_columns, Mapping):
        raise _error(caller, "rename_columns must be a dict of texts, old name: new name")
    names = [*rename_columns, *rename_columns.values()]
    if not all(isinstance(name, str) and name for name in names):
        raise _error(caller, "rename_columns must be a dict of texts, old name: new name")
    if len(set(rename_columns.values())) < len(rename_columns):
        raise _error(caller, "rename_columns gives two columns the same name")


def _note(
    caller: FrameType,
    function: Function,
    status: str | None,
    *,
    fetch_inputs: bool | None = None,
    is_legacy: bool = False,
    is_test: bool = False,
    rename_columns: Mapping[str, str] | None = None,
) -> Function:
    if not callable(function):
        raise _error(caller, f"a decorator marks a function, not {function!r}; did you mean @callback('success')?")
    if isinstance(function, type):
        raise _error(caller, f"{function.__name__!r} is a class; calling it would only make an object: mark a function")
    marks = caller.f_globals.get(MARKS)
    if marks is not None:
        marks.append(
            Mark(
                function=function,
                status=status,
                fetch_inputs=fetch_inputs,
                is_legacy=is_legacy,
                is_test=is_test,
                rename_columns=rename_columns,
                line=caller.f_lineno,
            )
        )
    return function


def _error(caller: FrameType, reason: str) -> CallbackLoadError:
    return CallbackLoadError(caller.f_code.co_filename, caller.f_lineno, reason)
