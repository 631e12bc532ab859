"""Bind a function's signature: which arguments it gets, and whether it needs the parent's data. It has no side effects.

1. The first positional parameter that is not named like a keyword argument (`*args` counts) receives the data. A
   runtime variable does not take the place of the data. A variable is passed only to parameters behind the first one
   that do not have a usual name of the data.
2. A parameter named like a keyword argument or a runtime variable receives this argument, by position or by keyword.
3. `__input` contains the data if the file, or a file of the project that it imports, mentions `__input`, or if the
   decorator sets fetch_inputs=True. Otherwise it is `{}`. A function that receives the data by position finds the same
   object in `__input`.
4. Without `**kwargs` only the keyword arguments that the function names are passed.
5. A parameter without default that no rule can fill is an error, raised before anything runs.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from msgspec import Struct

from .errors import nearest

#: Usual names of the parameter that receives the data.
DATA_NAMES = frozenset({"parent_block_data", "data", "df"})

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class BindingError(ValueError):
    """Nothing can fill a parameter; the loader adds file and line."""


class PositionalArgument(Struct, frozen=True, kw_only=True):
    """One argument passed by position."""

    name: str
    #: Value of the slot: the data, the keyword argument of that name, or the default.
    value: Literal["data", "kwarg", "default"]
    default: Any


class Inputs(dict[Any, Any]):
    """`__input`: the parent's data by its name, and by Mage's `df_1`, which works as a key but is not listed."""

    def __missing__(self, name: Any) -> Any:
        if name != "df_1":
            raise KeyError(name)
        return next(iter(self.values()))

    def get(self, name: Any, default: Any = None) -> Any:
        """Return the data of a name, else the default."""
        return self[name] if name in self or name == "df_1" else default


class Binding(Struct, frozen=True, kw_only=True):
    """How one function is called."""

    #: How the data is passed: "data": by position; "input": as `__input`; None: the data is not read.
    needs: Literal["data", "input"] | None
    #: Keyword arguments that the function names; it gets no others, unless takes_kwargs.
    named: tuple[str, ...]
    #: Whether it has `**kwargs`.
    takes_kwargs: bool
    #: Parameter that receives the data (also `*args`); None if there is none.
    positional: str | None
    #: Arguments passed by position, in order.
    slots: tuple[PositionalArgument, ...]
    #: Whether `__input` is {parent: data} rather than {}.
    fills_input: bool
    #: Named parameters without a default; they get None if the event has no such keyword argument.
    required: frozenset[str]

    def arguments(self, kwargs: Mapping[str, Any], data: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return args and kwargs of one call.

        Args:
            kwargs: hydrated keyword arguments of the event, without `__input`.
            data: the parent's DataFrame, or None.
        """
        offered = dict(kwargs)
        offered["__input"] = Inputs({kwargs.get("parent_block_uuid"): data}) if self.fills_input else {}
        args = tuple(self._slot(slot, offered, data) for slot in self.slots)
        passed = {slot.name for slot in self.slots}
        if self.takes_kwargs:
            keywords = {name: value for name, value in offered.items() if name not in passed}
        else:
            keywords = {name: offered[name] for name in self.named if name in offered and name not in passed}
        for name in self.required - passed - keywords.keys():
            keywords[name] = None
        return args, keywords

    def _slot(self, slot: PositionalArgument, offered: Mapping[str, Any], data: Any) -> Any:
        if slot.value == "data":
            return data if self.needs == "data" else None
        if slot.value == "kwarg":
            return offered.get(slot.name, slot.default)
        return slot.default


