"""Hooks in real runs: delivered, conditioned, repeated, and nowhere a secret."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from syncblocks import Progress, load_pipeline, run_pipeline
from syncblocks.callbacks.protocols import Delivery, Outcome
from syncblocks.sync.delivery.hook_settings import HookError, Hooks
from syncblocks.sync.run.redelivery import current_callbacks, redeliver, replay
from syncblocks.sync.secrets import Redactor
from syncblocks.sync.store import Store
from tests.callbacks.listener import Listener, http_listener
from tests.sync.cli.cli_pipelines import write_shop
from tests.sync.pipelines import Bench

TOKEN = "t0ken-0f-the-service"


class Calls(Progress):
    """Keeps the outcome of every call."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Delivery, Outcome, str]] = []

    def delivered(self, delivery: Delivery, outcome: Outcome, mark: str) -> None:
        self.outcomes.append((delivery, outcome, mark))

    @property
    def kinds(self) -> dict[str, list[str]]:
        """Callback block -> the kinds of its calls, in order."""
        found: dict[str, list[str]] = {}
        for delivery, outcome, _ in self.outcomes:
            found.setdefault(delivery.callback_block, []).append(outcome.kind)
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    bench.seed("orders", 3)
    bench.seed("users", 2)
    return bench


@pytest.fixture
def listener() -> Iterator[Listener]:
    with http_listener() as listener:
        yield listener


def hook(bench: Bench, **settings: Any) -> None:
    bench.document.setdefault("callbacks", []).append(settings)


def everything(folder: Path) -> bytes:
    """Return every byte that a run has left in its folder, but of the pipeline file."""
    return b"".join(
        path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".yaml"
    )


def test_a_webhook_gets_one_signed_event_a_stream(bench: Bench, listener: Listener) -> None:
    hook(bench, block="told", webhook={"url": listener.url(), "secret": "{{ secret('k') }}"})
    secrets = bench.folder / ".syncblocks" / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "k").write_text(TOKEN)
    (secrets / "k").chmod(0o600)
    bench.document["destination"]["configuration"] = {"key": "{{ secret('k') }}"}
    assert bench.run().exit_code == 0
    assert all("configuration" not in request.event for request in listener.requests), "for functions alone"
    events = [request.event for request in listener.requests]
    assert [(event["stream"], event["status"], event["block_run"]["rows"]) for event in events] == [
        ("orders", "success", 3),
        ("users", "success", 2),
    ]
    assert [(event["index"], event["is_last_block_run"]) for event in events] == [(0, False), (1, True)]
    assert all(event["pipeline_uuid"] == "bench" and event["duration_s"] >= 0 for event in events)


def test_a_command_gets_its_secrets_by_the_environment(bench: Bench) -> None:
    secrets = bench.folder / ".syncblocks" / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "k").write_text(TOKEN)
    (secrets / "k").chmod(0o600)
    command = 'tr "\\0" " " < /proc/$$/cmdline > command; test "$T" = "$(cat .syncblocks/secrets/k)" && touch same'
    hook(bench, block="ran", shell={"command": command, "env": {"T": "{{ secret('k') }}"}}, streams=["users"])
    assert bench.run().exit_code == 0
    assert (bench.folder / "same").exists()
    assert TOKEN not in (bench.folder / "command").read_text()


def test_a_failed_answer_is_repeated_until_it_is_given_up(bench: Bench) -> None:
    with http_listener([500, 200, 404]) as listener:
        hook(bench, block="told", webhook={"url": listener.url()}, attempts=2)
        calls = Calls()
        result = bench.run(calls)
    assert result.exit_code == 3
    marks = [(delivery.kwargs["stream"], mark) for delivery, _, mark in calls.outcomes]
    assert sorted(marks) == [("orders", "done"), ("orders", "retry"), ("users", "dead"), ("users", "retry")]
    keys = [request.headers["Idempotency-Key"] for request in listener.requests]
    assert (len(keys), len(set(keys))) == (4, 2)


