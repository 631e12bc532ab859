"""One import name, however the package comes: as a wheel, out of an sdist, out of a zip of the repository, editable."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

#: A user's folder whose own files have the names of our three folders.
OWN = {
    "callbacks/__init__.py": "raise RuntimeError('the user\\'s own package')\n",
    "connectors/__init__.py": "raise RuntimeError('the user\\'s own package')\n",
    "sync.py": "raise RuntimeError('the user\\'s own module')\n",
    "callbacks.py": "raise RuntimeError('the user\\'s own module')\n",
    "alerts.py": """
from pathlib import Path

@callback
def told(stream, **kwargs):
    Path(__file__).with_name("told.txt").write_text(stream)
""",
    "orders.csv": "id\n1\n2\n",
    "pipeline.yaml": """
source: {connector: csv, config: {path: orders.csv}}
destination: {connector: jsonl, config: {path: out}}
streams: [{stream: orders}]
callbacks: [{block: alerts, file: alerts.py}]
""",
    "run.py": """
from syncblocks import run_pipeline, SyncError
import syncblocks
from syncblocks.sync.errors import SyncError as same

assert SyncError is same
result = run_pipeline("pipeline.yaml")
print(result.status, syncblocks.__file__)
""",
}


def python(*arguments: str, folder: Path, packages: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONPATH"] = os.pathsep.join([*([str(packages)] if packages else []), "."])
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=100
    )


def build(source: Path, kind: str, out: Path) -> Path:
    done = python("-P", "-m", "hatchling", "build", "-t", kind, "-d", str(out), folder=source)
    assert done.returncode == 0, done.stderr
    (built,) = out.iterdir()
    return built


def modules(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A wheel of this folder, and one of its sdist."""
    folder = tmp_path_factory.mktemp("wheels")
    sdist = build(REPOSITORY, "sdist", folder / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return {
        "clone": build(REPOSITORY, "wheel", folder / "clone"),
        "sdist": build(unpacked, "wheel", folder / "from-sdist"),
    }


def test_each_wheel_holds_the_same_files(wheels: dict[str, Path]) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    expected = {
        f"syncblocks/{name}"
        for name in tracked.splitlines()
        if name.startswith(("sync/", "connectors/", "callbacks/")) and (REPOSITORY / name).exists()
    } | {"syncblocks/__init__.py", "syncblocks/__main__.py", "syncblocks/py.typed", "syncblocks/user_files.py"}
    assert modules(wheels["clone"]) == expected
    assert modules(wheels["sdist"]) == expected


@pytest.mark.full
def test_a_zip_of_the_repository_builds_the_same_wheel(wheels: dict[str, Path], tmp_path: Path) -> None:
    archive = tmp_path / "source.zip"
    git = ["git", "-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    stash = subprocess.run([*git, "stash", "create"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    tree = stash.stdout.strip() or "HEAD"  # with what is not committed yet
    subprocess.run([*git, "archive", "-o", archive, "--prefix=source/", tree], cwd=REPOSITORY, check=True)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path)  # makes a file of each link, as a checkout on Windows does
    built = build(tmp_path / "source", "wheel", tmp_path / "wheel")
    assert modules(built) == modules(wheels["clone"])


@pytest.mark.full
@pytest.mark.parametrize("kind", ["clone", "sdist", "editable"])
def test_a_folder_with_the_users_own_modules_of_our_names_works(
    kind: str, wheels: dict[str, Path], tmp_path: Path
) -> None:
    for name, text in OWN.items():
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    packages = None
    if kind != "editable":
        packages = tmp_path / "packages"
        with zipfile.ZipFile(wheels[kind]) as wheel:
            wheel.extractall(packages)
    done = python("run.py", folder=tmp_path / "project", packages=packages)
    assert done.returncode == 0, done.stderr
    status, where = done.stdout.split()
    assert status == "success"
    assert Path(where).is_relative_to(packages or REPOSITORY)
    assert (tmp_path / "project" / "told.txt").read_text() == "orders"
