"""The page of a run while the run goes: a real server, real runs, a real browser."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from syncblocks.sync.store import Store
from syncblocks.sync.store.model import PipelineRun
from tests.sync.serve.web.browser import visiting
from tests.zygote import Process, Zygote

HOSTILE = "<script>alert(1)</script>"
FILE = f"""\
pipeline: crm
source: {{connector: csv, config: {{path: data, batch_size: 10, streams: {{rows: rows.csv, "{HOSTILE}": other.csv}}}}}}
destination: {{connector: sqlite, config: {{path: out.db}}}}
concurrency: 1
streams: [{{stream: rows}}, {{stream: "{HOSTILE}", destination_table: hostile}}]
transformers: [{{block: slow, file: slow.py, streams: [rows]}}]
callbacks: [{{block: told, file: told.py, attempts: 1}}]
"""
#: Each batch waits until somebody writes into the pipe.
SLOW = """\
from pathlib import Path

@transformer
def slow(df):
    with (Path(__file__).parent / "go").open() as file:
        if file.read() == "fail":
            raise ValueError("no more <b>rows</b>")
    return df
"""
TOLD = """\
from pathlib import Path

@callback("success")
@callback("failure")
def told(stream, **kwargs):
    print("telling of", stream)
    if not (Path(__file__).parent / "can_tell").exists():
        raise OSError("nobody is at home")
"""
ROWS = 50


class Place:
    """A folder with a pipeline, and its server."""

    def __init__(self, folder: Path, zygote: Zygote) -> None:
        self.folder = folder
        self.zygote = zygote
        (folder / "data").mkdir()
        (folder / "crm.yaml").write_text(FILE)
        (folder / "slow.py").write_text(SLOW)
        (folder / "told.py").write_text(TOLD)
        (folder / "data" / "rows.csv").write_text("id\n" + "".join(f"{number}\n" for number in range(ROWS)))
        (folder / "data" / "other.csv").write_text("id\n1\n2\n")
        os.mkfifo(folder / "go")
        self.url = f"sqlite:///{folder}/.syncblocks/store.db"
        self.server = zygote.start(folder, ["serve", "--port", "0"])
        self.link = self._said(r"sign in, once and within 10 minutes: (\S+)")
        self.origin = self.link.partition("/login")[0]

    def _said(self, pattern: str) -> str:
        found = self.until(lambda: re.search(pattern, self.server.log()))
        assert isinstance(found, re.Match)
        return str(found[1])

    def until(self, is_so: Callable[[], object]) -> object:
        deadline = time.monotonic() + 60
        while not (found := is_so()):
            assert time.monotonic() < deadline, self.server.log()
            assert not self.server.has_ended(), self.server.log()
            time.sleep(0.02)
        return found

    def run(self) -> Process:
        """Start a run by hand."""
        return self.zygote.start(self.folder, ["run"])

    def go(self, word: str = "go") -> None:
        """Let the batch pass that waits."""
        with (self.folder / "go").open("w") as file:
            file.write(word)

    def runs(self) -> list[PipelineRun]:
        with Store.open(self.url) as store:
            return store.runs("crm")


@pytest.fixture
def place(tmp_path: Path, zygote: Zygote) -> Iterator[Place]:
    made = Place(tmp_path, zygote)
    yield made
    made.server.signal(signal.SIGTERM)
    assert made.server.wait() == 0, made.server.log()


def cell(page: Page, stream: str, label: str) -> object:
    row = page.locator("#run-streams tr", has=page.get_by_role("rowheader", name=stream))
    return row.locator(f"td[data-label='{label}']")


@pytest.mark.full
def test_a_run_is_seen_while_it_goes_and_cancelled_by_the_button(place: Place, chromium: Browser) -> None:
    run = place.run()
    with visiting(chromium) as visitor:
        page = visitor.sign_in(place.link)
        place.until(lambda: place.runs() or (run.has_ended() and pytest.fail(run.log())))
        page.goto(f"{place.origin}/runs/1")
        expect(cell(page, "rows", "Rows")).to_have_text("10")
        expect(page.locator("#live-note")).to_have_text("Live")
        for number in (20, 30):
            place.go()
            expect(cell(page, "rows", "Rows")).to_have_text(str(number))
        page.screenshot(path="/tmp/shots/run.png", full_page=True)
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#run-head")).to_contain_text("cancelling")
        place.go()
        expect(page.locator("#run-head")).to_contain_text("cancelled")
    assert run.wait() == 1
