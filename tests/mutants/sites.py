"""Finds the mutants of a file. A mutant replaces a part of the source text.

Annotations, messages, docstrings, log calls and protocols have no mutants, because no behavior depends on them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

COMPARISONS = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
OPERATORS = {ast.Add: "-", ast.Sub: "+", ast.Mult: "//", ast.FloorDiv: "*", ast.Div: "*", ast.Mod: "*"}
#: Methods of a logger.
LOGS = {"debug", "info", "warning", "error", "exception", "log"}
#: Methods that only return texts for people.
TEXT_METHODS = {"__repr__", "__str__"}


class Mutant(NamedTuple):
    """One change of the code. `text` replaces the bytes from `start` to `end` of the file."""

    file: str
    line: int
    end_line: int
    kind: str
    start: int
    end: int
    text: str

    @property
    def id(self) -> str:
        return f"{self.file}:{self.line}:{self.kind}:{self.start}-{self.end}:{self.text}"

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.text.encode() + source[self.end :]


def mutants(root: Path, file: str) -> list[Mutant]:
    """Return all mutants of a file. Python cannot compile some of them."""
    found = {mutant.id: mutant for mutant in _Finder(file, (root / file).read_bytes()).find()}
    return list(found.values())


def compiles(root: Path, mutant: Mutant) -> bool:
    """Return true if Python can compile the mutant."""
    try:
        compile(mutant.applied((root / mutant.file).read_bytes()), mutant.file, "exec")
    except (SyntaxError, ValueError):
        return False
    return True


class _Finder:
    def __init__(self, file: str, source: bytes) -> None:
        self._file, self._source = file, source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def find(self) -> Iterator[Mutant]:
        yield from self._below(ast.parse(self._source))

    def _below(self, node: ast.AST) -> Iterator[Mutant]:
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_params"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not _has_no_behavior(child):
                    yield from self._at(child)
                    yield from self._below(child)

    def _at(self, node: ast.AST) -> Iterator[Mutant]:
        match node:
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARISONS:
                yield self._mutant(
                    node, "comparison", f"{self._text(left)} {COMPARISONS[type(op)][1]} {self._text(right)}"
                )
            case ast.BoolOp(op=op, values=values):
                word = " or " if isinstance(op, ast.And) else " and "
                texts = [f"({self._text(value)})" for value in values]
                yield self._mutant(node, "and/or", f"({word.join(texts)})")
                kept = " and " if isinstance(op, ast.And) else " or "
                for index in range(len(texts)):
                    rest = kept.join(texts[:index] + texts[index + 1 :])
                    yield self._mutant(node, "condition left out", f"({rest})", at=values[index])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield self._mutant(node, "not", f"bool({self._text(operand)})")
            case ast.BinOp(op=op, left=left, right=right) if type(op) in OPERATORS and not _is_text(left, right):
                yield self._mutant(node, "operator", f"({self._text(left)} {OPERATORS[type(op)]} {self._text(right)})")
            case ast.Constant(value=bool() as value):
                yield self._mutant(node, "constant", str(not value))
            case ast.Constant(value=int() | float() as value):
                yield self._mutant(node, "constant", str(value + 1))
            case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
                yield self._mutant(test, "branch", "True")
                if not isinstance(node, ast.While):
                    yield self._mutant(test, "branch", "False")
            case ast.comprehension(ifs=[test, *_]):
                yield self._mutant(test, "branch", "True")
            case ast.Return(value=ast.expr() as value) if not _is_none(value):
                yield self._mutant(value, "return", "None")
            case ast.Expr(value=ast.Call() | ast.Await(value=ast.Call())):
                yield self._mutant(node, "call left out", "pass")
            case ast.Expr(value=ast.Yield() | ast.YieldFrom()):
                yield self._mutant(node, "yield left out", "yield from ()")
            case ast.AugAssign():
                yield self._mutant(node, "change left out", "pass")
            case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
                yield self._mutant(node, "change left out", "pass")
            case ast.Raise():
                yield self._mutant(node, "raise left out", "pass")
            case ast.Break():
                yield self._mutant(node, "loop", "continue")
            case ast.Continue():
                yield self._mutant(node, "loop", "break")

    def _mutant(self, node: ast.AST, kind: str, text: str, at: ast.AST | None = None) -> Mutant:
        start, end = self._span(node)
        where = node if at is None else at
        return Mutant(self._file, where.lineno, where.end_lineno, kind, start, end, text)  # type: ignore[attr-defined]

    def _span(self, node: ast.AST) -> tuple[int, int]:
        lines = node.lineno, node.end_lineno  # type: ignore[attr-defined]
        columns = node.col_offset, node.end_col_offset  # type: ignore[attr-defined]
        start, end = (self._starts[line - 1] + column for line, column in zip(lines, columns, strict=True))
        return start, end

    def _text(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self._source[start:end].decode()


def _has_no_behavior(node: ast.AST) -> bool:
    match node:
        case ast.JoinedStr() | ast.Import() | ast.ImportFrom():
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="log" | "logger" | "_log"), attr=name))):
            return name in LOGS
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.ClassDef(bases=bases):
            return any("Protocol" in ast.unparse(base) for base in bases)
        case ast.FunctionDef(name=name):
            return name in TEXT_METHODS
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return True
    return False


def _is_text(*nodes: ast.expr) -> bool:
    return any(
        isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
        for node in nodes
    )


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
