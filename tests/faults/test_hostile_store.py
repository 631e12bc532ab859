"""A run store that somebody else writes: nothing that he plants is executed, opened, sent or looked up."""

from __future__ import annotations

import json
import logging
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from syncblocks import load_pipeline
from syncblocks.connectors.struct_helpers import replace
from syncblocks.sync.errors import ConfigError, StateError
from syncblocks.sync.run.redelivery import redeliver, replay
from syncblocks.sync.store import Store, migrations
from syncblocks.sync.store.owner import current_owner
from tests.callbacks.listener import Listener, http_listener
from tests.sync.cli.cli_pipelines import write_shop
from tests.sync.pipelines import Bench
from tests.sync.store.store_helpers import query, store_url_of

pytestmark = pytest.mark.full

TOKEN = "t0ken-0f-the-host"
#: Writes down what it is told, and fails while a file `broken` lies beside it.
TOLD = """
import json
from pathlib import Path

@callback("success")
def told(df=None, **kwargs):
    here = Path(__file__).parent
    with (here / "told.log").open("a") as log:
        said = {name: kwargs.get(name) for name in ("stream", "token", "note", "block_uuid")}
        log.write(json.dumps({**said, "rows": None if df is None else len(df)}) + "\\n")
    assert not (here / "broken").exists()

@callback("failure")
def cleanup(**kwargs):
    (Path(__file__).parent / "owned").touch()
"""


@pytest.fixture
def listener() -> Iterator[Listener]:
    with http_listener() as listener:
        yield listener


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return store_url_of(request, tmp_path)


class Target:
    """A pipeline with one delivery that has failed, in a store that can be written past the program."""

    def __init__(self, folder: Path, url: str, **block: Any) -> None:
        self.folder, self.url = folder, url
        self.bench = Bench(folder)
        self.bench.seed("users", 2)
        self.bench.document["store"] = url
        self.block = {"block": "told", "file": "told.py", "attempts": 1, **block}
        self.bench.document["callbacks"] = [self.block]
        (folder / "told.py").write_text(TOLD)
        (folder / "evil.py").write_text("from pathlib import Path\nPath(__file__).with_name('owned').touch()\n" + TOLD)

    def fail(self) -> None:
        (self.folder / "broken").touch()
        assert self.bench.run().exit_code == 3
        (self.folder / "broken").unlink()
        (self.folder / "told.log").unlink(missing_ok=True)

    def plan(self, **planted: Any) -> None:
        """Plant what older versions have kept of a callback block."""
        plan = json.loads(query(self.url, "SELECT plan FROM _syncblocks_attempt")[0][0])
        for callback in plan["callbacks"]:
            callback |= {"file": str(self.folder / "evil.py"), "timeout_s": 60.0, "attempts": 5, **planted}
            callback.pop("digest", None)
        self.set("attempt", plan=json.dumps(plan))

    def set(self, table: str, **values: Any) -> None:
        for name, value in values.items():
            text = "NULL" if value is None else "'" + str(value).replace("'", "''") + "'"
            query(self.url, f"UPDATE _syncblocks_{table} SET {name} = {text}")

    def is_owned(self) -> bool:
        return (self.folder / "owned").exists()

    def told(self) -> list[dict[str, Any]]:
        log = self.folder / "told.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def states(self) -> list[tuple[str, str]]:
        """Return of run 1's deliveries the state, and the first line of the last error."""
        with Store.open(self.url) as store:
            found = store.outbox("bench").deliveries.records(run_id=1)
        return [(one.state, (one.tries[-1].error or "").partition("\n")[0]) for one in found]


def retried(target: Target) -> None:
    pipeline = load_pipeline(target.bench.write())
    with Store.open(target.url) as store:
        redeliver(pipeline, store)


def replayed(target: Target) -> None:
    pipeline = load_pipeline(target.bench.write())
    with Store.open(target.url) as store:
        for record in store.outbox("bench").deliveries.records(run_id=1):
            replay(pipeline, store, record.key)


def replayed_here(target: Target) -> None:
    pipeline = load_pipeline(target.bench.write())
    with Store.open(target.url) as store:
        for record in store.outbox("bench").deliveries.records(run_id=1):
            replay(pipeline, store, record.key, inline=True)


