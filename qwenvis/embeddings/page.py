"""Pages of pictures beside their tokens: panels in rows, with titles, the grid of the tokens, and notes below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from qwenvis.embeddings.picture import Ink

SIDE = 756  # the longer side of a panel in pixels, about: a multiple of the square
NARROWEST = 320  # the width in pixels in which the title of a panel is broken into lines
MARGIN = 28
TITLE, NOTE, NUMBER, LEADING = 20, 16, 12, 15  # font sizes, and the line spacing in tenths of the font size
PAPER, INK, GREY = (250, 249, 246), (34, 34, 40), (112, 112, 120)
RULE = (255, 255, 255, 96)  # a line of the grid, half transparent
STEPS = (1, 2, 5, 10, 20, 50)  # rows or columns of tokens from one line or number to the next
LINES, NUMBERS = 8, 30  # the least distances in pixels between two lines, and between two numbers


class Panel(NamedTuple):
    """A picture with its title; ``square`` is the side of a token in pixels if its grid is drawn, else 0."""

    image: Image.Image
    title: str = ""
    square: int = 0


def square(colours: NDArray[Any], side: int = SIDE) -> int:
    """Return the side of a token in pixels, at least 1, if the longer side of its grid has about ``side`` pixels."""
    longer: int = max(colours.shape[:2])
    return max(1, round(side / longer))


def enlarged(pictures: Sequence[Image.Image], colours: NDArray[np.uint8], side: int) -> list[Image.Image]:
    """Return the pictures, and last the colours (rows, columns, 3) as squares of ``side`` pixels, all in one size."""
    rows, columns = colours.shape[:2]
    size = columns * side, rows * side
    squares = Image.fromarray(colours).resize(size, Image.Resampling.NEAREST)
    return [*(picture.resize(size, Image.Resampling.LANCZOS) for picture in pictures), squares]


def compose(
    picture: Image.Image, colours: NDArray[np.uint8], titles: Sequence[str], notes: Sequence[str]
) -> Image.Image:
    """Draw a picture beside its tokens, coloured squares (rows, columns, 3), with a title below each."""
    return page([list(map(Panel, enlarged([picture], colours, square(colours)), titles))], notes)


def page(rows: Sequence[Sequence[Panel]], notes: Sequence[str]) -> Image.Image:
    """Draw rows of panels, all of one size, a title below each, and the notes below all rows."""
    width, height = rows[0][0].image.size
    titles = [panel.title for row in rows for panel in row]
    column = max(width, min(NARROWEST, round(max(map(_font(TITLE).getlength, titles)))))
    across = max(map(len, rows)) * (column + MARGIN) - MARGIN
    footers = [line for note in notes for line in _wrapped(note, NOTE, max(across, 2 * NARROWEST))]
    headings = [[_wrapped(panel.title, TITLE, column) for panel in row] for row in rows]
    tops = [MARGIN]
    for heading in headings:
        lines = max(map(len, heading))
        tops.append(tops[-1] + height + (MARGIN // 2 + _leading(TITLE) * lines + MARGIN // 3 if lines else MARGIN))
    bottom = tops[-1] + _leading(NOTE) * len(footers) + MARGIN * 2 // 3
    sheet = Image.new("RGB", (max(across, 2 * NARROWEST) + 2 * MARGIN, bottom), PAPER)
    for row, heading, top in zip(rows, headings, tops, strict=False):
        for number, panel in enumerate(row):
            left = MARGIN + number * (column + MARGIN)
            sheet.paste(panel.image, (left, top))
            if panel.square:
                _rule(sheet, (left, top), panel)
            _write(sheet, (left, top + height + MARGIN // 2), heading[number], TITLE, INK)
    _write(sheet, (MARGIN, tops[-1]), footers, NOTE, GREY)
    return sheet


def distance(side: int, least: int) -> int:
    """Return the pixels from one line or number to the next: a round number of tokens, and at least ``least``."""
    return side * next(step for step in STEPS if step * side >= least)


def _rule(sheet: Image.Image, place: tuple[int, int], panel: Panel) -> None:
    """Draw the grid of the tokens over a panel, and the numbers of rows and columns at its edges."""
    draw = ImageDraw.Draw(sheet, "RGBA")
    (left, top), (width, height), side = place, panel.image.size, panel.square
    lines, numbers = distance(side, LINES), distance(side, NUMBERS)
    for x in range(lines, width, lines):
        draw.line([(left + x, top), (left + x, top + height - 1)], RULE)
    for y in range(lines, height, lines):
        draw.line([(left, top + y), (left + width - 1, top + y)], RULE)
    for x in range(0, width, numbers):
        draw.text((left + x + side / 2, top - 3), str(x // side), GREY, _font(NUMBER), "mb")
    for y in range(0, height, numbers):
        draw.text((left - 3, top + y + side / 2), str(y // side), GREY, _font(NUMBER), "rm")


def _wrapped(text: str, size: int, width: int) -> list[str]:
    """Break the text into lines of at most ``width`` pixels, or a single word."""
    font, lines = _font(size), list[str]()
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _write(sheet: Image.Image, place: tuple[int, int], lines: Sequence[str], size: int, ink: Ink) -> None:
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(lines):
        draw.text((place[0], place[1] + i * _leading(size)), line, ink, _font(size))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.load_default(size)
    except ImportError:  # Pillow without FreeType has one font of one size
        return ImageFont.load_default()


def _leading(size: int) -> int:
    return LEADING * size // 10
