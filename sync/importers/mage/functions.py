"""User functions of a Mage project, read but not executed: their conditions, and arguments that count differently."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator

#: Texts that the language of `when` writes in the same way as Python.
_PLAIN_TEXT = re.compile(r"[\w .:/@+-]*")
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.In: "in",
    ast.NotIn: "not in",
}
#: Argument of callbacks that counts chunks in Mage -> its meaning here, and the remedy.
IN_CALLBACKS = {
    "index": "Mage's `index` counts the chunks of one stream, but here `index` counts the streams of the run. "
    "Each stream has one call here, so delete a condition such as `index != 0`",
    "is_last_block_run": "Mage's `is_last_block_run` is true for the last chunk of each stream, but here "
    "`is_last_block_run` is true only for the last stream of the run. To act after each stream, delete the condition",
}
IN_TRANSFORMERS = {
    "index": "Mage's `index` counts the chunks of one stream, but here `index` counts the calls for the stream, and "
    "each record is a call. Count in the function itself, or delete the condition",
}


class _NotConvertible(Exception):
    """The expression means nothing, or something else, as a condition of `when`."""


def condition_of(text: str, names: Collection[str]) -> str | None:
    """Return what a conditional block returns, as a `when`; `None` if the block has more than one expression.

    Args:
        text: the block's file.
        names: names of keyword arguments that `when` also has, with the same values.
    """
    functions = [each for each in _functions(text) if any(map(_is_condition, each.decorator_list))]
    if len(functions) != 1:
        return None
    (function,) = functions
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if len(body) != 1 or not isinstance(body[0], ast.Return) or body[0].value is None:
        return None
    try:
        written = _written(body[0].value, _kwargs_name(function), names)
    except _NotConvertible:
        return None
    return written[1:-1] if written.startswith("(") else written


def _is_condition(decorator: ast.expr) -> bool:
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(target, ast.Name) and target.id == "condition"


def _written(part: ast.expr, kwargs: str, names: Collection[str]) -> str:
    if isinstance(part, ast.Constant) and isinstance(part.value, str) and _PLAIN_TEXT.fullmatch(part.value):
        return f"'{part.value}'"
    if isinstance(part, ast.Constant) and isinstance(part.value, bool | int | float):
        return repr(part.value).lower()
    if (name := _argument(part, kwargs)) is not None and name in names:
        return name
    if isinstance(part, ast.List | ast.Tuple):
        return f"[{', '.join(_written(each, kwargs, names) for each in part.elts)}]"
    if isinstance(part, ast.BoolOp):
        word = " and " if isinstance(part.op, ast.And) else " or "
        return f"({word.join(_written(each, kwargs, names) for each in part.values)})"
    if isinstance(part, ast.UnaryOp) and isinstance(part.op, ast.Not):
        return f"(not {_written(part.operand, kwargs, names)})"
    if isinstance(part, ast.Compare) and len(part.ops) == 1 and type(part.ops[0]) in _COMPARISONS:
        left, right = (_written(each, kwargs, names) for each in (part.left, part.comparators[0]))
        return f"({left} {_COMPARISONS[type(part.ops[0])]} {right})"
    raise _NotConvertible


def different_counts(name: str, text: str, meanings: dict[str, str]) -> list[str]:
    """Return a note for each line of a file that uses an argument which counts differently here.

    Args:
        name: the file's name.
        text: the file.
        meanings: `IN_CALLBACKS` or `IN_TRANSFORMERS`.
    """
    found = {
        (line, argument) for function in _functions(text) for line, argument in _uses(function) if argument in meanings
    }
    return [f"{name}:{line}: {meanings[argument]}" for line, argument in sorted(found)]


def _uses(function: ast.FunctionDef) -> Iterator[tuple[int, str]]:
    """Yield line and name of each keyword argument that a function uses."""
    kwargs = _kwargs_name(function)
    parameters = {each.arg for each in (*function.args.args, *function.args.kwonlyargs)}
    for part in ast.walk(function):
        if isinstance(part, ast.Name) and part.id in parameters and isinstance(part.ctx, ast.Load):
            yield part.lineno, part.id
        elif isinstance(part, ast.expr) and (name := _argument(part, kwargs)) is not None:
            yield part.lineno, name


def _argument(part: ast.expr, kwargs: str) -> str | None:
    """Return the name of the argument that `kwargs['name']` or `kwargs.get('name')` reads."""
    if isinstance(part, ast.Subscript):
        holder, key = part.value, part.slice
    elif isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and part.func.attr == "get" and part.args:
        holder, key = part.func.value, part.args[0]
    else:
        return None
    is_text = isinstance(key, ast.Constant) and isinstance(key.value, str)
    return key.value if is_text and isinstance(holder, ast.Name) and holder.id == kwargs else None  # type: ignore[attr-defined]


def _functions(text: str) -> list[ast.FunctionDef]:
    try:
        return [part for part in ast.walk(ast.parse(text)) if isinstance(part, ast.FunctionDef)]
    except (SyntaxError, ValueError, RecursionError):  # the load of the file reports what is wrong
        return []


def _kwargs_name(function: ast.FunctionDef) -> str:
    return "" if function.args.kwarg is None else function.args.kwarg.arg
