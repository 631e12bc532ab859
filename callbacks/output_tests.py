"""Functions marked by `@test`: call each with some records."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from .invoke import call
from .mage import mage_modules

if TYPE_CHECKING:
    import pandas as pd


def run_tests(
    tests: Mapping[str, Callable[..., object]], records: Callable[[], pd.DataFrame], file: Path
) -> dict[str, str | None]:
    """Call each function with its own frame; its output goes to stderr.

    Args:
        tests: functions by name.
        records: makes the frame.
        file: the file of the functions.

    Returns:
        Name -> the function's error, with its line; None: it passed.
    """
    with mage_modules(), redirect_stdout(sys.stderr):
        return {name: _failure(test, records(), file) for name, test in tests.items()}


def _failure(test: Callable[..., object], frame: pd.DataFrame, file: Path) -> str | None:
    try:
        call(test, (frame,), {})
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        return f"{type(error).__name__}: {error}" + (f" ({file.name}:{lines[-1]})" if lines else "")
    return None


__all__ = ["run_tests"]
