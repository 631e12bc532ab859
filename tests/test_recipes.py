"""Each recipe of docs/callbacks.md does what it says, run as it stands there."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from syncblocks import RunResult, load_pipeline, run_pipeline
from syncblocks.sync.run.redelivery import replay
from syncblocks.sync.store import Store
from tests.docs import examples, section

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
