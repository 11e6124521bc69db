"""``qwenvis show``: draw an image or a video beside its tokens, or tokens that were stored."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from qwenvis.cli import arguments, files, items, steps, tokens, units
from qwenvis.errors import InputError, QwenvisError, shown

if TYPE_CHECKING:
    from PIL import Image

    from qwenvis.embeddings import Embeddings
    from qwenvis.encoding.inputs import InputItem, Inputs
    from qwenvis.spec import ModelSpec

SUMMARY = "draw an image or a video beside its tokens"
DESCRIPTION = """\
Draw the pixels that the model gets beside the tokens that it computes from them. Both have the same grid, with a square
for each token and its row and column, counted from 0. Tokens with similar colours are similar. A video becomes a strip:
at most 8 of its temporal steps, above their tokens. INPUT is one of

  IMAGE          an image or video file, which --model encodes
  FILE           tokens that qwenvis encode or Embeddings.save wrote; FILE#ITEM if there are several items
  DIRECTORY#ITEM an item of a job; with --model, its image is drawn too if the file still has the same bytes

An ITEM is the name of an item, or its number from 0. Stored tokens hold no pixels: they are drawn alone, or with
--image beside the image that they were computed from, which must have the size, grid and frames of the tokens. Options
such as --num-frames must then be the same as for encoding.
"""
EXAMPLES = """\
  qwenvis show cat.jpg --model Qwen/Qwen2-VL-2B-Instruct
  qwenvis show clip.mp4 --model ./my-checkpoint --num-frames 16 -o clip.png
  qwenvis show tokens.safetensors#cat.jpg --image cat.jpg
  qwenvis show tokens/#photos/cat.jpg -o cat-tokens.png
"""
STRIP = 8  # the most temporal steps in a strip


class Shown(NamedTuple):
    """The tokens of one item, its name, and the pixels of the temporal steps that are drawn, if they are known."""

    out: Embeddings
    name: str
    pixels: list[Image.Image]


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    text = "an image or video file, a file of tokens, or an item of a file of tokens or of a job"
    parser.add_argument("input", metavar="INPUT", help=text)
    text = f"the checkpoint: {arguments.SOURCE} (default: the one that stored tokens name)"
    parser.add_argument("--model", metavar="SOURCE", help=text)
    parser.add_argument("--image", metavar="IMAGE", help="the image or video that stored tokens were computed from")
    text = "the image file to write (default: %(default)s); an existing file is replaced"
    parser.add_argument("-o", "--output", default="qwenvis-show.png", metavar="FILE", help=text)
    arguments.add_dtype(parser)
    arguments.add_threads(parser)
    arguments.add_limits(parser)
    arguments.add_sampling(parser)
    arguments.add_hub(parser)
    arguments.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Encode or read, and draw; return the exit code."""
    target = files.picture(args.output, [each for each in (args.input, args.image) if each])
    stored = tokens.find(args.input)
    if stored is None and args.model is None:
        args.parser.error(f"{units.name(args.input)} holds no tokens: pass --model SOURCE to encode it")
    if stored is None and args.image is not None:
        args.parser.error(f"--image is for stored tokens, and {units.name(args.input)} holds none")
    found = _encoded(args) if stored is None else _stored(args, stored)
    files.save_picture(_page(found), target)
    count, width = found.out.embeddings.shape
    if args.json:
        facts = {"path": str(target), "source": found.name, "grid": found.out.grid_thw[0].tolist()}
        arguments.print_json({**facts, "tokens": count, "width": width, "image": bool(found.pixels)})
        return 0
    print(f"wrote {units.name(str(target))}: {count} tokens of {width} numbers of {units.name(found.name)}")
    return 0


def _encoded(args: argparse.Namespace) -> Shown:
    """Encode an image or a video."""
    from qwenvis.concurrency.threads import resolve

    threads = resolve(args.threads)
    spec, inputs = _inputs(args, args.model, {"min_pixels": args.min_pixels, "max_pixels": args.max_pixels})
    planned = items.verify([args.input], inputs, arguments.sampling(args))
    out = steps.encode(steps.load(spec, threads), inputs, planned)
    return Shown(out, args.input, _read(planned[0]))


def _inputs(args: argparse.Namespace, source: str, options: dict[str, Any]) -> tuple[ModelSpec, Inputs]:
    """Open a checkpoint; return it, and the inputs of the command with these options of images."""
    from qwenvis.concurrency.threads import resolve
    from qwenvis.spec import ModelSpec

    spec = ModelSpec.open(source, dtype=args.dtype, **arguments.hub(args), **options)
    return spec, items.inputs(spec, arguments.sampling(args), resolve(args.threads))


