"""Prints at the end how often each fuzzer has tried."""

from __future__ import annotations

from typing import Any

TRIES = "tries"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for report in terminalreporter.stats.get("passed", ()):
        for name, tries in report.user_properties if report.when == "call" else ():
            if name == TRIES:
                terminalreporter.write_line(f"{report.nodeid}: {tries} tries")
