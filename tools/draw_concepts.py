"""Draw the figures of docs/concepts.md: a picture that becomes tokens, and the positions of the tokens in a prompt.

Usage: ``python tools/draw_concepts.py [DIRECTORY]``. Everything in the figures is computed, by the code of the page:
the patches are the rows of ``pixel_values``, the colours are the values of the tokens. The figures bring their own
paper, so that they are legible on light and on dark pages, and are 480 units wide, for telephones.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

import qwenvis
from qwenvis.geometry import coords

MODEL, MAX_PIXELS = "synthetic:tiny-qwen2-vl", 10_000  # as on the page: 6 x 8 patches
WIDTH, MARGIN = 480, 20
UNIT, GAP, LINE = 106, 5, 2  # a merge unit, the gap between units, and the gap between patches
SHOWN = 6  # the merge unit that is marked
PAPER, INK, GREY, MARK, RULE = "#faf9f6", "#222228", "#63636b", "#d9480f", "#c9c7c0"
LOW, ZERO, HIGH = (33, 102, 172), (247, 247, 247), (178, 24, 43)  # the colours of values, from negative to positive
BEFORE, AFTER = ("Is", "it"), ("?", "No")  # the words around the picture in the prompt


def picture(batch: qwenvis.Batch, encoder: qwenvis.Encoder) -> Image.Image:
    """Put the patches, the rows of ``pixel_values``, back to their places in the picture."""
    c, normal = encoder.config, encoder.spec.processor.normalisation
    patches = batch.pixel_values.reshape(-1, c.in_channels, c.temporal_patch_size, c.patch_size, c.patch_size)
    levels = patches[:, :, 0].transpose(0, 2, 3, 1) * normal.std + normal.mean
    (_, rows, columns), size = batch.grid_thw[0], c.patch_size
    places = np.zeros((rows, columns, size, size, 3))
    places[tuple(coords(batch.grid_thw, c.spatial_merge_size).T)] = levels
    pixels = places.swapaxes(1, 2).reshape(rows * size, columns * size, 3)
    return Image.fromarray((pixels * 255).round().clip(0, 255).astype(np.uint8))


def heat(tokens: np.ndarray) -> Image.Image:
    """Colour the values of the tokens: one row for each token, one pixel for each number."""
    scale = np.percentile(np.abs(tokens), 98)
    stops = np.array([LOW, ZERO, HIGH])
    levels = [np.interp(tokens / scale, (-1, 0, 1), stops[:, k]) for k in range(3)]
    return Image.fromarray(np.stack(levels, -1).round().astype(np.uint8))


def data(image: Image.Image, kind: str, **options: object) -> str:
    """Return the image as a data URI."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def text(x: float, y: float, words: object, size: int = 15, *, ink: str = INK, more: str = "") -> str:
    """Write words around x, or from x on if ``more`` sets the anchor."""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{ink}" {more}>{words}</text>'


def box(x: float, y: float, width: float, height: float, more: str) -> str:
    """Draw a rectangle."""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" {more}/>'


def cut(part: str, view: Iterable[float], place: Iterable[float]) -> str:
    """Show a rectangle (x, y, width, height) of a defined image at a place (x, y, width, height)."""
    x, y, width, height = place
    box = " ".join(f"{number:g}" for number in view)
    return (
        f'<svg x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" viewBox="{box}" preserveAspectRatio="none">'
        f'<use href="#{part}"/></svg>'
    )


def define(name: str, image: Image.Image, kind: str, **options: object) -> str:
    """Define an image that `cut` can show."""
    width, height = image.size
    return f'<defs><image id="{name}" width="{width}" height="{height}" href="{data(image, kind, **options)}"/></defs>'


def page(height: float, title: str, parts: Iterable[str]) -> str:
    """Join the parts of a figure."""
    attributes = f'viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" role="img" text-anchor="middle"'
    fonts = 'font-family="system-ui, -apple-system, Segoe UI, Roboto, DejaVu Sans, sans-serif"'
    paper = box(0, 0, WIDTH, height, f'rx="8" fill="{PAPER}"')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {attributes} {fonts}>\n<title>{title}</title>'
    return "\n".join([head, paper, *parts, "</svg>\n"])


