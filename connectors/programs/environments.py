"""One virtual environment for each plugin: made once, kept, and made anew for another requirement."""

from __future__ import annotations

import base64
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
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import IO
from urllib.parse import unquote

from ..errors import ConnectorConfigError, RetriableError
from ..local_files import make_private_folder
from ..struct_helpers import Guarded
from .process import environment, way_out

log = logging.getLogger("syncblocks")

#: Folder of all plugins; default: `.syncblocks/plugins` beside the pipeline file.
FOLDER_VARIABLE = "SYNCBLOCKS_PLUGINS"

_AT = re.compile(r"(?<=[\w\]])\s+@\s*(?=\S)|(?<=[\w\]])@\s+(?=\S)")
_CREDENTIALS = re.compile(r"://[^/@\s]+@")
#: Options of pip, with a URL, that a requirements file may hold too.
_TAKES_URL = ("-i", "--index-url", "--extra-index-url", "-f", "--find-links", "-e", "--editable")
#: Options of pip whose file decides what is installed.
_NAMES_FILE = ("-r", "--requirement", "-c", "--constraint")
#: A login over HTTP of a repository, which pip would give git as an argument.
_GIT_LOGIN = re.compile(r"(git\+https?://)([^/@\s]+)@([^/\s]+)")
#: Beginnings of the names of programs that look like plugins.
_PLUGINS = ("tap-", "target-", "source-")
_PROGRESS_S = 10.0
_READY = "ready.json"
_TAIL_LINES = 15
#: A compiler's error stands far above the end of pip's output.
_ERROR = re.compile(r"\berror:|^\s*\w*Error:")
_ERRORS_SHOWN = 5
#: pip's and uv's words of a package that is not for this Python.
_NEEDS_PYTHON = re.compile(
    r"Requires-Python ([<>=!~0-9., *]+)"
    r"|requires a different Python: \S+ not in '([^']+)'"
    r"|does not satisfy Python([<>=!~0-9., *]+)",
)


def plugins_folder(folder: Path) -> Path:
    """Return the folder of the plugins of a pipeline file's folder."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else folder / ".syncblocks" / "plugins"


def package_name(pip: str) -> str:
    """Return the name of a requirement's first package, without version."""
    requirements = [part for part in shlex.split(pip) if not part.startswith("-")]
    first = re.split(r"[\[<>=!~;@ ]", _CREDENTIALS.sub("://", requirements[0].strip()))[0] if requirements else ""
    return first.rstrip("/").rpartition("/")[2].removesuffix(".git").lower().replace("_", "-")


def installed(
    pip: str,
    *,
    program: str,
    python: str,
    folder: Path,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    connector: str = "singer",
    key: str = "pip",
) -> Path:
    """Return the plugin's program; install the plugin if it is missing.

    Args:
        pip: the requirement, as on the command line of pip.
        program: name of the program.
        python: Python of the environment; "": the present one.
        folder: the pipeline file's folder.
        timeout_s: limit of the installation.
        env: the plugin's own variables. Of the engine's it gets those that plugins get, and those of pip and uv.
        connector: which connector it is for, and `key` the setting with the requirement: for errors.

    Raises:
        ConnectorConfigError: the plugin cannot be installed, or has no such program.
        RetriableError: the installation takes too long.
    """
    requirements = Requirements.of(pip, connector, key)
    maker = python or sys.executable
    digest = requirements.digest(maker, folder)
    home = plugins_folder(folder) / f"{re.sub(r'[^A-Za-z0-9._-]', '_', program)}-{digest[:12]}"
    if not _is_ready(home, digest):
        with _locked(home, program):
            if not _is_ready(home, digest):  # another process may have installed it meanwhile
                _build(home, requirements, maker, folder, timeout_s, env or {}, connector, key)
                (home / _READY).write_text(json.dumps({"digest": digest, "python": maker}), "utf-8")
    path = home / "bin" / program
    if not path.exists():
        known = ", ".join(sorted(each.name for each in (home / "bin").iterdir() if each.name.startswith(_PLUGINS)))
        raise ConnectorConfigError(
            f"{requirements} brings no program {program!r}; it has {known or 'none that looks like a plugin'}",
            connector=connector,
            key="tap" if key == "pip" else key,
        )
    return path


class Requirements(Guarded, frozen=True):
    """What to install: `arguments` of pip, `lines` of a requirements file, and variables for `git`.

    The arguments of a process can be read by every user of the machine: what may hold a token goes into the file.
    Hashes are allowed there only. pip would hand a repository's URL on to git as an argument: its login goes into
    variables.
    """

    _hidden = ("lines", "git")

    arguments: tuple[str, ...]
    lines: tuple[str, ...]
    git: Mapping[str, str] = {}

    @classmethod
    def of(cls, pip: str, connector: str = "singer", key: str = "pip") -> Requirements:
        """Read a setting such as `pip`; raise if it is empty."""
        # `name @ url` is one requirement, whatever blanks are in it.
        parts = [part.replace("\0", " ") for part in shlex.split(_AT.sub("\0@\0", pip))]
        if not parts:
            raise ConnectorConfigError(
                f"config of connector {connector!r}: `{key}` is empty", connector=connector, key=key
            )
        arguments: list[str] = []
        lines: list[str] = []
        for before, part in pairwise(["", *parts]):
            if part.startswith("--hash=") and before:
                if arguments and arguments[-1] == before:
                    lines.append(arguments.pop())
                lines[-1] += f" {part}"
            elif _CREDENTIALS.search(part):
                lines.append(f"{arguments.pop()} {part}" if before in _TAKES_URL else part)
            else:
                arguments.append(part)
        if any(" --hash=" in line for line in lines):
            arguments.append("--require-hashes")
        git = _git_logins(lines)
        return cls(tuple(arguments), tuple(_GIT_LOGIN.sub(r"\1\3", line) for line in lines), git)

    def digest(self, python: str, folder: Path) -> str:
        """Return a digest of all that decides what is installed, the content of named files included."""
        made = hashlib.sha256(
            json.dumps([self.arguments, self.lines, *filter(None, [self.git]), python, sys.version_info[:2]]).encode()
        )
        for option, value in pairwise(self.arguments):
            if option in _NAMES_FILE:
                with suppress(OSError):
                    made.update((folder / value).read_bytes())
        return made.hexdigest()

    def __str__(self) -> str:
        return shown(" ".join((*self.arguments, *self.lines)))


