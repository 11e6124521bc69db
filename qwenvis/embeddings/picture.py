"""Tokens drawn as coloured squares, alone or beside their image: by similarity, or by a number for each token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Ink = tuple[int, int, int]

SIDE = 756  # the longer side of a panel in pixels, about: a multiple of the square
NARROWEST = 320  # the width in pixels that the title of a panel needs
MARGIN = 28
TITLE, NOTE, LEADING = 20, 16, 15  # font sizes, and the line spacing in tenths of the font size
PAPER, INK, GREY = (250, 249, 246), (34, 34, 40), (112, 112, 120)
DARK, BRIGHT = 26, 244  # the range of a channel: pure colours glare
HEAT: Sequence[Ink] = ((10, 8, 36), (130, 30, 110), (238, 104, 42), (252, 250, 170))  # the lightness rises evenly
TAIL = 1.0  # per cent of the tokens that saturate a channel, at each end
SAMPLE = 2048  # tokens in the SVD, whose time grows with their number


def colours(tokens: NDArray[Any]) -> tuple[NDArray[np.uint8], float]:
    """Return the colour of each token, (tokens, 3), and the share of the variance that the colours show.

    Red, green and blue are the first three principal components, each scaled to its whole range. The components are
    those of about `SAMPLE` tokens if there are more.
    """
    tokens = np.asarray(tokens, np.float32)
    sample = tokens[:: -(-len(tokens) // SAMPLE)]
    mean = sample.mean(axis=0)
    _, s, axes = np.linalg.svd(sample - mean, full_matrices=False)
    scores = np.zeros((len(tokens), 3))
    known = min(3, len(s))
    scores[:, :known] = tokens @ axes[:known].T - mean @ axes[:known].T
    # The sign of a component is arbitrary; choose it so that the token farthest from the mean is bright.
    scores *= np.where(scores[np.abs(scores).argmax(axis=0), range(3)] < 0, -1, 1)
    low, high = np.percentile(scores, [TAIL, 100 - TAIL], axis=0)
    spread = np.where(high > low, high - low, 1)
    levels = DARK + (BRIGHT - DARK) * ((scores - low) / spread).clip(0, 1)
    return levels.round().astype(np.uint8), float((s[:known] ** 2).sum() / max((s**2).sum(), 1e-30))


def heat(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the colours of numbers from 0, which is dark, to the largest, which is bright: (..., 3)."""
    share = values / (values.max() or 1)
    places = np.linspace(0, 1, len(HEAT))
    levels = [np.interp(share, places, channel) for channel in zip(*HEAT, strict=True)]
    return np.stack(levels, axis=-1).round().astype(np.uint8)


def compose(
    picture: Image.Image, squares: NDArray[np.uint8], titles: Sequence[str], notes: Sequence[str]
) -> Image.Image:
    """Draw the image, the squares (rows, columns, 3) enlarged beside it, a title below each, and notes below both."""
    rows, columns = squares.shape[:2]
    square = max(1, round(SIDE / max(rows, columns)))
    size = columns * square, rows * square
    panels = [
        picture.resize(size, Image.Resampling.LANCZOS),
        Image.fromarray(squares).resize(size, Image.Resampling.NEAREST),
    ]
    column = max(size[0], NARROWEST)
    headings = [_wrapped(title, TITLE, column) for title in titles]
    footers = [line for note in notes for line in _wrapped(note, NOTE, 2 * column + MARGIN)]
    heads = MARGIN + size[1] + MARGIN // 2
    feet = heads + max(map(len, headings)) * LEADING * TITLE // 10 + MARGIN // 3
    page = Image.new(
        "RGB", (2 * column + 3 * MARGIN, feet + len(footers) * LEADING * NOTE // 10 + MARGIN * 2 // 3), PAPER
    )
    for left, panel, heading in zip((MARGIN, column + 2 * MARGIN), panels, headings, strict=True):
        page.paste(panel, (left, MARGIN))
        _write(page, (left, heads), heading, TITLE, INK)
    _write(page, (MARGIN, feet), footers, NOTE, GREY)
    return page


def squares(colour: NDArray[np.uint8], rows: int, side: int) -> Image.Image:
    """Draw the colours (tokens, 3) in ``rows`` rows, within ``side`` x ``side`` pixels; more tokens are thinned out."""
    grid = colour.reshape(rows, -1, 3)
    thinned = grid[:: -(-rows // side), :: -(-grid.shape[1] // side)]
    scale = max(1, side // max(thinned.shape[:2]))
    return Image.fromarray(np.repeat(np.repeat(thinned, scale, axis=0), scale, axis=1))


def _wrapped(text: str, size: int, width: int) -> list[str]:
    """Break the text into lines of at most ``width`` pixels, or a single word."""
    font, lines = _font(size), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _write(page: Image.Image, place: tuple[int, int], lines: Sequence[str], size: int, ink: Ink) -> None:
    draw = ImageDraw.Draw(page)
    for i, line in enumerate(lines):
        draw.text((place[0], place[1] + i * LEADING * size // 10), line, ink, _font(size))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.load_default(size)
    except ImportError:  # Pillow without FreeType has one font of one size
        return ImageFont.load_default()
