"""Debian's Chromium, and pages that remember what went wrong in them."""

import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
VIEWPORT = {"width": 1280, "height": 800}
# Milliseconds; generous, for a machine that trains at the same time.
PATIENCE = 60_000
PLUGIN = "/data/plugin/neuraldbg/"
# Keeps what the page's security policy refused where the test can read it.
COLLECT_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
    window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


@pytest.fixture(scope="session")
def chromium():
    """Return the browser."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert program is not None, "The browser tests need Chromium: write sudo apt-get install chromium, or make test."
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


NUMBERS = ("value", "minimum", "maximum")


@dataclass(frozen=True)
class Cell:
    """What a cell says, in full precision: of which row, of which steps, and the figures."""

    row: str
    first: int
    last: int
    value: float
    minimum: float
    maximum: float


class Viewer:
    """TensorBoard's page with the NeuralDbg tab in it."""

    def __init__(self, page):
        self.page = page
        self.errors = []
        self.requests = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def _hear(self, message):
        # Behind a prefix TensorBoard asks for its own fonts without it: newer browsers say that they are not there.
        is_of_tensorboard = urlsplit(message.location["url"]).path.startswith("/font-roboto/")
        if (message.type == "error" and not is_of_tensorboard) or "Refused to" in message.text:
            self.errors.append(f"{message.text} ({message.location['url']})")

    @property
    def tab(self):
        """The NeuralDbg tab's own document."""
        return self.page.frame_locator('iframe[src*="name=neuraldbg"]')

    def asked(self):
        """Return the requests to the plugin so far."""
        return [url for url in self.requests if PLUGIN in url]

    def violations(self):
        """Return what the security policy refused, in any frame."""
        return [violation for frame in self.page.frames for violation in frame.evaluate("window.violations ?? []")]

    def cells(self):
        """Return the cells of the table that is shown, as far as something was measured for them."""
        shown = self.tab.locator("td[data-row][data-value]").evaluate_all("cells => cells.map(c => ({...c.dataset}))")
        return [
            Cell(c["row"], int(c["step"]), int(c["lastStep"]), *(float(c[name]) for name in NUMBERS)) for c in shown
        ]

    def press(self, key):
        """Press a key in the tab."""
        self.tab.locator("body").press(key)


@pytest.fixture(scope="session")
def look(chromium):
    """Return `look(address)`: a context manager that opens a page; an error in it, or a refusal, fails the test."""

    @contextmanager
    def opened(address, **options):
        with chromium.new_context(viewport=VIEWPORT, **options) as context:
            context.set_default_timeout(PATIENCE)
            context.add_init_script(COLLECT_VIOLATIONS)
            viewer = Viewer(context.new_page())
            viewer.page.goto(address)
            yield viewer
            assert viewer.errors == []
            assert viewer.violations() == []

    return opened
