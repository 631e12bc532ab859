"""Templates and conditions over an event."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from syncblocks.callbacks.kwargs import STATUSES
from syncblocks.callbacks.made_up_events import make_event
from syncblocks.sync.config.event_templates import (
    duration_text,
    event_values,
    fill,
    is_true,
    parse_condition,
    shown,
    size_text,
    vocabulary,
)
from syncblocks.sync.config.hook_texts import default_message
from syncblocks.sync.config.templates import TemplateError, TemplateValues, Vocabulary, parse
from tests.budget import within

KNOWN = vocabulary(statuses=STATUSES, parents=["stream", "pipeline"], variables=["region", "big"])


def scope(folder: Path) -> TemplateValues:
    environ = {"TEAM": "data", "SYNCBLOCKS_SECRET_K": "k3y", "SYNCBLOCKS_SECRETS_DIR": "/nonexistent"}
    return TemplateValues(folder=folder, environ=environ, variables={"region": "eu", "big": 5})


def event(status: str = "success", **overrides: Any) -> dict[str, Any]:
    recorded = make_event("success" if status in ("success", "recovered") else status, "public.orders", **overrides)
    return event_values({**recorded, "region": "eu", "big": 5}, status, env="dev")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ stream }}: {{ block_run.rows }} rows", "public.orders: 3 rows"),
        ("{{ stream | table | upper }}{{ ' x ' | trim }}", "ORDERSx"),
        (
            "{{ status }} {{ env }} {{ pipeline.name }} {{ ds }}T{{ hr }}",
            "success dev pipeline_under_test 2023-04-26T20",
        ),
        ("{{ 1234567 | number }} {{ 2.5 | number(2) }} {{ big | number(99) }}", "1,234,567 2.50 5.000000"),
        ("{{ 1234567 | bytes }} {{ 90 | duration }}", "1.2 MB 1 min 30 s"),
        ("{{ region }} {{ variables('region') }} {{ env_var('TEAM') }} {{ secret('k') }}", "eu eu data k3y"),
        ("{{ 'a/b c' | urlencode }}", "a%2Fb%20c"),
        ("{{ error.message }}|{{ error }}|{{ totals.rows }}|{{ never_started }}|{{ none }}", "||||"),
        ("{{ is_last_block_run }} {{ execution_date }}", "true 2023-04-26 20:28:17+00:00"),
        ("{{ 'bad' if error else 'good' }} {{ retry.attempts }} {{ pipeline_run.id }}", "good 1 1"),
        ("{{- stream -}}", "public.orders"),
        ("no template", "no template"),
        ("{{ ['a', 'b'] | join }}", "a, b"),
    ],
)
def test_a_message_is_filled(template: str, expected: str, tmp_path: Path) -> None:
    assert shown(fill(template, event(), KNOWN, scope(tmp_path)).value) == expected


def test_a_lone_expression_keeps_its_type(tmp_path: Path) -> None:
    values = [fill(text, event(), KNOWN, scope(tmp_path)).value for text in ("{{ block_run.rows }}", "{{ error }}")]
    assert values == [3, None]


def test_what_secret_gave_is_noted(tmp_path: Path) -> None:
    assert fill("x{{ secret('k') }}", event(), KNOWN, scope(tmp_path)).secrets == {"k3y"}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("is_last_block_run", True),
        ("{{ is_last_block_run }}", True),
        ("not is_last_block_run", False),
        ("stream == 'public.orders' and block_run.rows == 3", True),
        ("stream in ['a', 'b']", False),
        ("block_run.rows > 3 or status == 'success'", True),
        ("error", False),
        ("error.type == 'ValueError'", False),
        ("region == variables('region') and env_var('TEAM') == 'data'", True),
        ("-1 < block_run.rows", True),
        ("(stream | table) == 'orders'", True),
        ("block_run.bookmark_before == none", True),
    ],
)
def test_a_condition_is_true_or_false_of_an_event(condition: str, expected: bool, tmp_path: Path) -> None:
    assert is_true(condition, event(), KNOWN, scope(tmp_path)) is expected


def test_a_failure_has_an_error(tmp_path: Path) -> None:
    values = event("failure")
    assert is_true("error.type == 'ValueError' and error", values, KNOWN, scope(tmp_path))
    assert fill("{{ error }}!", values, KNOWN, scope(tmp_path)).value == "made by syncblocks.callbacks.testing!"


def test_a_condition_that_does_not_fit_is_an_error_without_values(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"cannot be filled \(TypeError\)") as caught:
        is_true("secret('k') > 5", event(), KNOWN, scope(tmp_path))
    assert "k3y" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "stream.upper()",
        "stream.__class__",
        "block_run.__init__",
        "block_run['rows']",
        "pipeline_run.variables",
        "block_run",
        "totals",
        "__input",
        "__error",
        "10 ** 10",
        "'x' * 10",
        "stream + stream",
        "{'a': 1}",
        "[x for x in stream]",
        "range(3)",
        "env_var(stream)",
        "env_var.x",
        "stream | map('x')",
        "stream is none",
        "lipsum",
        "a }} {{ b",
        "1 }} text",
        "",
        "{{ }}",
        "is_last_block_run }}{% set x = 1 %}{{ 1",
        "not " * 30 + "stream",
    ],
)
def test_nothing_else_is_let_in(text: str) -> None:
    with within(1), pytest.raises(TemplateError):
        parse_condition(text, KNOWN)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [("strem", "stream"), ("blok_run.rows", "block_run"), ("block_run.row", "rows"), ("regio", "region")],
)
def test_a_misspelled_name_has_a_nearest_match(text: str, nearest: str) -> None:
    with pytest.raises(TemplateError) as caught:
        parse_condition(text, KNOWN)
    assert caught.value.nearest == nearest


def test_a_block_knows_the_names_that_its_parents_and_statuses_have() -> None:
    def names(known: Vocabulary) -> set[str]:
        return set(known.names)

    of_stream = names(vocabulary(statuses=["success"], parents=["stream"], variables=[]))
    of_pipeline = names(vocabulary(statuses=["failure"], parents=["pipeline"], variables=["status", "env_var"]))
    assert {"stream", "block_run", "index"} <= of_stream
    assert not {"totals", "error", "__error", "__input"} & of_stream
    assert {"totals", "failed_streams", "error"} <= of_pipeline
    assert not {"stream", "block_run", "env_var"} & of_pipeline
    with pytest.raises(TemplateError, match="not defined"):
        parse("{{ stream }}", vocabulary(statuses=["failure"], parents=["pipeline"], variables=[]))


@pytest.mark.parametrize(
    ("status", "overrides", "expected"),
    [
        ("success", {}, "pipeline_under_test: public.orders success, 3 rows in 0.0 s"),
        ("recovered", {}, "pipeline_under_test: public.orders recovered, 3 rows in 0.0 s"),
        (
            "failure",
            {},
            "pipeline_under_test: public.orders failure in 0.0 s; ValueError in export_memory: "
            "made by syncblocks.callbacks.testing",
        ),
        (
            "cancelled",
            {
                "parent": "pipeline",
                "totals": {"streams": 1200, "rows": 5},
                "failed_streams": [{"stream": "a"}],
                "never_started": ["b", "c"],
            },
            "pipeline_under_test: pipeline cancelled, 1,200 streams, 5 rows, 1 failed (a), 2 never started (b, c) "
            "in 0.0 s",
        ),
    ],
)
def test_the_message_that_says_itself_is_one_line(status: str, overrides: dict[str, Any], expected: str) -> None:
    assert default_message(event(status, **overrides)) == expected


def test_the_message_that_says_itself_marks_an_error_that_it_cuts() -> None:
    def message(length: int) -> str:
        error = SimpleNamespace(block="b", type="ValueError", message="x" * length)
        return default_message({**event("failure"), "error": error})

    assert message(500).endswith(" " + "x" * 500)
    assert message(501).endswith(" " + "x" * 500 + "...")


def test_sizes_and_times_are_written_as_people_write_them() -> None:
    assert [size_text(n) for n in (0, 999, 1000, 10**9, 10**18)] == ["0 B", "999 B", "1.0 kB", "1.0 GB", "1000000.0 TB"]
    assert [duration_text(s) for s in (0.04, 59.94, 60, 3599, 7500)] == [
        "0.0 s",
        "59.9 s",
        "1 min 0 s",
        "59 min 59 s",
        "2 h 5 min",
    ]


def test_a_value_past_all_numbers_is_a_mistake_of_the_template(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="NameError"):
        fill("{{ 1e999 }}", event(), KNOWN, scope(tmp_path))
    with pytest.raises(TemplateError, match="OverflowError"):
        fill("{{ big | duration }}", {**event(), "big": float("inf")}, KNOWN, scope(tmp_path))
