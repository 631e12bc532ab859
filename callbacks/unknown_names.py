"""Find misspelt keyword arguments in a callback function's source. Calls nothing.

The loader already refuses a wrong parameter without a default. This module finds the remaining mistakes:
`kwargs["strem"]`, `kwargs.get("strem")`, `strem=None`, and a first parameter `strem`, which would receive the data.
The first parameter may have any name, so it is reported only if it differs by one or two letters. A parameter behind
keyword arguments that receives the data, such as `tablename` in `f(stream, tablename)`, is reported if it has a word of
a keyword argument. A runtime variable with the name of the data's parameter is reported too.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from .binding import DATA_NAMES
from .loader import CallbackFunction

#: A parameter with a default that is at least this similar to a keyword argument's name counts as misspelt.
_SIMILARITY = 0.75
#: Names that are neither data nor keyword arguments -> where to find the value.
_OTHER_WORDS = {
    "status": "block_run.status",
    "exception": "__error",
    "exc": "__error",
    "err": "__error",
    "run_id": "pipeline_run_id",
    "pipeline_name": "pipeline_uuid",
    "stream_name": "stream",
    "table_name": "destination_table",
    "tablename": "destination_table",
    "is_last": "is_last_block_run",
}
#: Parts of names that are data, even if they also have a word of a keyword argument, as `stream_rows` does.
_DATA_WORDS = ("data", "df", "frame", "rows", "records", "output", "result", "input")
#: Words of keyword arguments with fewer letters are not compared.
_SHORTEST_WORD = 4
_LOOKUPS = ("get", "pop")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownName:
    """A keyword argument that a function uses and never gets."""

    function: str
    line: int
    name: str
    #: Its use in the file, such as `kwargs['strem']`; or the whole sentence, if it is a runtime variable.
    text: str
    #: The most similar known name, if there is one.
    nearest: str | None
    #: Whether to report it: it resembles a known name, or is another word for it.
    is_slip: bool
    #: Whether it is a runtime variable, which never takes the place of the data.
    is_variable: bool = False

    def __str__(self) -> str:
        if self.is_variable:
            return f"line {self.line}: {self.text}. Rename the parameter or the variable"
        hint = "" if self.nearest is None else f"; did you mean {self.nearest!r}?"
        return f"line {self.line}: {self.text}: no keyword argument is named {self.name!r}{hint}"


def unknown_names(path: Path, function: CallbackFunction, known: Collection[str]) -> list[UnknownName]:
    """Return the unknown keyword arguments that a function uses, by line.

    Args:
        path: the function's file.
        function: the function, loaded from this file.
        known: keyword arguments and runtime variables.
    """
    node = _definition(path, function)
    if node is None:
        return []
    found = [*_parameters(node, function, known)]
    if node.args.kwarg is not None:
        found += [(line, name, text) for line, name, text in _lookups(node, node.args.kwarg.arg) if name not in known]
    receiver = function.binding.positional
    related = _related(node, function, known)
    return [
        UnknownName(
            function=function.name,
            line=line,
            name=name,
            text=text,
            nearest=None if name in known else _nearest(name, known, related if name == receiver else None),
            is_slip=name in known or _meant(name, known) is not None or (name == receiver and related is not None),
            is_variable=name in known,
        )
        for line, name, text in sorted(set(found))
    ]


def mentions(path: Path, function: CallbackFunction, word: str) -> bool | None:
    """Return whether a function's own code has a word; `None` if the function is not a plain function of this file."""
    node = _definition(path, function)
    return None if node is None else word in ast.unparse(node)


_Definition = ast.FunctionDef | ast.AsyncFunctionDef


def _definition(path: Path, function: CallbackFunction) -> _Definition | None:
    """Return the syntax tree of a function; None if it is no plain function of this file."""
    code = getattr(inspect.unwrap(function.function), "__code__", None)
    if code is None or Path(code.co_filename) != path.absolute():
        return None
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, _Definition) and node.name == code.co_name:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if first <= code.co_firstlineno <= node.lineno:
                return node
    return None


