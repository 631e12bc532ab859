"""The page of a run while the run goes: a real server, real runs, a real browser."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from syncblocks.sync.store import Store
from syncblocks.sync.store.model import PipelineRun
from tests.sync.serve.web.browser import THEMES, WIDTHS, Visitor, is_too_wide, visiting
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
#: Each batch waits for a file of its own.
SLOW = """\
import itertools
import time
from pathlib import Path

number = itertools.count()

@transformer
def slow(df):
    gate = Path(__file__).parent / f"gate-{next(number)}"
    deadline = time.monotonic() + 120
    while not gate.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    if gate.read_text() == "fail":
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
        self._opened = 0
        self.url = f"sqlite:///{folder}/.syncblocks/store.db"
        self.server = zygote.start(folder, ["serve", "--port", "0"])
        self.link = self._said(r'"sign_in_url": ?"([^"]+)"')
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
        """Let the next batch pass, or fail."""
        written = self.folder / "gate"
        written.write_text(word)
        written.rename(self.folder / f"gate-{self._opened}")
        self._opened += 1

    def go_all(self) -> None:
        """Let all batches of another attempt pass."""
        self._opened = 0
        for _ in range(ROWS // 10):
            self.go()

    def opened(self, visitor: Visitor, run: Process) -> Page:
        """Open the page of the first run, which has read its first batch."""
        page = visitor.sign_in(self.link)
        self.until(lambda: self.runs() or (run.has_ended() and pytest.fail(run.log())))
        page.goto(f"{self.origin}/runs/1")
        expect(cell(page, "rows", "Rows")).to_have_text("10")
        return page

    def runs(self) -> list[PipelineRun]:
        with Store.open(self.url) as store:
            return store.runs("crm")


@pytest.fixture
def place(tmp_path: Path, zygote: Zygote) -> Iterator[Place]:
    made = Place(tmp_path, zygote)
    yield made
    made.server.signal(signal.SIGTERM)
    assert made.server.wait() == 0, made.server.log()


def cell(page: Page, stream: str, label: str) -> Locator:
    row = page.locator("#run-streams tr", has=page.get_by_role("rowheader", name=stream))
    return row.locator(f"td[data-label='{label}']")


@pytest.mark.full
def test_a_run_is_seen_while_it_goes_and_cancelled_by_the_button(place: Place, chromium: Browser) -> None:
    run = place.run()
    with visiting(chromium) as visitor:
        page = place.opened(visitor, run)
        expect(cell(page, "rows", "State")).to_have_text("reading")
        expect(cell(page, HOSTILE, "State")).to_have_text("waiting")
        expect(page.locator("#live-note")).to_have_text("Live")
        for number in (20, 30):
            place.go()
            expect(cell(page, "rows", "Rows")).to_have_text(str(number))
        plain = visitor.context.browser.new_context(  # type: ignore[union-attr]
            java_script_enabled=False, storage_state=visitor.context.storage_state()
        )
        still = plain.new_page()
        still.goto(page.url)
        expect(cell(still, "rows", "Rows")).to_have_text("30")
        plain.close()
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#run-head")).to_contain_text("cancelling")
        place.go()
        expect(page.locator("#run-head .word")).to_have_text("cancelled")
        expect(page.locator("#live-note")).to_have_text("")
        expect(page).to_have_title(re.compile("cancelled: run 1 of crm"))
    assert run.wait() == 1


@pytest.mark.full
def test_a_run_that_failed_is_retried_and_its_dead_callback_delivered_by_buttons(
    place: Place, chromium: Browser
) -> None:
    run = place.run()
    with visiting(chromium) as visitor:
        page = place.opened(visitor, run)
        place.go("fail")
        expect(page.locator("#run-why")).to_contain_text("no more <b>rows</b>")
        expect(page.locator("#run-head .word")).to_have_text("failure")
        told = page.locator("#run-blocks .told")
        expect(told).to_contain_text("nobody is at home")
        page.locator("summary", has_text="output").click()
        expect(told).to_contain_text("telling of rows")
        (place.folder / "can_tell").touch()
        page.get_by_role("button", name="Deliver again").click()
        expect(page.locator("#run-blocks .told .word")).to_have_text("done")  # by `recover`, which the server starts
        place.go_all()
        page.get_by_role("button", name="Retry").click()
        expect(page.locator("h1")).to_have_text("Run 1, attempt 2")
        expect(page.locator("#run-head .word")).to_have_text("success")
        expect(cell(page, HOSTILE, "State")).to_have_text("success")
        expect(cell(page, "rows", "Rows")).to_have_text("50")
        page.locator("#log summary").click()
        expect(page.locator("#log")).to_contain_text("event=run_started run=1 attempt=2 pipeline=crm streams=2")
        page.reload()
        expect(page.get_by_text("ordered by page")).to_have_count(2)
        page.get_by_role("link", name="attempt 1").click()
        expect(page.locator("#run-why")).to_contain_text("Attempt 2 came later.")
    assert run.wait() == 1


@pytest.mark.full
def test_the_page_fits_each_width_in_each_theme(place: Place, chromium: Browser) -> None:
    run = place.run()
    with visiting(chromium) as visitor:
        page = place.opened(visitor, run)
        state = visitor.context.storage_state()
        place.go()
        for is_over in (False, True):
            for width, theme in product(WIDTHS, THEMES):
                with visiting(chromium, width=width, theme=theme, state=state) as other:
                    page = other.at(f"{place.origin}/runs/1")
                    expect(page.locator("#run-head .word")).to_have_text("failure" if is_over else "running")
                    assert not is_too_wide(page)
            if not is_over:
                place.go("fail")
                assert run.wait() == 1


@pytest.mark.full
def test_a_hidden_page_has_no_stream_and_a_stopped_server_ends_it_first(place: Place, chromium: Browser) -> None:
    run = place.run()
    with visiting(chromium) as visitor:
        page = place.opened(visitor, run)
        streams: list[str] = []
        page.on("request", lambda request: streams.append(request.url) if "/events" in request.url else None)
        hide = "value => {Object.defineProperty(document, 'hidden', {value, configurable: true}); " + (
            "document.dispatchEvent(new Event('visibilitychange'))}"
        )
        page.evaluate(hide, True)
        place.go()
        page.evaluate(hide, False)
        expect(cell(page, "rows", "Rows")).to_have_text("20")
        assert len(streams) == 1
        place.server.signal(signal.SIGTERM)
        expect(page.locator("#live-note")).to_have_text("Not live: the server was stopped")
        assert place.server.wait() == 0
        visitor.complaints = [each for each in visitor.complaints if "ERR_CONNECTION_REFUSED" not in each]
    place.go("fail")
    assert run.wait() == 1
