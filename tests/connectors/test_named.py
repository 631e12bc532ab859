"""Named parameters are found where they are parameters, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncblocks.connectors.named_parameters import numbered, parameter_names, replaced, skeleton, without_end
from syncblocks.connectors.registry import make_destination
from tests.sync.run.targets import open_target


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


@pytest.mark.parametrize(
    ("query", "is_mysql", "expected"),
    [
        (r"""select 'it\'s :a', "x\" :a", :a # :a isn't""", True, r"""select 'it\'s :a', "x\" :a", 1 # :a isn't"""),
        (r"select 'C:\', :a # :a", False, r"select 'C:\', 1 # 1"),
        ("select $t1$ :a $t1$, :a::int, :ab, x>=:a", False, "select $t1$ :a $t1$, 1::int, :ab, x>=1"),
    ],
)
def test_one_parameter_of_a_query_is_replaced_and_others_stay(query: str, is_mysql: bool, expected: str) -> None:
    assert replaced(query, {"a": "1"}, has_hashes=is_mysql, has_backslashes=is_mysql) == expected


def test_what_is_left_of_a_query_are_its_words_and_signs() -> None:
    query = r"""select ';(' as "a;", $$;$$, `;`/* ; */, x::int /*! ; */ -- ;"""
    assert " ".join(skeleton(query).split()) == "select ? as ? , ? , ? , x int /*! ; */"
    assert skeleton(r"'it\'s; '", has_backslashes=True).split() == ["?"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("select 1;", "select 1"),
        ("select 1 ; -- the end; of it\n /* ; */", "select 1"),
        ("select ';' -- ;", "select ';' -- ;"),
        ("select 1; select 2;", "select 1; select 2"),
        ("select 1; select 2", "select 1; select 2"),
        ("select 1;;", "select 1;"),
    ],
)
def test_the_end_of_a_statement_is_cut_off(query: str, expected: str) -> None:
    assert without_end(query) == expected


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


#: Around each value, text that a scanner takes for a constant that is none, or the other way round.
STATEMENT = "-- don't\n/* it's: :no */ insert into said (a, b) values (:first, :second) -- :no, isn't it\n"


@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "postgres", "mysql", "psycopg"])
def test_a_value_is_bound_whatever_the_comments_of_the_statement_hold(tmp_path: Path, kind: str) -> None:
    values = {"first": "x'); drop table said; -- ", "second": "\\' or $1 :first ? %s"}
    with open_target(kind, tmp_path) as target:
        target.query("create table said (a varchar(99), b varchar(99))")
        statement = STATEMENT.replace("-- don't\n", "# don't\n") if kind == "mysql" else STATEMENT
        config = target.document
        destination = make_destination(config["connector"], config["config"], tmp_path)
        assert destination.execute(statement, values) == 1
        destination.close()
        assert target.query("select a, b from said") == [tuple(values.values())]


def test_mysql_binds_values_of_every_kind_and_compares_them_in_the_columns_collation(mariadb_url: str) -> None:
    from tests.connectors.mysql.mysql_databases import query, run

    run(mariadb_url, "create table t (a varchar(9) character set latin1 collate latin1_swedish_ci, n int, f double)")
    destination = make_destination("mysql", {"url": mariadb_url}, Path.cwd())
    insert = "insert into t values (:a, :n, :f), (upper(:a), null, :none)"
    assert destination.execute(insert, {"a": "zoë", "n": True, "f": 0.5, "none": None}) == 2
    assert destination.execute("update t set n = :n where a = :a", {"a": "ZOË", "n": 7}) == 2
    destination.close()
    assert query(mariadb_url, "select n, f from t order by f")[1] == [(7, None), (7, 0.5)]
