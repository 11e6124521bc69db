"""The house of the demo picture: bricks, shingles, windows, a door, a chimney and its smoke."""

from __future__ import annotations

import numpy as np
from canvas import SCALE, Canvas, Colour, Points, blend, box, step


def house(canvas: Canvas) -> None:
    """Paint a brick house with a shingled roof."""
    left, right, top, bottom = 576, 896, 418, 622
    ground = [(left - 8, bottom - 6), (right + 96, bottom - 6), (right + 40, bottom + 22), (left + 6, bottom + 14)]
    canvas.paint((34, 46, 26), 0.6 * canvas.mask(ground, blur=5))
    bricks(canvas, left, top, right, bottom)
    eaves = canvas.mask(box(left, top, right, bottom)) * (1 - step(top + 8, top + 44, canvas.rows))
    canvas.paint((58, 38, 46), 0.55 * eaves)
    shingles(canvas, [(left - 26, top + 14), (left + 34, 304), (right - 34, 304), (right + 26, top + 14)])
    for x in (left + 61, right - 61):
        window(canvas, x, 524)
    door(canvas, 736, bottom)


def chimney(canvas: Canvas) -> None:
    """Paint a chimney and its smoke, before the roof that hides its foot."""
    bricks(canvas, 800, 268, 836, 330)
    canvas.paint((120, 112, 110), canvas.mask(box(795, 262, 841, 271)))
    puffs = canvas.noise(34, 26, 5)
    rise = (262 - canvas.rows).clip(0, None)
    centre = 818 + 0.0022 * rise**2 + 10 * np.sin(rise / 27)
    plume = np.exp(-(((canvas.columns - centre) / (7 + 0.20 * rise)) ** 2))
    fade = step(0, 12, rise) * (1 - step(90, 230, rise))
    canvas.paint((236, 228, 228), 0.85 * plume * fade * step(0.30, 0.62, puffs))


def bricks(canvas: Canvas, left: float, top: float, right: float, bottom: float) -> None:
    """Paint a wall of bricks in a running bond, lit from the left."""
    canvas.paint((196, 178, 160), canvas.mask(box(left, top, right, bottom)))
    for row, y in enumerate(np.arange(top, bottom - 1, 8.5)):
        for x in np.arange(left - 11 * (row % 2), right, 22):
            a, b = max(x, left) + 0.7, min(x + 20.6, right) - 0.7
            if b - a < 1:
                continue
            light = canvas.random.normal(1, 0.11) * (1.08 - 0.22 * (x - left) / (right - left))
            colour = tuple(int(min(255, c * light)) for c in (172, 84, 62))
            fill(canvas, a, y + 0.6, b, min(y + 7.7, bottom), colour)


def shingles(canvas: Canvas, outline: Points) -> None:
    """Paint a roof of overlapping shingles inside a convex ``outline``."""
    roof = canvas.mask(outline)
    canvas.paint((44, 42, 56), roof)
    before = canvas.pixels.copy()
    (left, bottom), (_, top), _, (right, _) = outline
    for row, y in enumerate(np.arange(bottom - 9, top - 9, -8.0)):
        for x in np.arange(left - 7 * (row % 2), right, 14):
            light = canvas.random.normal(1, 0.10) * (1.12 - 0.3 * (x - left) / (right - left))
            colour = tuple(int(c * light) for c in (92, 88, 104))
            fill(canvas, max(x, 0), y, x + 13.2, y + 8, colour)
            fill(canvas, max(x, 0), y + 7.2, x + 13.2, y + 8.6, (44, 42, 56))
    canvas.pixels = before + roof[..., None] * (canvas.pixels - before)
    canvas.paint((150, 140, 148), canvas.mask(box(outline[1][0] - 2, top - 2, outline[2][0] + 2, top + 3)))
    canvas.paint((236, 226, 210), canvas.mask(box(left, bottom - 2, right, bottom + 4)))


def window(canvas: Canvas, x: float, y: float) -> None:
    """Paint a lit window with a white frame, shutters and a flower box around its centre."""
    for side in (-41, 27):
        canvas.paint((44, 92, 96), canvas.mask(box(x + side, y - 34, x + side + 14, y + 34)))
        slats = [box(x + side + 2, y + k, x + side + 12, y + k + 1.6) for k in range(-31, 31, 4)]
        canvas.paint((26, 62, 70), canvas.mask(*slats))
    canvas.paint((246, 240, 228), canvas.mask(box(x - 26, y - 35, x + 26, y + 35)))
    glow = blend([(-34, (255, 222, 140)), (34, (250, 176, 84))], canvas.rows - y)
    panes = [box(x + a, y + b, x + a + 21, y + b + 20) for a in (-23, 2) for b in (-32, -10, 12)]
    canvas.paint(glow, canvas.mask(*panes))
    canvas.paint((255, 250, 226), 0.5 * canvas.mask(*[[(a, b), (a + 9, b), (a, b + 12)] for (a, b), *_ in panes]))
    canvas.paint((112, 72, 48), canvas.mask(box(x - 30, y + 38, x + 30, y + 49)))
    for _ in range(70):
        a, b = x + canvas.random.uniform(-29, 29), y + canvas.random.uniform(29, 41)
        size = canvas.random.uniform(1, 2.4)
        colour = [(64, 116, 52), (86, 140, 60), (222, 60, 92), (250, 214, 224)][canvas.random.integers(4)]
        fill(canvas, a - size, b - size, a + size, b + size, colour)


def door(canvas: Canvas, x: float, bottom: float) -> None:
    """Paint a door, its step and the sign above it."""
    canvas.paint((246, 240, 228), canvas.mask(box(x - 30, bottom - 112, x + 30, bottom)))
    canvas.paint((36, 74, 92), canvas.mask(box(x - 25, bottom - 107, x + 25, bottom)))
    canvas.paint((24, 54, 70), canvas.mask(box(x - 18, bottom - 52, x + 18, bottom - 10)))
    panes = [box(x + a, bottom - 98, x + a + 16, bottom - 62) for a in (-18, 2)]
    canvas.paint((252, 208, 124), canvas.mask(*panes))
    fill(canvas, x + 18, bottom - 58, x + 22, bottom - 54, (228, 190, 96))
    canvas.paint((150, 146, 140), canvas.mask(box(x - 40, bottom - 2, x + 40, bottom + 8)))
    canvas.paint((28, 36, 44), canvas.mask(box(x - 66, bottom - 170, x + 66, bottom - 128)))
    canvas.paint((236, 206, 130), canvas.mask(box(x - 63, bottom - 167, x + 63, bottom - 131)))
    canvas.paint((28, 44, 52), canvas.mask(box(x - 61, bottom - 165, x + 61, bottom - 133)))
    canvas.write("QWENVIS", (x, bottom - 149), 26, (250, 228, 170))


def fill(canvas: Canvas, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
    """Fill a rectangle with a slightly grained ``colour``."""
    rows, columns = (slice(round(a * SCALE), round(b * SCALE)) for a, b in ((top, bottom), (left, right)))
    area = canvas.pixels[rows, columns]
    area[:] = np.float32(colour) + canvas.random.normal(0, 7, (*area.shape[:2], 1))
