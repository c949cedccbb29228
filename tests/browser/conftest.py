"""A real browser: Debian's Chromium, driven by Playwright. `make setup-browser` installs both."""

import os
import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="module")  # beside Playwright's event loop no other test could run one of its own
def browser() -> "Iterator[Browser]":
    if CHROMIUM is None:
        pytest.skip("no Chromium here: make setup-browser installs it")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="no playwright here: make setup-browser installs it"
    )
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()
