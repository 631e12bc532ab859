"""The recipes and the tutorial, and what docs/security.md grants and checks: run as they stand on their pages."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
import yaml

from syncblocks import RunResult, load_pipeline, run_pipeline
from syncblocks.callbacks.webhook import signature
from syncblocks.sync.run.redelivery import replay
from syncblocks.sync.store import Store
from tests import services
from tests.docs import Example, examples, section

ORDERS = "id,day,amount\n1,2026-04-26,10\n2,2026-04-26,5\n"
SOURCE = {"connector": "csv", "config": {"path": "data"}}
WAREHOUSE = {"connector": "duckdb", "config": {"path": "warehouse.duckdb"}}


def write_recipe(folder: Path, heading: str, destination: dict[str, Any] = WAREHOUSE) -> Path:
    """Write the recipe's Python file, and its callback block into a pipeline of one CSV file."""
    text = section("docs/callbacks.md", heading)
    shown = [example for example in examples("python", "yaml") if example.text in text]
    (code,) = [example for example in shown if example.language == "python"]
    (block,) = [example for example in shown if example.language == "yaml"]
    assert code.file is not None
    (folder / code.file).write_text(code.text)
    (folder / "data").mkdir()
    (folder / "data" / "orders.csv").write_text(ORDERS)
    file = folder / "shop.yaml"
    (folder / "fail.py").write_text(FAIL)
    rest = {
        "source": SOURCE,
        "transformers": [{"file": "fail.py"}],
        "destination": destination,
        "streams": [{"stream": "orders"}],
    }
    file.write_text(block.text + yaml.safe_dump(rest))
    return file


def sync(file: Path) -> RunResult:
    return run_pipeline(load_pipeline(file))


