"""A real browser: Debian's Chromium, driven by playwright's Python package."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.services import missing

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")  # while it is open no test of this process can run an event loop
def chromium() -> Iterator[Browser]:
    """A browser without windows, for which each name is this machine."""
    try:
        from playwright.sync_api import expect, sync_playwright
    except ModuleNotFoundError:
        missing("playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        missing("chromium is not installed: it is the package `chromium` of Debian")
    rules = "--host-resolver-rules=MAP * 127.0.0.1"
    expect.set_options(timeout=60_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", rules])
        yield browser
        browser.close()