def bind(
    function: Callable[..., Any],
    *,
    known: Iterable[str],
    variables: Iterable[str] = (),
    fillable: Iterable[str] | None = None,
    file_mentions_input: bool = False,
    fetch_inputs: bool | None = None,
    is_legacy: bool = False,
) -> Binding:
    """Read a function's signature.

    Args:
        known: names of keyword arguments.
        variables: names of runtime variables, which are keyword arguments too.
        fillable: names of both kinds that an event can fill for this function; default: all.
        file_mentions_input: whether the function's file, or one that it imports, contains the word `__input`.
        fetch_inputs: argument of the decorator.
        is_legacy: whether it gets keyword arguments only.

    Raises:
        BindingError: nothing can fill a parameter that has no default, or there is no signature to read.
    """
    reserved = frozenset(known) | {"__input"}
    known = reserved | frozenset(variables)
    can_fill = known if fillable is None else frozenset(fillable) | {"__input"}
    try:
        parameters = list(_signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise BindingError(f"has no signature to read: {error}") from error

    by_position = [parameter for parameter in parameters if parameter.kind in _BY_POSITION]
    rest = next((parameter for parameter in parameters if parameter.kind is inspect.Parameter.VAR_POSITIONAL), None)
    takes_kwargs = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    others = known - DATA_NAMES | reserved
    receiver = None if is_legacy else next((item for item in by_position if item.name not in others), rest)
    if not is_legacy and by_position and by_position[0].name not in reserved:
        receiver = by_position[0]

    named = tuple(
        parameter.name
        for parameter in parameters
        if parameter.name in known and parameter is not receiver and parameter.kind in (*_BY_POSITION, _KEYWORD_ONLY)
    )
    for parameter in parameters:
        is_rest = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        if is_rest or parameter is receiver or parameter.default is not parameter.empty:
            continue
        if parameter.name not in can_fill:
            raise BindingError(_unfillable(parameter.name, known, can_fill, is_legacy=is_legacy))

    slots = _slots(by_position, receiver, known)
    if receiver is rest and rest is not None:
        slots = (*slots, PositionalArgument(name=rest.name, value="data", default=None))
    wants_input = fetch_inputs is True or (fetch_inputs is None and file_mentions_input)
    fills_input = wants_input and (takes_kwargs or "__input" in named)
    by_data = receiver is not None and fetch_inputs is not False
    return Binding(
        needs="data" if by_data else "input" if fills_input else None,
        named=named,
        takes_kwargs=takes_kwargs,
        positional=None if receiver is None else receiver.name,
        slots=slots,
        fills_input=fills_input,
        required=frozenset(
            parameter.name
            for parameter in parameters
            if parameter.name in named and parameter.default is parameter.empty
        ),
    )


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Read a signature without evaluating annotations, since they may name types that exist for type checkers only."""
    if sys.version_info >= (3, 14):  # annotations are evaluated only on access
        from annotationlib import Format

        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)


_KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY


def _slots(
    by_position: list[inspect.Parameter], receiver: inspect.Parameter | None, known: frozenset[str]
) -> tuple[PositionalArgument, ...]:
    """Return the arguments passed by position: up to the data's parameter, and positional-only parameters."""
    last = -1
    for place, parameter in enumerate(by_position):
        only = parameter.kind is inspect.Parameter.POSITIONAL_ONLY and parameter.name in known
        before_rest = receiver is not None and receiver.kind is inspect.Parameter.VAR_POSITIONAL
        if parameter is receiver or only or before_rest:
            last = place
    return tuple(
        PositionalArgument(
            name=parameter.name,
            value="data" if parameter is receiver else "kwarg" if parameter.name in known else "default",
            default=None if parameter.default is parameter.empty else parameter.default,
        )
        for parameter in by_position[: last + 1]
    )


def _unfillable(name: str, known: frozenset[str], can_fill: frozenset[str], *, is_legacy: bool) -> str:
    if name == "__error" and name in known:
        served = "failure, retry and crashed"
        return f"parameter '__error' is filled only for the statuses {served}, which the function does not serve"
    if name in known:
        return f"parameter {name!r} is never filled for the parents that the callback block is attached to"
    if is_legacy:
        return (
            f"nothing can fill parameter {name!r}: on_success, on_failure and on_cancelled pass keyword arguments "
            "only; use @callback('success') to receive the parent's data"
        )
    known_names = ", ".join(sorted(can_fill))
    return (
        f"nothing can fill parameter {name!r}{nearest(name, can_fill)}; the first positional parameter receives "
        f"the parent's data, all others need a default or one of these names: {known_names}"
    )
