"""No known secret gets through the redactor, however it is spelled; ordinary text does."""

from __future__ import annotations

import base64
import html
import json
import random
import re
import shlex
import traceback
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from syncblocks.connectors.secret_texts import is_maskable
from syncblocks.sync.secrets import Redactor, mask_url_passwords, url_passwords
from tests.budget import within
from tests.tiers import examples

SPELLINGS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "quote": lambda text: quote(text, safe=""),
    "quote_path": quote,
    "quote_plus": quote_plus,
    "json": json.dumps,
    "json_unicode": lambda text: json.dumps(text, ensure_ascii=False),
    "repr": repr,
    "html": html.escape,
    "sql": lambda text: "'" + text.replace("'", "''") + "'",
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64url": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "basic_auth": lambda text: base64.b64encode(f"user:{text}".encode()).decode(),
    "basic_auth_2": lambda text: base64.b64encode(f"me:{text}\n".encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "json_in_json": lambda text: json.dumps(json.dumps(text)),
    "quoted_twice": lambda text: quote(quote(text, safe=""), safe=""),
    "json_quoted": lambda text: quote(json.dumps(text)[1:-1], safe=""),
    "base64_of_json": lambda text: base64.b64encode(json.dumps({"password": text}).encode()).decode(),
    "base64_of_quoted": lambda text: base64.b64encode(f"p={quote(text, safe='')}&x".encode()).decode(),
    "base64_quoted": lambda text: quote(base64.b64encode(text.encode()), safe=""),
    "json_in_json_in_json": lambda text: json.dumps(json.dumps(json.dumps(text))),
    "bytes": lambda text: repr(text.encode())[1:],
    "ascii": ascii,
    "shell": shlex.quote,
    "shell_backslashes": lambda text: "".join(char if char.isalnum() else f"\\{char}" for char in text),
    "yaml": lambda text: yaml.safe_dump(f"{text} {'x' * 90}").replace(f" {'x' * 90}", "").replace("x" * 90, ""),
    "csv": lambda text: text.replace('"', '""'),
    "html_in_url": lambda text: quote_plus(html.escape(text)),
    "html_of_go": lambda text: json.dumps(html.escape(text)).replace("&", "\\u0026"),
    "url_in_json": lambda text: json.dumps(quote(text)),
    "yarl": lambda text: quote(text, safe="/'!(@:;,$~*)=?&"),
    "entities": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "read_as_latin": lambda text: text.encode().decode("latin-1"),
    "line_breaks_as_spaces": lambda text: " ".join(text.split()),
    "line_breaks_of_windows": lambda text: text.replace("\n", "\r\n   "),
    "url_without_line_breaks": lambda text: re.sub("[\t\n]", "", text),
}
CANARIES = [
    "c4n4ry-0123456789",
    "p@ss/w:rd?&=#%+ x",
    "quote'and\"both\\slash",
    "zäöü€🔑 unicode-canary",
    "AKIAIOSFODNN7EXAMPLE",
    "line-one-of-secret\nline-two-of-secret",
    "postgresql://u:pw-in-url@host:5432/db?x=y",
    "tab\tand\x7fcontrol-canary",
    "KqMix'edHal/f@Two\"77%Secr",
    "ends-with-a-backslash\\",
    "50%2Bü%%{{x}}\\n\"'",
]


