"""Draw the screenshots of the docs: the page with the picture of `qwenvis demo`, in light and dark.

Usage: ``python -m engines.page.screenshots DIRECTORY``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect

from engines.page import files
from engines.page.browser import browsing
from engines.page.visit import Visit
from processes.served import served

MODEL = "synthetic:tiny-qwen2-vl"
SIZE = {"width": 1280, "height": 840}
LIMIT = str(256 * 28 * 28)  # pixels: few tokens, whose ranks are legible
GRID, PLACE = (14, 18), (6, 12)  # of the tokens; of one on the roof of the cottage
COLOURS = 256  # of the file, which is a third of the size with a palette


def draw(directory: Path) -> None:
    """Write page-light.png and page-dark.png."""
    with browsing() as browser, served(model=MODEL) as service:
        for scheme in ("light", "dark"):
            visit = Visit(browser, f"http://127.0.0.1:{service.port}", color_scheme=scheme, viewport=SIZE)
            visit.page.get_by_label("Pixels at most").select_option(LIMIT)
            visit.drop(files.PHOTO)
            visit.shows("252 tokens of demo.jpg")
            visit.point("#picture", *PLACE, GRID)
            expect(visit.token).not_to_have_value("")
            target = directory / f"page-{scheme}.png"
            visit.page.screenshot(path=target)
            visit.close()
            Image.open(target).convert("RGB").quantize(COLOURS).save(target, optimize=True)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
