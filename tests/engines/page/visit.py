"""A visit to the page: what a person does there, what the page says, and what it must never do."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

VIOLATIONS = """addEventListener("securitypolicyviolation", (event) =>
    console.error("policy", event.effectiveDirective, event.blockedURI))"""
expect.set_options(timeout=30_000)  # milliseconds: shared machines are slow now and then
REFUSED = "Failed to load resource"  # how Chromium reports any answer of 400 and above


class Visit:
    """A page that was opened, and the faults that it showed: errors, warnings, and requests to other origins."""

    def __init__(self, browser: Browser, address: str, **context: Any) -> None:
        self.page: Page = browser.new_page(**{"viewport": {"width": 1280, "height": 860}, **context})
        self.address = address
        self.faults: list[str] = []
        self.page.on("console", lambda each: each.type in ("error", "warning") and self.faults.append(each.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda each: self.check_origin(each.url))
        self.page.add_init_script(VIOLATIONS)
        self.page.goto(address)

    def check_origin(self, url: str) -> None:
        if not url.removeprefix("blob:").startswith(f"{self.address}/"):
            self.faults.append(f"a request to {url}")

    def close(self) -> None:
        """Leave; the visit must have had no faults."""
        self.page.close()
        assert self.faults == []

    def refused(self, status: int) -> None:
        """Take the report of one answer with an error from the faults."""
        (fault,) = self.faults
        assert fault.startswith(REFUSED)
        assert f"status of {status}" in fault
        self.faults.clear()

    def drop(self, *paths: Path) -> None:
        """Drop files onto the page, as the browser's own input."""
        session = self.page.context.new_cdp_session(self.page)
        data = {"items": [], "files": [str(each) for each in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})

    def shows(self, text: str) -> None:
        """Wait until the status says this."""
        expect(self.page.get_by_role("status")).to_contain_text(text)

    def alert(self) -> str:
        """Wait for an error, and return its words."""
        found = self.page.get_by_role("alert")
        expect(found).not_to_be_empty()
        return found.inner_text()

    @property
    def token(self) -> Locator:
        """The field with the number of the token that is shown."""
        return self.page.get_by_label("Token", exact=True)

    @property
    def nearest(self) -> list[tuple[int, float]]:
        """The near tokens that are listed, with their similarities."""
        rows = self.page.locator("#nearest li:visible button")
        texts = [rows.nth(each).inner_text().split() for each in range(rows.count())]
        return [(int(number), float(similarity.replace("−", "-"))) for number, similarity in texts]

    def point(self, canvas: str, row: int, column: int, grid: tuple[int, int]) -> None:
        """Move the mouse to the middle of a cell."""
        found = self.page.locator(canvas)
        found.scroll_into_view_if_needed()
        box = found.bounding_box()
        x, y = ((each + 0.5) / count for each, count in zip((column, row), reversed(grid), strict=True))
        self.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])

    def pixels(self, canvas: str) -> np.ndarray:
        """Return what a canvas shows, (height, width, 3) uint8."""
        url = self.page.evaluate("(id) => document.querySelector(id).toDataURL()", canvas)
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))
