"""Fifty secrets that a server and its runs come across: none of them is in an answer, a page, a metric or a log."""

from __future__ import annotations

import http.client
import json
import secrets
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from syncblocks.sync.store import Store
from tests.zygote import Zygote

FILE = """\
pipeline: {name}
store: "{{{{ env_var('STORE_URL') }}}}"
variables: {{of_env: "{{{{ env_var('IN_VARIABLE') }}}}"}}
source: {{connector: csv, config: {{path: .}}}}
destination: {destination}
streams: [{{stream: rows}}]
"""
GOOD = "{connector: sqlite, config: {path: good.db}}"
#: Nothing listens there.
DOWN = "{connector: postgres, config: {url: \"postgresql://u:{{ secret('DB') }}@127.0.0.1:1/db\"}}"


@pytest.mark.full
@pytest.mark.postgres
def test_no_secret_is_in_an_answer_a_page_a_metric_or_a_log(tmp_path: Path, postgres_url: str, zygote: Zygote) -> None:
    canaries = [f"canary{number}{secrets.token_hex(12)}" for number in range(40)]
    password, in_variable, of_database, idempotency_key, bearer, *given = canaries
    for name, destination in (("good", GOOD), ("down", DOWN)):
        (tmp_path / f"{name}.yaml").write_text(FILE.format(name=name, destination=destination))
    (tmp_path / "rows.csv").write_text("id\n1\n")
    if urlsplit(postgres_url).password:
        pytest.skip("this PostgreSQL takes one password alone, which tests print")
    url = postgres_url.replace("@", f":{password}@", 1)
    environment = {"STORE_URL": url, "IN_VARIABLE": in_variable, "SYNCBLOCKS_SECRET_DB": of_database}
    server = zygote.start(tmp_path, ["serve", "--port", "0"], environment=environment)
    texts: list[str] = []
    pages: list[str] = []

    def ask(method: str, path: str, secret: str, document: object = None, **headers: str) -> str:
        (live,) = Store.servers_of(url)
        address = urlsplit(live.url or "").netloc
        body = None if document is None else json.dumps(document)
        sent = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json", **headers}
        connection = http.client.HTTPConnection(address, timeout=60)
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        texts.append(f"{answer.getheaders()} {answer.read().decode()}")
        connection.close()
        return texts[-1]

    deadline = time.monotonic() + 60
    with Store.open(url) as store:
        tokens = [store.access.make_token(f"t{number}", ["read", "run:*", "operate"]) for number in range(9)]
        session = store.access.sign_in(store.access.make_code()) or ""
        while "good" not in {name for live in store.live_servers() for name in live.pipelines}:
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.05)
        order = {"variables": {f"v{number}": value for number, value in enumerate(given)}}
        for name in ("good", "down"):
            key = {"Idempotency-Key": idempotency_key}
            assert '"state": "waiting"' in ask("POST", f"/api/pipelines/{name}/runs", tokens[0], order, **key)
            ask("POST", f"/api/pipelines/{name}/runs", tokens[0], {"variables": given[0]}, **key)
            ask("POST", f"/api/pipelines/{name}/runs", tokens[0], {}, **key)
        ask("GET", "/api/pipelines", bearer)
        while [run.is_active for run in store.runs()] != [False, False]:
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.05)
    for token in tokens:
        for path in ("pipelines", "pipelines/good", "pipelines/down", "pipelines/good/runs", "schedules"):
            ask("GET", f"/api/{path}", token)
        for path in ("runs/1", "runs/1/deliveries", "ticks/1", "ticks/2", "ticks/77", "nothing"):
            ask("GET", f"/api/{path}", token)
        assert "syncblocks_up 1" in ask("GET", "/metrics", token)
    port = urlsplit(Store.servers_of(url)[0].url or "").port
    for path in ("", "pipelines/good", "pipelines/down", "pipelines/good/streams/rows", "schedules", "deliveries"):
        pages.append(ask("GET", f"/{path}", "", Cookie=f"syncblocks_{port}={session}"))
    for path in ("runs/1", "runs/2", "runs/2/log", "runs/77"):
        pages.append(ask("GET", f"/{path}", "", Cookie=f"syncblocks_{port}={session}"))
    assert [page for page in pages if "Sign out" not in page and "level=" not in page] == []
    server.kill()
    logs = [path.read_text() for path in tmp_path.rglob("*.log")]
    assert len(logs) == 2
    everything = "\n".join((*texts, *logs, server.log()))
    assert "t0" in everything
    assert [each for each in (*canaries, *tokens, session) if each in everything] == []
