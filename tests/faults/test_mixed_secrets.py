"""Secrets of every printable character in every place of a file, under every kind of error: none is left behind.

`test_arrive_secrets.py` looks for marks of letters and digits, which no encoding changes. Here each character of a
secret may be encoded in another way, so that what is left behind is decoded before it is searched.
"""

from __future__ import annotations

import html
import inspect
import json
import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
import yaml

from syncblocks.sync.store import Store
from tests.faults.conftest import Count
from tests.faults.test_arrive_secrets import left_behind
from tests.zygote import Process, Zygote

CASES = 40 if os.environ.get("SYNCBLOCKS_FAULTS") == "full" else 6
#: Secrets of one case.
COUNT = 12
#: Length of the shortest part of a secret that is searched.
PART = 9
ASCII = "".join(map(chr, range(33, 127)))


def secret_of(chance: random.Random, letters: str) -> str:
    """Return a secret whose lines are long enough to be masked alone."""
    inner = "".join(chance.choice(letters) for _ in range(chance.randrange(10, 38)))
    lines = [line for line in inner.split("\n") if len(line) >= PART]
    return chance.choice(ASCII) + "\n".join(lines or ["Xy-9'z_Kw%4"]) + chance.choice(ASCII)


def spell(value: str) -> list[str]:
    """Write a value as programs write it into messages."""
    import html
    import json
    import shlex
    from urllib.parse import quote, quote_plus

    document = json.dumps({"error": value})
    lines = " ".join(value.split("\n"))
    found = [
        value,
        document,
        json.dumps(document),
        json.dumps(json.dumps(document)),
        repr(value),
        repr(document),
        lines,
    ]
    found += [repr(value.encode()), ascii(value), html.escape(value), json.dumps(html.escape(value)), quote(value)]
    found += [quote_plus(value), quote(document), quote(value, safe="/'!(@:;,$~*)"), shlex.quote(value)]
    return [*found, "".join(char if char.isalnum() else "\\" + char for char in value)]


SPELL = inspect.getsource(spell)
USER_CODE = (
    SPELL
    + """
import sys

def words(kwargs):
    return [word for name, value in sorted(kwargs.items()) if name.startswith("v_") for word in spell(value)]

@transformer
def leak(df, **kwargs):
    for word in words(kwargs):
        print(word)
    try:
        {}[words(kwargs)[0]]
    except KeyError as error:
        raise ValueError({"all": words(kwargs)}) from error
"""
)
CALLS = USER_CODE.replace("@transformer\ndef leak(df, ", '@callback("failure")\n@callback("success")\ndef leak(') + (
    """
@callback("failure")
@callback("success")
def in_pieces(**kwargs):
    for word in words(kwargs):
        sys.stdout.write(word[:7])
        sys.stdout.write(word[7:] + "\\n")
        sys.stderr.buffer.write(word.encode()[:9])
        sys.stderr.buffer.write(word.encode()[9:] + b"\\n")
"""
)
#: A tap, or a connector of Airbyte, whose config is in everything that it writes.
PROGRAM = (
    f"#!{sys.executable}\n"
    + SPELL
    + """
import json, sys
if sys.argv[1:2] == ["spec"]:
    print(json.dumps({"type": "SPEC", "spec": {"connectionSpecification": {"type": "object", "properties": {}}}}))
    raise SystemExit
with open(sys.argv[sys.argv.index("--config") + 1]) as file:
    values = [value for value in json.load(file).values() if isinstance(value, str)]
words = [word for value in values for word in spell(value)]
for word in words:
    print("ERROR " + word, file=sys.stderr, flush=True)
    print(json.dumps({"type": "LOG", "log": {"level": "ERROR", "message": word}}), flush=True)
sys.stderr.write("x" * 65530 + words[0] + "\\n")
error = {"message": words[1], "internal_message": words[2], "stack_trace": "\\n".join(words)}
print(json.dumps({"type": "TRACE", "trace": {"type": "ERROR", "emitted_at": 1, "error": error}}), flush=True)
raise ValueError(" ".join(words[:20]))
"""
)