def _stored(args: argparse.Namespace, stored: tokens.Stored) -> Shown:
    """Find the pixels of stored tokens, if their image is given or known."""
    out, pixels = stored.item, []
    if path := args.image or stored.picture:
        try:
            pixels = _pixels(args, out, path)
        except QwenvisError as error:
            if args.image is not None:
                raise
            print(f"qwenvis: drawn without its image: {units.name(str(error))}", file=sys.stderr)
    return Shown(out, out.sources[0], pixels)


def _pixels(args: argparse.Namespace, out: Embeddings, path: str) -> list[Image.Image]:
    """Read the pixels that stored tokens were computed from. Raises InputError if the image is another one."""
    made = out.provenance
    source = args.model or made.get("source")
    if source is None:
        raise InputError("the tokens do not name their checkpoint: pass --model SOURCE to draw their image")
    frames = out.frame_indices[0].tolist() if out.frame_indices else []
    options: dict[str, Any] = {name: made[name] for name in ("pixels", "backend") if name in made}
    for side in ("min_pixels", "max_pixels"):
        text = made.get(f"video_{side}" if frames else side, "")
        options[side] = getattr(args, side) or (int(text) if text.isdecimal() else None)
    _, inputs = _inputs(args, source, options)
    (item,) = items.verify([path], inputs, arguments.sampling(args))
    pixels = _read(item)
    size, grid = tuple(out.sizes[0].tolist()), tuple(out.grid_thw[0].tolist())
    facts: list[tuple[str, Any, Any]] = [
        ("size", item.size if size == (0, 0) else size, item.size),
        ("grid_thw", grid, item.grid),
        ("list of frames", frames, item.times.frame_indices.tolist()),
    ]
    for name, expected, got in facts:
        if expected != got:
            text = f"{shown(path)} is not the image of these tokens, or was encoded with other options"
            raise InputError(f"{text}: its {name} is {got}, and that of the tokens is {expected}")
    return pixels


def _read(item: InputItem) -> list[Image.Image]:
    """Return the pixels of the temporal steps that are drawn, as the tower gets them."""
    from PIL import Image

    chosen = _chosen(item.grid[0])
    numbered = enumerate(item.read(0, item.grid[0]))
    return [Image.fromarray(step.content[0]) for number, step in numbered if number in chosen]


def _chosen(count: int) -> list[int]:
    """Choose the temporal steps that are drawn: all, or `STRIP` at equal distances."""
    return [round(each * (count - 1) / max(1, min(count, STRIP) - 1)) for each in range(min(count, STRIP))]


def _page(found: Shown) -> Image.Image:
    """Draw an image beside its tokens, or a strip of temporal steps above their tokens."""
    from qwenvis.embeddings import page, picture

    out = found.out
    colours, share = picture.colours(out.embeddings)
    count, rows, columns = (out.grid_thw[0] // [1, out.merge_size, out.merge_size]).tolist()
    squares, chosen = colours.reshape(count, rows, columns, 3), _chosen(count)
    side = page.square(squares[0], page.SIDE if count == 1 else 2 * page.SIDE // len(chosen))
    drawn = [page.enlarged(found.pixels[k : k + 1], squares[step], side) for k, step in enumerate(chosen)]
    titles = _titles(found) if count == 1 else _times(out, chosen)
    table = drawn if count == 1 else [list(row) for row in zip(*drawn, strict=True)]
    panels = [[page.Panel(image, square=side) for image in row] for row in table]
    titled = panels[-1][-len(titles) :]
    panels[-1] = [panel._replace(title=title) for panel, title in zip(titled, titles[-len(titled) :], strict=True)]
    notes = [
        f"A square is a token; rows and columns count from 0, and token number = row x {columns} + column"
        f"{f' + {rows * columns} x step' * (count > 1)}.",
        f"Red, green and blue are the tokens' first three principal components, {share:.0%} of their variance.",
        f"{_name(found)}: {len(colours):,} tokens of {out.embeddings.shape[1]:,} numbers"
        f"{f', {len(chosen)} of {count} temporal steps' * (count > 1)}{_origin(out)}.",
    ]
    return page.page(panels, notes)


def _titles(found: Shown) -> list[str]:
    """Return the titles of an image and of its tokens."""
    sizes = [f"{image.width} x {image.height} pixels" for image in found.pixels]
    return [*(f"{_name(found)}, {size}" for size in sizes), f"{len(found.out.embeddings):,} tokens"]


def _times(out: Embeddings, chosen: list[int]) -> list[str]:
    """Return the titles of temporal steps: their numbers, and their times in seconds if they are known."""
    stamps = out.timestamps[0].tolist() if out.timestamps else []
    return [f"step {step}{f', {stamps[step]:.2f} s' if stamps else ''}" for step in chosen]


def _name(found: Shown) -> str:
    from pathlib import Path

    return units.name(Path(found.name).name)


def _origin(out: Embeddings) -> str:
    """Describe the checkpoint of the tokens, if they name it."""
    known = [out.provenance[name] for name in ("source", "format") if name in out.provenance]
    return f"; by {units.name(', '.join(known))}" if known else ""
