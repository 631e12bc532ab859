"""Somebody who looks at pages with the browser of `conftest`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Dialog, Page


#: Widths at which each page is looked at, and the themes.
WIDTHS, THEMES = (360, 1280), ("light", "dark")


class Visitor:
    """Somebody with a browser, and all that the browser complains about."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        self.complaints: list[str] = []

    def page(self) -> Page:
        """Open an empty tab."""
        page = self.context.new_page()
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", self._refuse)
        return page

    def _refuse(self, dialog: Dialog) -> None:
        self.complaints.append(dialog.message)
        dialog.dismiss()

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def at(self, url: str) -> Page:
        """Open a page."""
        page = self.page()
        page.goto(url)
        return page

    def sign_in(self, link: str) -> Page:
        """Use a link that signs in."""
        page = self.at(link)
        page.get_by_role("button", name="Sign in").click()
        return page


@contextmanager
def visiting(browser: Browser, *, width: int = 1280, theme: str = "light", state: Any = None) -> Iterator[Visitor]:
    """Open a browser's window, with the cookies of another one; at its end there may be no complaints."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if theme == "dark" else "light",
        storage_state=state,
    )
    context.set_default_timeout(60_000)
    try:
        visitor = Visitor(context)
        yield visitor
    finally:
        context.close()
    assert visitor.complaints == []


def is_too_wide(page: Page) -> bool:
    """Whether a page has to be moved sideways."""
    found: bool = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    return found
