"""Names come out of other people's databases."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.sql.identifiers import Naming, TableName, literal, quote, shorten, spellings, staging_name

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


class Folding(Naming):
    """A system that takes names for one that differ by case only, and whose names are short."""

    name = "folding"
    max_identifier_bytes = 24

    def fold(self, name: str) -> str:
        return name.casefold()


SPELLINGS = st.sampled_from(["a", "A", "ab", "aB", "Ab", "AB", "c" * 30, "C" * 30, "c" * 31])
DAYS = st.lists(st.lists(SPELLINGS, min_size=1, max_size=6, unique=True), min_size=1, max_size=6)


@given(DAYS, st.booleans())
@example([["a", "A", "ab", "aB"], ["a"], ["Ab", "ab"]], True)
@example([["aB"], ["AB", "ab"], ["aB"], ["ab", "AB"]], False)
def test_names_that_came_together_keep_their_columns(days: list[list[str]], is_replaced: bool) -> None:
    naming, held, known, settled = Folding(), list[str](), dict[str, str](), dict[str, str]()
    for names in days:
        found = naming.column_names(names, held, known)
        known = naming.remembered(found, known)
        assert list(found) == names
        assert len({naming.fold(column) for column in found.values()}) == len(names), "each has its own"
        assert {name: found[name] for name in names if name in settled} == {
            name: column for name, column in settled.items() if name in names
        }
        folded = [naming.fold(name) for name in names]
        settled |= {name: found[name] for name in names if folded.count(naming.fold(name)) > 1}
        new = [column for column in found.values() if column not in held]
        held = list(found.values()) if is_replaced else [*held, *new]
        assert len({naming.fold(column) for column in held}) == len(held), "a table that the system can hold"


@given(st.text(alphabet='ab."', min_size=1, max_size=9))
def test_every_text_that_is_read_as_a_table_is_a_spelling_of_it(text: str) -> None:
    name = TableName.parse(text, "s")
    assume(name.name and name.schema)
    assert text in spellings(name)
