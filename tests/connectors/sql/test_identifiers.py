"""Names come out of other people's databases."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.sql.identifiers import TableName, literal, quote, shorten, staging_name

NAMES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=80)


@given(NAMES)
def test_a_quoted_name_is_one_name_to_a_database(name: str) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute(f"create table {quote(name)} (a int)")
    found = connection.execute("select name from sqlite_master").fetchall()
    connection.close()
    assert found == [(name,)]


@given(NAMES)
def test_a_literal_is_one_text_to_a_database(text: str) -> None:
    connection = sqlite3.connect(":memory:")
    found = connection.execute(f"select {literal(text)}").fetchall()
    connection.close()
    assert found == [(text,)]


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", "a\udfff"])
def test_names_that_no_database_holds_are_refused(name: str) -> None:
    with pytest.raises(FatalConnectorError):
        quote(name)


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_texts_that_no_database_holds_are_refused(text: str) -> None:
    with pytest.raises(FatalConnectorError):
        literal(text)


def test_mysql_is_quoted_by_backticks() -> None:
    assert quote('a`b"c', "mysql") == '`a``b"c`'


@given(st.text(min_size=1), st.integers(24, 64))
def test_a_shortened_name_fits(name: str, limit: int) -> None:
    assert len(shorten(name, limit).encode("utf-8", "surrogatepass")) <= max(limit, 24)


def test_long_names_that_begin_alike_stay_apart() -> None:
    names = {shorten("x" * 63 + str(number), 63) for number in range(100)}
    assert len(names) == 100
    assert shorten("x" * 63, 63) == "x" * 63


@given(NAMES, NAMES)
def test_a_table_name_reads_back(schema: str, name: str) -> None:
    table = TableName(schema, name)
    assert TableName.parse(str(table), "other") == table


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("users", TableName("main", "users")),
        ("crm.users", TableName("crm", "users")),
        ('"a.b".c', TableName("a.b", "c")),
        ('c."a.b"', TableName("c", "a.b")),
        ('"say ""hi"""', TableName("main", 'say "hi"')),
        ("a.b.c", TableName("a", "b.c")),
        (".users", TableName("main", ".users")),
        ("users.", TableName("main", "users.")),
    ],
)
def test_destination_tables_may_carry_a_schema(text: str, expected: TableName) -> None:
    assert TableName.parse(text, "main") == expected


def test_staging_names_carry_the_token_and_fit_everywhere() -> None:
    token = "0123456789abcdef" * 2
    assert staging_name(token).endswith(token)
    assert staging_name("a strange: token!") != staging_name("a strange: token?")
    assert all(len(f"{staging_name(text)}_c_pkey") <= 63 for text in (token, "x" * 300, "q" * 40))
