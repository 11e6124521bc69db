"""The parts of a figure in SVG: text, shapes, pictures, and the paper under them.

Figures bring their own paper, so that they are legible on light and on dark pages, and are 480 units wide, for
telephones. They name only fonts of the reader's system.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

WIDTH, MARGIN = 480, 20
PAPER, INK, GREY, MARK, RULE = "#faf9f6", "#222228", "#63636b", "#d9480f", "#c9c7c0"
LOW, ZERO, HIGH = (33, 102, 172), (247, 247, 247), (178, 24, 43)  # the colours of values, from negative to positive
START = 'text-anchor="start"'


def text(x: float, y: float, words: object, size: int = 15, *, ink: str = INK, more: str = "") -> str:
    """Write words around x, or from x on if ``more`` is `START`."""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{ink}" {more}>{words}</text>'


def box(x: float, y: float, width: float, height: float, more: str) -> str:
    """Draw a rectangle."""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" {more}/>'


def line(path: str, ink: str = RULE, more: str = "") -> str:
    """Draw the line of a path."""
    return f'<path d="{path}" fill="none" stroke="{ink}" {more}/>'


def arrow(x: float, y: float, length: float, ink: str = MARK) -> str:
    """Draw an arrow that points down."""
    return line(f"M{x:g} {y:g}v{length:g}m-7 -8l7 8l7 -8", ink, 'stroke-width="3"')


def cut(part: str, view: Iterable[float], place: Iterable[float]) -> str:
    """Show a rectangle (x, y, width, height) of a defined image at a place (x, y, width, height)."""
    x, y, width, height = place
    window = " ".join(f"{number:g}" for number in view)
    return (
        f'<svg x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" viewBox="{window}" '
        f'preserveAspectRatio="none"><use href="#{part}"/></svg>'
    )


def define(name: str, image: Image.Image, kind: str, **options: object) -> str:
    """Define an image that `cut` can show, as a data URI."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    data = f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
    width, height = image.size
    return f'<defs><image id="{name}" width="{width}" height="{height}" href="{data}"/></defs>'


def heat(values: np.ndarray) -> Image.Image:
    """Colour a matrix: one pixel for each number."""
    scale = np.percentile(np.abs(values), 98)
    stops = np.array([LOW, ZERO, HIGH])
    levels = [np.interp(values / scale, (-1, 0, 1), stops[:, k]) for k in range(3)]
    return Image.fromarray(np.stack(levels, -1).round().astype(np.uint8))


def matrix(name: str, values: np.ndarray) -> str:
    """Define the coloured matrix, whose numbers stay squares when it is enlarged."""
    style = f"<style>#{name}{{image-rendering:pixelated}}</style>"
    return style + "\n" + define(name, heat(values), "PNG")


def page(height: float, title: str, parts: Iterable[str]) -> str:
    """Join the parts of a figure."""
    attributes = f'viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" role="img" text-anchor="middle"'
    fonts = 'font-family="system-ui, -apple-system, Segoe UI, Roboto, DejaVu Sans, sans-serif"'
    paper = box(0, 0, WIDTH, height, f'rx="8" fill="{PAPER}"')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {attributes} {fonts}>\n<title>{title}</title>'
    return "\n".join([head, paper, *parts, "</svg>\n"])
