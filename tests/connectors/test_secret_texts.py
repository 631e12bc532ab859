"""Passwords in what a database says: masked where they can be told from the words around them."""

from __future__ import annotations

import pytest
from sqlalchemy import make_url

from syncblocks.connectors.mysql.settings import MySQLAddress
from syncblocks.connectors.sqlalchemy.settings import scrub

SAID = 'database "shop" at p%40ss-word: domain main already exists, with p@ss-word and x'


@pytest.mark.parametrize(
    ("password", "told"),
    [
        ("x", SAID),
        ("", SAID),
        ("shop", SAID.replace("shop", "***")),
        ("main", 'database "shop" at p%40ss-word: domain *** already exists, with p@ss-word and x'),
        ("p@ss-word", 'database "shop" at ***: domain main already exists, with *** and x'),
    ],
)
def test_a_password_is_masked_unless_it_is_too_short_or_part_of_a_word(password: str, told: str) -> None:
    assert MySQLAddress(host="h", user="u", password=password).scrub(SAID) == told
    url = make_url("mysql+pymysql://u@h/d").set(password=password)
    assert scrub(SAID, url) == told
