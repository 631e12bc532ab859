"""`pip install` of wheel and sdist into an empty environment of each Python that this machine has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from .stage import LIMIT_S, Act, Failed, Stage, write_csv

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")


def pythons() -> dict[str, str | None]:
    """Return each Python from 3.11 on, and its program; None: this machine has none."""
    found = {version: shutil.which(f"python{version}") for version in VERSIONS}
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {**found, own: found.get(own) or sys.executable}


def install_case(python: str, kind: str) -> Act:
    """Return the case of one Python and `wheel` or `sdist`."""

    def run(stage: Stage) -> str:
        out = stage.folder / "dist"
        _call([sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)], ROOT)
        (built,) = out.iterdir()
        _call([python, "-m", "venv", str(stage.folder / "env")], stage.folder)
        bin_folder = stage.folder / "env" / "bin"
        _call([str(bin_folder / "python"), "-m", "pip", "install", "-q", str(built)], stage.folder)
        write_csv(stage.folder / "data" / "items.csv")
        _call([str(bin_folder / "syncblocks"), "sync", "data/items.csv", "out.db", "--yes"], stage.folder)
        _call([str(bin_folder / "syncblocks"), "sync", "out.db", "back.csv", "--yes"], stage.folder)
        lines = (stage.folder / "back.csv").read_text(encoding="utf-8").splitlines()
        stage.check([line.partition(",")[0] for line in lines], ["id", "1", "2", "3"], "ids")
        return f"{built.name} installed; CSV to SQLite and back"

    return run


def _call(command: list[str], folder: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(command[:4])}: {(done.stderr or done.stdout)[-500:]}")
