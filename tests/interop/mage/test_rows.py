"""Each row of the page about Mage's features, tried from outside; the page is made from the table."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import RunCLI
from tests.zygote import Zygote

from . import callback_checks, data_checks, run_checks
from .page import PAGE, page, word
from .rows import CHECKS, TOUR, Check
from .stage import Stage
from .table import CALLBACKS, DATA
from .tour import tour

#: Imported for the checks that they mark.
MODULES = (callback_checks, data_checks, run_checks)

ROWS = (*CALLBACKS, *DATA)


@pytest.fixture
def stage(tmp_path: Path, run_cli: RunCLI) -> Stage:
    return Stage(tmp_path, run_cli)


@pytest.fixture(scope="module")
def toured(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote) -> Stage:
    """One run that many checks look at."""

    def run(args: list[str], cwd: Path, env: dict[str, str], *, is_warm: bool) -> object:
        return zygote.command(args, cwd, {**os.environ, **env}, stdin="", timeout_s=60)

    return tour(Stage(tmp_path_factory.mktemp("tour"), run))  # type: ignore[arg-type]


@pytest.mark.parametrize("check", TOUR, ids=lambda check: "-".join(TOUR[check]))
def test_a_row_about_callbacks(check: Check, toured: Stage) -> None:
    check(toured)


@pytest.mark.one_of
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: "-".join(CHECKS[check]))
def test_a_row(check: Check, stage: Stage) -> None:
    check(stage)


def test_each_row_is_checked_or_says_what_stands_in_its_place() -> None:
    checked = {row for rows in (*CHECKS.values(), *TOUR.values()) for row in rows}
    assert checked <= {row.id for row in ROWS}
    for row in ROWS:
        if word(row) in ("works", "differently"):
            assert row.id in checked, f"{row.id} ({row.feature}) is said to work and has no check"
        elif row.id not in checked:
            assert "](" in row.here or word(row) == "not yet", f"{row.id}: neither a check nor a page that explains"


def test_the_page_is_made_from_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.interop.mage writes it"
