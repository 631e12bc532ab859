"""Targets of several manners, as programs: what real ones do well and badly, in a few lines each."""

from __future__ import annotations

import sys
from pathlib import Path

PROGRAM = """#!{python}
import json, os, signal, stat, sys, time
config = json.load(open(sys.argv[sys.argv.index("--config") + 1])) if "--config" in sys.argv else {{}}
if "--help" in sys.argv:
    print("usage: a target")
    sys.exit(0)
manner, out = config.get("manner", ""), config["out"]
mode = stat.S_IMODE(os.stat(sys.argv[sys.argv.index("--config") + 1]).st_mode)
kept = open(out, "a")
print(json.dumps({{"config": sys.argv[2], "mode": mode}}), file=open(out + ".config", "w"), flush=True)
count, last = 0, None
for line in sys.stdin:
    message = json.loads(line)
    kept.write(line)
    kept.flush()
    if message["type"] == "RECORD":
        count += 1
        if manner == "dies" and count == config["after"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if manner == "fails" and count == config["after"]:
            print("CRITICAL cannot log in with " + config["password"], file=sys.stderr)
            sys.exit(3)
        if manner == "stops" and count == config["after"]:
            sys.exit(0)
        if manner == "hangs" and count == config["after"]:
            time.sleep(600)
    if message["type"] == "STATE":
        last = message["value"]
        if manner == "wraps":
            print(json.dumps({{"type": "STATE", "value": last}}), flush=True)
        elif manner not in ("silent", "last", "broken"):
            print(json.dumps(last), flush=True)
    if manner == "talks":
        print("written so far: %d" % count, flush=True)
open(out + ".ended", "w").close()
if manner == "last":
    print(json.dumps(last), flush=True)
if manner == "broken":
    print("Traceback (most recent call last):\\n  ...\\nOSError: disk full", file=sys.stderr)
"""


def make_target(folder: Path) -> Path:
    """Write the program and return its path."""
    path = folder / "target-of-tests"
    path.write_text(PROGRAM.format(python=sys.executable))
    path.chmod(0o755)
    return path
