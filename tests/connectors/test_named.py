"""Named parameters are found where they are parameters, and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncblocks.connectors.named import numbered, parameter_names


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("select :a, :b, :a", "select $1, $2, $1"),
        ("insert into t values (:a,:b)", "insert into t values ($1,$2)"),
        ("select :a::date, x::text", "select $1::date, x::text"),
        ("select ':a', \"x:a\", `:a`, 'it''s :a'", "select ':a', \"x:a\", `:a`, 'it''s :a'"),
        (r"select E'it\'s :a', :b", r"select E'it\'s :a', $1"),
        ("select 1 -- :a\n, :b /* :a */", "select 1 -- :a\n, $1 /* :a */"),
        ("do $$ begin perform :a; end $$", "do $$ begin perform :a; end $$"),
        ("do $x$ $$ :a $x$", "do $x$ $$ :a $x$"),
        ("select x[1:2], x[a:b], f := 1, '12:30'", "select x[1:2], x[a:b], f := 1, '12:30'"),
        ("select : a, :1, :", "select : a, :1, :"),
        ("", ""),
    ],
)
def test_a_parameter_becomes_a_placeholder(statement: str, expected: str) -> None:
    text, values = numbered(statement, {"a": 1, "b": "two"})
    assert text == expected
    assert values == [{"a": 1, "b": "two"}[name] for name in parameter_names(statement)]


def test_a_parameter_without_a_value_is_an_error() -> None:
    with pytest.raises(KeyError):
        numbered("select :gone", {})


@given(st.text(alphabet="ab:'\"$`-/* \n\\1[]", max_size=40))
def test_any_text_is_read_and_loses_nothing_but_its_parameters(statement: str) -> None:
    names = parameter_names(statement)
    text, values = numbered(statement, {name: name for name in names})
    assert values == list(names)
    if not names:
        assert text == statement
