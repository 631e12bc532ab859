"""`syncblocks token`: secrets are printed once, on stdout alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from syncblocks.sync.store import Store
from tests.conftest import RunCLI
from tests.sync.serve.test_serve_command import RARE, url_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "crm.yaml").write_text(RARE)
    return tmp_path


def test_a_token_is_made_listed_and_revoked(folder: Path, run_cli: RunCLI) -> None:
    done = run_cli(["token", "create", "ci", "--scope", "run:crm*", "--scope", "read", "--expires", "90d"], folder)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    secret = done.stdout.strip()
    with Store.open(url_of(folder)) as store:
        token = store.access.token(secret)
        assert token is not None
        assert token.expires_at is not None
        assert (token.scopes, (token.expires_at - token.created_at).days) == (("run:crm*", "read"), 90)
    listed = run_cli(["token", "list"], folder)
    assert ("run:crm*, read" in listed.stdout, secret in listed.stdout + listed.stderr) == (True, False)
    (found,) = json.loads(run_cli(["token", "list", "--json"], folder).stdout)["tokens"]
    assert (found["name"], found["scopes"]) == ("ci", ["run:crm*", "read"])
    again = run_cli(["token", "create", "ci", "--scope", "read"], folder)
    assert (again.returncode, "there is a token 'ci' already" in again.stderr) == (2, True)
    assert run_cli(["token", "revoke", "ci"], folder).stdout == "token ci revoked\n"
    assert run_cli(["token", "revoke", "ci"], folder).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "ci"], "--scope"),
        (["create", "ci", "--scope", "write"], "is none of read, run:GLOB and operate"),
        (["create", "ci", "--scope", "read", "--expires", "soon"], "no span of time"),
        (["create", "ci", "--scope", "read", "--expires", "0s"], "no span of time"),
        (["create", "a b", "--scope", "read"], "token name 'a b'"),
        (["link"], "no server of folder"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_printed(
    folder: Path, run_cli: RunCLI, arguments: list[str], said: str
) -> None:
    done = run_cli(["token", *arguments], folder)
    assert (done.returncode, done.stdout, said in done.stderr) == (2, "", True), done.stderr


def test_a_link_signs_in_once_at_the_address_of_the_folders_server(folder: Path, run_cli: RunCLI) -> None:
    with Store.open(url_of(folder)) as store:
        store.report_server("/elsewhere", {}, url="http://elsewhere:1")
        assert run_cli(["token", "link"], folder).returncode == 2
        store.report_server(str(folder), {}, url="https://sync.example")
        link = run_cli(["token", "link"], folder).stdout.strip()
        address, _, code = link.partition("?code=")
        assert address == "https://sync.example/login"
        assert [store.access.sign_in(code) is None for _ in range(2)] == [False, True]
        store.leave_server()
