"""The pages in a real browser: each of them at two widths and in two themes, sign-in, and orders to a real server."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from syncblocks.sync.serve.web.paths import path_of
from tests.docs import ROOT
from tests.sync.serve.web.browser import THEMES, WIDTHS, Visitor, is_too_wide, visiting
from tests.sync.serve.web.demo import HOSTILE, LONG, demo
from tests.sync.serve.web.web_helpers import Site, served
from tests.sync.store.store_helpers import query
from tests.zygote import Process, Zygote

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.full

HOSTILE_PATH = f"/pipelines/{path_of(HOSTILE)}"
PAGES = (
    "/",
    "/?q=nothing",
    "/pipelines/orders",
    "/pipelines/crm",
    "/pipelines/inventory",
    "/pipelines/weather",
    HOSTILE_PATH,
    "/pipelines/orders/streams/orders",
    f"{HOSTILE_PATH}/streams/{path_of(HOSTILE)}",
    f"{HOSTILE_PATH}/streams/{path_of(LONG)}",
    f"{HOSTILE_PATH}/streams/{path_of(LONG)}/anew",
    "/schedules",
    "/deliveries",
)
#: Name of an image of the docs -> the page that it shows.
IMAGES = {"pipelines": "/", "pipeline": "/pipelines/crm", "stream": "/pipelines/orders/streams/orders"}
#: Set it to make the images of the docs anew.
MAKE_IMAGES = "SYNCBLOCKS_DOC_IMAGES"
MOST_IMAGE_BYTES = 150_000


def signed_in(visitor: Visitor, site: Site) -> Page:
    page = visitor.page()
    page.goto(link_of(site))
    press(page, "Sign in")
    return page


def link_of(site: Site) -> str:
    return f"{site.origin}/login?code={site.store.access.make_code()}"


def press(page: Page, name: str) -> None:
    """Press a button, and wait for the page that follows."""
    with page.expect_navigation():
        page.get_by_role("button", name=name, exact=True).click()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with served(demo(tmp_path_factory.mktemp("demo"))) as found:
        yield found


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_each_page_fits_and_nothing_goes_wrong_in_it(chromium: Browser, site: Site, width: int, theme: str) -> None:
    with visiting(chromium, width=width, theme=theme) as visitor:
        page = signed_in(visitor, site)
        for path in PAGES:
            answer = page.goto(site.origin + path)
            assert answer is not None
            assert (answer.status, is_too_wide(page)) == (200, False), path
            assert page.locator("h1").count() == 1
            page.evaluate("document.querySelectorAll('main details').forEach(each => each.open = true)")
            assert not is_too_wide(page), path
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(247, 248, 249)" if theme == "light" else "rgb(16, 19, 23)")


def test_a_link_signs_in_once_and_who_signs_out_is_out(chromium: Browser, site: Site) -> None:
    link = link_of(site)
    with visiting(chromium) as visitor:
        page = visitor.page()
        page.goto(f"{site.origin}/pipelines/orders")
        assert "You are not signed in" in page.inner_text("h1")
        for _ in range(2):
            page.goto(link)
        press(page, "Sign in")
        page.wait_for_url(f"{site.origin}/")
        (cookie,) = page.context.cookies()
        assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == (f"syncblocks_{site.port}", True, "Lax")
        page.get_by_role("link", name="orders", exact=True).click()
        page.wait_for_url("**/pipelines/orders")
        press(page, "Sign out")
        page.goto(f"{site.origin}/")
        assert page.url == f"{site.origin}/login"
        page.goto(link)
        press(page, "Sign in")
        page.get_by_text("does not sign in any more").wait_for()
        visitor.complaints.clear()  # of the answer's status
        assert "syncblocks token link" in page.inner_text("main")


def test_a_foreign_host_a_foreign_origin_and_a_wrong_token_do_nothing(chromium: Browser, site: Site) -> None:
    before = len(site.store.actions.of_pipeline("orders"))
    with visiting(chromium) as visitor:
        page = signed_in(visitor, site)
        foreign = page.goto(f"http://evil.example:{site.port}/")
        assert foreign is not None
        assert (foreign.status, "does not answer for the host" in page.inner_text("body")) == (421, True)

        page.goto(f"{site.origin}/pipelines/orders")
        token = page.locator("input[name=form_token]").first.get_attribute("value")
        # Another port of the same host: the browser sends the cookie along.
        target = f"{site.origin}/pipelines/orders/run"
        form = f"<form method=post action={target}><input name=form_token value={token}><button>Go</button></form>"
        other = "http://127.0.0.1:8999/"
        page.route(f"{other}**", lambda route: route.fulfill(body=form, content_type="text/html"))
        page.goto(other)
        with page.expect_response(target) as answer:
            page.get_by_role("button").click()
        assert ("cookie" in answer.value.request.all_headers(), answer.value.status) == (True, 403)

        page.goto(f"{site.origin}/pipelines/orders")
        page.evaluate("document.querySelectorAll('[name=form_token]').forEach(each => each.value = '0'.repeat(64))")
        with page.expect_response(target) as answer:
            page.get_by_role("button", name="Run now").click()
        assert answer.value.status == 403
        page.get_by_text("none of this session's pages").wait_for()
        visitor.complaints.clear()  # of the three refusals
    assert len(site.store.actions.of_pipeline("orders")) == before


def test_a_keyboard_is_enough(chromium: Browser, site: Site) -> None:
    with visiting(chromium) as visitor:
        page = signed_in(visitor, site)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to content"
        page.get_by_role("searchbox").focus()
        page.keyboard.type("orders")
        page.keyboard.press("Enter")
        page.wait_for_url("**/?q=orders")
        page.get_by_role("link", name="orders", exact=True).focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/pipelines/orders")
        page.get_by_text("Pause", exact=True).focus()
        page.keyboard.press("Enter")
        page.get_by_label("Reason").focus()
        assert page.get_by_role("button", name="Pause the schedule").is_visible()


# -- a real server -----------------------------------------------------------------------------------------------

FILE = """\
pipeline: crm
schedule: {cron: "0 0 1 1 *"}
source: {connector: csv, config: {path: .}}
destination: {connector: sqlite, config: {path: out.db}}
streams: [{stream: "*"}]
"""


@pytest.fixture
def server(tmp_path: Path, zygote: Zygote) -> Iterator[tuple[Process, str]]:
    """A server, and the link that it prints."""
    (tmp_path / "crm.yaml").write_text(FILE)
    (tmp_path / "rows.csv").write_text("id\n1\n2\n")
    (tmp_path / f"{HOSTILE.replace('/', '_')}.csv").write_text("id\n1\n")
    process = zygote.start(tmp_path, ["serve", "--port", "0"])
    until(process, lambda: "sign_in_url" in process.log())
    told = [json.loads(line) for line in process.log().splitlines() if line.startswith("{")]
    (link,) = [each["sign_in_url"] for each in told if each["type"] == "serve"]
    yield process, link
    process.signal(signal.SIGTERM)
    assert process.wait() == 0, process.log()


def until(server: Process, is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, server.log()
        assert not server.has_ended(), server.log()
        time.sleep(0.1)


def test_run_now_pause_and_read_anew_at_a_real_server(
    chromium: Browser, server: tuple[Process, str], tmp_path: Path
) -> None:
    process, link = server
    with visiting(chromium) as visitor:
        page = visitor.page()

        def shows(text: str) -> None:
            def is_shown() -> bool:
                page.reload()
                return text in page.inner_text("main")

            until(process, is_shown)

        page.goto(link)
        press(page, "Sign in")
        shows("never ran")
        page.get_by_role("link", name="crm", exact=True).click()
        page.wait_for_url("**/pipelines/crm")
        press(page, "Run now")
        shows("page ordered a run")
        shows("success run 1")
        assert query(f"sqlite:///{tmp_path}/out.db", "SELECT count(*) FROM rows") == [(2,)]

        page.get_by_text("Pause", exact=True).click()
        page.get_by_label("Reason").fill("the database moves")
        press(page, "Pause the schedule")
        shows("until it is resumed: the database moves")
        press(page, "Resume")
        shows("page resumed the schedule")

        query(f"sqlite:///{tmp_path}/out.db", "DELETE FROM rows")
        page.get_by_role("link", name="rows", exact=True).click()
        page.get_by_role("link", name=re.compile("Read anew")).click()
        page.wait_for_url("**/anew")
        assert "rows" in page.inner_text("dl")
        press(page, "Read anew")
        shows("success run 2")
        assert query(f"sqlite:///{tmp_path}/out.db", "SELECT count(*) FROM rows") == [(2,)]
        page.goto(link)
        assert page.locator("h1").inner_text() == "Pipelines"  # signed in already


# -- images of the docs ------------------------------------------------------------------------------------------


@pytest.fixture
def plain_site(tmp_path: Path) -> Iterator[Site]:
    with served(demo(tmp_path, is_hostile=False)) as found:
        yield found


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_of_the_docs_shows_a_page_that_exists(chromium: Browser, plain_site: Site, name: str) -> None:
    image = ROOT / "docs" / "images" / f"serve-{name}.png"
    with visiting(chromium, width=1120) as visitor:
        page = signed_in(visitor, plain_site)
        answer = page.goto(plain_site.origin + IMAGES[name])
        assert answer is not None
        assert answer.status == 200
        if os.environ.get(MAKE_IMAGES):
            page.screenshot(path=image, clip={"x": 0, "y": 0, "width": 1120, "height": 800})
    assert image.stat().st_size < MOST_IMAGE_BYTES
    assert f"(images/{image.name})" in (ROOT / "docs" / "serve.md").read_text("utf-8")
