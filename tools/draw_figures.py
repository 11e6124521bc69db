"""Draw the figures of the docs: how a picture becomes tokens, where they go, and what they cost.

Usage: ``python tools/draw_figures.py [DIRECTORY]``. Everything in the figures is computed, by the code that the pages
describe: the patches are the rows of ``pixel_values``, the colours are the values of the tokens, and the bars are the
estimates of `qwenvis.cost`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image
from svg import GREY, INK, MARGIN, MARK, RULE, START, WIDTH, arrow, box, cut, define, line, matrix, page, text

import qwenvis
from qwenvis import cost, models
from qwenvis.geometry import coords
from qwenvis.sources.presets import PRESETS

PICTURE = resources.files("qwenvis") / "demo.jpg"
MODEL, MAX_PIXELS = "synthetic:tiny-qwen2-vl", 10_000  # as in docs/concepts.md: 6 x 8 patches
DEEP, DEEP_PIXELS = "synthetic:tiny-qwen3-vl", 80_000  # as there
UNIT, GAP, LINE = 106, 5, 2  # a merge unit, the gap between units, and the gap between patches
SHOWN = 6  # the merge unit that is marked
BEFORE, AFTER = ("Is", "it"), ("?", "No")  # the words around the picture in the prompt
PRICED = "qwen2-vl-2b"
SIZES = ((448, 448), (1176, 868), (1932, 1092), (4032, 3024))  # pixels: small, a megapixel, a film, a phone's photo


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


class Example:
    """The picture of the pages, cut into patches, and its tokens."""

    def __init__(self) -> None:
        encoder = qwenvis.Encoder.from_pretrained(MODEL)
        batch = encoder.preprocess(PICTURE, max_pixels=MAX_PIXELS)
        self.tokens = encoder(batch.pixel_values, batch.grid_thw).embeddings
        self.picture = picture(batch, encoder)
        self.patch, self.merge = encoder.config.patch_size, encoder.config.spatial_merge_size
        self.coords = coords(batch.grid_thw, self.merge)
        self.grid = batch.grid_thw[0].tolist()
        self.rows, self.columns = self.grid[1:]

    def unit(self, token: int) -> tuple[int, int, int, int]:
        """Return the rectangle of the picture whose patches become the token."""
        side = self.patch * self.merge
        row, column = divmod(token, self.columns // self.merge)
        return column * side, row * side, side, side

    def defined(self) -> str:
        """Define the picture."""
        return define("picture", self.picture, "JPEG", quality=90)


def cell(row: int, column: int) -> tuple[float, float]:
    """Return the place of a patch in the figure of the tokens."""
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


def numbered_tokens(example: Example, top: float) -> Iterator[str]:
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
    """Draw the patches of the picture, and the token of each merge unit."""
    rows, columns, (tokens, width) = example.rows, example.columns, example.tokens.shape
    below = cell(rows, 0)[1] + 6
    size = " x ".join(map(str, example.picture.size))
    words = [
        text(WIDTH / 2, 28, f"{size} pixels = {rows} rows x {columns} columns of patches", 17),
        text(WIDTH / 2 + 12, below + 24, "vision encoder: the patches attend to one another;", 15, ink=GREY),
        text(WIDTH / 2 + 12, below + 43, "2 x 2 of them, a merge unit, become one token", 15, ink=GREY),
        arrow(32, below + 6, 32),
        text(WIDTH / 2, below + 76, f"{rows}/2 x {columns}/2 = {tokens} tokens of {width} numbers", 17),
    ]
    images = [example.defined(), matrix("tokens", example.tokens)]
    parts = [*images, *patches(example), *words, *numbered_tokens(example, below + 90)]
    return page(below + 104 + tokens * 22, "A picture in patches, and the token of each merge unit", parts)


def positions_in_a_prompt(example: Example) -> str:
    """Draw a prompt, and the three positions of each of its tokens."""
    rows, columns, count = example.rows // example.merge, example.columns // example.merge, len(example.tokens)
    start = len(BEFORE)
    after = start + max(rows, columns) + np.arange(len(AFTER))
    vision = start + np.indices((1, rows, columns)).reshape(3, -1)
    table = np.concatenate([np.tile(np.arange(start), (3, 1)), vision, np.tile(after, (3, 1))], axis=1)
    left, step = 68, (WIDTH - 68 - 8) / table.shape[1]
    parts = [example.defined()]
    for place in range(table.shape[1]):
        x, token = left + place * step, place - start
        if 0 <= token < count:
            parts.append(cut("picture", example.unit(token), (x + 1, 16, step - 2, step - 2)))
        else:
            word = (BEFORE + AFTER)[place if token < 0 else token - count + start]
            parts.append(text(x + step / 2, 35, word, 16))
        for level, position in enumerate(table[:, place]):
            parts.append(text(x + step / 2, 68 + 26 * level, position, 18))
        parts.append(text(x + step / 2, 158, place, 15, ink=GREY))
    for level, name in enumerate(("t", "row", "column")):
        parts.append(text(8, 68 + 26 * level, name, more=START))
    parts.append(text(8, 158, "place", ink=GREY, more=START))
    parts.append(line(f"M8 135H{WIDTH - 8}"))
    for edge in (start, start + count):
        parts.append(line(f"M{left + edge * step:g} 12V164", more='stroke-dasharray="4 3"'))
    return page(172, "The positions of twelve tokens between words", parts)


def deepstack_side_by_side() -> str:
    """Draw tokens and their deepstack as one wide matrix, and where each part of it goes."""
    out = qwenvis.Encoder.from_pretrained(DEEP).encode(PICTURE, max_pixels=DEEP_PIXELS)
    rows, columns, levels = 8, out.embeddings.shape[1], len(out.deepstack)
    names = ["embeddings", *(f"deepstack[{level}]" for level in range(levels))]
    goals = ["in place of", "the placeholders"], *(["added after", f"layer {level}"] for level in range(levels))
    inside, gap = WIDTH - 2 * MARGIN, 8
    width = (inside + gap) / len(names) - gap
    title = f"out.wide(): W = {columns} x (1 + {levels}) = {out.wide().shape[1]}"
    note = f"the first {rows} of {len(out.embeddings)} tokens; layers of the language model"
    parts = [
        matrix("wide", out.wide()[:rows]),
        text(WIDTH / 2, 28, title, 17),
        line(f"M{MARGIN} 46v-6h{inside}v6", GREY),
        text(MARGIN, 288, note, 13, ink=GREY, more=START),
    ]
    for part, (name, goal) in enumerate(zip(names, goals, strict=True)):
        x = MARGIN + part * (width + gap)
        middle = x + width / 2
        parts.append(text(middle, 66, name))
        parts.append(cut("wide", (part * columns, 0, columns, rows), (x, 76, width, rows * 14)))
        parts.append(arrow(middle, 196, 30))
        parts += [text(middle, 246 + 19 * k, words, ink=GREY) for k, words in enumerate(goal)]
    return page(302, "Tokens and deepstack side by side, and what the language model does with each", parts)


def memory() -> str:
    """Draw the memory of an encoder for pictures of several sizes, by the estimates of `qwenvis.cost`."""
    preset = PRESETS[PRICED]
    tower, weights = models.build(preset.family, preset.vision_config, {})
    small = cost.weight_nbytes(*models.build(preset.family, preset.vision_config, {}, "bf16")) / 1e9
    fixed, left, scale = cost.weight_nbytes(tower, weights) / 1e9, MARGIN, 86
    parts = [text(left, 28, "Memory of Qwen2-VL-2B in float32, in GB", 17, more=START)]
    for number, (width, height) in enumerate(SIZES):
        side, y = tower.config.patch_size, 78 + number * 62
        grid = np.array([[1, height // side, width // side]])
        found = cost.cost(tower, weights, grid)
        more = found.nbytes / 1e9
        parts.append(text(left, y - 8, f"{width} x {height} pixels, {found.patches:,} patches:", more=START))
        parts.append(text(WIDTH - MARGIN, y - 8, f"{fixed:.2f} + {more:.2f}", more='text-anchor="end"'))
        parts.append(box(left, y, round(fixed * scale), 26, f'fill="{RULE}"'))
        parts.append(box(left + round(fixed * scale), y, max(2, round(more * scale)), 26, f'fill="{MARK}"'))
        parts.append(line(f"M{left + round(small * scale)} {y}v26", INK, 'stroke-dasharray="4 3"'))
    foot = 78 + len(SIZES) * 62
    parts.append(text(left, foot, f"grey: weights (dashed: in bfloat16, {small:.2f})", ink=GREY, more=START))
    parts.append(text(left, foot + 21, "orange: a forward pass, linear in the number of patches", ink=GREY, more=START))
    return page(foot + 34, "Memory of weights and of a forward pass for pictures of four sizes", parts)


def handover(example: Example) -> str:
    """Draw what the encoder hands to an engine, and what the language model does with it."""
    count, width = example.tokens.shape
    parts = [example.defined()]
    parts.append(cut("picture", (0, 0, *example.picture.size), (WIDTH / 2 - 56, 14, 112, 84)))
    parts.append(arrow(WIDTH / 2, 104, 24))
    frame = f'rx="8" fill="#fff" stroke="{INK}" stroke-width="2"'
    for y, words in ((136, "the vision encoder: qwenvis, on a CPU"), (342, "the language model: an engine, anywhere")):
        parts += [box(MARGIN, y, WIDTH - 2 * MARGIN, 44, frame), text(WIDTH / 2, y + 28, words, 17)]
    third = (WIDTH - 2 * MARGIN) / 3
    handed = (
        ("embeddings", f"{count} x {width} numbers", "replace the", "placeholders"),
        ("grid_thw", f"{example.grid}", "gives them", "their positions"),
        ("keys", "64 digits an item", "name them", "in a cache"),
    )
    for number, (name, size, *goal) in enumerate(handed):
        middle = MARGIN + (number + 0.5) * third
        parts.append(text(middle, 206, name, 16, more='font-weight="bold"'))
        parts.append(text(middle, 226, size))
        parts += [arrow(middle, 236, 22), arrow(middle, 308, 26)]
        parts += [text(middle, 277 + 19 * k, words, ink=GREY) for k, words in enumerate(goal)]
    return page(402, "What the encoder hands over, and what the language model does with it", parts)


def figures() -> dict[str, str]:
    """Return the SVG of each figure, by the name of its file."""
    example = Example()
    return {
        "tokens": from_picture_to_tokens(example),
        "positions": positions_in_a_prompt(example),
        "deepstack": deepstack_side_by_side(),
        "handover": handover(example),
        "memory": memory(),
    }


def main() -> None:
    """Write the figures."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "figures"
    for name, figure in figures().items():
        target = directory / f"{name}.svg"
        target.write_text(figure, encoding="utf-8")
        print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
