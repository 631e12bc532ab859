"""A connector as a process: what it is given, what of it is shown, and how it ends."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from syncblocks.connectors.errors import ConnectorConfigError, ConnectorError, FatalConnectorError, Interrupted
from syncblocks.connectors.read_spec import ReadSpec, ReplicationMethod
from syncblocks.connectors.registry import make_source
from syncblocks.connectors.stream import Stream
from syncblocks.connectors.struct_helpers import replace

from .airbyte_helpers import MANIFEST, config, offered, source_of
from .airbyte_program import error, record, state, status

SECRET = "tell-nobody"


def notes(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def read(source: Any, *names: str, bookmarks: Any = None) -> list[Any]:
    streams = [stream for stream in source.discover() if not names or stream.name in names]
    return list(source.read(streams, bookmarks or {}))


def test_a_catalog_becomes_streams_with_their_keys_and_cursors(tmp_path: Path) -> None:
    streams = [
        offered("orders"),
        offered("users", cursor=None),
        offered("deep", source_defined_primary_key=[["a", "b"]], default_cursor_field=["a", "b"]),
        offered("t", namespace="n", key=None),
        offered("wild", json_schema={}),
    ]
    found = {each.name: each for each in source_of(tmp_path, streams=streams).discover()}
    assert list(found) == ["orders", "users", "deep", "n.t", "wild"]
    assert found["orders"].key_properties == ("id",)
    incremental = ReadSpec(method=ReplicationMethod.INCREMENTAL, bookmark_properties=("stamp",))
    assert found["orders"].read == incremental
    assert found["users"].read == ReadSpec()
    assert found["deep"].key_properties == ()
    assert found["deep"].read == ReadSpec(method=ReplicationMethod.INCREMENTAL)
    assert found["n.t"].key_properties == ()
    assert "its schema has no columns" in found["wild"].unreadable


@pytest.mark.parametrize(
    "streams", [7, [7], [{}], [{"name": ""}], [offered("a"), offered("a")], [{**offered("a"), "name": 7}]]
)
def test_what_is_no_catalog_is_refused(tmp_path: Path, streams: Any) -> None:
    with pytest.raises(FatalConnectorError, match="its catalog"):
        source_of(tmp_path, own={"streams": streams}).discover()


def test_config_catalog_and_state_go_by_private_files(tmp_path: Path) -> None:
    seen = tmp_path / "note"
    streams = [offered("orders"), offered("users", cursor=None), offered("n", namespace="x")]
    source = source_of(
        tmp_path, streams=streams, own={"note": str(seen)}, env={"LEVEL": "x", "PATHS": "y"}, discovery_cache_s=0
    )
    first = {stream.name: stream for stream in source.discover()}
    chosen = [replace(first["orders"], key_properties=("note",)), first["users"], first["x.n"]]
    bookmarks = {name: {"airbyte_state": {"stamp": "7", "odd": [1]}} for name in ("orders", "users", "x.n")}
    list(source.read(chosen, bookmarks))
    discovered, done = notes(seen)
    assert [discovered["verb"], done["verb"]] == ["discover", "read"]
    assert set(done["modes"]) == {0o600, 0o700}
    assert not any(SECRET in part for part in done["argv"])
    assert not any(name.startswith(("SYNCBLOCKS", "PYTEST", "AIRBYTE")) for name in done["env"])
    assert (done["env"]["LEVEL"], done["env"]["PATHS"]) == ("x", "y")
    catalog = json.loads(done["files"]["catalog"])["streams"]
    assert [each["sync_mode"] for each in catalog] == ["incremental", "full_refresh", "incremental"]
    assert catalog[0]["primary_key"] == [["note"]]
    assert catalog[0]["cursor_field"] == ["stamp"]
    assert catalog[0]["stream"] == streams[0]
    assert json.loads(done["files"]["state"]) == [
        {"type": "STREAM", "stream": {"stream_descriptor": descriptor, "stream_state": {"stamp": "7", "odd": [1]}}}
        for descriptor in ({"name": "orders"}, {"name": "n", "namespace": "x"})
    ]
    assert not any(Path(part).exists() for part in done["argv"][2:] if part.startswith("/"))


def test_what_it_says_is_masked_everywhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    failed = error(f"401 for {SECRET}", internal_message=f"config: {SECRET}", stack_trace=f"File x {SECRET}")
    source = source_of(tmp_path, failed, f"printed {SECRET}", own={"then": "fail"})
    with pytest.raises(FatalConnectorError) as caught:
        read(source, "orders")
    assert str(caught.value) == "airbyte source-small: 401 for ***; `--debug` shows more"
    assert SECRET not in caplog.text
    for text in ("logged in with ***", "the password is ***", "config: ***", "File x ***", "printed ***"):
        assert text in caplog.text


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"check": f"no access with {SECRET}"}, "its check failed: no access with \\*\\*\\*"),
        ({"streams": "x"}, None),
    ],
)
def test_check_says_why_a_connector_refuses(tmp_path: Path, own: dict[str, Any], message: str | None) -> None:
    source = source_of(tmp_path, own=own)
    if message is None:
        source.check()
        return
    with pytest.raises(ConnectorConfigError, match=message):
        source.check()


def test_check_warns_of_a_secret_that_is_too_short_to_be_masked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = {"type": "string", "airbyte_secret": True}
    login = {"type": "object", "properties": {"pin": secret, "name": {"type": "string"}}}
    spec = {"type": "object", "properties": {"token": secret, "long": secret, "login": login}}
    own = {"token": "t", "long": "long", "login": {"pin": "123", "name": "x"}}
    source_of(tmp_path, spec=spec, own=own).check()
    found = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert [key in message for message in found for key in ("config.token", "config.login.pin")] == [
        True,
        False,
        False,
        True,
    ]
    assert all("fewer than 4 characters" in each for each in found)
    assert "123" not in caplog.text


def test_the_config_is_checked_before_anything_starts(tmp_path: Path) -> None:
    seen = tmp_path / "note"
    spec = {"type": "object", "required": ["api_key"], "properties": {"api_key": {"type": "string"}}}
    source = source_of(tmp_path, spec=spec, own={"note": str(seen)})
    for call in (source.check, source.discover):
        with pytest.raises(ConnectorConfigError, match=r"config\.api_key: is required"):
            call()
    assert not seen.exists()


def test_a_manifest_is_handed_over_as_it_was_checked(tmp_path: Path) -> None:
    seen = tmp_path / "note"
    text = yaml.safe_dump({**MANIFEST, "spec": {**MANIFEST["spec"]}}) + "# a comment\n"
    (tmp_path / "shop.yaml").write_text(text)
    made = config(tmp_path, own={"note": str(seen), "api_key": "k-1234567"})
    source = make_source("airbyte", {**made, "manifest": "shop.yaml"}, tmp_path)
    assert source.identity() == "airbyte://shop"
    source.check()
    streams = source.discover()
    list(source.read(streams, {}))
    list(source.read([replace(streams[0], read=replace(streams[0].read, may_repeat=True))], {}))
    checked, discovered, appended, merged = notes(seen)
    assert [each["files"]["manifest-path"] == text for each in (checked, discovered, merged)] == [True] * 3
    level = yaml.safe_load(appended["files"]["manifest-path"])["concurrency_level"]
    assert level == {"type": "ConcurrencyLevel", "default_concurrency": 1}
    assert "AIRBYTE_ENABLE_UNSAFE_CODE" not in checked["env"]


def test_code_of_a_manifest_is_enabled_by_allow_code_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRBYTE_ENABLE_UNSAFE_CODE", "true")
    seen = tmp_path / "note"
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(MANIFEST))
    (tmp_path / "components.py").write_text("")
    made = {**config(tmp_path, own={"note": str(seen), "api_key": "k-1234567"}), "manifest": "shop.yaml"}
    make_source("airbyte", made, tmp_path).check()
    make_source("airbyte", {**made, "allow_code": True, "components": "components.py"}, tmp_path).check()
    without, with_code = notes(seen)
    assert "AIRBYTE_ENABLE_UNSAFE_CODE" not in without["env"]
    assert with_code["env"]["AIRBYTE_ENABLE_UNSAFE_CODE"] == "true"
    assert "components-path" in with_code["files"]


def test_changed_credentials_are_kept_at_once_and_masked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    spec = {"type": "object", "properties": {"password": {"airbyte_secret": True}}}
    now = f"{SECRET}-rotated"
    said = [{"type": "LOG", "log": {"level": "INFO", "message": f"now {now}"}}, status("orders", "COMPLETE")]
    made = config(tmp_path, *said, spec=spec, own={"rotate": ["password"]}, config_file=".secrets/c.json")
    source = make_source("airbyte", made, tmp_path)
    read(source, "orders")
    kept = json.loads((tmp_path / ".secrets/c.json").read_text())["config"]
    assert kept["password"] == f"{now}-rotated", "discovery has changed it, then the read"
    assert not [key for key in kept if key.startswith("__injected")]
    assert "now ***\n" in caplog.text
    caplog.clear()
    read(make_source("airbyte", made, tmp_path), "orders")
    assert "the password is ***\n" in caplog.text


def test_changed_credentials_without_a_file_are_an_error(tmp_path: Path) -> None:
    spec = {"type": "object", "properties": {"password": {"airbyte_secret": True}}}
    source = source_of(tmp_path, spec=spec, own={"rotate": ["password"]})
    with pytest.raises(ConnectorConfigError, match="name a file for them by `config_file"):
        source.check()
    source_of(tmp_path, spec=spec, own={"control": {"migrated": True}}).check()
    moved = {"password": "tell-nobody", "login": "tell-nobody"}
    source_of(tmp_path, spec={"properties": {"login": {"airbyte_secret": True}}}, own={"control": moved}).check()


def test_a_stream_that_is_offered_in_full_only_cannot_be_read_from_a_state(tmp_path: Path) -> None:
    source = source_of(tmp_path, streams=[offered("users", cursor=None), offered("orders")])
    users, orders = source.discover()
    assert [len(group) for group in source.groups([users, orders])] == [2]
    for stream, method in ((users, ReplicationMethod.INCREMENTAL), (orders, ReplicationMethod.LOG_BASED)):
        with pytest.raises(ConnectorConfigError, match=f"FULL_TABLE only, not {method.value}|LOG_BASED"):
            source.groups([replace(stream, read=replace(stream.read, method=method))])


def test_a_stream_that_looks_back_is_not_appended(tmp_path: Path) -> None:
    cursor = {"type": "DatetimeBasedCursor", "lookback_window": "P31D"}
    held = {**MANIFEST, "streams": [{"name": "orders", "incremental_sync": cursor}, {"name": "users"}]}
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(held))
    made = {**config(tmp_path, own={"api_key": "k-1234567"}), "manifest": "shop.yaml"}
    source = make_source("airbyte", made, tmp_path)
    orders, users = source.discover()
    merged = replace(orders, read=replace(orders.read, may_repeat=True))
    whole = replace(orders, read=replace(orders.read, method=ReplicationMethod.FULL_TABLE))
    assert [len(group) for group in source.groups([merged, users])] == [2]
    assert [len(group) for group in source.groups([whole])] == [1]
    with pytest.raises(ConnectorConfigError, match="stream 'orders': each run reads again what lies up to P31D"):
        source.groups([users, orders])


def test_a_bookmark_of_another_connector_is_refused(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    with pytest.raises(ConnectorConfigError, match="is no state of an Airbyte connector"):
        read(source, "orders", bookmarks={"orders": {"stamp": 7}})


def children(of: int) -> list[int]:
    """Return the living processes of a process group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == of and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("then", ["hang", "fork"])
