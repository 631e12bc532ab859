"""One virtual environment for each plugin: made once, kept, and made anew for another requirement."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import ConnectorConfigError, RetriableError

log = logging.getLogger("syncblocks")

#: Folder of all plugins; default: `.syncblocks/plugins` beside the pipeline file.
FOLDER_VARIABLE = "SYNCBLOCKS_PLUGINS"

_PROGRESS_S = 10.0
_READY = "ready.json"
_TAIL_LINES = 15


def plugins_folder(folder: Path) -> Path:
    """Return the folder of the plugins of a pipeline file's folder."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else folder / ".syncblocks" / "plugins"


def program_name(pip: str) -> str:
    """Return the probable program of a requirement: its name without version and vendor."""
    requirements = [part for part in shlex.split(pip) if not part.startswith("-")]
    first = re.split(r"[\[<>=!~;@ ]", requirements[0].strip())[0] if requirements else ""
    name = first.rstrip("/").rpartition("/")[2].removesuffix(".git").lower().replace("_", "-")
    place = re.search(r"(?:^|-)((?:tap|target)-.+)$", name)
    return place[1] if place else name


def installed(pip: str, *, program: str, python: str, folder: Path, timeout_s: float) -> Path:
    """Return the plugin's program; install the plugin if it is missing.

    Args:
        pip: the requirement, as on the command line of pip.
        program: name of the program.
        python: Python of the environment; "": the present one.
        folder: the pipeline file's folder.
        timeout_s: limit of the installation.

    Raises:
        ConnectorConfigError: the plugin cannot be installed, or has no such program.
        RetriableError: the installation takes too long.
    """
    requirements = shlex.split(pip)
    if not requirements:
        raise ConnectorConfigError("config of connector 'singer': `pip` is empty", connector="singer", key="pip")
    maker = python or sys.executable
    digest = hashlib.sha256(json.dumps([requirements, maker, sys.version_info[:2]]).encode()).hexdigest()[:12]
    home = plugins_folder(folder) / f"{re.sub(r'[^A-Za-z0-9._-]', '_', program)}-{digest}"
    if not _is_ready(home, requirements):
        with _locked(home, program):
            if not _is_ready(home, requirements):  # another process may have installed it meanwhile
                _build(home, requirements, maker, folder, timeout_s)
    path = home / "bin" / program
    if not path.exists():
        known = sorted(each.name for each in (home / "bin").glob("ta*-*"))
        raise ConnectorConfigError(
            f"{pip!r} brings no program {program!r}; it has {', '.join(known) or 'none that looks like a plugin'}",
            connector="singer",
            key="tap",
        )
    return path


def _is_ready(home: Path, requirements: Sequence[str]) -> bool:
    try:
        found = json.loads((home / _READY).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return (
        isinstance(found, dict) and found.get("requirements") == list(requirements) and (home / "bin/python").exists()
    )


@contextmanager
def _locked(home: Path, program: str) -> Iterator[None]:
    home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(home.with_name(f"{home.name}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            log.info("%s: waiting for another process that installs it", program)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _build(home: Path, requirements: Sequence[str], python: str, folder: Path, timeout_s: float) -> None:
    started = time.monotonic()
    shown = " ".join(_shown(part) for part in requirements)
    log.info("installing %s into %s", shown, home)
    uv = shutil.which("uv")
    ways = [
        [[uv, "venv", "--quiet", "--seed", "--python", python, str(home)],
         [uv, "pip", "install", "--python", str(home / "bin/python"), *requirements]],
    ] if uv else []  # fmt: skip
    ways.append(
        [
            [python, "-m", "venv", str(home)],
            [str(home / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check", *requirements],
        ]
    )
    for number, way in enumerate(ways, 1):
        shutil.rmtree(home, ignore_errors=True)
        failure = next(filter(None, (_run(step, shown, folder, started, timeout_s) for step in way)), None)
        if failure is None:
            break
        if number == len(ways):
            shutil.rmtree(home, ignore_errors=True)
            raise ConnectorConfigError(f"{shown} cannot be installed:\n{failure}", connector="singer", key="pip")
        log.info("uv could not install %s, trying pip:\n%s", shown, failure)
    (home / _READY).write_text(json.dumps({"requirements": list(requirements), "python": python}), "utf-8")
    log.info("installed %s in %.0f s", shown, time.monotonic() - started)


def _run(command: Sequence[str | None], shown: str, folder: Path, started: float, timeout_s: float) -> str | None:
    """Run one step; return its last lines if the step fails."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    try:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=env,
            text=True,
            errors="replace",
        )
    except OSError as error:
        return f"{command[0]}: {error}"
    lines: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=_collect, args=(process.stdout, lines), daemon=True)
    reader.start()
    told = time.monotonic()
    try:
        while reader.is_alive():
            reader.join(timeout=0.5)
            now = time.monotonic()
            if now - started > timeout_s:
                raise RetriableError(f"installing {shown} takes longer than {timeout_s:g} s", connector="singer")
            if now - told >= _PROGRESS_S:
                told = now
                log.info("still installing %s (%.0f s): %s", shown, now - started, lines[-1] if lines else "")
        return None if process.wait() == 0 else "\n".join(lines[-_TAIL_LINES:])
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        reader.join(timeout=1)
        process.stdout.close()


def _collect(stream: Iterator[str], lines: list[str]) -> None:
    for line in stream:
        if line.strip():
            lines.append(line.rstrip())


def _shown(requirement: str) -> str:
    """Return a requirement without the credentials of its URL."""
    return re.sub(r"(?<=://)[^/@\s]+@", "***@", requirement)
