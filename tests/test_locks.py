"""What CI installs: each version and the hashes of its files stand in the locks, and pyproject.toml allows them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def _locked(name: str) -> dict[str, list[str]]:
    """Return the versions of each package in a lock: several where they differ by Python."""
    found: dict[str, list[str]] = {}
    text = (ROOT / ".ci" / name).read_text()
    for entry in re.sub(r" *#.*", "", text).replace("\\\n", " ").splitlines():
        if entry.strip():
            requirement = Requirement(_HASH.sub("", entry))
            assert _HASH.search(entry), f"{entry} has no hash"
            (exact,) = requirement.specifier
            assert exact.operator == "=="
            found.setdefault(canonicalize_name(requirement.name), []).append(exact.version)
    return found


def _declared(*groups: str) -> Iterator[Requirement]:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = document["project"]["optional-dependencies"]
    texts = [text for group in groups for text in document["dependency-groups"][group]]
    if "dev" in groups:
        texts += document["project"]["dependencies"]
        (everything,) = map(Requirement, extras["all"])
        texts += [text for extra in everything.extras for text in extras[extra]]
    yield from map(Requirement, texts)


@pytest.mark.parametrize(("lock", "groups"), [("build.lock", ["build"]), ("environment.lock", ["dev", "docs"])])
def test_a_lock_has_an_allowed_version_of_each_dependency(lock: str, groups: list[str]) -> None:
    locked = _locked(lock)
    for requirement in _declared(*groups):
        versions = locked.get(canonicalize_name(requirement.name), [])
        assert versions, f"{requirement} is not in {lock}: make lock"
        for version in versions:
            assert requirement.specifier.contains(Version(version), prereleases=True), f"{lock}: make lock"


def test_the_locks_agree_and_name_no_place_to_download_from() -> None:
    build, environment = _locked("build.lock"), _locked("environment.lock")
    assert {name: environment[name] for name in build.keys() & environment.keys()} == {
        name: build[name] for name in build.keys() & environment.keys()
    }
    for name in ("build.lock", "environment.lock"):
        text = (ROOT / ".ci" / name).read_text()
        assert not re.search(r"://|^-", text, re.MULTILINE)


def test_ci_installs_from_the_locks() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert script.index("make locked\n") < script.index("make lint\n")
    rules = (ROOT / "Makefile").read_text()
    assert all(f"--require-hashes {flags}" in rules for flags in ("--only-binary :all: -r", "--no-build-isolation -r"))