def make_due(target: Target) -> None:
    yes = 1 if target.url.startswith("sqlite") else True
    target.set("delivery", state="ready", is_open=yes, attempts=0)


def next_start(target: Target) -> None:
    make_due(target)
    target.bench.document["streams"] = [{"stream": "*"}]
    target.bench.run()


def next_start_here(target: Target) -> None:
    make_due(target)
    target.bench.run(inline_callbacks=True)


def recovered(target: Target) -> None:
    make_due(target)
    yes = 1 if target.url.startswith("sqlite") else True
    dead = replace(current_owner(), started=1).encode()
    target.set("pipeline_run", is_active=yes, owner=dead)
    target.bench.run()


def run_again(target: Target) -> None:
    make_due(target)
    query(target.url, "UPDATE _syncblocks_stream_run SET status = 'failure'")
    target.bench.run(retry=True)


PATHS = [retried, replayed, replayed_here, next_start, next_start_here, recovered, run_again]
Path_ = Callable[[Target], None]


def hooks(target: Target, listener: Listener) -> dict[str, dict[str, Any]]:
    """Return what a store of an older version may hold of a callback block."""
    touch = f"touch {target.folder}/owned"
    told = {"$template": "{{ env_var('TOKEN') }}", "$defaults": {}}
    return {
        "file": {},
        "shell": {"hook": {"kind": "shell", "shell": touch}},
        "program": {"hook": {"kind": "shell", "shell": ["sh", "-c", touch]}},
        "webhook": {"hook": {"kind": "webhook", "webhook": {"url": listener.url(), "headers": {"X": told}}}},
        "notify": {
            "hook": {
                "kind": "notify",
                "notify": [f"json://127.0.0.1:{listener.port}/"],
                "title": "{{ env_var('TOKEN') }}",
                "message": "{{ env_var('TOKEN') }}",
            }
        },
        "sql": {"hook": {"kind": "sql", "sql": {"statement": "create table owned (a int)", "parameters": {}}}},
        "when": {"when": "false", "timeout_s": 0.000001, "attempts": 0},
    }


KINDS = ("file", "shell", "program", "webhook", "notify", "sql", "when")


