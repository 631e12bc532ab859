"""Whatever a pipeline file holds: a valid pipeline or one ConfigError with its place, and nothing else."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncblocks.sync.config import Pipeline, load_pipeline, render_destination_table, resolve_references
from syncblocks.sync.errors import ConfigError
from tests.budget import within
from tests.tiers import examples

#: The full set is run with SYNCBLOCKS_FUZZ=10000. Examples are derived from the test: each commit tries the same ones,
#: all of which the full set has tried before.
EXAMPLES = int(os.environ.get("SYNCBLOCKS_FUZZ", "200"))
ENVIRON = {"A": "value-of-a", "N": "3", "SYNCBLOCKS_SECRETS_DIR": "/nonexistent", "SYNCBLOCKS_SECRET_S": "the-s3cret"}

FUZZ = settings(
    max_examples=examples(EXAMPLES),
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

TRICKY = [
    "no", "NO", "on", "y", "~", "null", "012", "0x1F", "1:30", "1e5", "2024-01-01", ".inf", "-", "?", ": ", "a: b",
    "- a", "# x", "'", '"', "&a", "*a", "!!str x", "!x", "|", ">", "%", "@", "`", "{", "}", "[", "]", ",", "\t", "\n",
    " ", "", "\\", "public.*", "[a", "[!]", "**", "{{", "}}", "{{ }}", "{{ ds }}", "{{ env_var('A') }}",
    "{{ env_var('N') }}", "{{ env_var('GONE') }}", "{{ secret('s') }}", "{{ secret('../s') }}",
    "{{ variables('v') }}", "{{ variables('gone') }}", "{{ stream }}", "{{ x.y }}", "{% if a %}", "{# c #}",
    "{% raw %}{{ x }}{% endraw %}", "{{ '{{ ds }}' }}", "source", "stream", "pipeline", "transformers", "load_sqlite",
    "../x", "/", "~root", "sqlite:///x.db", "sqlite://", "postgresql://u:p-a-s-s@h/d", "INCREMENTAL", "FULL_TABLE",
    "LOG_BASED", "merge", "replace", "2GB", "auto", "<<", "=", "\u2028", "\x85", "é", "e\u0301", "🔑", "\u202e",
    "\ufeff", "a" * 300,
]  # fmt: skip
texts = st.one_of(st.sampled_from(TRICKY), st.text(max_size=12))
scalars = st.one_of(
    texts,
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-2, 5),
    st.floats(),
    st.sampled_from([10**50, -0.0, 1e308]),
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)

KEYS = [
    "pipeline", "variables", "concurrency", "allow_blocks_to_fail", "retries", "retry_delay_s", "timeout_s",
    "drain_s", "store", "spool_limit", "memory", "source", "transformers", "destination", "streams", "callbacks",
    "block",
    "connector", "config", "file", "rename",
    "notify", "webhook", "shell", "sql", "title", "message", "status", "when", "url", "secret", "headers", "statement",
    "parameters", "stream", "selected", "destination_table", "replication_method",
    "bookmark_properties", "key_properties", "unique_conflict_method", "write_disposition", "columns", "include",
    "exclude", "on", "attempts", "<<", "$template",
]  # fmt: skip


def valid() -> dict[str, Any]:
    return {
        "pipeline": "crm",
        "variables": {"v": "eu", "n": 1},
        "concurrency": 2,
        "store": "sqlite:///x.db",
        "source": {"connector": "sqlite", "config": {"path": "{{ env_var('A') }}"}},
        "transformers": [{"file": "clean.py", "streams": ["a*"], "rename": {"a": "b"}}],
        "destination": {"block": "out", "connector": "duckdb", "config": {"path": "x"}},
        "streams": [
            {"stream": "*"},
            {
                "stream": "users",
                "destination_table": "t_{{ stream }}",
                "replication_method": "INCREMENTAL",
                "bookmark_properties": ["t"],
                "columns": {"exclude": ["x"]},
            },
        ],
        "callbacks": [
            {"block": "alerts", "file": "clean2.py", "on": ["source", "stream"], "timeout_s": 5},
            {
                "block": "said",
                "notify": ["json://{{ secret('s') }}/x"],
                "message": "{{ stream }}",
                "when": "index == 0",
            },
            {"webhook": {"url": "https://{{ env_var('A') }}/x", "secret": "{{ secret('s') }}", "headers": {"A": "b"}}},
            {"shell": ["echo", "{{ variables('v') }}"], "status": ["failure"]},
            {"sql": {"statement": "select :stream, :n", "parameters": {"n": "{{ block_run.rows }}"}}},
        ],
    }


def places(value: Any, loc: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield loc
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*loc, key))


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A valid document with up to three mutations: another value, a missing key, another or an unknown key."""
    document: dict[str, Any] = {"": valid()}
    for _ in range(draw(st.integers(0, 3))):
        loc = draw(st.sampled_from(list(places(document))[1:]))
        holder: Any = document
        for part in loc[:-1]:
            holder = holder[part]
        match draw(st.integers(0, 3)):
            case 0 if len(loc) > 1:
                del holder[loc[-1]]
            case 1 if isinstance(holder, dict) and len(loc) > 1:
                holder[draw(st.one_of(st.sampled_from(KEYS), texts))] = holder.pop(loc[-1])
            case 2 if isinstance(holder, dict) and len(loc) > 1:
                holder[draw(st.one_of(st.sampled_from(KEYS), texts))] = draw(anything)
            case _:
                holder[loc[-1]] = draw(anything)
    top = document[""]
    return top if isinstance(top, dict) else {"pipeline": top}