@pytest.mark.full
def test_a_notification_says_what_the_template_says(bench: Bench, listener: Listener) -> None:
    bench.document["variables"] = {"team": "data", "room": "{{ secret('room') }}"}
    secrets = bench.folder / ".syncblocks" / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "room").write_text("r00m-of-theirs")
    (secrets / "room").chmod(0o600)
    url = f"json://127.0.0.1:{listener.port}/{{{{ variables('room') }}}}"
    message = (
        "{{ team }}: {{ stream }} {{ status }} {{ block_run.rows | number }} {{ error.message }}{{ pipeline.name }}"
    )
    hook(bench, block="said", notify=url, title="{{ ds }}", message=message)
    hook(bench, block="end", notify=[url], on=["pipeline"])
    assert bench.run().exit_code == 0
    assert {request.path for request in listener.requests} == {"/r00m-of-theirs"}
    end, *said = sorted(request.event["message"] for request in listener.requests)
    assert said == ["data: orders success 3 bench", "data: users success 2 bench"]
    assert end.startswith("bench: pipeline success, 2 streams, 5 rows in ")
    assert b"r00m-of-theirs" not in everything(bench.folder).replace((secrets / "room").read_bytes(), b"", 1)


def test_a_failure_is_told_by_default_to_notify_and_not_to_others(bench: Bench, listener: Listener) -> None:
    bench.document["transformers"] = [{"file": "bad.py"}]
    (bench.folder / "bad.py").write_text("@transformer\ndef bad(df):\n    raise ValueError('no such column')\n")
    hook(bench, block="said", notify=f"json://127.0.0.1:{listener.port}/", streams=["orders"])
    hook(bench, block="ran", shell="touch ran")
    hook(bench, block="mended", shell="cat > mended.json", status=["failure"], streams=["orders"])
    assert bench.run().exit_code == 1
    (request,) = listener.requests
    assert request.event["type"] == "failure"
    assert request.event["message"].startswith("bench: orders failure")
    assert request.event["message"].endswith("; ValueError in bad: no such column")
    assert not (bench.folder / "ran").exists()
    event = json.loads((bench.folder / "mended.json").read_text())
    assert (event["status"], event["__error"]["message"]) == ("failure", "no such column")


def test_a_condition_decides_for_each_event_and_is_shown_as_skipped(bench: Bench) -> None:
    hook(bench, block="last", shell='echo "$SYNCBLOCKS_STREAM $SYNCBLOCKS_ROWS" > last', when="is_last_block_run")
    bench.record("kept", when="block_run.rows == 3 and variables('region') == 'eu'")
    bench.document["variables"] = {"region": "eu"}
    calls = Calls()
    result = bench.run(calls)
    assert result.exit_code == 0
    assert (bench.folder / "last").read_text() == "users 2\n"
    assert [call["stream"] for call in bench.calls("kept")] == ["orders"]
    assert calls.kinds == {"last": ["skipped", "returned"], "kept": ["returned", "skipped"]}
    assert result.callbacks == {"due": 0, "done": 4, "dead": 0}


def test_a_condition_that_does_not_fit_is_a_failed_delivery(bench: Bench) -> None:
    hook(bench, block="odd", shell="touch ran", when="stream > 5", attempts=1, streams=["users"])
    calls = Calls()
    assert bench.run(calls).exit_code == 3
    ((_, outcome, _),) = calls.outcomes
    assert outcome.kind == "load"
    assert outcome.error is not None
    assert "cannot be filled (TypeError)" in outcome.error
    assert not (bench.folder / "ran").exists()


