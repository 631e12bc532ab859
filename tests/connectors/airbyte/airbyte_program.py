"""A connector of a few lines that speaks Airbyte's protocol, run as a process: its config says what it does.

Config:
    spec: its connectionSpecification; default: all is allowed.
    streams: the streams of its catalog.
    check: message of a failed check; missing: it succeeds.
    lines: what it writes: messages, or texts as they are.
    source: path of a SQLite file: its tables are read by `stamp`, in order and from the state on; a STATE comes every
        `every` records, `die_at`: a SIGKILL at that record of all.
    folder: a folder of streams: `NAME.stream` is in the catalog, and `NAME.jsonl` has its records.
    control: what a CONTROL message of each start changes in the config; `rotate`: keys whose values get an ending.
    then: "end" (status 0), "fail" (status 1 and a message), "die", "hang", "fork" (a child that goes on, and hangs),
        "flood" (megabytes on stderr).
    note: path of a file that gets a JSON line with its arguments, environment and files, as it saw them.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

DEFAULTS: dict[str, Any] = {"streams": [], "lines": []}


def main() -> None:
    verb = sys.argv[1]
    arguments = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=False))
    if verb == "spec":
        beside = Path(sys.argv[0]).with_suffix(".spec")
        spec = json.loads(beside.read_text()) if beside.exists() else {"type": "object"}
        say({"type": "SPEC", "spec": {"connectionSpecification": spec}})
        return
    config = {**DEFAULTS, **json.loads(Path(arguments["--config"]).read_text())}
    if "note" in config:
        note(config["note"], verb, arguments)
    tell(f"INFO starting, the password is {config.get('password')}")
    say({"type": "LOG", "log": {"level": "INFO", "message": f"logged in with {config.get('password')}"}})
    if "control" in config or "rotate" in config:
        changed = {**config, **config.get("control", {}), "__injected_declarative_manifest": {"version": "1"}}
        changed |= {key: f"{config[key]}-rotated" for key in config.get("rotate", ())}
        say({"type": "CONTROL", "control": {"type": "CONNECTOR_CONFIG", "connectorConfig": {"config": changed}}})
    if verb == "check":
        failed = config.get("check")
        status = {"status": "FAILED", "message": failed} if failed else {"status": "SUCCEEDED"}
        say({"type": "CONNECTION_STATUS", "connectionStatus": status})
    elif verb == "discover":
        if "folder" in config:
            config["streams"] = [
                json.loads(path.read_text()) for path in sorted(Path(config["folder"]).glob("*.stream"))
            ]
        say({"type": "CATALOG", "catalog": {"streams": config["streams"]}})
    else:
        if "source" in config:
            sync(config, arguments)
        if "folder" in config:
            pass_on(Path(config["folder"]), arguments)
        for line in config["lines"]:
            sys.stdout.write(f"{line if isinstance(line, str) else json.dumps(line)}\n")
        sys.stdout.flush()
        end(config.get("then", "end"))


def say(message: Any) -> None:
    sys.stdout.write(f"{json.dumps(message)}\n")


def tell(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def end(how: str) -> None:
    if how == "fail":
        tell("ERROR the source is gone")
        sys.exit(1)
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "fork":
        subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    if how == "flood":
        for _ in range(5_000):
            sys.stderr.write("the password is tell-nobody, " * 10 + "\n")
    if how in ("hang", "fork"):
        signal.pause()


def note(path: str, verb: str, arguments: dict[str, str]) -> None:
    """Write down what this process was given."""
    files = {name.removeprefix("--"): Path(value) for name, value in arguments.items()}
    modes = [stat.S_IMODE(each.stat().st_mode) for path in files.values() for each in (path, path.parent)]
    seen = {
        "verb": verb,
        "argv": sys.argv,
        "env": dict(os.environ),
        "modes": modes,
        "files": {name: path.read_text() for name, path in files.items()},
    }
    with Path(path).open("a") as file:
        file.write(json.dumps(seen) + "\n")


def sync(config: dict[str, Any], arguments: dict[str, str]) -> None:
    """Read the tables in order of `stamp`, interleaved, from the states on."""
    catalog = json.loads(Path(arguments["--catalog"]).read_text())["streams"]
    held = json.loads(Path(arguments["--state"]).read_text()) if "--state" in arguments else []
    states = {each["stream"]["stream_descriptor"]["name"]: each["stream"]["stream_state"] for each in held}
    connection = sqlite3.connect(f"file:{config['source']}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    readers = []
    for each in catalog:
        name = each["stream"]["name"]
        say(status(name, "STARTED"))
        since = states.get(name, {}).get("stamp", "") if each["sync_mode"] == "incremental" else ""
        rows = connection.execute(f'SELECT * FROM "{name}" WHERE stamp >= ? ORDER BY stamp, id', (since,))
        readers.append((name, rows))
    counts = {name: 0 for name, _ in readers}
    total, last = 0, {name: states.get(name, {}).get("stamp", "") for name, _ in readers}
    while readers:
        for name, rows in list(readers):
            row = rows.fetchone()
            if row is None:
                readers.remove((name, rows))
                say(status(name, "COMPLETE"))
                say(state(name, {"stamp": last[name]}, counts[name]))
                continue
            say(record(name, **dict(row)))
            counts[name] += 1
            total += 1
            last[name] = row["stamp"]
            if total == config.get("die_at"):
                sys.stdout.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            if counts[name] == config.get("every", 100):
                say(state(name, {"stamp": last[name]}, counts[name]))
                counts[name] = 0


def pass_on(folder: Path, arguments: dict[str, str]) -> None:
    """Write the lines of files as records."""
    for each in json.loads(Path(arguments["--catalog"]).read_text())["streams"]:
        name = each["stream"]["name"]
        with (folder / f"{name}.jsonl").open(encoding="utf-8") as file:
            for line in file:
                sys.stdout.write(f'{{"type":"RECORD","record":{{"stream":"{name}","data":{line.rstrip()}}}}}\n')
        say(status(name, "COMPLETE"))


def record(stream: str, /, **data: Any) -> dict[str, Any]:
    return {"type": "RECORD", "record": {"stream": stream, "data": data, "emitted_at": 1_700_000_000_000}}


def state(stream: str, value: Any, count: float | None = None) -> dict[str, Any]:
    held = {"stream_descriptor": {"name": stream}, "stream_state": value}
    stats = {} if count is None else {"sourceStats": {"recordCount": float(count)}}
    return {"type": "STATE", "state": {"type": "STREAM", "stream": held, **stats}}


def status(stream: str, word: str) -> dict[str, Any]:
    held = {"stream_descriptor": {"name": stream}, "status": word}
    return {"type": "TRACE", "trace": {"type": "STREAM_STATUS", "emitted_at": 1.0, "stream_status": held}}


def error(message: str, stream: str | None = None, **more: Any) -> dict[str, Any]:
    held = {"message": message, **({"stream_descriptor": {"name": stream}} if stream else {}), **more}
    return {"type": "TRACE", "trace": {"type": "ERROR", "emitted_at": 1.0, "error": held}}


if __name__ == "__main__":
    main()
