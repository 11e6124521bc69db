"""Draw qwenvis/demo.jpg, the picture that ``qwenvis demo`` encodes.

Usage: ``python tools/draw_demo.py [FILE]``. Everything is drawn from one seed with NumPy and Pillow, so no other author
or licence is involved; a version of Pillow writes the same bytes every time. At half of its 1008 x 784 pixels, the
picture has 1008 patches and 252 tokens. The scene has structures that an encoder distinguishes: smooth regions (sky),
soft edges (clouds, water), sharp edges (house), fine texture (bricks, shingles, grass) and text.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from canvas import HEIGHT, SCALE, WIDTH, Canvas, blend, box, step
from cottage import chimney, house

SEED = 14
HORIZON, SHORE = 420, 548
SUN = (522, 306)


def sky(canvas: Canvas) -> None:
    """Paint an evening sky with its sun and clouds."""
    stops = [
        (0, (38, 74, 138)),
        (150, (92, 134, 186)),
        (270, (190, 190, 196)),
        (350, (250, 206, 150)),
        (430, (255, 178, 104)),
    ]
    canvas.pixels[:] = blend(stops, canvas.rows)
    distance = np.hypot(canvas.columns - SUN[0], (canvas.rows - SUN[1]) * 1.15)
    canvas.paint((255, 226, 160), 0.85 * np.exp(-((distance / 150) ** 1.3)))
    canvas.paint((255, 250, 226), 1 - step(29, 31, np.hypot(canvas.columns - SUN[0], canvas.rows - SUN[1])))
    shape = canvas.noise(330, 90, 6)
    cover = step(0.5, 0.72, shape + 0.10 - 0.10 * step(60, 330, canvas.rows)) * (1 - step(250, 360, canvas.rows))
    light = step(0.42, 0.74, shape)
    cloud = blend([(0, (255, 238, 214)), (0.5, (236, 208, 204)), (1, (150, 158, 190))], light)
    canvas.paint(cloud, 0.92 * cover)


def mountains(canvas: Canvas) -> None:
    """Paint three mountain ranges, each nearer, darker and greener, with snow on the first."""
    ranges = [
        (300, 130, 7, (116, 128, 168), (176, 160, 172)),
        (362, 70, 6, (74, 96, 130), (126, 122, 140)),
        (398, 40, 6, (44, 74, 84), (78, 98, 98)),
    ]
    for k, (height, swing, octaves, top, bottom) in enumerate(ranges):
        profile = canvas.noise(190 - 40 * k, HEIGHT, octaves)[0]
        ridge = height - swing * (2.1 * (profile - 0.5) - 0.35 * np.abs(canvas.noise(120, HEIGHT, 5)[0] - 0.5))
        mask = step(-0.6, 0.6, canvas.rows - ridge)
        rock = canvas.noise(70, 60, 7)
        slope = np.gradient(rock, axis=1) * (1 if k else 1.6) * np.sign(canvas.columns - SUN[0])
        depth = (canvas.rows - ridge) / (HORIZON - ridge)
        relief = (1 - 16 * slope * (1 - 0.8 * depth)).clip(0.6, 1.35)
        colour = blend([(0, top), (1, bottom)], depth) * relief[..., None]
        canvas.paint(colour, mask)
        if k == 0:
            edge = 0.45 * (canvas.rows - ridge) + 0.55 * (canvas.rows - 268) + 150 * (rock - 0.5)
            snow = mask * (1 - step(16, 23, edge))
            canvas.paint(np.float32([250, 240, 240]) * relief[..., None].clip(0.72, 1.02), 0.95 * snow)


def firs(canvas: Canvas) -> None:
    """Paint a forest on the far shore."""
    trees = []
    for x in np.sort(canvas.random.uniform(-10, WIDTH + 10, 420)):
        height = canvas.random.uniform(14, 34) * (0.7 + 0.5 * np.sin(x / 90) ** 2)
        base = HORIZON + canvas.random.uniform(-3, 3)
        for k in range(4):
            top, half = base - height * (1 - 0.22 * k), height * (0.10 + 0.055 * k)
            trees.append([(x, top), (x + half, top + height * 0.36), (x - half, top + height * 0.36)])
    canvas.paint((26, 50, 48), canvas.mask(*trees))
    canvas.paint((20, 42, 42), canvas.mask(box(0, HORIZON - 8, WIDTH, HORIZON + 3)))


def lake(canvas: Canvas) -> None:
    """Paint water that mirrors the scene above, broken by ripples and by the sun's path."""
    below = canvas.rows > HORIZON
    depth = (canvas.rows - HORIZON).clip(0, None)
    ripple = canvas.noise(46, 5, 3) - 0.5
    source = (HORIZON - 1.9 * depth + ripple * (4 + depth * 0.35)).clip(0, HORIZON - 1)
    aside = (canvas.columns + ripple * depth * 0.25).clip(0, WIDTH - 1)
    mirror = canvas.pixels[(source * SCALE).astype(int), (aside * SCALE).astype(int)]
    water = mirror * 0.80 + np.float32([10, 26, 40])
    canvas.paint(water * (0.94 + 0.32 * ripple[..., None]), below.astype(np.float32))
    path = np.exp(-(((canvas.columns - SUN[0]) / (16 + 0.45 * depth)) ** 2)) * step(0.04, 0.16, ripple)
    canvas.paint((255, 232, 178), 0.9 * path * below)


