"""A browser for the tests of what is looked at in one.

They run in the system's Chromium, headless, driven by Playwright (`pip install -e ".[browser]"`),
and are skipped with the reason where one of the two is missing. CHROMIUM names a browser that is
not on the path.
"""

import os
import shutil

import pytest


@pytest.fixture(scope="session")
def chromium():
    """Chromium as Playwright drives it."""
    reason = 'a real browser is not tested: pip install -e ".[browser]", and install Chromium'
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    names = ("chromium", "chromium-browser", "google-chrome")
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(reason)
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A page, and everything that it complained of or tried to reach."""

    def __init__(self, page):
        self.page, self.errors, self.requests = page, [], []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda line: line.type == "error" and self.errors.append(line.text))
        page.on("request", lambda request: self.requests.append(request.url))


@pytest.fixture
def visit(chromium):
    """Opens an address in a window of its own: `visit(url, width=390, javascript=False)`."""
    contexts = []

    def opened(url: str, width: int = 1280, javascript: bool = True, **options) -> Visit:
        size = {"width": width, "height": 900}
        context = chromium.new_context(viewport=size, java_script_enabled=javascript, **options)
        contexts.append(context)
        visit = Visit(context.new_page())
        visit.page.goto(url)
        return visit

    yield opened
    for context in contexts:
        context.close()