def test_secret_variables_are_masked_in_what_others_get(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", TOKEN)
    bench.document["variables"] = {"token": "{{ env_var('TOKEN') }}", "region": "eu"}
    hook(bench, block="told", shell="cat > told.json", streams=["users"])
    assert bench.run().exit_code == 0
    event = json.loads((bench.folder / "told.json").read_text())
    assert (event["token"], event["region"]) == ("***", "eu")
    assert event["pipeline_run"]["variables"] == {"token": "***", "region": "eu"}


@pytest.mark.full
@pytest.mark.parametrize("inline", [False, True])
def test_no_secret_reaches_store_outcomes_or_logs(
    bench: Bench,
    inline: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TOKEN", TOKEN)
    token = "{{ env_var('TOKEN') }}"
    with http_listener([500], said=f"bad {TOKEN}".encode()) as listener:
        hook(bench, block="a", notify=f"json://user:{token}@127.0.0.1:{listener.port}/{token}", attempts=1)
        hook(bench, block="b", webhook={"url": listener.url(f"/{token}"), "headers": {"X-Key": token}}, attempts=1)
        hook(bench, block="c", shell=f"echo {token}; echo {token} >&2; exit 1", attempts=1)
        hook(bench, block="d", webhook={"url": f"http://user:{token}@127.0.0.1:1/"}, attempts=1)
        # As whole as they would be pasted, with the token in the file.
        hook(bench, block="e", notify=f"json://127.0.0.1:{listener.port}/lit3ral-T0ken-of-20", attempts=1)
        hook(bench, block="f", webhook={"url": listener.url("/lit3ral-T0ken-of-20"), "secret": "lit3ral-s"}, attempts=1)
        calls = Calls()
        assert bench.run(calls, inline_callbacks=inline).exit_code == 3
    assert len(calls.outcomes) == 12
    assert {outcome.kind for _, outcome, _ in calls.outcomes} == {"raised"}
    assert any(TOKEN in request.path for request in listener.requests)
    assert any("lit3ral-T0ken-of-20" in request.path for request in listener.requests)
    shown = repr(calls.outcomes) + caplog.text + repr(capfd.readouterr())
    for text in (TOKEN, "lit3ral-T0ken-of-20", "lit3ral-s"):
        assert text not in shown
        assert text.encode() not in everything(bench.folder)


def shop(folder: Path, callbacks: str) -> Path:
    return write_shop(folder, extra=f"callbacks:\n{callbacks}")


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(path)) as connection:
        return connection.execute(query).fetchall()


def test_statements_run_in_duckdb_while_streams_load_and_after_the_last(tmp_path: Path) -> None:
    file = shop(
        tmp_path,
        """\
  - block: log
    sql:
      statement: >-
        create table if not exists log as select :stream as s, cast(:n as int) as n, :is_last_block_run as last,
        ':stream' as text, :word as word
      parameters: {n: "{{ block_run.rows }}", word: "it's :stream"}
    when: index == 0
  - block: insert
    sql: insert into log values (:stream, :index, :is_last_block_run, :status, :ds)
    when: is_last_block_run
  - block: maintain
    sql: vacuum
    on: [pipeline]
  - {block: reader, file: reader.py, on: [pipeline], attempts: 20}
""",
    )
    (tmp_path / "reader.py").write_text(
        "import duckdb\nfrom pathlib import Path\n\n@callback\ndef read(**kwargs):\n"
        "    here = Path(__file__).parent\n"
        "    with duckdb.connect(str(here / 'warehouse.duckdb')) as connection:\n"
        # Callback blocks do not wait for each other: it comes again until both statements have run.
        "        assert connection.execute('select count(*) from log').fetchone() == (2,)\n"
        "    (here / 'read').touch()\n"
    )
    calls = Calls()
    result = run_pipeline(file, progress=calls)
    assert result.exit_code == 0, calls.outcomes
    first, second = rows(tmp_path / "warehouse.duckdb", "from log order by n desc")
    ran = {"customers": 2, "orders": 3}
    assert first == (first[0], ran[first[0]], False, ":stream", "it's :stream")
    assert second[1:4] == (1, True, "success")
    assert (tmp_path / "read").exists()


def test_a_statement_that_fails_is_told_and_changes_no_stream(tmp_path: Path) -> None:
    file = shop(tmp_path, "  - {block: bad, sql: select * from nowhere, attempts: 1, streams: [orders]}\n")
    calls = Calls()
    result = run_pipeline(file, progress=calls)
    assert (result.status, result.exit_code) == ("success", 3)
    ((_, outcome, mark),) = calls.outcomes
    assert (outcome.kind, mark) == ("raised", "dead")
    assert outcome.error is not None
    assert "nowhere does not exist" in outcome.error


@pytest.mark.full
def test_a_statement_past_its_deadline_is_ended(tmp_path: Path) -> None:
    endless = "select count(*) from range(100000000) a, range(100000000) b where a.range + b.range = -1"
    file = shop(tmp_path, f"  - {{block: slow, sql: '{endless}', attempts: 1, timeout_s: 0.5, streams: [orders]}}\n")
    calls = Calls()
    run_pipeline(file, progress=calls)
    ((_, outcome, _),) = calls.outcomes
    assert (outcome.kind, outcome.error) == ("timeout", "still running after 0.5 s (timeout_s)")
    assert outcome.duration_s < 20


def test_a_database_that_is_not_there_is_not_made_by_a_statement(tmp_path: Path) -> None:
    text = "  - {block: told, sql: create table t (a int), on: [pipeline], status: [failure], attempts: 1}\n"
    file = shop(tmp_path, text + "transformers: [{file: bad.py}]\n")
    (tmp_path / "bad.py").write_text("@transformer\ndef bad(df):\n    raise ValueError\n")
    file.write_text(file.read_text().replace("warehouse.duckdb", "none/x.duckdb"))
    pipeline = load_pipeline(file)
    from syncblocks.sync.delivery.sql_hook import SQLCall

    end = SQLCall(pipeline, "create table t (a int)", {}, "key").run(5.0)
    assert end.kind == "raised"
    assert end.error is not None
    assert str(tmp_path / "none") in end.error
    assert not (tmp_path / "none").exists()
    (tmp_path / "none").mkdir()
    end = SQLCall(pipeline, "create table t (a int)", {}, "key").run(5.0)
    assert end.kind == "raised"
    assert "none/x.duckdb" in str(end.error)
    assert not any((tmp_path / "none").iterdir())


def test_postgres_refreshes_maintains_and_binds(tmp_path: Path, postgres_url: str) -> None:
    to_postgres = "postgres, config: {url: '" + postgres_url + "'}}"
    file = write_shop(tmp_path)
    file.write_text(file.read_text().replace("duckdb, config: {path: warehouse.duckdb}}", to_postgres))
    assert run_pipeline(file).exit_code == 0
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("create materialized view names as select name from customers")
        connection.execute(
            "create table log (stream text, rows bigint, is_last bool, day date, took float8, none text)"
        )
    (tmp_path / "data" / "customers.csv").write_text("id,name\n1,Ada\n2,Grace\n3,Joan\n")
    with file.open("a") as text:
        text.write(
            """\
callbacks:
  - {block: refresh, sql: refresh materialized view names, when: is_last_block_run}
  - {block: maintain, sql: vacuum (analyze) customers, on: [pipeline]}
  - block: log
    sql:
      statement: insert into log values (:stream, :rows, :is_last_block_run, :ds::date, :took, :nothing)
      parameters: {rows: "{{ block_run.rows }}", took: 1.5, nothing: null}
"""
        )
    calls = Calls()
    result = run_pipeline(file, progress=calls)
    assert result.exit_code == 0, calls.outcomes
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("select name from names order by 1").fetchall() == [("Ada",), ("Grace",), ("Joan",)]
        logged = connection.execute("select stream, rows, took, none from log order by 1").fetchall()
        assert logged == [("customers", 3, 1.5, None), ("orders", 0, 1.5, None)]
        assert connection.execute("select count(*) from log where is_last").fetchall() == [(1,)]


def test_sqlite_runs_statements(tmp_path: Path) -> None:
    file = shop(tmp_path, "  - {block: log, sql: create table log as select :stream as s, when: is_last_block_run}\n")
    file.write_text(
        file.read_text().replace("duckdb, config: {path: warehouse.duckdb}", "sqlite, config: {path: w.db}")
    )
    assert run_pipeline(file).exit_code == 0
    with closing(sqlite3.connect(tmp_path / "w.db")) as connection, connection:
        assert connection.execute("select s from log").fetchall() == [("orders",)]
    connection.close()


def test_a_dead_hook_is_delivered_again_and_replayed(bench: Bench) -> None:
    with http_listener([500]) as listener:
        hook(bench, block="told", webhook={"url": listener.url(), "secret": "in-the-file"}, attempts=1)
        assert bench.run().exit_code == 3
        listener.answers[:] = [200]
        pipeline = load_pipeline(bench.write())
        with Store.open(pipeline.store_url) as store:
            done = redeliver(pipeline, store)
            assert done.counts == {"due": 0, "done": 2, "dead": 0}
            key = listener.requests[0].headers["Idempotency-Key"]
            record, outcome = replay(pipeline, store, key)
    assert (record.key, outcome.ok) == (key, True)
    assert listener.requests[-1].headers["Idempotency-Key"] == key
    assert len(listener.requests) == 5


def test_what_a_hook_calls_is_asked_of_the_file_of_now(bench: Bench, listener: Listener) -> None:
    hook(bench, block="told", webhook={"url": "http://127.0.0.1:1/gone"}, attempts=1, streams=["users"])
    assert bench.run().exit_code == 3
    # The file was mended: what is delivered again goes to the new place.
    bench.document["callbacks"][0]["webhook"] = {"url": listener.url("/moved")}
    pipeline = load_pipeline(bench.write())
    with Store.open(pipeline.store_url) as store:
        (record,) = store.outbox(pipeline.pipeline).deliveries.records(states=["dead"])
        assert redeliver(pipeline, store).counts["done"] == 1
        assert [request.path for request in listener.requests] == ["/moved"]
        # A hook of another kind is called in its place; of a block that is gone, nothing.
        bench.document["callbacks"] = [{"block": "told", "shell": "touch ran", "streams": ["users"]}]
        _, outcome = replay(load_pipeline(bench.write()), store, record.key)
        assert (outcome.kind, (bench.folder / "ran").exists()) == ("returned", True)
        bench.document["callbacks"] = []
        _, outcome = replay(load_pipeline(bench.write()), store, record.key)
        assert (outcome.kind, outcome.error) == ("missing", "callback block 'told' is not in bench.yaml any more")


def test_a_secret_that_changed_is_looked_up_for_the_call_and_masked(
    bench: Bench, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "f1rst-value-of-it")
    hook(bench, block="told", webhook={"url": listener.url("/{{ env_var('TOKEN') }}")}, streams=["users"])
    bench.run()
    pipeline = load_pipeline(bench.write())
    with Store.open(pipeline.store_url) as store:
        deliveries = store.outbox(pipeline.pipeline, current_callbacks(pipeline)).deliveries
        delivery = deliveries.recorded(deliveries.records()[0].key)
    redactor = Redactor()
    hooks = Hooks(pipeline, redactor, {"TOKEN": "s3cond-value-of-it"})
    prepared = hooks.prepare(delivery, dict(delivery.kwargs))
    assert prepared.hook is not None
    assert prepared.hook["url"] == listener.url("/s3cond-value-of-it")
    assert redactor.redact("at s3cond-value-of-it") == "at ***"
    with pytest.raises(HookError, match="environment variable 'TOKEN' is not set"):
        Hooks(pipeline, redactor, {}).prepare(delivery, dict(delivery.kwargs))


def test_an_event_from_outside_cannot_name_a_secret(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", TOKEN)
    hook(bench, block="told", shell="cat > told.json", streams=["users"])
    outside = {"x": {"$template": "{{ env_var('TOKEN') }}"}, "y": "{{ env_var('TOKEN') }}"}
    assert bench.run(event=outside).exit_code == 0
    assert json.loads((bench.folder / "told.json").read_text())["event"] == outside


def test_of_plans_of_before_digests_the_names_are_read() -> None:
    from syncblocks.sync.store.plans import decode_plan

    plan = {"callbacks": [{"block": "a", "file": "/a.py", "timeout_s": 60.0, "attempts": 5, "hook": None}]}
    (callback,) = decode_plan(plan).callbacks
    assert (callback.block, callback.digest) == ("a", None)


def test_the_command_line_lists_hooks_and_shows_what_was_skipped(tmp_path: Path, run_cli: Any) -> None:
    file = shop(tmp_path, "  - {block: told, shell: [touch, told], when: index == 5}\n")
    assert run_cli(["run", file], tmp_path).returncode == 0
    listed = run_cli(["callbacks", "list", file], tmp_path).stdout
    assert "index == 5" in listed
    assert "shell touch told" in listed
    (function,) = json.loads(run_cli(["callbacks", "list", file, "--json"], tmp_path).stdout)["functions"]
    assert (function["kind"], function["file"], function["statuses"]) == ("shell", None, ["success"])
    assert run_cli(["callbacks", "list", file, "--run", "1"], tmp_path).stdout.count("skipped") == 2
    assert not (tmp_path / "told").exists()


def test_a_program_that_a_hook_does_not_find_is_named_with_the_place_of_the_hook(tmp_path: Path, run_cli: Any) -> None:
    file = shop(tmp_path, "  - block: told\n    shell: [no-such-program]\n    attempts: 1\n")
    line = Path(file).read_text().splitlines().index("    shell: [no-such-program]") + 1
    done = run_cli(["run", file], tmp_path)
    assert done.returncode == 3
    assert f"{file}:{line}: shell: the shell finds no program 'no-such-program'" in done.stderr
