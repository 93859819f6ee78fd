"""A page in a real browser, with everything drawn, and what is clipped on it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]  # a container gives Chromium neither a sandbox nor much /dev/shm
DESK, TABLET, PHONE = (1440, 900), (900, 1000), (390, 844)
DRAWN = "[...document.querySelectorAll('.js-plotly-plot')].filter(box => box.querySelector('.main-svg')).length"
CLIPPED = """() => {
  const fits = e => e.scrollWidth <= e.clientWidth + 1 || getComputedStyle(e).display === 'inline';
  const told = (e, why) => `${e.tagName}.${e.className} ${why}: ${e.textContent.trim().slice(0, 50)}`, found = [];
  for (const e of document.querySelectorAll('body *')) {
    if (e.closest('svg, script, .watermark') || !e.offsetParent || e.classList.contains('watermark')) continue;
    const box = e.getBoundingClientRect();
    if (!fits(e)) found.push(told(e, `${e.scrollWidth} in ${e.clientWidth}`));
    if (box.width && (box.right > innerWidth + 1 || box.left < -1)) found.push(told(e, `from ${box.left} to ${box.right}`));
  }
  for (const text of document.querySelectorAll('.main-svg text')) {
    const box = text.getBoundingClientRect(), paper = text.closest('.plot').getBoundingClientRect();
    if (box.width && (box.left < paper.left - 2 || box.right > paper.right + 2)) found.push(told(text, `beyond its figure`));
  }
  return found;
}"""


@contextmanager
def chromium() -> Iterator:
    """A browser; without one CI fails, and a person's machine skips with the line that installs it."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        message = "no Chromium on this machine: sudo apt-get install chromium"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


def wait_until(page, expression: str, seconds: int = 60) -> None:
    """Ask again and again; playwright's own waiting evaluates strings, which the page forbids."""
    for _ in range(20 * seconds):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {expression}")


def opened(browser, path, size, scheme="light"):
    """A page with everything drawn and unfolded, what the console said, and what was asked for."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details:not(.code)').forEach(part => { part.open = true; })")
    for number in range(figures := page.locator(".plot").count()):
        page.locator(".plot").nth(number).scroll_into_view_if_needed()
    wait_until(page, f"{DRAWN} === {figures}")
    page.evaluate("scrollTo(0, 0)")
    return page, said, asked