@pytest.mark.thinned(1)
@pytest.mark.parametrize("deliver", PATHS, ids=lambda path: path.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_block_calls_is_never_taken_from_the_store(
    tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch, kind: str, deliver: Path_
) -> None:
    monkeypatch.setenv("TOKEN", TOKEN)
    target = Target(tmp_path, f"sqlite:///{tmp_path}/store.db")
    target.fail()
    target.plan(**hooks(target, listener)[kind])
    deliver(target)
    assert not target.is_owned()
    assert listener.requests == []
    # What the file says was called, with nothing of the host in it.
    assert target.told()[0]["stream"] == "users"
    assert TOKEN not in (tmp_path / "told.log").read_text()


@pytest.mark.thinned(1)
@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_is_a_server_is_believed_no_more(
    url: str, tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("TOKEN", TOKEN)
    target = Target(tmp_path, url)
    target.fail()
    target.plan(**hooks(target, listener)[kind])
    retried(target)
    assert not target.is_owned()
    assert listener.requests == []
    assert [one["stream"] for one in target.told()] == ["users"]


@pytest.mark.thinned(1)
@pytest.mark.parametrize("deliver", PATHS, ids=lambda path: path.__name__)
def test_a_hook_of_the_file_is_what_the_file_says(url: str, tmp_path: Path, listener: Listener, deliver: Path_) -> None:
    target = Target(tmp_path, url)
    target.block.pop("file")
    target.block["shell"] = 'test ! -e broken && echo "$SYNCBLOCKS_STREAM" >> told.log'
    target.fail()
    target.plan(hook={"kind": "shell", "shell": f"touch {tmp_path}/owned"}, when="false")
    deliver(target)
    assert not target.is_owned()
    assert (tmp_path / "told.log").read_text().startswith("users\n")


def test_a_planted_statement_does_not_reach_the_destination(tmp_path: Path) -> None:
    file = write_shop(tmp_path, extra="callbacks:\n  - {block: log, sql: select * from nowhere, attempts: 1}\n")
    file.write_text(
        file.read_text().replace("duckdb, config: {path: warehouse.duckdb}", "sqlite, config: {path: w.db}")
    )
    from syncblocks import run_pipeline

    assert run_pipeline(file).exit_code == 3
    pipeline = load_pipeline(file)
    plan = json.loads(query(pipeline.store_url, "SELECT plan FROM _syncblocks_attempt")[0][0])
    evil = {"kind": "sql", "sql": {"statement": "create table owned (a int)", "parameters": {}}}
    plan["callbacks"] = [{"block": "log", "file": "", "timeout_s": 60.0, "attempts": 5, "hook": evil}]
    with closing(sqlite3.connect(pipeline.store_url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE _syncblocks_attempt SET plan = ?", [json.dumps(plan)])
    with Store.open(pipeline.store_url) as store:
        assert redeliver(pipeline, store).counts["dead"] == 2
    with closing(sqlite3.connect(tmp_path / "w.db")) as connection:
        assert connection.execute("SELECT name FROM sqlite_schema WHERE name = 'owned'").fetchall() == []


@pytest.mark.thinned(2)
@pytest.mark.parametrize("deliver", [retried, replayed_here, next_start, recovered], ids=lambda path: path.__name__)
@pytest.mark.parametrize("name", ["note", "token", "other"])
def test_a_planted_reference_is_not_looked_up(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, deliver: Path_
) -> None:
    monkeypatch.setenv("TOKEN", TOKEN)
    monkeypatch.setenv("PASSWORD", "pa55-0f-the-host")
    target = Target(tmp_path, url)
    target.bench.document["variables"] = {"note": "plain", "token": "{{ env_var('TOKEN') }}"}
    target.fail()
    # Of another variable, of none, and of the same one with another name in it.
    planted = "{{ env_var('TOKEN') }}" if name == "note" else "{{ env_var('PASSWORD') }}"
    variables = {"note": "plain", "token": {"$template": "{{ env_var('TOKEN') }}"}, name: {"$template": planted}}
    target.set("pipeline_run", variables=json.dumps(variables))
    deliver(target)
    assert [one for one in target.told() if "pa55" in str(one) or one["note"] == TOKEN] == []
    with Store.open(target.url) as store:
        calls = store.outbox("bench").deliveries.history(run_id=1)
    assert f"variables.{name}: its reference" in (calls[0].call.error or "")
    with pytest.raises(ConfigError, match=f"variables.{name}: its reference"):
        latest_with(target, variables)


def latest_with(target: Target, variables: Any) -> None:
    """Start the latest run again, whose variables somebody has written."""
    target.set("pipeline_run", variables=json.dumps(variables))
    run_again(target)


def test_a_reference_of_the_file_is_looked_up_with_the_environment_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_TOKEN", "of-test")
    monkeypatch.setenv("PROD_TOKEN", "of-prod")
    target = Target(tmp_path, f"sqlite:///{tmp_path}/store.db")
    template = "{{ env_var('PROD_TOKEN') if env == 'prod' else env_var('TEST_TOKEN') }}-{{ hr }}"
    target.bench.document["variables"] = {"token": template}
    target.fail()
    target.set(
        "pipeline_run",
        variables=json.dumps({"token": {"$template": template, "$defaults": {"env": "prod", "hr": "07"}}}),
    )
    retried(target)
    assert [one["token"] for one in target.told()] == ["of-test-07"]


@pytest.mark.thinned(1)
@pytest.mark.parametrize("deliver", PATHS, ids=lambda path: path.__name__)
def test_values_of_the_store_are_no_part_of_a_command(url: str, tmp_path: Path, deliver: Path_) -> None:
    target = Target(tmp_path, url)
    target.block.pop("file")
    target.block["shell"] = "test ! -e broken && echo {{ variables('note') }} {{ ds }} >> told.log"
    target.bench.document["variables"] = {"note": "plain"}
    target.fail()
    target.set("pipeline_run", variables=json.dumps({"note": f"; touch {tmp_path}/owned;"}))
    deliver(target)
    assert not target.is_owned()
    assert (tmp_path / "told.log").read_text().startswith("plain 20")


def test_a_planted_trigger_is_no_part_of_a_command(url: str, tmp_path: Path) -> None:
    target = Target(tmp_path, url)
    target.block.pop("file")
    target.block["shell"] = "test ! -e broken && echo {{ execution_partition }} >> told.log"
    target.fail()
    for trigger in (f"; touch {tmp_path}/owned; #", "..", "a b", "$(id)"):
        target.set("pipeline_run", trigger_id=trigger)
        retried(target)
        ((state, error),) = target.states()
        assert (state, "'execution_partition' is not known here" in error) == ("dead", True)
    assert not target.is_owned()
    assert not (tmp_path / "told.log").exists()
    target.set("pipeline_run", trigger_id="207")
    retried(target)
    assert (tmp_path / "told.log").read_text().startswith("207/20")


def test_a_function_is_called_for_what_its_file_says_only(url: str, tmp_path: Path) -> None:
    target = Target(tmp_path, url)
    for planted, why in (
        ({"function": "cleanup"}, "does not call 'cleanup' for 'success' of 'stream' (stream 'users') any more"),
        ({"function": "execute"}, "has no function 'execute' any more"),
        ({"callback_block": "other"}, "callback block 'other' is not in bench.yaml any more"),
    ):
        target.fail()
        target.set("delivery", **planted)
        retried(target)
        assert {state for state, _ in target.states()} == {"dead"}
        assert why in target.states()[0][1]
        target.set("delivery", function="told", callback_block="told")
    assert target.told() == []
    assert not target.is_owned()
    for table, planted, why in (
        ("event", {"status": "failure"}, "does not call 'told' for 'failure' of 'stream'"),
        ("event", {"parent": "load"}, "does not call 'told' for 'success' of 'load'"),
    ):
        target.set("event", status="success", parent="stream")
        target.set(table, **planted)
        retried(target)
        assert why in target.states()[0][1]
    assert target.told() == []


def test_a_stream_that_the_filter_leaves_out_is_not_told(url: str, tmp_path: Path) -> None:
    target = Target(tmp_path, url)
    target.fail()
    target.block["streams"] = ["orders"]
    target.bench.seed("orders", 1)
    retried(target)
    ((state, error),) = target.states()
    assert state == "dead"
    assert "does not call 'told' for 'success' of 'stream' (stream 'users') any more" in error


@pytest.mark.thinned(1)
@pytest.mark.parametrize("deliver", PATHS, ids=lambda path: path.__name__)
@pytest.mark.parametrize(
    "form", ["{folder}/theirs/x.arrow", "{spool}/../theirs/x.arrow", "theirs/x.arrow", "/dev/zero"]
)
def test_data_outside_of_the_spool_folder_is_neither_read_nor_removed(
    tmp_path: Path, form: str, deliver: Path_, caplog: pytest.LogCaptureFixture
) -> None:
    import pyarrow as pa

    target = Target(tmp_path, f"sqlite:///{tmp_path}/store.db")
    target.fail()
    theirs = tmp_path / "theirs" / "x.arrow"
    theirs.parent.mkdir()
    table = pa.table({"a": [1, 2, 3, 4, 5]})
    with pa.OSFile(str(theirs), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    target.set("delivery", data=form.format(folder=tmp_path, spool=tmp_path / "spool"))
    deliver(target)
    assert target.told()[0]["rows"] is None
    assert theirs.exists()
    assert "so it is None" in caplog.text


@pytest.mark.parametrize("deliver", [recovered, run_again], ids=lambda path: path.__name__)
@pytest.mark.parametrize("key", ["../theirs", "../*"])
def test_the_key_of_a_run_names_no_file_elsewhere(tmp_path: Path, key: str, deliver: Path_) -> None:
    target = Target(tmp_path, f"sqlite:///{tmp_path}/store.db")
    target.fail()
    theirs = tmp_path / "theirs-of-value"
    theirs.touch()
    target.set("pipeline_run", run_key=key)
    deliver(target)
    assert theirs.exists()
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".arrow"] == []


@pytest.mark.parametrize("change", ["content", "name"])
def test_changed_code_is_what_runs_and_that_is_said_once(
    url: str, tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    target = Target(tmp_path, url)
    target.bench.seed("orders", 1)
    target.fail()
    retried_as_it_was = caplog.text
    assert "has changed" not in retried_as_it_was
    if change == "name":
        (tmp_path / "told.py").rename(tmp_path / "renamed.py")
        target.block["file"] = "renamed.py"
    else:
        (tmp_path / "told.py").write_text(TOLD.replace("told.log", "new.log"))
    with caplog.at_level(logging.WARNING):
        retried(target)
    assert caplog.text.count("callback block told has changed since its events were recorded") == 1
    log = tmp_path / ("told.log" if change == "name" else "new.log")
    assert len(log.read_text().splitlines()) == 2


@pytest.mark.parametrize("is_crash", [False, True])
def test_a_block_that_was_removed_is_dead_and_shown(
    url: str, tmp_path: Path, is_crash: bool, run_cli: Any, caplog: pytest.LogCaptureFixture
) -> None:
    target = Target(tmp_path, url)
    target.fail()
    target.bench.document["callbacks"] = []
    file = target.bench.write()
    if is_crash:
        make_due(target)
        yes = 1 if url.startswith("sqlite") else True
        target.set("pipeline_run", is_active=yes, owner=replace(current_owner(), started=1).encode())
        result = target.bench.run()
        assert (result.exit_code, result.callbacks["dead"]) == (3, 1)
    else:
        assert run_cli(["callbacks", "retry", file], tmp_path).returncode == 3
    why = "callback block 'told' is not in bench.yaml any more"
    assert target.states() == [("dead", why)]
    assert why in run_cli(["runs", "show", file, "1"], tmp_path).stdout
    assert why in run_cli(["callbacks", "list", file, "--run", "1"], tmp_path).stdout


def test_a_store_without_its_pipeline_file_delivers_nothing(url: str, tmp_path: Path) -> None:
    target = Target(tmp_path, url)
    target.fail()
    with Store.open(url) as store:
        outbox = store.outbox("bench")
        assert outbox.deliveries.retry() == 1
        with pytest.raises(StateError, match="its pipeline file is needed"):
            outbox.lease("told")
        assert outbox.deliveries.counts() == {"due": 1, "done": 0, "dead": 0}


def test_the_store_keeps_names_and_digests_of_blocks_only(url: str, tmp_path: Path) -> None:
    target = Target(tmp_path, url)
    (tmp_path / "more.py").write_text(TOLD)
    target.bench.document["callbacks"] += [
        {"block": "ran", "shell": "true c0mmand-of-ours"},
        {"block": "sent", "webhook": {"url": "http://127.0.0.1:1/path-of-ours"}, "attempts": 1},
    ]
    target.fail()
    ((text,),) = query(url, "SELECT plan FROM _syncblocks_attempt")
    assert [sorted(one) for one in json.loads(text)["callbacks"]] == [["block", "digest"]] * 3
    assert not [word for word in ("told.py", "c0mmand", "path-of-ours") if word in text]


def undone_since(version: str) -> list[str]:
    """Return what takes away the tables, indexes and columns that a store got after a version."""
    later = [step for name in migrations.REVISIONS if name > version for step in migrations.STEPS[name]]
    text = "\n".join(step for step in later if isinstance(step, str))
    tables = re.findall(r"CREATE TABLE (\w+)", text)
    indexes = dict.fromkeys(re.findall(r"CREATE (?:UNIQUE )?INDEX (\w+)", text))
    columns = [found for found in re.findall(r"ALTER TABLE (\w+) ADD COLUMN (\w+)", text) if found[0] not in tables]
    return [
        *(f"DROP INDEX {index}" for index in indexes),
        *(f"DROP TABLE {table}" for table in tables),
        *(f"ALTER TABLE {table} DROP COLUMN {column}" for table, column in columns),
    ]


@pytest.mark.parametrize("deliver", [retried, next_start, recovered], ids=lambda path: path.__name__)
def test_events_of_an_older_store_are_delivered_to_what_the_file_says(
    url: str, tmp_path: Path, deliver: Path_, caplog: pytest.LogCaptureFixture
) -> None:
    target = Target(tmp_path, url)
    target.fail()
    target.plan(hook={"kind": "shell", "shell": f"touch {tmp_path}/owned"})
    for statement in undone_since("0003"):
        query(url, statement)
    query(url, "UPDATE _syncblocks_version SET version_num = '0003'")
    deliver(target)
    assert target.told()[0]["stream"] == "users"
    assert not target.is_owned()
    assert "has changed" not in caplog.text
    assert "touch" not in str(query(url, "SELECT plan FROM _syncblocks_attempt"))
