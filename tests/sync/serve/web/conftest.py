"""Fixtures of the tests of pages."""

from tests.sync.serve.web.browser import chromium

__all__ = ["chromium"]