def _parameters(
    node: _Definition, function: CallbackFunction, known: Collection[str]
) -> Iterator[tuple[int, str, str]]:
    """Yield parameters that look like a misspelt keyword argument."""
    arguments = node.args
    receiver = function.binding.positional
    is_related = _related(node, function, known) is not None
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        name = argument.arg
        if name == receiver and name in known:
            yield argument.lineno, name, f"parameter {name!r} receives the parent's data, not the variable {name!r}"
        elif name in known:
            continue
        elif name == receiver:
            if name not in DATA_NAMES and (_meant(name, known) or is_related):
                yield argument.lineno, name, f"parameter {name!r} receives the parent's data"
        elif name in _OTHER_WORDS or get_close_matches(name.lower(), list(known), n=1, cutoff=_SIMILARITY):
            yield argument.lineno, name, f"parameter {name!r} always has its default"


def _related(node: _Definition, function: CallbackFunction, known: Collection[str]) -> str | None:
    """Return the keyword argument that the data's parameter has a word of, if it comes behind keyword arguments."""
    name = function.binding.positional
    first = next(iter((*node.args.posonlyargs, *node.args.args)), None)
    is_first = first is None or first.arg == name
    if name is None or is_first or name in known or any(word in name.lower() for word in _DATA_WORDS):
        return None

    def shared(each: str) -> int:
        words = [word for word in each.split("_") if len(word) >= _SHORTEST_WORD and word in name.lower()]
        return sum(map(len, words))

    nearest = max(sorted(known), key=shared)
    return nearest if shared(nearest) else None


def _nearest(name: str, known: Collection[str], related: str | None) -> str | None:
    """Return the known name that is suggested."""
    found = _meant(name, known) or related
    return found or next(iter(get_close_matches(name.lower(), list(known), n=1)), None)


def _meant(name: str, known: Collection[str]) -> str | None:
    """Return the keyword argument that a name most probably means, if there is one."""
    other = _OTHER_WORDS.get(name)
    return other if other is not None and other.partition(".")[0] in known else _slip_of(name, known)


def _slip_of(name: str, known: Collection[str]) -> str | None:
    """Return the known name that differs by one or two letters; for short names by one, for `ds` and `hr` never."""
    for limit in (1, 2):
        for each in sorted(known):
            if len(each) > (3 if limit == 1 else 5) and _letters_off(name.lower(), each) <= limit:
                return each
    return None


def _letters_off(left: str, right: str) -> int:
    """Return how many letters are missing, added, replaced or swapped with their neighbour."""
    before: list[int] = []
    last = list(range(len(right) + 1))
    for row, letter in enumerate(left, 1):
        here = [row]
        for column, other in enumerate(right, 1):
            cost = min(last[column] + 1, here[-1] + 1, last[column - 1] + (letter != other))
            if row > 1 and column > 1 and (letter, left[row - 2]) == (right[column - 2], other):
                cost = min(cost, before[column - 2] + 1)
            here.append(cost)
        before, last = last, here
    return last[-1]


def _lookups(node: _Definition, kwargs: str) -> Iterator[tuple[int, str, str]]:
    """Yield the string literals that are looked up in `**kwargs`."""
    for item in ast.walk(node):
        if isinstance(item, ast.Subscript) and _is_name(item.value, kwargs):
            name = _text(item.slice)
            if name is not None and isinstance(item.ctx, ast.Load):
                yield item.lineno, name, f"{kwargs}[{name!r}]"
        elif isinstance(item, ast.Call) and isinstance(item.func, ast.Attribute) and _is_name(item.func.value, kwargs):
            name = _text(item.args[0]) if item.args else None
            if name is not None and item.func.attr in _LOOKUPS:
                yield item.lineno, name, f"{kwargs}.{item.func.attr}({name!r})"
        elif isinstance(item, ast.Compare) and any(_is_name(other, kwargs) for other in item.comparators):
            name = _text(item.left)
            if name is not None and isinstance(item.ops[0], ast.In | ast.NotIn):
                yield item.lineno, name, f"{name!r} in {kwargs}"


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