@st.composite
def mutated_texts(draw: st.DrawFn) -> bytes:
    """The YAML of a document, with pieces put in, taken out or written twice."""
    text = draw(yaml_texts())
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(text)))
        length = draw(st.integers(0, 12))
        piece = draw(
            st.sampled_from([*TRICKY, "\0", "\x07", "\r", "\n\t", "\n- ", "\n  ", "---\n", text[at : at + 30]])
        )
        text = text[:at] + piece + text[at + length :]
    encoding = draw(st.sampled_from(["utf-8"] * 8 + ["utf-8-sig", "utf-16", "utf-16-le", "latin-1"]))
    return text.encode(encoding, "replace")


@st.composite
def yaml_texts(draw: st.DrawFn) -> str:
    import yaml

    document = draw(documents())
    if draw(st.booleans()):
        return json.dumps(document, ensure_ascii=draw(st.booleans()))
    style = draw(st.sampled_from([None, '"', "'"]))
    return str(yaml.safe_dump(document, allow_unicode=True, default_style=style, sort_keys=draw(st.booleans())))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        for file in ("clean.py", "clean2.py"):
            (Path(name) / file).write_text("")
        yield Path(name)


def check(folder: Path, content: bytes) -> Pipeline | None:
    path = folder / "p.yaml"
    path.write_bytes(content)
    pipeline, failure = None, None
    with within(2):
        try:
            pipeline = load_pipeline(path, environ=ENVIRON)
        except ConfigError as error:
            failure = error
    if failure is not None:
        breaks = sum(content.count(mark) for mark in (b"\n", b"\r", b"\xe2\x80", b"\xc2\x85"))
        assert failure.path == str(path)
        assert failure.line is None or 1 <= failure.line <= breaks + 2
        assert failure.message
        assert "the-s3cret" not in str(failure)
        assert "value-of-a" not in str(failure)
    if pipeline is not None:
        for entry in pipeline.streams:
            if entry.destination_table is not None:
                render_destination_table(entry.destination_table, pipeline, "public.users")
        stored = json.dumps(pipeline.variable_references, allow_nan=False)
        assert "the-s3cret" not in stored
        assert resolve_references(json.loads(stored), pipeline, ENVIRON) == pipeline.variables
        assert pipeline.where(("streams", 0))[1] >= 1
    assert sorted(item.name for item in folder.iterdir()) == ["clean.py", "clean2.py", "p.yaml"]
    return pipeline


def test_the_document_that_is_mutated_is_valid(folder: Path) -> None:
    assert check(folder, json.dumps(valid()).encode()) is not None


@pytest.mark.sampled
@FUZZ
@given(text=yaml_texts())
@pytest.mark.full
def test_a_mutated_document_is_a_pipeline_or_one_error(folder: Path, text: str) -> None:
    check(folder, text.encode("utf-8", "replace"))


@pytest.mark.sampled
@FUZZ
@given(content=mutated_texts())
def test_a_mutated_file_is_a_pipeline_or_one_error(folder: Path, content: bytes) -> None:
    check(folder, content)


@pytest.mark.sampled
@settings(FUZZ, max_examples=examples(min(EXAMPLES, 200)))
@given(content=st.binary(max_size=200))
def test_any_bytes_are_one_error(folder: Path, content: bytes) -> None:
    assert check(folder, content) is None
