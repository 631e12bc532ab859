"""A tap of a few lines, run as a process: what it says and how it ends stand in its config.

Config:
    catalog: what --discover prints.
    discovery: "hang": it never ends.
    lines: path of a file whose bytes it writes.
    then: "end" (status 0), "fail" (status 3 and a message), "die" (SIGKILL), "hang", "linger" (output closed, goes on).
    source: path of a SQLite file instead of `lines`: its tables `orders` and `users` are read by `stamp`, in order and
        from the STATE on, which it writes every `every` records, and then waits for `pace_s`; `die_at`: a SIGKILL in
        the middle of that record.
    note: path of a file that gets a JSON line with its arguments, environment and files, as it saw them.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
import sys
import time
from pathlib import Path
from typing import Any

HELP = "usage: tap [--config FILE] [--discover] [--catalog FILE] [--properties FILE] [--state FILE]"


def main() -> None:
    arguments = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=False))
    if "--help" in sys.argv:
        tell(HELP, sys.stdout)
        return
    config = json.loads(Path(arguments["--config"]).read_text())
    if "note" in config:
        note(config["note"], arguments)
    tell(f"INFO starting, the password is {config.get('password')}")
    tell('INFO METRIC: {"type": "counter", "metric": "record_count", "value": 1, "tags": {}}')
    if "--discover" in sys.argv:
        if config.get("discovery") == "hang":
            signal.pause()
        tell(json.dumps(config["catalog"]), sys.stdout)
        return
    out = sys.stdout.buffer
    if "source" in config:
        sync(config, arguments, out)
    else:
        out.write(Path(config["lines"]).read_bytes())
    out.flush()
    end(config.get("then", "end"))


def tell(text: str, stream: Any = sys.stderr) -> None:
    stream.write(text + "\n")
    stream.flush()


def end(how: str) -> None:
    if how == "fail":
        tell("CRITICAL the source is gone")
        sys.exit(3)
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "linger":
        os.close(1)
    if how in ("hang", "linger"):
        time.sleep(600)


def note(path: str, arguments: dict[str, str]) -> None:
    files = {
        name: {"mode": stat.S_IMODE(Path(file).stat().st_mode), "value": json.loads(Path(file).read_text())}
        for name, file in arguments.items()
        if name in ("--config", "--catalog", "--properties", "--state")
    }
    seen = {
        "argv": sys.argv[1:],
        "environ": dict(os.environ),
        "files": files,
        "cwd": str(Path.cwd()),
        "pid": os.getpid(),
    }
    with Path(path).open("a") as file:
        file.write(json.dumps(seen) + "\n")


def sync(config: dict[str, Any], arguments: dict[str, str], out: Any) -> None:
    state = json.loads(Path(arguments["--state"]).read_text()) if "--state" in arguments else {}
    bookmarks = state.setdefault("bookmarks", {})
    catalog = json.loads(Path(arguments["--catalog"]).read_text())
    chosen = [entry for entry in catalog["streams"] if entry["selected"]]
    connection = sqlite3.connect(config["source"])
    tables = [
        iter(
            connection.execute(
                f"select id, stamp, note from {entry['stream']} where stamp >= ? order by stamp, id",
                (bookmarks.get(entry["stream"], {}).get("stamp", ""),),
            ).fetchall()
        )
        for entry in chosen
    ]
    for entry in chosen:
        say(out, {"type": "SCHEMA", "stream": entry["stream"], "schema": entry["schema"], "key_properties": ["id"]})
    written = 0
    while tables:
        for entry, rows in list(zip(chosen, tables, strict=True)):
            for _ in range(config.get("run", 1)):
                row = next(rows, None)
                if row is None:
                    chosen.remove(entry)
                    tables.remove(rows)
                    break
                record = dict(zip(("id", "stamp", "note"), row, strict=True))
                line = json.dumps({"type": "RECORD", "stream": entry["stream"], "record": record})
                written += 1
                if written == config.get("die_at"):
                    out.write(line[: len(line) // 2].encode())
                    out.flush()
                    time.sleep(config.get("pause_s", 0))
                    os.kill(os.getpid(), signal.SIGKILL)
                out.write(line.encode() + b"\n")
                bookmarks[entry["stream"]] = {"stamp": row[1]}
                if written % config["every"] == 0:
                    say(out, {"type": "STATE", "value": state})
                    out.flush()
                    time.sleep(config.get("pace_s", 0))
    say(out, {"type": "STATE", "value": state})


def say(out: Any, message: dict[str, Any]) -> None:
    out.write(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