def test_an_interrupt_ends_the_process_with_its_children(tmp_path: Path, then: str) -> None:
    seen = tmp_path / "note"
    source = source_of(tmp_path, record("orders", id=1), own={"then": then, "note": str(seen)})
    stream = next(each for each in source.discover() if each.name == "orders")
    events = source.read([stream], {})
    assert next(events)[1].num_rows == 1
    groups: list[int] = [plugin._process.pid for plugin in _plugins(source)]
    assert children(groups[0])
    timer = threading.Timer(0.1, source.interrupt, ["orders"])
    timer.start()
    with pytest.raises(Interrupted):
        list(events)
    timer.join()
    assert not children(groups[0])


def _plugins(source: Any) -> Iterator[Any]:
    for under_way in source._reads:
        yield under_way._plugin


@pytest.mark.parametrize("closes", ["events", "source"])
def test_closing_ends_the_process(tmp_path: Path, closes: str) -> None:
    source = source_of(tmp_path, record("orders", id=1), own={"then": "hang"})
    events = source.read([source.discover()[0]], {})
    next(events)
    group = next(_plugins(source))._process.pid
    if closes == "events":
        events.close()
    else:
        source.close()
        with pytest.raises(Interrupted):
            list(events)
    assert not children(group)


def test_a_process_that_says_nothing_is_ended(tmp_path: Path) -> None:
    source = source_of(tmp_path, own={"then": "hang"}, hang_timeout_s=1)
    with pytest.raises(ConnectorError, match="hangs: no line for 1 s"):
        read(source, "orders")


