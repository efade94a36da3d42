"""A browser for tests that look at pages."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
# No sandbox: containers have none. WebGL 2 without a graphics card.
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
SIZE = (480, 360)


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window; tests that need one are skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser here; install Chromium (looked for {', '.join(NAMES)})")
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield made
        made.close()


_LOCAL = ("http://127.0.0.1:", "ws://127.0.0.1:", "file:", "data:", "blob:", "about:")


@pytest.fixture(scope="module")
def tab(browser):
    """A page that lets nothing out of this machine and remembers what was asked for in `asked`, and what went
    wrong in `errors`."""
    width, height = SIZE
    context = browser.new_context(viewport={"width": width, "height": height}, has_touch=True)
    made = context.new_page()
    made.asked, made.errors = [], []
    made.on("request", lambda request: made.asked.append(request.url))
    made.on("pageerror", lambda error: made.errors.append(str(error)))
    context.route(
        lambda url: True,
        lambda route: route.continue_() if route.request.url.startswith(_LOCAL) else route.abort(),
    )
    yield made
    context.close()


@pytest.fixture
def page(tab):
    """The module's page, held to what a test does with it."""
    tab.asked.clear()
    yield tab
    assert not tab.errors
    assert all(url.startswith(_LOCAL) for url in tab.asked), "something outside of this machine is asked for"


def screenshot(page):
    """(H, W, 3) float of what the page shows."""
    with Image.open(io.BytesIO(page.screenshot())) as image:
        return np.asarray(image.convert("RGB")).astype(float)
