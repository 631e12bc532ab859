"""The documentation says what the code does: its tables, its examples, the commands that it names."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import syncblocks
import syncblocks.callbacks
from syncblocks import PipelineFailed, RunResult, StreamResult, TryLater, open_run, run_pipeline
from syncblocks.callbacks.kwargs import RESERVED, STATUSES
from syncblocks.callbacks.loader import load_file
from syncblocks.callbacks.protocols import Outcome
from syncblocks.connectors.registry import CONNECTORS, connector_class
from syncblocks.sync.cli import root
from syncblocks.sync.config import CallbackBlock, Pipeline, StreamEntry, load_pipeline
from syncblocks.sync.config.blocks import (
    RESERVED_PARENTS,
    Columns,
    DestinationBlock,
    SourceBlock,
    TransformerBlock,
)
from syncblocks.sync.config.executor import ExecutorSettings, SecuritySettings
from syncblocks.sync.config.expect import ExpectSettings, RowsSettings
from syncblocks.sync.config.schedule import ScheduleSettings
from syncblocks.sync.errors import AlreadyRunning, ConfigError, ExecutorError, StateError, StoreUnreachable
from syncblocks.sync.plan.selection import NoStream
from tests.docs import PAGES, ROOT, Example, examples, headings, name_of, section, tables

BASE = {
    "source": {"connector": "csv", "config": {"path": "data"}},
    "destination": {"connector": "duckdb", "config": {"path": "warehouse.duckdb"}},
    "streams": [{"stream": "*"}],
}
ANY_CALLBACK = "@callback\ndef tell(**kwargs): ...\n"
ANY_TRANSFORMER = "@transformer\ndef change(df): return df\n"


def test_home_links_each_page_of_the_site() -> None:
    (nav,) = re.findall(r"^nav:\n(.*)", (ROOT / "mkdocs.yml").read_text(), flags=re.DOTALL | re.MULTILINE)
    listed = set(re.findall(r"([\w/-]+\.md)$", nav, flags=re.MULTILINE))
    linked = set(re.findall(r"\]\(([\w/-]+\.md)\)", (ROOT / "docs" / "index.md").read_text()))
    of_decisions = {page for page in listed if page.startswith("decisions/0")}
    assert listed - of_decisions - {"index.md"} == linked


# -- callbacks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "heading"), [("README.md", "What a callback receives"), ("docs/callbacks.md", "Arguments")]
)
def test_the_table_of_keyword_arguments_names_each_of_them(page: str, heading: str) -> None:
    assert set(tables(section(page, heading))[0]) == RESERVED


def test_the_page_of_the_architecture_shows_the_layers_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (example,) = [each for each in examples("text", page="docs/architecture.md") if each.text.startswith("sync:")]
    shown = [[line.strip() for line in part.splitlines()[1:]] for part in example.text.strip().split("\n\n")]
    checked = [[re.sub(r"[()]", "", layer) for layer in each["layers"]] for each in contracts if each.get("exhaustive")]
    assert shown == checked


def test_the_files_in_the_picture_of_the_layers_exist() -> None:
    texts = re.findall(r'font-family="monospace"([^>]*)>([^<]+)<', (ROOT / "docs" / "layers.svg").read_text())
    folder, found = "", list[str]()
    for style, text in texts:
        if "bold" in style:
            folder = text
        elif text.endswith(".py"):
            found.append(f"{folder}/{text}")
    assert len(found) > 10
    assert [path for path in found if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize("page", ["docs/architecture.md", "docs/where-to-change.md"])
def test_the_files_that_a_page_names_exist(page: str) -> None:
    paths = re.findall(r"`((?:sync|connectors|callbacks|tests|docs|syncblocks)/[\w/.-]*)`", (ROOT / page).read_text())
    assert len(paths) >= 30
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_each_status_has_a_row() -> None:
    assert list(tables(section("docs/callbacks.md", "Statuses"))[0]) == list(STATUSES)


def test_each_outcome_of_a_call_has_a_row() -> None:
    (outcomes,) = tables(section("docs/callbacks.md", "Delivery"))
    assert set(outcomes) == {*get_args(get_type_hints(Outcome)["kind"]), "lost", "replayed"}


def test_each_parent_has_a_row() -> None:
    words = " ".join(tables(section("docs/callbacks.md", "Parents"))[0])
    assert [word for word in RESERVED_PARENTS if word not in words] == []


# -- settings --------------------------------------------------------------------------------------------------------


def default(field: FieldInfo) -> str | None:
    """Return how the tables write a default; None: there is none, and the table may say what happens then."""
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True)
    if value in (None, "", (), {}, []):
        return None
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(value)}]`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def as_table(fields: dict[str, FieldInfo]) -> str:
    """Return the table as it could stand on the page."""
    rows = [f"| `{name}` | {default(field) or ''} | {field.description} |" for name, field in fields.items()]
    return "\n".join(["| Key | Default | Meaning |", "|---|---|---|", *rows])


def assert_tables_of(text: str, *models: type[BaseModel]) -> None:
    """Demand that each model has a table with exactly its keys and their defaults."""
    found = tables(text)
    for model in models:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        table = next((table for table in found if table.keys() == fields.keys()), None)
        assert table is not None, f"no table has the keys of {model.__name__}; it would be:\n{as_table(fields)}"
        for name, field in fields.items():
            expected = default(field)
            assert expected is None or table[name][0] == expected, f"{model.__name__}.{name}"


@pytest.mark.parametrize(
    ("heading", "models"),
    [
        ("Pipeline", [Pipeline]),
        ("Source and destination", [SourceBlock, DestinationBlock]),
        ("Transformers", [TransformerBlock]),
        ("Streams", [StreamEntry, Columns]),
        ("Callbacks", [CallbackBlock]),
        ("Schedule", [ScheduleSettings]),
        ("Expect", [ExpectSettings, RowsSettings]),
        ("Executor", [ExecutorSettings, SecuritySettings]),
    ],
)
def test_the_pipeline_files_tables_have_each_key_with_its_default(heading: str, models: list[type[BaseModel]]) -> None:
    assert_tables_of(section("docs/pipeline.md", heading), *models)


@pytest.mark.parametrize("connector", CONNECTORS)
def test_each_connector_has_a_section_with_its_settings(connector: str) -> None:
    roles = [role for role, path in zip(("source", "destination"), CONNECTORS[connector], strict=True) if path]
    models = [connector_class(connector, role).settings for role in roles]
    assert_tables_of(section("docs/connectors.md", connector), *models)


# -- commands --------------------------------------------------------------------------------------------------------


def commands(command: click.Command = root, path: str = "") -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from commands(found, f"{path} {name}".strip())


COMMANDS = dict(commands())
COMMON = {"--json", "--debug", "-h", "--help"}


def test_each_command_has_a_section_and_there_are_no_others() -> None:
    extra = {"Exit codes", "Options of every command"}
    assert set(headings("docs/command-line.md", 2)) - extra == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_section_of_a_command_names_its_options(name: str) -> None:
    options = {opt for param in COMMANDS[name].params if isinstance(param, click.Option) for opt in param.opts}
    found = tables(section("docs/command-line.md", name))
    named = {key.partition(" ")[0] for table in found for key in table}
    assert named == options - COMMON


CONSOLE = [
    pytest.param(line, id=f"{example.page}: {line.partition('#')[0].strip()}")
    for example in examples("console", "bash", "sh")
    for line in example.text.splitlines()
    if line.startswith("syncblocks ")
]


@pytest.mark.parametrize("line", CONSOLE)
def test_a_command_line_of_the_documentation_exists(line: str) -> None:
    command: click.Command = root
    words = shlex.split(line, comments=True)[1:]
    context = click.Context(root, info_name="syncblocks")
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert found is not None, name
        command = found
    command.make_context(str(command.name), words, resilient_parsing=False)


def test_commands_named_in_the_text_exist() -> None:
    for page in PAGES:
        for name in re.findall(r"`syncblocks ([a-z]+(?: [a-z]+)?)", page.read_text(encoding="utf-8")):
            known = {*COMMANDS, *(path.partition(" ")[0] for path in COMMANDS)}
            assert name in known or name.partition(" ")[0] in COMMANDS, f"{page.name}: syncblocks {name}"


# -- functions -------------------------------------------------------------------------------------------------------


def test_each_function_has_a_row() -> None:
    names = set(syncblocks.__all__) - set(syncblocks.callbacks.__all__)
    functions = {name for name in names if inspect.isfunction(getattr(syncblocks, name))}
    assert set(tables(section("docs/python.md", "Functions"))[0]) == functions


@pytest.mark.parametrize(
    "function", [load_pipeline, run_pipeline, open_run], ids=lambda function: str(function.__name__)
)
def test_each_argument_of_a_function_has_a_row(function: Callable[..., Any]) -> None:
    heading = "A task for each stream" if function is open_run else function.__name__
    (found,) = (table for table in tables(section("docs/python.md", heading)) if "variables" in table)
    assert list(found) == list(inspect.signature(function).parameters)


@pytest.mark.parametrize("kind", [RunResult, StreamResult])
def test_each_fact_of_a_result_has_a_row(kind: type) -> None:
    facts = {field.name for field in dataclasses.fields(kind)}
    facts |= {name for name, value in vars(kind).items() if isinstance(value, property) and not name.startswith("_")}
    assert facts in [set(table) for table in tables(section("docs/python.md", "run_pipeline"))]


def test_the_codes_of_errors_are_those_of_classes() -> None:
    raised = (ConfigError, NoStream, AlreadyRunning, StateError, StoreUnreachable, ExecutorError, TryLater)
    kinds = (*raised, PipelineFailed)
    assert set(tables(section("docs/python.md", "Errors"))[0]) == {kind.code for kind in kinds}


# -- examples --------------------------------------------------------------------------------------------------------


def whole(text: str) -> str:
    """Return a part of a pipeline file as it stands, with what it lacks below."""
    lacking = {key: value for key, value in BASE.items() if key not in yaml.safe_load(text)}
    return text + (yaml.safe_dump(lacking) if lacking else "")


def write_files(folder: Path, page: str, document: dict[str, Any]) -> None:
    """Write what a pipeline names: the page's own files where it shows them, else the least that loads."""
    shown = {example.file: example.text for example in examples("python") if example.page == page}
    for key, text in (("callbacks", ANY_CALLBACK), ("transformers", ANY_TRANSFORMER)):
        for block in document.get(key, ()):
            if block.get("file"):
                path = folder / block["file"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(shown.get(block["file"], text))


@pytest.mark.parametrize("example", examples("yaml"), ids=lambda example: example.id)
def test_a_yaml_example_is_a_pipeline_or_a_part_of_one(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in re.findall(r"(?:env_var|secret)\('(\w+)'", example.text):
        monkeypatch.setenv(name, "postgresql://reader@db.example/crm")
        monkeypatch.setenv(f"SYNCBLOCKS_SECRET_{name.upper()}", "the-secret-itself, of 32 bytes at least")
    part = yaml.safe_load(example.text)
    file = tmp_path / "example.yaml"
    file.write_text(whole(example.text))
    write_files(tmp_path, example.page, part)
    load_pipeline(file)


@pytest.mark.parametrize("example", examples("python"), ids=lambda example: example.id)
def test_a_python_example_loads(example: Example, tmp_path: Path) -> None:
    code = compile(example.text, example.id, "exec")
    if "from airflow" in example.text or "syncblocks.sync.integrations" in example.text:  # run by tests/interop
        return
    if "from syncblocks import" in example.text or example.page == "docs/python.md":  # run by tests/test_recipes.py
        return
    if re.search(r"^@(callback|on_success|on_failure|on_cancelled|transformer)\b", example.text, re.MULTILINE):
        path = tmp_path / "example.py"
        path.write_text(example.text)
        load_file(path, variables=["region"])
    else:
        exec(code, {"__name__": "example"})


@pytest.mark.one_of
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_between_the_pages_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]*\.md)?(#[\w-]+)?\)", text):
        file, anchor = page.parent / target[0] if target[0] else page, target[1]
        assert file.exists() or file.name == "hooks.md", f"{page.name}: {target[0]}"
        if anchor and file.exists():
            level = [h for n in range(1, 5) for h in headings(str(file.relative_to(ROOT)), n)]
            slugs = {re.sub(r"[^\w\s-]", "", heading.lower()).replace(" ", "-") for heading in level}
            assert anchor.removeprefix("#") in slugs, f"{page.name}: {anchor}"