def simple(text: str) -> str:
    """Return a text with encodings decoded, and without characters that encodings add or drop."""
    for _ in range(5):
        text = html.unescape(unquote(text, errors="replace"))
        text = re.sub(r"\\+(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2}))", lambda m: chr(int(m[1] or m[2], 16)), text)
        text = re.sub(r"\\+[nrt]", "\n", text)
        text = re.sub("[\x80-\xff]{2,}", lambda m: m[0].encode("latin-1").decode("utf-8", "ignore") or m[0], text)
    return re.sub(r"[\\\s+\"']", "", text)


def parts(text: str) -> set[str]:
    return {text[at : at + PART] for at in range(len(text) - PART + 1)}


def leaks(places: dict[str, bytes], secrets: dict[str, str]) -> list[str]:
    """Return which part of which secret is where."""
    found = []
    for place, content in places.items():
        raw = content.decode("utf-8", "replace")
        for text, change in ((raw, str), (simple(raw), simple)):
            for name, secret in secrets.items():
                if part := next((part for part in parts(change(secret)) if part in text), None):
                    at = text.index(part)
                    found.append(f"{name} {secret!r} in {place}: {part!r} in {text[max(0, at - 90) : at + 70]!r}")
    return found


class House:
    """A folder with a pipeline, all of whose places have secrets."""

    def __init__(self, zygote: Zygote, folder: Path, seed: int) -> None:
        self.zygote, self.folder = zygote, folder
        chance = random.Random(f"mixed {seed}")
        letters = f"{ASCII}{ASCII} äöüßÄÖÜ\n"
        self.secrets = {f"s{number}": secret_of(chance, letters) for number in range(COUNT)}
        # A header has no line breaks and no umlauts.
        self.secrets |= {f"h{number}": secret_of(chance, ASCII) for number in range(3)}
        private = folder / ".syncblocks" / "secrets"
        private.mkdir(parents=True)
        for name, secret in self.secrets.items():
            (private / name).write_text(secret)
            (private / name).chmod(0o600)
        (folder / "leak.py").write_text(USER_CODE)
        (folder / "calls.py").write_text(CALLS)
        (folder / "program").write_text(PROGRAM)
        (folder / "program").chmod(0o755)
        (folder / "rows.csv").write_text("id,name\n1,a\n")
        self.texts: dict[str, bytes] = {}

    def secret(self, name: str, more: str = "") -> str:
        return f"{{{{ secret('{name}'){more} }}}}"

    def write(self, **document: Any) -> str:
        whole = {
            "pipeline": "mixed",
            "variables": {f"v_{name}": self.secret(name) for name in ("s0", "s1", "s2")},
            "source": {"block": "load", "connector": "csv", "config": {"path": "."}},
            "destination": {"block": "export", "connector": "sqlite", "config": {"path": "out.db"}},
            "streams": [{"stream": "*"}],
            "drain_s": 20,
        } | document
        (self.folder / "mixed.yaml").write_text(yaml.safe_dump(whole, allow_unicode=True))
        return "mixed.yaml"

    def call(self, *arguments: str) -> Process:
        process = self.zygote.start(self.folder, arguments, environment={"TMPDIR": str(self.folder)})
        process.wait(90)
        return process

    def found(self) -> list[str]:
        own = (".syncblocks/secrets", "leak.py", "calls.py", "program", "mixed.yaml", "out.db")
        return leaks(left_behind(self.folder, but=own) | self.texts, self.secrets)


@pytest.fixture
def house(request: pytest.FixtureRequest, zygote: Zygote, folder: Path) -> House:
    return House(zygote, folder, request.node.callspec.params["seed"])