class Example:
    """The picture of the page, cut into patches, and its tokens."""

    def __init__(self) -> None:
        source = resources.files("qwenvis") / "demo.jpg"
        encoder = qwenvis.Encoder.from_pretrained(MODEL)
        batch = encoder.preprocess(source, max_pixels=MAX_PIXELS)
        self.tokens = encoder(batch.pixel_values, batch.grid_thw).embeddings
        self.picture = picture(batch, encoder)
        self.patch, self.merge = encoder.config.patch_size, encoder.config.spatial_merge_size
        self.coords = coords(batch.grid_thw, self.merge)
        self.rows, self.columns = batch.grid_thw[0, 1:].tolist()

    def unit(self, token: int) -> tuple[int, int, int, int]:
        """Return the rectangle of the picture whose patches become the token."""
        side = self.patch * self.merge
        row, column = divmod(token, self.columns // self.merge)
        return column * side, row * side, side, side


def cell(row: int, column: int) -> tuple[float, float]:
    """Return the place of a patch in the first figure."""
    half = (UNIT + LINE) / 2
    x, y = (k // 2 * (UNIT + GAP) + k % 2 * half for k in (column, row))
    return MARGIN + x, 44 + y


def patches(example: Example) -> Iterator[str]:
    """Draw the picture in patches, each with the number of its row in ``pixel_values``."""
    side = (UNIT - LINE) / 2
    outline = f'fill="none" stroke="{MARK}" stroke-width="4" rx="3"'
    for number, (row, column) in enumerate(example.coords.tolist()):
        x, y = cell(row, column)
        size = example.patch
        yield cut("picture", (column * size, row * size, size, size), (x, y, side, side))
        halo = 'stroke="#00000099" stroke-width="3.5" paint-order="stroke" stroke-linejoin="round"'
        yield text(x + side / 2, y + side / 2 + 6, number, 17, ink="#fff", more=halo)
    row, column = divmod(SHOWN, example.columns // example.merge)
    yield box(*(k - 1 for k in cell(row * example.merge, column * example.merge)), UNIT + 2, UNIT + 2, outline)


def matrix(example: Example, top: float) -> Iterator[str]:
    """Draw the tokens: rows of coloured numbers, each beside its merge unit."""
    height, left, right = 20, 78, WIDTH - MARGIN
    for token in range(len(example.tokens)):
        y = top + token * (height + 2)
        marked = token == SHOWN
        yield text(30, y + 15, token, 15, ink=MARK if marked else INK, more='font-weight="bold"' if marked else "")
        yield cut("picture", example.unit(token), (48, y, height, height))
        yield cut("tokens", (0, token, example.tokens.shape[1], 1), (left, y, right - left, height))
    marked = f'fill="none" stroke="{MARK}" stroke-width="3"'
    yield box(46.5, top + SHOWN * (height + 2) - 1.5, right - 45, height + 3, marked)


def from_picture_to_tokens(example: Example) -> str:
    """Draw the first figure."""
    rows, columns, (tokens, width) = example.rows, example.columns, example.tokens.shape
    below = cell(rows, 0)[1] + 6
    size = " x ".join(map(str, example.picture.size))
    words = [
        text(WIDTH / 2, 28, f"{size} pixels = {rows} rows x {columns} columns of patches", 17),
        text(WIDTH / 2 + 12, below + 24, "vision encoder: the patches attend to one another;", 15, ink=GREY),
        text(WIDTH / 2 + 12, below + 43, "2 x 2 of them, a merge unit, become one token", 15, ink=GREY),
        f'<path d="M32 {below + 6}v32m-8 -9l8 9l8 -9" fill="none" stroke="{MARK}" stroke-width="3"/>',
        text(WIDTH / 2, below + 76, f"{rows}/2 x {columns}/2 = {tokens} tokens of {width} numbers", 17),
    ]
    images = [define("picture", example.picture, "JPEG", quality=90), define("tokens", heat(example.tokens), "PNG")]
    style = "<style>#tokens{image-rendering:pixelated}</style>"
    bottom = below + 90 + tokens * 22
    parts = [style, *images, *patches(example), *words, *matrix(example, below + 90)]
    return page(bottom + 14, "A picture in patches, and the token of each merge unit", parts)


def positions_in_a_prompt(example: Example) -> str:
    """Draw the second figure."""
    rows, columns, count = example.rows // example.merge, example.columns // example.merge, len(example.tokens)
    start = len(BEFORE)
    after = start + max(rows, columns) + np.arange(len(AFTER))
    vision = start + np.indices((1, rows, columns)).reshape(3, -1)
    table = np.concatenate([np.tile(np.arange(start), (3, 1)), vision, np.tile(after, (3, 1))], axis=1)
    left, step = 68, (WIDTH - 68 - 8) / table.shape[1]
    parts = [define("picture", example.picture, "JPEG", quality=90)]
    for place in range(table.shape[1]):
        x, token = left + place * step, place - start
        if 0 <= token < count:
            parts.append(cut("picture", example.unit(token), (x + 1, 16, step - 2, step - 2)))
        else:
            word = (BEFORE + AFTER)[place if token < 0 else token - count + start]
            parts.append(text(x + step / 2, 35, word, 16))
        for line, position in enumerate(table[:, place]):
            parts.append(text(x + step / 2, 68 + 26 * line, position, 18))
        parts.append(text(x + step / 2, 158, place, 15, ink=GREY))
    for line, name in enumerate(("t", "row", "column")):
        parts.append(text(8, 68 + 26 * line, name, 15, more='text-anchor="start"'))
    parts.append(text(8, 158, "place", 15, ink=GREY, more='text-anchor="start"'))
    parts.append(f'<path d="M8 135H{WIDTH - 8}" stroke="{RULE}"/>')
    for edge in (start, start + count):
        parts.append(f'<path d="M{left + edge * step:g} 12V164" stroke="{RULE}" stroke-dasharray="4 3"/>')
    return page(172, "The positions of twelve tokens between words", parts)


def figures() -> dict[str, str]:
    """Return the SVG of each figure, by the name of its file."""
    example = Example()
    return {"tokens": from_picture_to_tokens(example), "positions": positions_in_a_prompt(example)}


def main() -> None:
    """Write the figures."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "figures"
    for name, figure in figures().items():
        target = directory / f"{name}.svg"
        target.write_text(figure, encoding="utf-8")
        print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
