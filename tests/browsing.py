"""A real browser for tests: Chromium without a window, told what to do by playwright in a child.

The child is a Python without gort: what is tested is the page, not how playwright likes goroutines.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
import textwrap

from driving import absent, needs

LIMIT = 90  # seconds, for all that a test does with the page

PROGRAMS = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")

FIRST = """
import sys
import time
from playwright.sync_api import expect, sync_playwright

def until(expression):
    "Wait until it is true; the page's policy forbids wait_for_function, which makes code of text."
    end = time.monotonic() + 30
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)

url, program, *arguments = sys.argv[1:]
expect.set_options(timeout=30_000)
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en")
    page = context.new_page()
    page.set_default_timeout(30_000)
    errors, asked = [], []
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    expect(page.locator("#link")).to_have_text("live")
"""
LAST = """
    wrong = [e for e in errors if "status of 404" not in e]  # there may be no concurrency graph
    assert not wrong or "errors expected" in arguments, wrong
    browser.close()
print("ok")
"""


def chromium() -> str:
    """The program; skips, and says so, where it or what drives it is not there."""
    needs("playwright")
    found = [path for name in PROGRAMS if (path := shutil.which(name))]
    bundled = "~/.cache/ms-playwright/chromium*/chrome-*/*chrom*"
    found += [path for path in glob.glob(os.path.expanduser(bundled)) if os.access(path, os.X_OK)]
    if not found:
        absent("not tested with a browser: no chromium (apt-get install chromium)")
    return found[0]


def browse(url: str, code: str, *arguments: str) -> None:
    """Open a page and do `code` with it: `page`, `context`, `expect`, `until`, `errors`, `asked`."""
    program = chromium()
    whole = FIRST + textwrap.indent(textwrap.dedent(code), "    ") + LAST
    env = {k: v for k, v in os.environ.items() if not k.startswith(("GORT_", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-c", whole, url, program, *arguments],
        capture_output=True, text=True, timeout=LIMIT, env=env, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "ok", f"{done.stdout}\n{done.stderr[-6000:]}"