@pytest.fixture
def web() -> Iterator[str]:
    """A server that refuses everything; the code depends on the path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            self.send_response((500, 403, 404)[len(self.path) % 3], "no way")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_HEAD = do_GET

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def web_source(house: House, web: str) -> list[dict[str, Any]]:
    headers = {"X-Api-Key": house.secrets["h0"].replace("{", "("), "Authorization": f"Bearer {house.secret('h1')}"}
    options = {"storage_options": {"client_kwargs": {"headers": headers}}}
    house.secrets["h0"] = headers["X-Api-Key"]
    quoted, raw = house.secret("s3", " | urlencode"), house.secret("s4")
    places = (
        f"{web}/{quoted}/a.csv?t={house.secret('s5', ' | urlencode')}",
        f"{web}/{raw}/a.csv",
        f"{web}/a.csv?t={raw}",
    )
    return [{"source": {"block": "load", "connector": "csv", "config": {"path": path, **options}}} for path in places]


def programs(house: House, _: str) -> list[dict[str, Any]]:
    config = {f"setting{number}": house.secret(f"s{number}") for number in range(3, 8)}
    return [
        {"source": {"block": "load", "connector": name, "config": {"executable": "./program", "config": config}}}
        for name in ("singer", "airbyte")
    ]


def user_code(house: House, _: str) -> list[dict[str, Any]]:
    calls = [{"file": "calls.py", "on": ["stream", "pipeline"], "attempts": 1}]
    return [{"transformers": [{"file": "leak.py", "block": "leak"}], "callbacks": calls}]


def hooks(house: House, web: str) -> list[dict[str, Any]]:
    headers = {"X-Api-Key": house.secret("h0"), "Authorization": f"Bearer {house.secret('h1')}"}
    word = house.secret("s6", " | urlencode")
    kinds: list[dict[str, Any]] = [
        {"webhook": {"url": f"{web}/{word}?x={word}", "secret": house.secret("s3"), "headers": headers}},
        {"notify": f"json://user:{word}@{web.removeprefix('http://')}/{house.secret('s7', ' | urlencode')}"},
        {"shell": {"command": 'echo "$A" >&2; printf \'%q\' "$A"; exit 4', "env": {"A": house.secret("s4")}}},
        {"sql": {"statement": "insert into nowhere values (:a)", "parameters": {"a": house.secret("s5")}}},
    ]
    hooks = [
        {"block": f"k{n}", **kind, "on": ["stream"], "attempts": 1, "timeout_s": 20} for n, kind in enumerate(kinds)
    ]
    return [{"callbacks": hooks}]


def databases(house: House, _: str) -> list[dict[str, Any]]:
    word = house.secret("s3", " | urlencode")
    found: list[dict[str, Any]] = []
    for scheme, port in (("postgresql", 1), ("mysql", 1)):
        for host in (f"u:{word}@127.0.0.1:{port}/{word}", f"{word}:{word}@127.0.0.1:{port}/d?{word}={word}"):
            connector = "postgres" if scheme == "postgresql" else "mysql"
            block = {"block": "load", "connector": connector, "config": {"url": f"{scheme}://{host}"}}
            found.append({"source": block})
    return [*found, {"destination": found[0]["source"]}, {"store": f"postgresql://u:{word}@127.0.0.1:1/{word}"}]


def queries(house: House, url: str) -> list[dict[str, Any]]:
    postgres = os.environ["SYNCBLOCKS_MIXED_POSTGRES"]
    source = {"block": "load", "connector": "postgres", "config": {"url": postgres}}
    value = house.secret("s3")
    statements = (f"select {value}::int as id", f"select 1 as id where {value}::regclass is null")
    return [{"source": source, "streams": [{"stream": "found", "query": statement}]} for statement in statements]


def mistakes(house: House, _: str) -> list[dict[str, Any]]:
    raw = house.secret("s3")
    csv = {"block": "load", "connector": "csv", "config": {"path": f"/nowhere/{raw}/*.csv"}}
    return [
        {"source": csv},
        {"source": {"block": "load", "connector": raw, "config": {}}},
        {"concurrency": raw},
        {"streams": [{"stream": "*", "where": {"name": raw, "id": raw}}]},
        {"streams": [{"stream": "*", "checks": {"name": {"in": [raw]}}, "on_rejected": "fail"}]},
        {"callbacks": [{"webhook": {"url": raw}}]},
        {"variables": {"a": "{{ secret('s4') + 1 }}", "b": "{{ env_var(secret('s5')) }}"}},
    ]


KINDS: list[Callable[[House, str], list[dict[str, Any]]]]
KINDS = [web_source, programs, user_code, hooks, databases, mistakes, queries]


@pytest.mark.full
@pytest.mark.timeout(0 if CASES == 40 else 120)
@pytest.mark.parametrize("seed", range(CASES))
def test_secrets_of_all_characters_are_left_nowhere(
    seed: int, house: House, web: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch, injected: Count
) -> None:
    monkeypatch.setenv("SYNCBLOCKS_MIXED_POSTGRES", postgres_url)
    assert house.call("run", house.write()).code == 0
    failed = 0
    changes = KINDS[seed % len(KINDS)](house, web)
    for change in changes:
        path = house.write(**change)
        failed += house.call("run", path, "--debug").code != 0
        house.call("run", path, "--json")
    for command in (
        ("plan",),
        ("check", "--json"),
        ("runs", "show"),
        ("callbacks", "history"),
        ("runs", "list", "--json"),
    ):
        house.call(*command, path)
    assert failed == len(changes)
    injected(2 * failed)
    if seed % len(KINDS) in (0, 2):
        house.texts |= pages(house)
    assert house.found() == []


def pages(house: House) -> dict[str, bytes]:
    """Return what a server answers about the pipeline, after it has started a run of it."""
    import http.client
    from urllib.parse import urlsplit

    url = f"sqlite:///{house.folder}/.syncblocks/store.db"
    server = house.zygote.start(house.folder, ["serve", "--port", "0"], environment={"TMPDIR": str(house.folder)})
    answers: dict[str, bytes] = {}
    deadline = time.monotonic() + 60
    with Store.open(url) as store:
        session = store.access.sign_in(store.access.make_code()) or ""
        token = store.access.make_token("t", ["read", "run:*"])
        while "mixed" not in {name for live in store.live_servers() for name in live.pipelines}:
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.05)
        (live,) = store.live_servers()
        address = urlsplit(live.url or "")

        def ask(method: str, path: str, body: str | None = None) -> None:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            if not path.startswith("/api"):
                headers = {"Cookie": f"syncblocks_{address.port}={session}"}
            connection = http.client.HTTPConnection(address.netloc, timeout=60)
            connection.request(method, path, body, headers)
            answers[f"{method} {path}"] = connection.getresponse().read()
            connection.close()

        before = len(store.runs())
        ask("POST", "/api/pipelines/mixed/runs", json.dumps({}))
        while len(store.runs()) == before or any(run.is_active for run in store.runs()):
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.05)
        numbers = [run.id for run in store.runs()]
    for number in numbers:
        for path in (f"/runs/{number}", f"/runs/{number}/log", f"/api/runs/{number}", f"/api/runs/{number}/deliveries"):
            ask("GET", path)
    for path in ("/", "/pipelines/mixed", "/schedules", "/deliveries", "/api/pipelines", "/api/ticks/1", "/metrics"):
        ask("GET", path)
    server.kill()
    return answers


def test_a_secret_that_is_left_behind_is_found() -> None:
    chance = random.Random(1)
    for _ in range(20):
        secret = secret_of(chance, f"{ASCII} äöü\n")
        for word in spell(secret):
            assert leaks({"log": f"refused: {word}".encode()}, {"s": secret}), word
            assert leaks({"log": quote(word).encode()}, {"s": secret}), word
