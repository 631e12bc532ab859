"""Arguments that a program gives to the functions of `syncblocks`: a wrong one is an error that names it."""

from __future__ import annotations

import functools
import inspect
import math
import operator
import os
import reprlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar, runtime_checkable

from ..errors import ConfigError
from .pipeline import Pipeline

_P = ParamSpec("_P")
_R = TypeVar("_R")

#: What `load_pipeline` returned, or what it takes: a pipeline file, or a mapping.
AnyPipeline = Pipeline | str | os.PathLike[str] | Mapping[str, Any]
#: JSON values under keys that are texts.
JsonObject = Mapping[str, Any]

_MOST = 2**63 - 1
#: Lowest and highest value of whole numbers; the command line has the same.
_RANGES = {
    "concurrency": (1, 1000),
    "hold_s": (60, 7 * 86_400),
    "limit": (0, 100_000),
    "retry": (1, _MOST),
    "run_id": (1, _MOST),
    "tick": (1, _MOST),
}

#: Lists that select streams: an empty one is taken for a computed one that has found none, and never for all of them.
_SELECTING = ("streams", "tags")

#: Arguments that may hold secrets: an error shows no value of theirs.
_HIDDEN = ("given", "pipeline", "variables", "environ", "recorded", "event", "text")


def checks_arguments(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function raise a ConfigError for an argument that is not what its annotation says."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # the error of Python names the function
        for name, value in bound.arguments.items():
            bound.arguments[name] = _taken(name, str(signature.parameters[name].annotation), value)
        return function(*bound.args, **bound.kwargs)

    return checked


def _taken(name: str, annotation: str, value: Any) -> Any:
    """Return an argument as its function gets it.

    Raises:
        ConfigError: it is of another type, or out of range.
    """
    kinds = [_KINDS[each] for each in annotation.split(" | ")]
    for kind in kinds:
        try:
            taken = kind.take(value)
        except TypeError:
            continue
        if taken == () and name in _SELECTING:
            raise ConfigError("is empty and selects no stream; leave it out for all streams", key=name)
        if kind.take is not _whole_number or _RANGES[name][0] <= taken <= _RANGES[name][1]:
            return taken
    if isinstance(value, str) and any(kind.take is _texts for kind in kinds):
        raise ConfigError(f"takes a list: write [{value!r}]", key=name)
    if isinstance(value, Mapping) and annotation.startswith("JsonObject"):
        name += next((f".{key}" for key, item in value.items() if not _is_json({key: item})), "")
        raise ConfigError("is not a JSON value", key=name)
    what = " or ".join(kind.words for kind in kinds if kind.words)
    if name in _RANGES:
        least, most = _RANGES[name]
        what = what.replace("number", f"number from {least}" + ("" if most == _MOST else f" to {most}"))
    is_shown = value is None or name not in _HIDDEN
    raise ConfigError(f"takes {what}, not {reprlib.repr(value) if is_shown else type(value).__name__}", key=name)


class _Kind(NamedTuple):
    """What an annotation stands for."""

    words: str
    #: Returns the value as it is handed on; raises a TypeError for another type.
    take: Callable[[Any], Any]


def _instance(*types: type) -> Callable[[Any], Any]:
    def take(value: Any) -> Any:
        if not isinstance(value, types):
            raise TypeError
        return value

    return take


def _whole_number(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str | bytes | Mapping):
        raise TypeError
    return tuple(_text(each) for each in value)


def _moments(value: Any) -> Any:
    start, end = _instance(tuple, list)(value) if len(value) == 2 else (None, None)
    return _moment(start), _moment(end)


def _mapping_of(take: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: {_text(key): take(item) for key, item in _mapping(value).items()}


def _json_object(value: Any) -> Any:
    found = dict(_mapping(value))
    if not _is_json(found):
        raise TypeError
    return found


def _is_json(value: Any) -> bool:
    try:
        return _is_plain(value)
    except RecursionError:
        return False


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


@runtime_checkable
class _Progress(Protocol):
    """What is known here of a `Progress`."""

    def run_started(self, run: Any, plan: Any) -> None: ...


def _progress(value: Any) -> Any:
    if isinstance(value, type):
        raise TypeError
    return _instance(_Progress)(value)


_text, _mapping, _moment = _instance(str), _instance(Mapping), _instance(datetime)

_KINDS = {
    "None": _Kind("", _instance(type(None))),
    "Any": _Kind("anything", lambda value: value),
    "AnyPipeline": _Kind(
        "a loaded pipeline, the path of a file, or a mapping", _instance(Pipeline, str, os.PathLike, Mapping)
    ),
    "JsonObject": _Kind("a mapping of JSON values", _json_object),
    "Mapping[str, Any]": _Kind("a mapping", _mapping),
    "Mapping[str, Mapping[str, str]]": _Kind("a mapping of mappings", _mapping_of(_mapping)),
    "Mapping[str, Repair]": _Kind("a mapping", _mapping),
    "Mapping[str, Sequence[str]]": _Kind("a mapping of lists of texts", _mapping_of(_texts)),
    "Mapping[str, str]": _Kind("a mapping", _mapping),
    "Path": _Kind("a path", _instance(os.PathLike)),
    "PipelineFile": _Kind("the path of a file, or a mapping", _instance(str, os.PathLike, Mapping)),
    "Progress": _Kind("an object of class Progress", _progress),
    "Sequence[str]": _Kind("a list of texts", _texts),
    "bool": _Kind("True or False", _instance(bool)),
    "datetime": _Kind("a datetime", _moment),
    "int": _Kind("a whole number", _whole_number),
    "list[int]": _Kind("a list", _instance(list)),
    "os.PathLike[str]": _Kind("a path", _instance(os.PathLike)),
    "str": _Kind("a text", _text),
    "tuple[datetime, datetime]": _Kind("two datetimes, the start and the end", _moments),
}
