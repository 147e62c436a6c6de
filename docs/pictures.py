"""Makes the pictures that the README shows: ``make pictures``, after ``make run``.

Opens runs/studies/compare/report.html in headless Chromium and photographs its table and its
leakage map into docs/pictures/.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Locator, sync_playwright

PAGE = Path("runs/studies/compare/report.html")
MARGIN = 16  # pixels around what is photographed
PICTURES = Path(__file__).with_name("pictures")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main(page: Path = PAGE) -> int:
    """Photograph the page; 2 where there is no page or no browser."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None or not page.is_file():
        missing = f"the page '{page}': run 'make run' first" if browser else "Chromium: install it"
        print(f"pictures need {missing}", file=sys.stderr)
        return 2
    PICTURES.mkdir(exist_ok=True)
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        view = chromium.new_page(viewport={"width": 1240, "height": 1000}, device_scale_factor=1.5)
        view.goto(page.resolve().as_uri())
        view.add_style_tag(
            content="nav { display: none }"
        )  # it follows the eye, and would be in it
        photograph(view.locator("#table"), "table", 1000)
        view.locator("#map [id$='device-2']").first.focus()
        photograph(view.locator("#map .beside"), "leakage-map", 780)
        chromium.close()
    return 0


def photograph(part: Locator, name: str, tallest: int) -> None:
    """One part of the page as docs/pictures/NAME.png, cut at so many pixels."""
    part.scroll_into_view_if_needed()
    box = part.bounding_box()
    if box is None:
        raise SystemExit(f"the page shows no {name}")
    top = part.page.evaluate("window.scrollY")
    part.page.screenshot(
        path=PICTURES / f"{name}.png",
        full_page=True,
        clip={
            "x": max(0, box["x"] - MARGIN),
            "y": box["y"] + top - MARGIN,
            "width": box["width"] + 2 * MARGIN,
            "height": min(box["height"], tallest) + 2 * MARGIN,
        },
    )


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