def test_a_flood_on_stderr_stops_nothing_and_shows_no_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    source = source_of(tmp_path, record("orders", id=1), status("orders", "COMPLETE"), own={"then": "flood"})
    events = read(source, "orders")
    assert sum(event.num_rows for _, event in events) == 1


def test_a_killed_process_is_retriable(tmp_path: Path) -> None:
    source = source_of(tmp_path, own={"then": "die"})
    with pytest.raises(ConnectorError, match="was killed by SIGKILL"):
        read(source, "orders")


def test_a_masked_stream_shows_nothing_that_the_connector_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from syncblocks.connectors.read_spec import MaskRule, Masks

    caplog.set_level(logging.INFO)
    lines = [
        {"type": "LOG", "log": {"level": "INFO", "message": "row anna@example.org"}},
        error("bad row anna@example.org", failure_type="transient_error"),
        state("orders", {}, 0),
    ]
    source = source_of(tmp_path, *lines)
    stream: Stream = source.discover()[0]
    caplog.clear()
    masks = Masks(rules=(MaskRule(column="note", how="hash"),), key=b"k")
    with pytest.raises(ConnectorError, match="is not shown, since columns are masked"):
        list(source.read([replace(stream, read=replace(stream.read, masks=masks))], {}))
    assert "anna" not in caplog.text