def meadow(canvas: Canvas) -> None:
    """Paint the near shore: ground, then blades of grass from far to near."""
    edge = SHORE + 10 * np.sin(canvas.columns / 120) - 26 * step(380, 760, canvas.columns)
    tufts = canvas.noise(150, 40, 4)
    light = 1.06 - 0.3 * step(SHORE, HEIGHT, canvas.rows)
    ground = blend([(0, (70, 98, 44)), (1, (128, 146, 62))], tufts) * light[..., None]
    canvas.paint((58, 66, 46), step(-4, 0, canvas.rows - edge))
    canvas.paint(ground, step(-1, 1, canvas.rows - edge))
    strokes = []
    for y in np.sort(SHORE - 30 + (HEIGHT + 40 - SHORE) * canvas.random.random(15000) ** 0.8):
        x = canvas.random.uniform(-5, WIDTH + 5)
        row, column = min(int(y), HEIGHT - 1) * SCALE, int(np.clip(x, 0, WIDTH - 1)) * SCALE
        if y < edge[row, column] + 2:
            continue
        near = (y - SHORE + 40) / (HEIGHT - SHORE)
        length, lean = 4 + 17 * near * canvas.random.uniform(0.6, 1.3), canvas.random.normal(2, 3) * near
        light = canvas.random.uniform(-26, 40) + 46 * (tufts[row, column] - 0.5)
        colour = (int(88 + light * 1.1), int(122 + light), int(48 + light * 0.5))
        strokes.append(([(x, y), (x + lean * 0.4, y - length * 0.6), (x + lean, y - length)], colour, 0.5 + 0.7 * near))
    canvas.draw_lines(strokes)


def path(canvas: Canvas) -> None:
    """Paint cobbles from the door to the lower edge."""
    place = {y: (736 - 246 * ((y - 630) / 154) ** 1.5, 24 + 62 * (y - 630) / 154) for y in range(630, HEIGHT + 16)}
    left, right = ([(x + side * half, y) for y, (x, half) in place.items()] for side in (-1, 1))
    canvas.paint((96, 92, 80), canvas.mask(left + right[::-1], blur=1))
    stones, y = [], 633.0
    while y < HEIGHT + 12:
        x, half = place[int(y)]
        size = 5 + 9 * (y - 630) / 154
        for k in np.arange(-half + size, half - size * 0.6, size * 1.75):
            centre = (x + k + canvas.random.normal(0, 1), y + canvas.random.normal(0, 0.6))
            light = int(canvas.random.uniform(-22, 22))
            stones.append((centre, (size * 0.8, size * 0.46), (172 + light, 162 + light, 146 + light)))
        y += size * 0.95
    canvas.draw_ellipses(stones)


def board(canvas: Canvas) -> None:
    """Paint a blackboard on two posts, with text in four sizes."""
    left, top, right, bottom = 92, 508, 388, 672
    shadow = [(left + 8, 716), (right - 8, 716), (right + 34, 730), (left + 44, 730)]
    canvas.paint((30, 44, 20), 0.55 * canvas.mask(shadow, blur=4))
    for x in (left + 22, right - 34):
        canvas.paint((96, 64, 40), canvas.mask(box(x, bottom - 10, x + 13, 722)))
    frame, face = box(left, top, right, bottom), box(left + 9, top + 9, right - 9, bottom - 9)
    grain = canvas.noise(160, 5, 4)[..., None]
    canvas.paint(np.float32([176, 122, 74]) * (0.7 + 0.6 * grain), canvas.mask(frame))
    canvas.paint(np.float32([34, 48, 46]) * (0.86 + 0.28 * canvas.noise(40, 24, 4)[..., None]), canvas.mask(face))
    x = (left + right) / 2
    canvas.write("Visual tokens", (x, top + 38), 36, (250, 246, 232))
    canvas.draw_lines([([(left + 34, top + 64), (right - 34, top + 63)], (236, 196, 96), 2)])
    canvas.write("patch 14 x 14, merge 2 x 2", (x, top + 88), 19, (244, 214, 130))
    canvas.write("fresh from the CPU every day", (x, top + 115), 16, (206, 224, 214))
    canvas.write("open 0 - 24 h", (x, top + 139), 13, (232, 168, 150))


def poppies(canvas: Canvas) -> None:
    """Paint flowers in the grass of both lower corners."""
    stalks, petals = [], []
    for y in np.sort(canvas.random.uniform(590, HEIGHT, 150)):
        near = (y - 560) / (HEIGHT - 560)
        x = canvas.random.choice([canvas.random.normal(60, 130), canvas.random.normal(930, 90)])
        size, height = 1.6 + 5.2 * near, 6 + 22 * near
        if (80 < x < 400 and y - height < 690) or (530 < x < 900 and y - height < 650):
            continue
        a, b = x + canvas.random.normal(0, 2), y - height
        stalks.append(([(x, y), (a, b)], (58, 92, 36), 0.5 + near))
        for aside, light in ((-0.5, 0), (0.5, 14), (0, 34)):
            petals.append(((a + aside * size, b), (size, size * 0.72), (194 + light, 36 + light, 30 + light // 2)))
        petals.append(((a, b - size / 4), (size / 3, size / 4), (40, 24, 30)))
    canvas.draw_lines(stalks)
    canvas.draw_ellipses(petals)


def main() -> None:
    """Draw the scene from far to near, and save the picture."""
    canvas = Canvas(SEED)
    for part in (sky, mountains, firs, lake, meadow, path, chimney, house, board, poppies):
        part(canvas)
    corner = np.hypot(canvas.columns / WIDTH - 0.5, canvas.rows / HEIGHT - 0.5)
    canvas.paint((24, 20, 40), 0.28 * step(0.42, 0.78, corner))
    picture = canvas.image().reduce(SCALE)
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "qwenvis" / "demo.jpg"
    picture.save(target, quality=78, optimize=True, progressive=True)
    print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