@pytest.mark.parametrize("canary", CANARIES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_secret_is_masked_in_each_of_its_spellings(canary: str, spelling: str) -> None:
    written = SPELLINGS[spelling](canary)
    shown = Redactor([canary]).redact(f"could not connect: [{written}] refused")
    assert canary not in shown
    assert not written.strip("'\"\\\n") or written.strip("'\"\\\n") not in shown
    assert written.strip("'\"") not in shown
    assert shown.startswith("could not connect: [")
    assert shown.endswith("] refused")


def test_a_secret_is_masked_in_a_traceback_and_in_nested_values() -> None:
    redactor = Redactor(["c4n4ry-0123456789"])
    try:
        raise ValueError({"url": "postgresql://u:c4n4ry-0123456789@h"})
    except ValueError:
        shown = redactor.redact(traceback.format_exc())
    assert "c4n4ry" not in shown
    value = {"a": ["x c4n4ry-0123456789", 1, None], "c4n4ry-0123456789": (True,)}
    assert redactor.redact_value(value) == {"a": ["x ***", 1, None], "***": [True]}


def test_halves_of_a_long_secret_and_lines_of_a_key_are_masked() -> None:
    redactor = Redactor(["0123456789abcdefghij", "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\n-----END KEY-----\n"])
    assert redactor.redact("cut 0123456789") == "cut ***"
    assert redactor.redact("cut abcdefghij") == "cut ***"
    assert redactor.redact("MIIEvQIBADANBgkqhkiG") == "***"


def test_a_part_of_a_key_is_masked_whatever_it_ends_with() -> None:
    """A half of the key ends within a line, which is a secret of its own: what they cover together is masked."""
    lines = [f"{letter * 4}QIBADANBgkqhkiG9w0BAQEFAASC" for letter in "ABCDE"]
    redactor = Redactor(["-----BEGIN KEY-----\n" + "\n".join(lines) + "\n-----END KEY-----\n"])
    for number in range(1, 6):
        part = "-----BEGIN KEY-----\n" + "\n".join(lines[:number])
        for shown in (part, repr(part), json.dumps(part)):
            assert "QIBADANB" not in redactor.redact(shown)
            assert "EFAASC" not in redactor.redact(shown)


def test_the_values_inside_of_a_secret_that_is_json_are_masked() -> None:
    """As a driver shows them that has read the key of a service account."""
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw\n-----END PRIVATE KEY-----\n"
    account = {
        "type": "service_account",
        "project_id": "our-warehouse",
        "private_key": key,
        "client_email": "loader@our-warehouse.iam",
        "token_uri": "https://oauth2.googleapis.com/token",
        "nested": [{"pin": 48151623}],
    }
    redact = Redactor([json.dumps(account)]).redact
    for hidden in (
        key,
        json.dumps(key),
        "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw",
        "loader@our-warehouse.iam",
        "48151623",
    ):
        assert redact(f"refused: {hidden}!") in ("refused: ***!", 'refused: "***"!')
    shown = "service_account of our-warehouse at https://oauth2.googleapis.com/token"
    assert redact(shown) == shown
    assert redact(base64.encodebytes(json.dumps(account).encode()).decode()).count("***") > 3


def test_short_lines_of_a_secret_are_masked_where_they_are_alone() -> None:
    redact = Redactor(["first1\nsec-2\nx\nthird line"]).redact
    assert redact("got first1, then sec-2 and third line") == "got ***, then *** and ***"
    assert redact("first1 sec-2 x third line") == "***"


def test_the_part_of_a_secret_that_a_url_shows_alone_is_masked() -> None:
    """A token with `#` in a path: the client sends no fragment, and its error does not show one."""
    redact = Redactor(["pa!X'(7@y#x"]).redact
    assert redact("404, url='http://127.0.0.1:1/pa!X'(7@y'") == "404, url='http://127.0.0.1:1/***'"
    whole = Redactor(["postgresql://me:pw-of-me@db.example/sales?options=x"]).redact
    assert whole("could not reach db.example") == "could not reach db.example"


@pytest.mark.parametrize("seed", range(40))
def test_a_secret_is_masked_if_each_character_is_encoded_in_another_way(seed: int) -> None:
    chance = random.Random(seed)
    letters = [chr(code) for code in range(32, 127) if chr(code) not in "%&\\"] + list("äöüß€🔑\n")
    secret = "".join(chance.choice(letters) for _ in range(24))

    def encode(char: str) -> str:
        backslashes = "\\" * chance.randrange(1, 9)
        ways = [char, quote(char, safe=""), "".join(f"%{byte:02x}" for byte in char.encode())]
        ways += [f"&#{ord(char)};", f"&#x{ord(char):X};", html.escape(char), json.dumps(char)[1:-1]]
        ways += [f"{backslashes}u{json.dumps(char, ensure_ascii=True)[3:-1]}"] if ord(char) > 126 else []
        ways += [f"{backslashes}x{ord(char):02x}", f"{backslashes}u{ord(char):04X}"] if ord(char) < 127 else []
        ways += [backslashes + char] if ord(char) < 127 and not char.isalnum() else []
        return chance.choice(ways)

    for _ in range(5):
        written = "".join(map(encode, secret))
        assert re.fullmatch(r"\[\\*\*\*\*\]", Redactor([secret]).redact(f"[{written}]")), written


@pytest.mark.full
def test_a_text_of_one_megabyte_of_backslashes_is_masked() -> None:
    """Each layer of the text is searched once, and has half as many of them: a quadratic search would not end here."""
    text = "\\" * 1_000_000
    assert Redactor(['canary\n"7\\x']).redact(text) == text


@pytest.mark.one_of
@pytest.mark.parametrize("part", ["\\", "%25", "&amp;", "\\x5c", "''", "...\n", "\n"])
def test_a_secret_after_many_escapes_is_masked(part: str) -> None:
    text = part * (50_000 // len(part)) + ' canary\\n\\"7\\\\x'
    assert Redactor(['canary\n"7\\x']).redact(text).endswith("***")


def test_short_values_and_switches_mask_nothing() -> None:
    text = "a table of 5 public rows is true in eu"
    assert Redactor(["5", "", "eu", "true", "a", "of "]).redact(text) == text


def test_a_short_word_is_masked_as_a_word_only() -> None:
    redactor = Redactor(["main"])
    assert redactor.redact("main=main domain mainly 'main'") == "***=*** domain mainly '***'"


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        ("S3cretPassWord99", 'relation "s3cretpassword99" does not exist'),
        ("Ab-C!dEfGh12", 'role "ab-c!defgh12" does not exist'),
        ("ÄBc-Dé!12x", 'role "Äbc-dé!12x" does not exist'),
        ("AbcDefGh12.XyzUvw99", 'schema "abcdefgh12" does not exist'),
        ("A" * 70 + "-12", f'relation "{"a" * 63}" does not exist'),
        ("DataBase.Example-7.COM", "cannot connect to database.example-7.com: timeout"),
    ],
)
def test_a_secret_is_masked_where_a_server_writes_it_in_lower_case(secret: str, text: str) -> None:
    masked = Redactor([secret]).redact(text)
    assert masked.count("***") == 1
    assert secret.lower()[:8] not in masked.lower()


