"""The tutorial's connector passes the contract, run as it stands on the page; the table of capabilities is complete."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from syncblocks.connectors.capabilities import protocol_of
from syncblocks.connectors.protocols import Capability
from tests.contracts.test_capabilities import CAPABILITIES
from tests.docs import ROOT, examples, section, tables


def files_of_the_tutorial() -> dict[str, str]:
    """Return each file: a block belongs to the file that the last first line named, or that imports as it does."""
    shown = [each.text for each in examples("py", page="docs/write-a-connector.md")]
    files = {"feather.py": "", "test_feather.py": ""}
    for text in shown:
        is_test = text.startswith("# test_feather.py") or re.search(r"^class (Test|In)", text, re.MULTILINE)
        files["test_feather.py" if is_test else "feather.py"] += text + "\n\n"
    return files


@pytest.mark.full
def test_the_tutorials_connector_passes_the_contract(tmp_path: Path) -> None:
    for name, text in files_of_the_tutorial().items():
        (tmp_path / name).write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_feather.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 150


def test_the_table_of_capabilities_names_each_with_its_protocol() -> None:
    (found,) = tables(section("docs/connectors.md", "Optional capabilities"))
    assert list(found) == list(CAPABILITIES)
    for name, cells in found.items():
        listed = [f"`Capability.{each.name}`" for each in Capability if each == name]
        assert cells[0] == (listed[0] if listed else f"`{protocol_of(name).__name__}`")
        assert cells[1] in ("source", "destination", "both")
        assert all(cells[2:]), "what it brings, and what happens without it"


def test_the_examples_of_the_tutorial_are_found() -> None:
    assert (ROOT / "docs" / "write-a-connector.md").exists()
    assert all(files_of_the_tutorial().values())
