"""Bar charts of the results of `benchmarks.peers`, one panel per case.

python -m benchmarks.plot peers.json --output peers.png
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from benchmarks.engines import NAMES
from benchmarks.measured import FORMATS, cases, engine, read

HEADS = {
    "fraction": "Vision tower: fraction of the CPU's instruction peak (longer is better)",
    "seconds": "Vision tower: seconds (shorter is better)",
}

SCALE = 2  # pixels per point
WIDTH, COLUMNS = 460, 2  # width of a panel; number of panels side by side
LABEL, VALUE, MARGIN = 140, 62, 24  # margins: left and right of the bars, around the picture
BAR, STEP, GAP, HEAD, TOP = 14, 20, 26, 34, 56

INK, FAINT, GRID = "#1f2933", "#7b8794", "#e4e7eb"
OURS, THEIRS = "#2563c9", "#b6bfca"

Panel = tuple[str, list[dict[str, Any]]]


def panel(case: tuple[str, str], rows: list[dict[str, Any]], value: str) -> Panel:
    """Return the title and rows of a case; rows without the value are left out."""
    for row in rows:
        row["value"] = row["median" if value == "seconds" else value]
    shown = [row for row in rows if row["value"] is not None]
    title = f"{', '.join(case)}; {rows[0]['threads']} threads"
    return title, sorted(shown, key=lambda row: order(row, sign=1 if value == "seconds" else -1))


def order(row: dict[str, Any], sign: int) -> tuple[int, float]:
    """Sort key of a row: by format, and within a format the best first."""
    return list(FORMATS).index(row["format"]), sign * row["value"]


def height(panel: Panel) -> int:
    """Return the height of a panel in points."""
    formats = {row["format"] for row in panel[1]}
    return HEAD + GAP * len(formats) + STEP * len(panel[1]) + MARGIN


class Canvas:
    """A white picture with coordinates in points."""

    def __init__(self, width: float, height: float) -> None:
        self.image = Image.new("RGB", (round(width * SCALE), round(height * SCALE)), "white")
        self.draw = ImageDraw.Draw(self.image)

    def text(self, at: tuple[float, float], text: str, size: float, color: str = INK, anchor: str = "lm") -> None:
        """Draw text with its anchor, in Pillow's notation, at a point."""
        place = at[0] * SCALE, at[1] * SCALE
        self.draw.text(place, text, color, ImageFont.load_default(size * SCALE), anchor)

    def bar(self, left: float, middle: float, width: float, color: str) -> None:
        """Draw a bar from a point to the right."""
        box = [left, middle - BAR / 2, left + max(width, 1), middle + BAR / 2]
        self.draw.rounded_rectangle([x * SCALE for x in box], 2 * SCALE, color)

    def upright(self, x: float, top: float, bottom: float) -> None:
        """Draw a thin vertical line."""
        self.draw.line([x * SCALE, top * SCALE, x * SCALE, bottom * SCALE], GRID, SCALE)


def draw(canvas: Canvas, panel: Panel, corner: tuple[float, float], full: float, marks: list[float]) -> None:
    """Draw one panel; a bar of the value ``full`` fills its width, ``marks`` are values with a vertical line."""
    (left, y), (title, rows) = corner, panel
    bars, length = left + LABEL, WIDTH - LABEL - VALUE
    canvas.text((left, y + 8), title, 13)
    for mark in marks:
        x = bars + length * mark / full
        canvas.upright(x, y + HEAD, y + height(panel) - MARGIN)
        canvas.text((x, y + HEAD - 5), f"{mark:g}", 9, FAINT, "mm")
    y += HEAD
    for format, group in itertools.groupby(rows, key=lambda row: row["format"]):
        canvas.text((left, y + GAP / 2), FORMATS[format], 10, FAINT)
        y += GAP
        for row in group:
            name = engine(row)
            width = length * row["value"] / full
            canvas.text((bars - 8, y + BAR / 2), NAMES[name], 11, anchor="rm")
            canvas.bar(bars, y + BAR / 2, width, OURS if name == "qwenvis" else THEIRS)
            canvas.text((bars + width + 6, y + BAR / 2), f"{row['value']:#.3g}", 11)
            y += STEP


def plot(panels: list[Panel], value: str, footer: str) -> Image.Image:
    """Draw all panels, in rows of two; fractions share one scale, seconds have a scale per panel."""
    columns = min(COLUMNS, len(panels))
    lines = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    tall = [max(map(height, line)) for line in lines]
    canvas = Canvas(MARGIN + columns * (WIDTH + MARGIN), TOP + sum(tall) + MARGIN)
    canvas.text((MARGIN, TOP / 2), HEADS[value], 16)
    y = float(TOP)
    for line, step in zip(lines, tall, strict=True):
        for column, panel in enumerate(line):
            largest = max((row["value"] for row in panel[1]), default=1.0)
            full, marks = (max(1.0, largest), [0.5, 1.0]) if value == "fraction" else (largest, [])
            draw(canvas, panel, (MARGIN + column * (WIDTH + MARGIN), y), full, marks)
        y += step
    canvas.text((MARGIN, y + 2), footer, 9, FAINT)
    return canvas.image


def main() -> None:
    """Write the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path, nargs="+", help="a file written by `python -m benchmarks.peers --json`")
    parser.add_argument("--value", choices=HEADS, default="fraction")
    parser.add_argument("--output", type=Path, default=Path("peers.png"))
    arguments = parser.parse_args()
    machine, *others = [{name: read(path)[name] for name in ("cpu", "isa")} for path in arguments.json]
    if any(other != machine for other in others):
        parser.error("these are of several machines; a plot is of one")
    panels = [panel(case, rows, arguments.value) for case, rows in cases(arguments.json).items()]
    footer = f"{machine['cpu']}, {machine['isa']}; python -m benchmarks.peers"
    plot(panels, arguments.value, footer).save(arguments.output)


if __name__ == "__main__":
    main()