@pytest.mark.parametrize("secret", ["Test", "a1", "Ab1", "Password", "Server A", "Public-Data", "Orders.Csv"])
def test_lower_case_words_are_not_masked_because_a_secret_is_such_a_word(secret: str) -> None:
    text = "the test of a1 and ab1: no password for server at public-data, orders.csv is tested"
    assert Redactor([secret]).redact(text) == text


def test_the_beginning_of_a_secret_is_masked_where_a_text_was_cut_and_continues() -> None:
    assert (
        Redactor(["c4n4ry-0123456789"]).redact("failed: xc4n4ry-0123...; see the log") == "failed: x***...; see the log"
    )


def test_the_longer_of_two_secrets_goes_first() -> None:
    assert Redactor(["secret-1", "secret-12345"]).redact("secret-12345") == "***"


def test_secrets_can_be_added_later() -> None:
    redactor = Redactor()
    assert redactor.redact("later-on") == "later-on"
    redactor.add(["later-on"])
    redactor.add(["later-on"])
    assert redactor.redact("later-on") == "***"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://u:pw@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("see redis://:pw@h and mysql://a:b@c", "see redis://:***@h and mysql://a:***@c"),
        ("postgresql://u:p@w@h/d", "postgresql://u:***@h/d"),
        ("host=h password=hunter2 user=u", "host=h password=*** user=u"),
        ("password='a b' x", "password=*** x"),
        ("http://h:80/a@b", "http://h:80/a@b"),
        ("postgresql://h/d", "postgresql://h/d"),
        ("no url: at@all", "no url: at@all"),
    ],
)
def test_passwords_of_urls_are_masked_even_if_nobody_told(text: str, expected: str) -> None:
    assert mask_url_passwords(text) == expected
    assert Redactor().redact(text) == expected


def test_passwords_of_urls_are_found_as_written_and_decoded() -> None:
    assert url_passwords("postgresql://u:p%40ss@h/d") == {"p%40ss", "p@ss"}
    assert url_passwords("postgresql://u@h/d and nothing") == frozenset()


def test_redaction_of_long_text_is_quick() -> None:
    redactor = Redactor([f"canary-{number}-{number * 7919}" for number in range(50)])
    text = "://a:" * 50_000 + "x" * 500_000 + "password=" * 20_000
    with within(2):
        redactor.redact(text)


@pytest.mark.sampled
@settings(max_examples=examples(200), derandomize=True, deadline=None)
@given(secret=st.text(min_size=8, max_size=40), before=st.text(max_size=20), after=st.text(max_size=20))
@example(secret="*****-***", before="", after="")
def test_no_secret_survives_in_any_text(secret: str, before: str, after: str) -> None:
    redactor = Redactor([secret])
    if not is_maskable(secret):
        return
    spaced = f"{before} {secret} {after}"
    if secret in f"{before} *** {after}":
        return
    assert secret not in redactor.redact(spaced)
