"""Draw `docs/page.png`, the picture of the page in the README, from the real example pair: `python docs/page.py`."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

import parity

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT = 1280, 860


def main() -> None:
    """Compare the pair in `traces/seed/`, open its page in Chromium at a layer, and take its picture."""
    seed = Path("traces/seed")
    report = parity.compare(ref=seed / "net.mat", keras=seed / "model.h5", batch=seed / "batch.npz", details=True)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as running:
        path = Path(folder, "page.html")
        path.write_text(report.to_html(), encoding="utf-8")
        browser = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, reduced_motion="reduce")
        page.goto(path.as_uri())
        page.locator("#h-depth").scroll_into_view_if_needed()
        page.locator(".chart[data-ready] .main-svg").nth(1).wait_for(state="attached")
        page.evaluate("document.querySelector('.network').scrollIntoView()")
        page.locator(".first a").click()
        page.locator("#sheet .layer:visible .plots .main-svg").first.wait_for(state="attached")
        page.evaluate("document.querySelector('#sheet').scrollTop = 640")
        page.wait_for_timeout(600)
        page.screenshot(path=ROOT / "docs" / "page.png")
        browser.close()


if __name__ == "__main__":
    main()