#: Fails while there is a file named `broken`.
FAIL = """\
from pathlib import Path

@transformer
def fail(df):
    if Path(__file__).with_name("broken").exists():
        raise ValueError("the third party is down")
    return df
"""


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Listen on the loopback; yield the URL and what was posted."""
    posted: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            # Slack does not answer now and then: the first call is tried again.
            self.send_response(200 if len(posted) > 1 else 500)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/services/T/B/X", posted
        finally:
            server.shutdown()
            thread.join()


def test_a_message_to_slack_for_each_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_recipe(tmp_path, "A message to Slack for each stream")
    with webhook() as (url, posted):
        monkeypatch.setenv("SLACK_WEBHOOK_URL", url)
        assert sync(file).exit_code == 0
        assert posted == [{"text": "orders -> orders: 2 rows"}] * 2, "the first answer was an error"
        (tmp_path / "broken").touch()
        sync(file)
    assert posted[2] == {"text": "orders failed in fail: the third party is down"}


def test_refresh_a_materialized_view_after_the_last_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    import psycopg

    monkeypatch.setenv("WAREHOUSE_URL", postgres_url)
    destination = {"connector": "postgres", "config": {"url": postgres_url}}
    file = write_recipe(tmp_path, "Refresh a materialized view after the last stream", destination)
    with psycopg.connect(postgres_url) as connection:
        connection.execute("create table orders (id bigint, day date, amount bigint)")
        connection.execute("create materialized view sales_by_day as select day, sum(amount) from orders group by day")
    file.write_text(file.read_text().replace("- stream: orders", "- {stream: orders, write_disposition: replace}"))
    assert sync(file).exit_code == 0
    with psycopg.connect(postgres_url) as connection:
        rows = connection.execute("select day::text, sum from sales_by_day").fetchall()
    assert rows == [("2026-04-26", 15)]


def test_start_dbt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = tmp_path / "bin" / "dbt"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\npwd >> calls.log\nprintf "%s\\n" "$@" >> calls.log\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(stand_in.parent), prepend=":")
    file = write_recipe(tmp_path, "Start dbt")
    result = sync(file)
    assert result.exit_code == 0
    day = load_pipeline(file).ds
    expected = [str(tmp_path), "build", "--vars", f"{{day: '{day}', run_id: {result.run_id}}}"]
    assert (tmp_path / "calls.log").read_text().splitlines() == expected

    stand_in.write_text("#!/bin/sh\nexit 2\n")
    assert sync(file).exit_code == 3, "a failed build is a dead callback, not a failed stream"


@pytest.mark.full
def test_mark_a_day_complete_exactly_once(tmp_path: Path) -> None:
    import duckdb

    file = write_recipe(tmp_path, "Mark a day complete exactly once")
    run_ids = [sync(file).run_id, sync(file).run_id]
    pipeline = load_pipeline(file)
    with Store.open(pipeline.store_url) as store:
        for entry in store.outbox(pipeline.pipeline).deliveries.history():
            _, outcome = replay(pipeline, store, entry.key)  # delivered again
            assert outcome.ok, outcome.error
    with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as connection:
        rows = connection.execute("select run_id from complete_days order by run_id").fetchall()
    assert rows == [(run_id,) for run_id in run_ids]


@pytest.mark.full
def test_page_on_the_second_failure_only(tmp_path: Path) -> None:
    file = write_recipe(tmp_path, "Page on the second failure only")
    sync(file)
    (tmp_path / "broken").touch()
    for _ in range(3):
        sync(file)
    (tmp_path / "broken").unlink()
    sync(file)
    (tmp_path / "broken").touch()
    sync(file)
    pipeline = load_pipeline(file)
    with Store.open(pipeline.store_url) as store:
        calls = store.outbox(pipeline.pipeline).deliveries.history()
    paged = [call.run_id for call in calls if "page: orders failed twice in a row" in call.call.output]
    assert paged == [3]
    assert all(call.call.outcome == "returned" for call in calls)


# -- the tutorial ----------------------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.timeout(600)
def test_the_tutorial_from_its_first_file_to_its_last_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    """Files are written, commands and SQL are run in order; each line of a `text` block is in the output before it."""
    import psycopg

    monkeypatch.setenv("CRM_URL", postgres_url)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    output = ""
    for example in examples(page="docs/tutorial.md"):
        if example.language in ("yaml", "python"):
            assert example.file is not None, example.id
            (tmp_path / example.file).write_text(example.text)
        elif example.language == "sql":
            with psycopg.connect(postgres_url, autocommit=True) as connection:
                connection.execute(example.text)
        elif example.language == "console":
            done = subprocess.run(["bash", "-c", example.text], cwd=tmp_path, capture_output=True, check=False)
            output = (done.stdout + done.stderr).decode()
            assert done.returncode == 0, f"{example.id}: {output}"
        elif example.language == "text":
            assert [line for line in example.text.splitlines() if line not in output] == [], f"{example.id}: {output}"
        else:
            assert example.language == "sh", f"{example.id}: what runs it?"


# -- serve -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_accepts_the_unit_of_the_server(tmp_path: Path) -> None:
    (unit,) = [example for example in examples("ini", page="docs/serve.md") if "KillMode=process" in example.text]
    program = Path(sys.executable).parent / "syncblocks"
    file = tmp_path / "syncblocks.service"
    file.write_text(unit.text.replace("/srv/venv/bin/syncblocks", str(program)))
    done = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# -- Python ----------------------------------------------------------------------------------------------------------

SHOP = {"orders.csv": "id,amount\n1,10\n2,5\n3,7\n", "customers.csv": "id,name\n1,Ada\n"}


@pytest.mark.full
@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_python_examples_of_a_page_in_their_order(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They share their names; each line of a `text` block is in the output of the example before it."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for name, text in SHOP.items():
        Path("data", name).write_text(text)
    names: dict[str, Any] = {"__name__": "example"}
    output = ""
    shown = examples("python", "text", page=page)
    assert any("from syncblocks import" in example.text for example in shown)
    for example in shown:
        if example.language == "python" and example.file is None:
            exec(compile(example.text, example.id, "exec"), names)
            output = capsys.readouterr().out
        elif example.language == "text":
            assert [line for line in example.text.splitlines() if line not in output] == [], f"{example.id}: {output}"


# -- security --------------------------------------------------------------------------------------------------------

USERS = ("sync_reader", "sync_writer", "sync_store")


def granted(heading: str, own: str, databases: dict[str, str]) -> dict[str, str]:
    """Return the statements of a section by their first line, for users and databases of this test's own."""
    text = section("docs/security.md", heading)
    found = {}
    for example in examples("sql", page="docs/security.md"):
        if example.text in text:
            role, _, statements = example.text.removeprefix("-- ").partition("\n")
            statements = re.sub("|".join(USERS), lambda match: match[0] + own, statements)
            for name, database in databases.items():
                statements = re.sub(rf"(?<=database ){name}\b|(?<=`){name}(?=`)", database, statements)
            found[role] = statements
    return found


