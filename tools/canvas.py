"""A canvas for the demo picture: masks, noise, strokes and text, with Pillow and NumPy.

Coordinates are pixels of the finished picture; it is painted `SCALE` times larger and reduced, which smooths the edges.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

WIDTH, HEIGHT, SCALE = 1008, 784, 2

Array = np.ndarray
Colour = tuple[int, int, int]
Point = tuple[float, float]
Points = list[Point]


class Canvas:
    """A float picture (rows, columns, 3) in 0..255, painted through masks."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.pixels = np.zeros((HEIGHT * SCALE, WIDTH * SCALE, 3), np.float32)
        self.rows, self.columns = (a.astype(np.float32) / SCALE for a in np.mgrid[: HEIGHT * SCALE, : WIDTH * SCALE])

    def noise(self, width: int, height: int, octaves: int) -> Array:
        """Return smooth noise in 0..1 with cells of ``width`` x ``height`` pixels, halved from octave to octave."""
        total, weight = np.zeros(self.rows.shape, np.float32), 0.0
        for octave in range(octaves):
            shape = (HEIGHT * 2**octave // height + 2, WIDTH * 2**octave // width + 2)
            cells = Image.fromarray(self.random.random(shape, np.float32))
            total += np.asarray(cells.resize(total.shape[::-1], Image.Resampling.BICUBIC)) / 2**octave
            weight += 1 / 2**octave
        return total / weight

    def mask(self, *polygons: Points, blur: float = 0) -> Array:
        """Return a mask: 1 inside the polygons, 0 outside, with an edge of ``blur`` pixels."""
        image = Image.new("L", self.rows.shape[::-1])
        draw = ImageDraw.Draw(image)
        for polygon in polygons:
            draw.polygon([(x * SCALE, y * SCALE) for x, y in polygon], fill=255)
        if blur:
            image = image.filter(ImageFilter.GaussianBlur(blur * SCALE))
        return np.asarray(image, np.float32) / 255

    def paint(self, colour: Colour | Array, mask: Array) -> None:
        """Paint ``colour``, a single colour or one per pixel, over the picture with the opacity ``mask``."""
        self.pixels += mask[..., None] * (np.asarray(colour, np.float32) - self.pixels)

    def image(self) -> Image.Image:
        """Return the picture in bytes, `SCALE` times larger than the finished picture."""
        return Image.fromarray(self.pixels.clip(0, 255).astype(np.uint8))

    def draw_lines(self, lines: list[tuple[Points, Colour, float]]) -> None:
        """Draw lines (points, colour, width) in order."""
        image = self.image()
        draw = ImageDraw.Draw(image)
        for points, colour, width in lines:
            draw.line([(x * SCALE, y * SCALE) for x, y in points], colour, max(1, round(width * SCALE)), joint="curve")
        self.pixels = np.asarray(image).astype(np.float32)

    def draw_ellipses(self, ellipses: list[tuple[Point, Point, Colour]]) -> None:
        """Draw ellipses (centre, radii, colour), each with a darker rim, in order."""
        image = self.image()
        draw = ImageDraw.Draw(image)
        for (x, y), (a, b), colour in ellipses:
            corners = [(x - a) * SCALE, (y - b) * SCALE, (x + a) * SCALE, (y + b) * SCALE]
            draw.ellipse(corners, colour, tuple(int(c * 0.72) for c in colour))
        self.pixels = np.asarray(image).astype(np.float32)

    def write(self, text: str, centre: Point, size: float, colour: Colour) -> None:
        """Write ``text`` around ``centre`` in Pillow's own font."""
        image = Image.new("L", self.rows.shape[::-1])
        font = ImageFont.load_default(size * SCALE)
        ImageDraw.Draw(image).text((centre[0] * SCALE, centre[1] * SCALE), text, 255, font, "mm")
        self.paint(colour, np.asarray(image, np.float32) / 255)


def box(left: float, top: float, right: float, bottom: float) -> Points:
    """Return the corners of a rectangle."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def step(low: float, high: float, x: Array) -> Array:
    """Rise smoothly from 0 at ``low`` to 1 at ``high``."""
    t = ((x - low) / (high - low)).clip(0, 1)
    return t * t * (3 - 2 * t)


def blend(stops: list[tuple[float, Colour]], x: Array) -> Array:
    """Interpolate the colours of ``stops`` (position, colour) at each ``x``."""
    places = [place for place, _ in stops]
    return np.stack([np.interp(x, places, [c[i] for _, c in stops]) for i in range(3)], -1).astype(np.float32)
