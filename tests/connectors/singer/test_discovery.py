"""What a tap offers: its discovery and catalog, what the config changes of them, and mistakes in it."""

from __future__ import annotations

import base64
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from syncblocks.connectors.errors import ConnectorConfigError, ConnectorError
from syncblocks.connectors.programs.environments import Requirements, _environment, _telling
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.registry import make_source
from syncblocks.connectors.singer.catalog import streams_of
from syncblocks.connectors.singer.plugin_programs import program_name
from tests.connectors.singer.singer_helpers import BOTH, entry, full_table, source_of, tap_program


@pytest.mark.full
def test_discovery_is_kept_until_the_config_changes_or_a_run_fails(tmp_path: Path) -> None:
    note = tmp_path / "note"

    def discoveries(**own: Any) -> int:
        before = note.read_text().count('"--discover"') if note.exists() else 0
        source = source_of(tmp_path, *BOTH, own={"note": str(note), **own})
        with suppress(ConnectorError):
            list(source.read(source.discover(), {}))
        return note.read_text().count('"--discover"') - before

    assert discoveries() == 1
    assert discoveries() == 0
    assert discoveries(more=1) == 1
    assert discoveries(more=1, then="fail") == 1
    assert discoveries(more=1, then="fail") == 1
    assert stat.S_IMODE((tmp_path / ".syncblocks").stat().st_mode) == 0o700
    for kept in (tmp_path / ".syncblocks/plugins/kept").iterdir():
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert "tell-nobody" not in kept.read_text()


@pytest.mark.parametrize("place", ["schema-name", "database-name"])
def test_a_table_keeps_its_own_name_where_the_catalog_says_it(place: str) -> None:
    """As the taps of PostgreSQL and of MySQL have it: the stream is `shop-orders`, the table `orders`."""
    metadata = [{"breadcrumb": [], "metadata": {place: "shop"}}]
    (stream,) = streams_of([entry("shop-orders", table_name="orders", metadata=metadata)], ())
    assert (stream.name, stream.locator) == ("shop-orders", {"table": "orders"})


def test_a_tap_that_discovers_nothing_is_told_how_it_can_be_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = {"catalog": {"streams": []}, "lines": "nowhere"}
    assert make_source("singer", {"executable": str(tap_program(tmp_path)), "config": own}, tmp_path).discover() == []
    assert "set its catalog file as `catalog`" in caplog.text
    assert not list((tmp_path / ".syncblocks/plugins/kept").glob("catalog-*")), "the next start asks again"


def test_a_stream_with_too_many_columns_is_unreadable_and_the_others_are_offered() -> None:
    few = {"properties": {"id": {"type": "integer"}}}
    wide, narrow = streams_of([entry("wide"), entry("narrow", few)], [], max_columns=2)
    assert wide.unreadable == "stream 'wide': more than 2 columns; `config.max_columns` allows more"
    assert not narrow.unreadable


def test_a_column_whose_name_is_no_text_makes_its_stream_unreadable() -> None:
    schema = {"properties": {"id": {"type": "integer"}, "\ud800": {"type": "string"}}}
    entries = [{"tap_stream_id": "orders", "schema": schema}, {"tap_stream_id": "users", "schema": {"properties": {}}}]
    orders, users = streams_of(entries, [])
    assert (orders.schema.names, users.unreadable) == ([], "")
    assert "stream 'orders': the name of column '\\ud800' contains half a surrogate pair" in orders.unreadable


def test_what_the_catalog_says_of_replication_is_the_default(tmp_path: Path) -> None:
    logged = entry("log", replication_method="LOG_BASED", replication_key=None)
    source = source_of(tmp_path, streams=[entry("orders"), full_table("users"), logged])
    found = {stream.name: stream for stream in source.discover()}
    assert found["orders"].read.method is ReplicationMethod.INCREMENTAL
    assert found["orders"].read.bookmark_properties == ("stamp",)
    assert found["users"].read.method is ReplicationMethod.FULL_TABLE
    assert found["log"].read.method is ReplicationMethod.INCREMENTAL
    assert found["log"].read.bookmark_properties == ()


def test_select_metadata_and_schema_change_what_is_offered(tmp_path: Path) -> None:
    source = source_of(
        tmp_path,
        streams=[entry("orders"), full_table("users"), full_table("my.table")],
        select=["orders.*", "!orders.note", "my.table.i*"],
        metadata={"orders": {"replication-method": "FULL_TABLE"}},
        schema={"ord*": {"stamp": {"type": "string", "format": "date-time"}}},
    )
    found = {stream.name: stream for stream in source.discover()}
    assert sorted(found) == ["my.table", "orders"]
    assert found["orders"].schema.names == ["id", "stamp"]
    assert str(found["orders"].schema.field("stamp").type) == "timestamp[us, tz=UTC]"
    assert found["orders"].read.method is ReplicationMethod.FULL_TABLE
    assert found["my.table"].schema.names == ["id"]


@pytest.mark.parametrize("key", ["select", "metadata", "schema"])
def test_a_pattern_that_matches_nothing_is_an_error(tmp_path: Path, key: str) -> None:
    source = source_of(tmp_path, **{key: ["no*"] if key == "select" else {"no*": {}}})
    with pytest.raises(ConnectorConfigError, match=r"'no\*' matches no stream"):
        source.discover()


