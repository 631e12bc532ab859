"""50 canaries in 6 spellings and more go through everything that can fail; none is found in what is left behind."""

from __future__ import annotations

import base64
import inspect
import os
import random
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.faults.conftest import Count
from tests.zygote import Process, Zygote

CANARIES = 50
#: Middle parts of the secrets, which URLs, JSON, repr and SQL each escape in another way.
MIDDLES = (
    "p@ss/w:rd",
    "a'b\"c\\d",
    "x%20y+z",
    "ä€🔑-_",
    "q?r=s&t#u",
    "<i>{j}",
    "line\nbreak",
    "tab\tand space",
    "$0;|`",
    "~",
)


def spell(value: str) -> list[str]:
    """Spell a value in each way; the halves are those of the value itself and of what a URL holds."""
    import base64
    import json
    from urllib.parse import quote

    quoted = quote(value, safe="")
    half = value[: len(value) // 2], value[len(value) // 2 :]
    url = f"https://user:{quoted}@host.example/{quoted}?token={quoted}"
    encoded = (base64.b64encode(text.encode()).decode() for text in (value, f"user:{value}"))
    return [value, quoted, json.dumps(value), repr(value), *half, url, *encoded]


GOOD = {"good": {"columns": {"id": "int64"}, "records": [{"id": 1}]}}
#: The same, for users' files.
SPELL = inspect.getsource(spell)
TRANSFORMER = (
    SPELL
    + """
@transformer
def leak(df, stream, **kwargs):
    values = [kwargs[f"v{number:02}"] for number in range(50)]
    text = " ".join(word for value in values for word in spell(value))
    if stream == "message":
        raise ValueError(text)
    if stream == "chained":
        try:
            {}[values[7]]
        except KeyError as error:
            raise RuntimeError(text[:300]) from error
    if stream == "padded":
        # Of each length once: wherever a long text is cut, it is in the middle of a secret.
        raise ValueError(" ".join(values * 9) + "." * kwargs["pad"])
    return df
"""
)
CALLBACK = (
    SPELL
    + """
import sys

def values(kwargs):
    return [kwargs[f"v{number:02}"] for number in range(50)]

@callback("success")
@callback("failure")
def prints(**kwargs):
    for value in values(kwargs):
        print(*spell(value))
        print(*spell(value), file=sys.stderr)

@callback("success")
@callback("failure")
def raises(stream, **kwargs):
    raise ValueError(" ".join(word for value in values(kwargs) for word in spell(value)))

@callback("success")
@callback("failure")
def raises_padded(stream, **kwargs):
    raise ValueError(" ".join(values(kwargs) * 9) + "." * kwargs["pad"])

@callback("success")
@callback("failure")
def prints_without_end(stream, **kwargs):
    print(" ".join(values(kwargs) * 60) + "." * kwargs["pad"], flush=True)
    sys.exit(3)
"""
)


def canaries(seed: str = "canary") -> list[str]:
    """Return secrets with two marks each, one a half, that occur nowhere else."""
    chance = random.Random(seed)
    return [
        f"{chance.randbytes(6).hex()}{MIDDLES[n % len(MIDDLES)]}{chance.randbytes(6).hex()}" for n in range(CANARIES)
    ]


def marks(values: Iterable[str]) -> set[bytes]:
    """Return what betrays a canary in any spelling: either mark, and base64 at each place where it can start."""
    found: set[bytes] = set()
    for value in values:
        encoded = value.encode()
        found |= {encoded[:12], encoded[-12:], encoded[:12].hex().encode()}
        for offset in range(3):
            inner = base64.b64encode(b"\0" * offset + encoded)[4:]
            found |= {inner[place : place + 12] for place in (0, len(inner) - 20)}
    return found


def hits(places: dict[str, bytes], needles: set[bytes]) -> list[str]:
    """Return where which canary was found."""
    return [
        f"{place}: {needle!r} in {content[max(0, content.index(needle) - 80) :][:160]!r}"
        for place, content in places.items()
        for needle in needles
        if needle in content
    ]


def left_behind(folder: Path, *, but: Iterable[str]) -> dict[str, bytes]:
    """Return the content of every file of a folder but those in which the secrets come."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not any(str(path.relative_to(folder)).startswith(name) for name in but)
    }


class Watch:
    """Looks at the command lines of all processes, and at the environment of grandchildren, while one runs."""

    def __init__(self) -> None:
        self.seen: dict[str, bytes] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    line = (process / "cmdline").read_bytes()
                except OSError:
                    continue
                self.seen[f"cmdline of {process.name} {line[:60]!r}"] = line


class House:
    """A folder with pipelines whose settings and variables are the canaries."""

    def __init__(self, zygote: Zygote, folder: Path) -> None:
        self.zygote = zygote
        self.folder = folder
        self.values = canaries()
        self.environment = {f"CANARY_{n}": value for n, value in enumerate(self.values) if n % 2}
        secrets = folder / ".syncblocks" / "secrets"
        secrets.mkdir(parents=True)
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.environment["TMPDIR"] = str(self.temporary)
        for number, value in enumerate(self.values):
            if number % 2 == 0:
                (secrets / f"canary_{number}").write_text(value)
                (secrets / f"canary_{number}").chmod(0o600)
        (folder / "leak.py").write_text(TRANSFORMER)
        (folder / "calls.py").write_text(CALLBACK)

    def reference(self, number: int, rest: str = "") -> str:
        name = f"env_var('CANARY_{number}')" if number % 2 else f"secret('canary_{number}')"
        return "{{ " + name + rest + " }}"

    def pipeline(self, name: str, **document: Any) -> str:
        tables = {
            stream: {"columns": {"id": "int64"}, "records": [{"id": 1}]}
            for stream in ("message", "chained", "padded", "good")
        }
        whole = {
            "pipeline": name,
            "variables": {f"v{n:02}": self.reference(n) for n in range(CANARIES)} | {"pad": 0},
            "source": {"block": "load", "connector": "memory", "config": {"tables": tables}},
            "destination": {"block": "export", "connector": "sqlite", "config": {"path": f"{name}.db"}},
            "streams": [{"stream": "*"}],
            "allow_blocks_to_fail": True,
            "drain_s": 20,
        } | document
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(whole, allow_unicode=True))
        return f"{name}.yaml"

    def call(self, *arguments: str) -> Process:
        process = self.zygote.start(self.folder, arguments, environment=self.environment)
        process.wait(60)
        return process

    def found(self, watch: Watch) -> list[str]:
        places = left_behind(self.folder, but=(".syncblocks/secrets", "leak.py", "calls.py"))
        assert any(name.endswith("store.db") for name in places)
        return hits(places | watch.seen, marks(self.values))


@pytest.fixture
def house(zygote: Zygote, folder: Path) -> House:
    return House(zygote, folder)


def test_the_marks_betray_each_spelling() -> None:
    for value in canaries():
        for word in spell(value):
            assert hits({"text": word.encode()}, marks([value])) != [], word


@pytest.mark.full
def test_secrets_in_what_users_code_raises_and_prints_are_found_nowhere(house: House, injected: Count) -> None:
    transformers = [{"file": "leak.py", "block": "leak"}]
    callbacks = [{"file": "calls.py", "on": ["stream", "pipeline"], "attempts": 1}]
    with Watch() as watch:
        for pad in (0, 13, 29, 41):
            settings = {"transformers": transformers, "callbacks": callbacks if pad in (0, 29) else []}
            path = house.pipeline("users", **settings)
            process = house.call("run", path, "--debug", "--variable", f"pad={pad}")
            assert process.code == 1, process.log()
        house.call("runs", "show", path, "1")
        house.call("callbacks", "history", path)
        house.call("callbacks", "list", path, "--run", "1")
        house.call("runs", "list", path)
    injected(CANARIES * 6)
    shown = b"".join(content for name, content in left_behind(house.folder, but=()).items() if "run-" in name)
    assert shown.count(b"***") > CANARIES
    assert house.found(watch) == []


@pytest.mark.full
def test_secrets_in_urls_and_settings_are_found_nowhere_when_connecting_fails(
    house: House, postgres_url: str, injected: Count
) -> None:
    host = postgres_url.rpartition("@")[2].partition("/")[0]
    password, raw = house.reference(3, " | urlencode"), house.reference(0)
    urls = {
        "refused": f"postgresql://user:{password}@127.0.0.1:1/db",
        "unknown_user": f"postgresql://{house.reference(5, ' | urlencode')}:{password}@{host}/postgres",
        "unknown_database": f"postgresql://postgres:{password}@{host}/{house.reference(7, ' | urlencode')}",
        "odd_option": f"postgresql://postgres:{password}@{host}/postgres?{house.reference(9, ' | urlencode')}=1",
        "no_url": raw,
    }
    calls = [{"file": "calls.py", "on": ["stream", "pipeline"], "attempts": 1}]
    with Watch() as watch:
        # The first run gives the later ones a history. Its callbacks fail.
        assert house.call("run", house.pipeline("settings", callbacks=calls)).code == 3
        for name, url in urls.items():
            for end in ("source", "destination"):
                block = {"block": name, "connector": "postgres", "config": {"url": url}}
                path = house.pipeline("settings", callbacks=calls, **{end: block})
                process = house.call("run", path, "--debug")
                assert process.code in (1, 2), process.log()
            for command in ("plan", "check", "discover", "state"):
                house.call(command, *(["show"] if command == "state" else []), path, "--debug")
        block = {"block": "x", "connector": "sqlite", "config": {"path": f"/nowhere/{raw}/x.db"}}
        house.call("run", house.pipeline("settings", destination=block), "--debug")
        stored = house.pipeline("settings", store=f"postgresql://user:{password}@127.0.0.1:1/db")
        assert house.call("run", stored, "--debug").code != 0
    injected(2 * len(urls))
    assert house.found(watch) == []


@pytest.mark.full
def test_a_secret_in_the_path_of_a_source_is_found_in_no_ledger_no_copy_and_no_message(house: House) -> None:
    place = house.folder / house.values[9]
    place.mkdir()
    (place / "good.csv").write_text("id\n1\n")
    source = {"block": "load", "connector": "csv", "config": {"path": f"{house.reference(9)}/*.csv"}}
    with Watch() as watch:
        incremental = {"stream": "good", "replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
        moved = house.pipeline("moved", source=source, streams=[incremental])
        assert house.call("run", moved, "--debug").code == 0
        assert house.call("state", "set", moved, "good", "id=1").code == 0
        path = house.pipeline("path", source=source)
        assert house.call("run", path, "--debug").code == 0
        for command in (("state", "show"), ("runs", "show"), ("plan",), ("check",), ("discover",)):
            house.call(*command, path, "--debug")
        (place / "good.csv").write_text("id\nnot a number\n")
        house.call("run", path, "--debug")
        (place / "good.csv").unlink()
        house.call("run", path, "--debug")
    assert house.found(watch) == []


@pytest.mark.full
def test_secrets_in_mistakes_of_the_file_are_found_nowhere(house: House, injected: Count) -> None:
    raw = house.reference(4)
    mistakes: list[dict[str, Any]] = [
        {"concurrency": raw},
        {"streams": [{"stream": raw}]},
        {"streams": [{"stream": "*", "write_disposition": raw}]},
        {"pipeline": raw + "\n\0"},
        {"destination": {"block": "x", "connector": raw, "config": {}}},
        {"destination": {"block": "x", "connector": "postgres", "config": {"url": raw, house.reference(6): raw}}},
        {"callbacks": [{"file": raw}]},
        {"callbacks": [{"file": "calls.py", "on": [raw]}]},
        {"callbacks": [{"webhook": {"url": raw}}]},
        {"callbacks": [{"notify": raw}]},
        {"spool_limit": raw},
        {"store": raw},
        {"variables": {"a": "{{ secret('canary_0') | nosuchfilter }}"}},
        {"variables": {"a": "{{ secret('canary_0') + 1 }}"}},
        {"variables": {"a": "{{ (secret('canary_0')).nosuch.attribute }}"}},
        {"variables": {"a": "{{ env_var(secret('canary_0')) }}"}},
        {"variables": {"a": "{{ secret(env_var('CANARY_1')) }}"}},
    ]
    failed = 0
    with Watch() as watch:
        house.call("run", house.pipeline("mistakes"))
        for mistake in mistakes:
            path = house.pipeline("mistakes", **mistake)
            for command in ("run", "check"):
                failed += house.call(command, path, "--debug").code != 0
    assert failed >= 2 * (len(mistakes) - 2)
    injected(failed)
    assert house.found(watch) == []


@pytest.mark.full
def test_secrets_of_hooks_are_found_nowhere_when_they_fail(house: House, injected: Count) -> None:
    word = house.reference(11, " | urlencode")
    hooks: list[dict[str, Any]] = [
        {
            "block": "w",
            "webhook": {"url": f"http://user:{word}@127.0.0.1:1/{word}?x={word}", "secret": house.reference(13)},
        },
        {"block": "n", "notify": f"json://user:{word}@127.0.0.1:1/{word}"},
        {"block": "s", "shell": "env; cat; exit 3"},
        {"block": "p", "shell": ["sh", "-c", 'echo "$0" >&2; exit 4', "plain"]},
        {
            "block": "q",
            "sql": {"statement": "insert into nowhere values (:a)", "parameters": {"a": house.reference(12)}},
        },
    ]
    callbacks = [{**hook, "on": ["stream"], "attempts": 1, "timeout_s": 10} for hook in hooks]
    with Watch() as watch:
        path = house.pipeline("hooks", callbacks=callbacks, streams=[{"stream": "good"}])
        process = house.call("run", path, "--debug")
        assert process.code == 3, process.log() + str(process.result())
        house.call("callbacks", "history", path)
    injected(len(hooks))
    assert house.found(watch) == []


@pytest.mark.full
def test_the_environment_of_children_but_the_callbacks_holds_no_secret_that_came_from_a_file(house: House) -> None:
    (house.folder / "look.py").write_text(
        "import os\nfrom pathlib import Path\n\n@callback\ndef look(**kwargs):\n"
        "    for process in Path('/proc').glob('[0-9]*'):\n"
        "        for name in ('environ', 'cmdline'):\n"
        "            try:\n                content = (process / name).read_bytes()\n"
        "            except OSError:\n                continue\n"
        "            with open(Path(__file__).parent / 'seen', 'ab') as seen:\n"
        "                seen.write(content)\n"
    )
    path = house.pipeline("environment", callbacks=[{"file": "look.py"}], streams=[{"stream": "good"}])
    assert house.call("run", path).code == 0
    seen = {"environ": (house.folder / "seen").read_bytes()}
    assert len(seen["environ"]) > 1000
    assert hits(seen, marks(value for number, value in enumerate(house.values) if number % 2 == 0)) == []
    assert os.environ.get("CANARY_1") is None


@pytest.mark.full
def test_secrets_in_settings_of_streams_are_found_nowhere(house: House, injected: Count) -> None:
    tables = {
        "good": {"columns": {"id": "int64", "name": "string"}, "records": [{"id": n, "name": "~"} for n in (1, 2)]}
    }
    source = {"block": "load", "connector": "memory", "config": {"tables": tables}}
    entry = {
        "stream": "good",
        "where": {"name": {"!=": house.reference(8)}},
        "checks": {"id": {"<=": 1}, "name": {"in": [house.reference(2), house.reference(3), "~"]}},
        "warn_checks": {"name": {"=": house.reference(4)}},
        "on_rejected": "keep",
    }
    check = {"name": {"in": [house.reference(2), house.reference(6)]}}
    failed = 0
    with Watch() as watch:
        for number, change in enumerate(
            ({}, {"checks": check, "max_rejected": 5}, {"checks": check, "on_rejected": "fail"})
        ):
            path = house.pipeline(f"streams{number}", source=source, streams=[entry | change])
            failed += house.call("run", path, "--debug").code or 0
        for command in (("runs", "show"), ("plan",), ("plan", "--json"), ("verify",)):
            house.call(*command, "streams1.yaml", "--debug")
    assert failed == 1
    injected(4)
    assert house.found(watch) == []


@pytest.mark.full
def test_what_files_print_while_they_are_executed_is_masked(house: House, injected: Count) -> None:
    prints = f"import os, pathlib\n{SPELL}\nfolder = pathlib.Path(__file__).parent / '.syncblocks/secrets'\n"
    prints += "for number in range(50):\n    file = folder / f'canary_{number}'\n"
    prints += "    print(*spell(file.read_text() if file.exists() else os.environ[f'CANARY_{number}']))\n"
    files = {
        "marked.py": "@callback\n@transformer\ndef mark(**kwargs):\n    ...\n",
        "clean.py": "@transformer\ndef clean(df):\n    return df\n",
        "own.py": "from syncblocks.connectors.memory.source import MemorySource\n\nclass Own(MemorySource): ...\n",
    }
    for name, text in files.items():
        (house.folder / name).write_text(prints + text.replace("@callback\n@transformer", "@callback"))
    with Watch() as watch:
        path = house.pipeline(
            "prints",
            callbacks=[{"file": "marked.py", "on": ["stream"]}],
            transformers=[{"file": "clean.py", "block": "clean"}],
            streams=[{"stream": "good"}],
            source={"block": "load", "connector": "./own.py:Own", "config": {"tables": GOOD}},
        )
        for command in (
            ("run", path),
            ("discover", path),
            ("callbacks", "test", "marked.py", "--pipeline", path),
            ("callbacks", "test", "marked.py", "--pipeline", path, "--inline"),
        ):
            process = house.call(*command, "--debug")
            assert process.code == 0, (command, process.log())
    injected(CANARIES)
    shown = b"".join(content for name, content in left_behind(house.folder, but=()).items() if "run-" in name)
    assert shown.count(b"***") > CANARIES
    own = ("marked.py", "clean.py", "own.py")
    assert [each for each in house.found(watch) if not each.startswith(own)] == []
