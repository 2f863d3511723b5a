"""Debian's Chromium, driven by Playwright, and what it saw kept as pictures."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.browser.watched_tab import WatchedTab

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOW_TO_INSTALL = "no chromium here: apt-get install chromium (as root), then run the tests again"


# Not for the session: while Playwright is open, no other test could run an event loop.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.fail(HOW_TO_INSTALL)
    options = ["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium: Browser) -> Iterator[WatchedTab]:
    """A fresh tab; a page that complained or reached outside fails its test at the end."""
    watched = WatchedTab.open(chromium)
    yield watched
    watched.close()
    assert watched.problems == []
