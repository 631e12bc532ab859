"""Rules of the code that no linter knows, read from the syntax trees; and each rule, and each contract, bites."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: (file, attribute) that may be looked up by a constant name -> why there is no type for it.
BY_NAME = {
    ("connectors/checksums/forms.py", "unit"): "only some Arrow types have a unit",
    ("connectors/duckdb/nested.py", "tz"): "only some Arrow types have a zone",
    ("connectors/duckdb/nested.py", "unit"): "only some Arrow types have a unit",
    ("connectors/duckdb/session.py", "to_arrow_reader"): "duckdb renamed it between versions",
    ("connectors/arrow/unified.py", "value_type"): "only some Arrow types have items",
    ("connectors/incremental/bookmarks.py", "unit"): "only some Arrow types have a unit",
    ("connectors/mysql/failures.py", "args"): "whatever a driver raises",
    ("connectors/mysql/failures.py", "original_exception"): "an attribute of some of PyMySQL's errors",
    ("connectors/network.py", "AF_UNIX"): "not on every platform",
    ("connectors/postgres/failures.py", "sqlstate"): "whatever a driver raises",
    ("connectors/registry.py", "settings"): "a third party's class may state no settings",
    ("connectors/singer/as_tap.py", "buffer"): "stdout may be replaced by one of texts",
    ("connectors/singer/in_process.py", "isoformat"): "whatever a plugin sends",
    ("connectors/singer/in_process.py", "to_dict"): "whatever a plugin sends",
    ("connectors/sqlalchemy/types.py", "nested_type"): "only some types of ClickHouse have one",
    ("sync/run/notebook.py", "kernel"): "only the shell of a notebook has one",
    ("connectors/singer/lines.py", "isoformat"): "whatever a column holds",
    ("connectors/singer/lines.py", "months"): "whatever a column holds",
    ("connectors/sql/read/source.py", "isoformat"): "whatever a column holds",
    ("connectors/sqlalchemy/write_statements.py", "read"): "large objects of drivers",
    ("connectors/sqlalchemy/failures.py", "args"): "whatever a driver raises",
    ("connectors/sqlalchemy/failures.py", "gds_codes"): "whatever a driver raises",
    ("connectors/sqlalchemy/failures.py", "orig"): "only SQLAlchemy's own errors wrap one",
    ("connectors/sqlalchemy/failures.py", "pgcode"): "whatever a driver raises",
    ("connectors/sqlalchemy/failures.py", "sqlstate"): "whatever a driver raises",
    ("connectors/sqlalchemy/ledger.py", "read"): "large objects of drivers",
    ("connectors/sqlalchemy/session.py", "adapt_timezone"): "a dialect of somebody else's",
    ("connectors/sqlalchemy/types.py", "__visit_name__"): "a type of somebody else's",
    ("connectors/sqlalchemy/types.py", "precision"): "a type of somebody else's",
    ("connectors/sqlalchemy/types.py", "timezone"): "a type of somebody else's",
    ("connectors/sqlalchemy/values.py", "read"): "large objects of drivers",
    ("connectors/postgres/failures.py", "context"): "whatever a driver raises",
    ("connectors/sqlite/session.py", "sqlite_errorcode"): "set on errors of SQLite itself only",
    ("sync/cli/console.py", "isoformat"): "whatever a result holds",
    ("sync/cli/errors.py", "ctx"): "only some of click's errors have a context",
    ("sync/config/yaml_document.py", "CSafeLoader"): "PyYAML may be built without it",
    ("sync/config/yaml_document.py", "strerror"): "only errors of the system have one",
    ("sync/flow/masked_errors.py", "sqlstate"): "whatever a driver raises",
    ("sync/flow/masked_errors.py", "position"): "whatever a driver raises",
    ("sync/flow/masked_errors.py", "diag"): "whatever a driver raises",
    ("sync/flow/masked_errors.py", "statement_position"): "whatever a driver raises",
    ("sync/flow/masked.py", "close"): "a source may return an iterator that is no generator",
    ("sync/flow/feed.py", "close"): "a source may return an iterator that is no generator",
    ("sync/run/ranges.py", "close"): "a source may return an iterator that is no generator",
}

#: Files that may change `sys.modules`.
CHANGES_MODULES = {"callbacks/loader.py", "callbacks/mage.py", "connectors/file_classes.py", "syncblocks/user_files.py"}

#: One file a driver may import another project's private modules.
PRIVATE = {"connectors/mysql/results.py", "connectors/postgres/adbc_session.py"}

Found = tuple[str, int, str]


def lookups(name: str, tree: ast.AST) -> Iterator[Found]:
    """Yield `getattr` and `hasattr` with a constant name: a capability looked up by name is lost behind a wrapper."""
    if name == "connectors/capabilities.py" or name.startswith("callbacks/"):
        return
    for node in ast.walk(tree):
        is_lookup = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in LOOKUPS
        if not is_lookup or not isinstance(node, ast.Call) or len(node.args) < 2:
            continue
        attribute = node.args[1]
        if isinstance(attribute, ast.Constant) and (name, attribute.value) not in BY_NAME:
            yield name, node.lineno, ast.unparse(node)


LOOKUPS = {"getattr", "hasattr"}


CHANGES = {"clear", "pop", "popitem", "setdefault", "update"}


def module_changes(name: str, tree: ast.AST) -> Iterator[Found]:
    """Yield assignments to, deletions from and method calls that change `sys.modules`."""
    if name in CHANGES_MODULES:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load) and _is_modules(node.value):
            yield name, node.lineno, ast.unparse(node)
        is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if is_call and _is_modules(node.func.value) and node.func.attr in CHANGES:
            yield name, node.lineno, ast.unparse(node)


def _is_modules(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "modules" and ast.unparse(node) == "sys.modules"


def private_imports(name: str, tree: ast.AST) -> Iterator[Found]:
    """Yield imports of underscore modules of other projects."""
    if name in PRIVATE:
        return
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for imported in names:
            parts = imported.split(".")
            if parts[0] not in ("__future__", "syncblocks") and any(part.startswith("_") for part in parts):
                yield name, node.lineno, imported


#: Functions of `dataclasses` that fail for a Struct, unseen by type checkers; use `connectors/struct_helpers.py`.
OF_DATACLASSES = {"asdict", "astuple", "replace"}

#: Files that may use them.
KNOWS_KINDS = {"connectors/struct_helpers.py", "connectors/singer/in_process.py"}


def one_kind_only(name: str, tree: ast.AST) -> Iterator[Found]:
    """Yield uses of functions that know dataclasses only."""
    if name in KNOWS_KINDS:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "dataclasses":
            yield from ((name, node.lineno, each.name) for each in node.names if each.name in OF_DATACLASSES)
        is_attribute = isinstance(node, ast.Attribute) and ast.unparse(node.value) == "dataclasses"
        if is_attribute and node.attr in OF_DATACLASSES:
            yield name, node.lineno, ast.unparse(node)


RULES: dict[str, Callable[[str, ast.AST], Iterator[Found]]] = {
    "capabilities and attributes are not looked up by name": lookups,
    "sys.modules is changed in one place": module_changes,
    "no private modules of other projects": private_imports,
    "values are copied whatever their kind": one_kind_only,
}


@cache
def product_trees() -> dict[str, ast.AST]:
    """Return the syntax tree of each file, by its path from the root."""
    paths = [path for top in ("callbacks", "connectors", "sync") for path in sorted((ROOT / top).rglob("*.py"))]
    paths += sorted((ROOT / "syncblocks").glob("*.py"))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


@pytest.mark.full
@pytest.mark.parametrize("rule", RULES)
def test_the_code_keeps_the_rule(rule: str) -> None:
    found = [each for name, tree in product_trees().items() for each in RULES[rule](name, tree)]
    assert found == []


@pytest.mark.parametrize(
    ("rule", "planted"),
    [
        (lookups, "ask = getattr(destination, 'one_name', str)"),
        (lookups, "if hasattr(source, 'plan_ranges'): pass"),
        (module_changes, "sys.modules['numpy'] = None"),
        (module_changes, "del sys.modules['numpy']"),
        (module_changes, "sys.modules.setdefault('numpy', made)"),
        (private_imports, "import pyarrow._compute"),
        (private_imports, "from pydantic.plugin import _loader"),
        (one_kind_only, "from dataclasses import dataclass, replace"),
        (one_kind_only, "changed = dataclasses.replace(planned, name='x')"),
    ],
)
def test_a_planted_line_is_found(rule: Callable[[str, ast.AST], Iterator[Found]], planted: str) -> None:
    assert list(rule("sync/plan/plan.py", ast.parse(planted)))


@pytest.mark.full
def test_each_exception_is_still_needed() -> None:
    used = set()
    for name, tree in product_trees().items():
        for node in ast.walk(tree):
            is_lookup = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in LOOKUPS
            if is_lookup and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
                used.add((name, node.args[1].value))
    assert set(BY_NAME) <= used


#: Contract -> a line that breaks it, and the file that gets it.
PLANTED = {
    "connectors and callbacks know neither each other nor sync": (
        "callbacks/unknown_names.py",
        "from syncblocks.connectors import stream",
    ),
    "the engine's layers": ("sync/plan/refusals.py", "from ..run import progress"),
    "the connectors' layers; no system imports another": (
        "connectors/sqlite/types.py",
        "from ..duckdb import types as other",
    ),
    "the server runs no pipeline itself": ("sync/serve/files.py", "from ..session import session"),
    "the server opens no source and no destination": (
        "sync/serve/files.py",
        "from syncblocks.connectors import stream",
    ),
    "orchestrators are for their integrations alone": ("sync/run/progress.py", "import dagster"),
    "no circles of files or folders": ("sync/clock.py", "from . import cli"),
    "one import name": ("sync/clock.py", "import sync.errors"),
}


def test_every_contract_has_a_line_that_breaks_it() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert {contract["name"] for contract in contracts} == set(PLANTED)


@pytest.mark.full
@pytest.mark.parametrize("name", PLANTED)
def test_a_contract_breaks_on_a_planted_line(name: str, tmp_path: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "sync", "connectors", "callbacks", "syncblocks", "pyproject.toml"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for path in tracked:
        source, target = ROOT / path, tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.exists():
            target.write_bytes(source.read_bytes())
    file, line = PLANTED[name]
    planted = tmp_path / file
    planted.write_text(planted.read_text() + f"\n{line}  # planted\n")
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command, "--no-cache"], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode != 0
    assert f"{name} BROKEN" in " ".join(done.stdout.split())