def as_user(url: str, user: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{user}:change-me@{parts.hostname}:{parts.port or ''}".rstrip(":")))


STREAMS = [
    {
        "stream": "{schema}.orders",
        "replication_method": "INCREMENTAL",
        "bookmark_properties": ["id"],
        "key_properties": ["id"],
        "on_rejected": "keep",
    },
    {"stream": "{schema}.customers", "key_properties": ["id"]},
]


def sync_twice(folder: Path, schema: str, ends: dict[str, Any]) -> list[RunResult]:
    file = folder / "granted.yaml"
    streams = [{**entry, "stream": entry["stream"].format(schema=schema)} for entry in STREAMS]
    file.write_text(yaml.safe_dump({**ends, "concurrency": 1, "streams": streams}))
    return [sync(file), sync(file)]


def test_the_privileges_for_postgresql_are_enough(tmp_path: Path) -> None:
    import psycopg
    from psycopg import sql

    own = f"_{uuid.uuid4().hex[:12]}"
    with ExitStack() as stack:
        urls = {name: stack.enter_context(services.fresh_postgres_database()) for name in ("crm", "warehouse", "ops")}
        roles = dict(zip(urls, (user + own for user in USERS), strict=True))
        databases = {name: urlsplit(url).path[1:] for name, url in urls.items()}
        for (name, url), statements in zip(urls.items(), granted("PostgreSQL", own, databases).values(), strict=True):
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(sql.SQL("revoke all on schema public from public"))
                connection.execute(f"revoke all on database {databases[name]} from public")
                if name == "crm":
                    connection.execute("create table orders (id int primary key); insert into orders values (1), (2)")
                    connection.execute("create table customers (id int primary key)")
                connection.execute(statements)
        try:
            results = sync_twice(
                tmp_path,
                "public",
                {
                    "source": {"connector": "postgres", "config": {"url": as_user(urls["crm"], roles["crm"])}},
                    "destination": {
                        "connector": "postgres",
                        "config": {"url": as_user(urls["warehouse"], roles["warehouse"]), "schema": "loaded"},
                    },
                    "store": as_user(urls["ops"], roles["ops"]),
                },
            )
        finally:
            for name, role in roles.items():
                with psycopg.connect(urls[name], autocommit=True) as connection:
                    connection.execute(f"drop owned by {role} cascade; drop role {role}")
    assert [result.exit_code for result in results] == [0, 0]


def test_the_privileges_for_mysql_and_mariadb_are_enough(tmp_path: Path) -> None:
    own = f"_{uuid.uuid4().hex[:12]}"
    with ExitStack() as stack:
        urls = {name: stack.enter_context(services.fresh_mariadb_database()) for name in ("crm", "warehouse")}
        databases = {name: urlsplit(url).path[1:] for name, url in urls.items()}
        admin = stack.enter_context(services.connect_mariadb(urls["crm"]))
        cursor = stack.enter_context(admin.cursor())
        for statement in (
            "create table orders (id int primary key)",
            "insert into orders values (1), (2)",
            "create table customers (id int primary key)",
        ):
            cursor.execute(statement)
        try:
            for statements in granted("MySQL and MariaDB", own, databases).values():
                for statement in statements.strip().rstrip(";").split(";\n"):
                    cursor.execute(statement)
            ends = {
                role: {"connector": "mysql", "config": {"url": as_user(urls[name], user + own)}}
                for role, name, user in zip(("source", "destination"), urls, USERS, strict=False)
            }
            results = sync_twice(tmp_path, databases["crm"], ends)
        finally:
            for user in USERS[:2]:
                cursor.execute(f"drop user if exists '{user}{own}'@'%'")
    assert [result.exit_code for result in results] == [0, 0]


def checks() -> list[Example]:
    return [example for example in examples("python") if "def is_genuine" in example.text]


@pytest.mark.parametrize("example", checks(), ids=lambda example: example.id)
def test_a_receiver_tells_a_genuine_webhook_from_another(example: Example) -> None:
    namespace: dict[str, Any] = {}
    exec(compile(example.text, example.id, "exec"), namespace)
    is_genuine, stamp, body = namespace["is_genuine"], str(int(time.time())), b'{"status":"success"}'
    headers = {"X-Syncblocks-Timestamp": stamp, "X-Syncblocks-Signature": signature("key", stamp, body)}
    assert is_genuine("key", headers, body)
    assert not is_genuine("another", headers, body)
    assert not is_genuine("key", headers, body + b" ")
    assert not is_genuine("key", {**headers, "X-Syncblocks-Timestamp": str(int(stamp) - 1)}, body)