def test_tokens_of_a_requirement_are_no_arguments_and_hashes_stay_with_it(tmp_path: Path) -> None:
    token, url = "t0k3n-of-mine", "https://user:t0k3n-of-mine@example.org"
    both = f"--index-url {url}/simple --pre tap-a==1 --hash=sha256:aa --hash=sha256:bb tap-b==2 --hash=sha256:cc"
    made = Requirements.of(f"{both} 'tap-c @ git+{url}/c.git'")
    assert made.arguments == ("--pre", "--require-hashes")
    assert made.lines == (
        f"--index-url {url}/simple",
        "tap-a==1 --hash=sha256:aa --hash=sha256:bb",
        "tap-b==2 --hash=sha256:cc",
        "tap-c @ git+https://example.org/c.git",
    )
    assert token not in f"{made} {made!r}"
    assert made.git == {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "http.https://example.org/.extraHeader",
        "GIT_CONFIG_VALUE_0": f"Authorization: Basic {base64.b64encode(f'user:{token}'.encode()).decode()}",
    }
    (tmp_path / "tap.txt").write_text("tap-a==1")
    listed = Requirements.of("-r tap.txt")
    before = listed.digest("python", tmp_path)
    (tmp_path / "tap.txt").write_text("tap-a==2")
    assert listed.digest("python", tmp_path) != before


@pytest.mark.parametrize("at", [" @ ", "@ ", " @"])
def test_a_requirement_with_a_url_is_one_whatever_blanks_are_in_it(at: str) -> None:
    found = Requirements.of(f"tap-x[s3]{at}https://host/x.whl 'setuptools<81'")
    assert found.arguments == ("tap-x[s3] @ https://host/x.whl", "setuptools<81")
    secret = Requirements.of(f"tap-x{at}git+https://user:canary@host/x.git")
    assert (secret.arguments, secret.lines) == ((), ("tap-x @ git+https://host/x.git",))
    assert program_name(f"tap-x{at}https://host/x.whl") == "tap-x"
    assert program_name("git+https://user:canary@host/tap-y.git@v1") == "tap-y"


def test_a_failed_installation_shows_the_compilers_error_and_the_way_out_of_old_plugins() -> None:
    lines = ["gcc -c x.c", "x.c:1:10: fatal error: sql.h: No such file or directory", *["  note"] * 40]
    assert "fatal error: sql.h" in _telling(lines)
    assert len(_telling(lines).splitlines()) < 25
    lines = [*lines, "ModuleNotFoundError: No module named 'pkg_resources'", "ended"]
    assert "setuptools<81" in _telling(lines)


@pytest.mark.parametrize(
    ("line", "needed"),
    [
        (
            "ERROR: Ignored the following versions that require a different python version: 7.2.1 Requires-Python "
            "<3.12,>=3.9; 7.2.2 Requires-Python <3.12,>=3.9",
            "<3.12,>=3.9",
        ),
        ("ERROR: Package 'x' requires a different Python: 3.13.1 not in '<3.12,>=3.10'", "<3.12,>=3.10"),
        (
            "Because the current Python version (3.13.1) does not satisfy Python>=3.9,<3.12 and x==1 depends on "
            "Python>=3.9,<3.12, we can conclude that x==1 cannot be used.",
            ">=3.9,<3.12",
        ),
    ],
)
def test_a_package_for_another_python_says_so(line: str, needed: str) -> None:
    assert f"Python {needed} is needed: name one by `python`" in _telling([line])


def test_an_installation_gets_the_variables_of_plugins_and_of_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "x")
    monkeypatch.setenv("PYTHONPATH", "x")
    monkeypatch.setenv("PIP_INDEX_URL", "y")
    found = _environment({"OWN": "z"}, "/opt/bin/python")
    assert (found.get("PGPASSWORD"), found.get("PYTHONPATH")) == (None, None)
    assert (found["PIP_INDEX_URL"], found["OWN"]) == ("y", "z")


def test_mistakes_in_the_config_are_told(tmp_path: Path) -> None:
    for config, wanted in (
        ({}, "needs one of"),
        ({"pip": "a", "executable": "b"}, "needs one of"),
        ({"pip": "a", "exe": 1}, "has no key 'exe'"),
    ):
        with pytest.raises(ConnectorConfigError, match=wanted):
            make_source("singer", config, tmp_path)
    with pytest.raises(ConnectorConfigError, match="no program"):
        make_source("singer", {"executable": "./none"}, tmp_path).check()


@pytest.mark.parametrize(
    ("pip", "program"),
    [
        ("tap-jsonl==0.3.1", "tap-jsonl"),
        ("meltanolabs-tap-postgres", "tap-postgres"),
        ("pipelinewise-tap-mysql[x]>=1,<2", "tap-mysql"),
        ("git+https://example.org/x/tap-foo.git@main", "tap-foo"),
        ("./plugins/tap_bar", "tap-bar"),
    ],
)
def test_the_program_s_name_comes_from_the_requirement(pip: str, program: str) -> None:
    assert program_name(pip) == program