def _git_logins(lines: Sequence[str]) -> dict[str, str]:
    """Return the variables that make git log in where a URL of these lines does."""
    found = {}
    for scheme, login, host in (match.groups() for line in lines for match in _GIT_LOGIN.finditer(line)):
        user, _, password = login.partition(":")
        basic = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
        found[f"http.{scheme.removeprefix('git+')}{host}/.extraHeader"] = f"Authorization: Basic {basic}"
    variables = {"GIT_CONFIG_COUNT": str(len(found))} if found else {}
    for number, (key, value) in enumerate(found.items()):
        variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return variables


def _is_ready(home: Path, digest: str) -> bool:
    try:
        found = json.loads((home / _READY).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("digest") == digest and (home / "bin/python").exists()


@contextmanager
def _locked(home: Path, program: str) -> Iterator[None]:
    make_private_folder(home.parent)
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


def _build(
    home: Path,
    requirements: Requirements,
    python: str,
    folder: Path,
    timeout_s: float,
    env: Mapping[str, str],
    connector: str,
    key: str,
) -> None:
    started = time.monotonic()
    log.info("installing %s into %s", requirements, home)
    uv = shutil.which("uv")
    inner = str(home / "bin/python")
    # Of a process that was killed under an earlier version.
    home.with_name(f"{home.name}.requirements.txt").unlink(missing_ok=True)
    with _input_of(requirements.lines) as lines:
        wanted = [*requirements.arguments, *(["-r", "/dev/stdin"] if requirements.lines else [])]
        # -I: nothing is imported from the pipeline file's folder.
        ways = [
            [[uv, "venv", "--quiet", "--seed", "--python", python, str(home)],
             [uv, "pip", "install", "--python", inner, *wanted]],
        ] if uv else []  # fmt: skip
        ways.append(
            [
                [python, "-I", "-m", "venv", str(home)],
                [inner, "-I", "-m", "pip", "install", "--disable-pip-version-check", *wanted],
            ]
        )
        for number, way in enumerate(ways, 1):
            shutil.rmtree(home, ignore_errors=True)
            steps = (_run(step, requirements, lines, folder, started, timeout_s, env) for step in way)
            failure = next(filter(None, steps), None)
            if failure is None:
                break
            if number == len(ways):
                shutil.rmtree(home, ignore_errors=True)
                raise ConnectorConfigError(
                    f"{requirements} cannot be installed:\n{failure}", connector=connector, key=key
                )
            log.info("uv could not install %s, trying pip:\n%s", requirements, failure)
    log.info("installed %s in %.0f s", requirements, time.monotonic() - started)


@contextmanager
def _input_of(lines: Sequence[str]) -> Iterator[IO[bytes]]:
    """Give a file of requirements without a name, to be read as standard input: nothing of it can be left behind."""
    with tempfile.TemporaryFile() as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
        file.flush()
        yield file


def _environment(env: Mapping[str, str], program: str) -> dict[str, str]:
    """Return the variables of a plugin, and those of pip and uv: the code of packages runs when they are built."""
    own = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_"))}
    return environment({**own, **env}, program)


def _run(
    command: Sequence[str | None],
    requirements: Requirements,
    lines_in: IO[bytes],
    folder: Path,
    started: float,
    timeout_s: float,
    env: Mapping[str, str],
) -> str | None:
    """Run one step; return its last lines if the step fails."""
    lines_in.seek(0)
    try:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=lines_in,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**_environment(env, str(command[0])), **requirements.git},
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
                raise RetriableError(f"installing {requirements} takes longer than {timeout_s:g} s")
            if now - told >= _PROGRESS_S:
                told = now
                # Shown without `--debug`: an environment of the CDK takes minutes.
                log.warning("still installing %s (%.0f s): %s", requirements, now - started, lines[-1] if lines else "")
        return None if process.wait() == 0 else _telling(lines)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        reader.join(timeout=1)
        process.stdout.close()


def _telling(lines: Sequence[str]) -> str:
    """Return the first errors of an installation, and its last lines."""
    errors = [line for line in lines[:-_TAIL_LINES] if _ERROR.search(line)][:_ERRORS_SHOWN]
    text = "\n".join([*errors, *(["..."] if errors else []), *lines[-_TAIL_LINES:]])
    whole = "\n".join(lines)
    return "; ".join(filter(None, (text, way_out(whole), _other_python(whole))))


def _other_python(text: str) -> str:
    """Return which Python a package needs, where this one is the reason why it cannot be installed."""
    found = _NEEDS_PYTHON.search(text)
    if found is None:
        return ""
    needed = next(filter(None, found.groups())).strip().rstrip(",")
    return f"Python {needed} is needed: name one by `python`, such as `python: python3.11`"


def _collect(stream: Iterator[str], lines: list[str]) -> None:
    for line in stream:
        if line.strip():
            lines.append(shown(line.rstrip()))


def shown(text: str) -> str:
    """Return a text without the credentials of its URLs."""
    return _CREDENTIALS.sub("://***@", text)
