"""Runs singer-sdk's own test suites over our plugin classes, each in a pytest of its own that a warm process forks.

The SDK asks a tap for its streams when the test class is made, at import: the data must be there before, which only a
test with fixtures can see to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.zygote import Zygote

TAP = """
from singer_sdk.testing import SuiteConfig, get_tap_test_class
from syncblocks.connectors.singer.as_tap import tap_class

TestOurs = get_tap_test_class(
    tap_class({connector!r}), config={config!r}, parse_env_config=False
)
"""

TARGET = """
from singer_sdk.testing import get_target_test_class
from syncblocks.connectors.singer.as_target import target_class

TestOurs = get_target_test_class(
    target_class({connector!r}), config={config!r}, parse_env_config=False
)
"""


def run_suite(zygote: Zygote, text: str, connector: str, config: Mapping[str, Any], folder: Path) -> tuple[int, str]:
    """Return how many of the SDK's tests passed; fails with their output if one did not, or was skipped."""
    file = folder / "test_sdk.py"
    file.write_text(text.format(connector=connector, config=dict(config)))
    # What this environment's plugins import takes as long as the suite.
    own = ("--disable-plugin-autoload", "-p", "singer_sdk.testing.pytest_plugin", "-p", "no:cacheprovider")
    done = zygote.module("pytest", "-q", "-rfEs", *own, str(file))
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "skipped" not in done.stdout.splitlines()[-1], output
    passed = re.search(r"(\d+) passed", output)
    assert passed is not None, output
    return int(passed[1]), output
