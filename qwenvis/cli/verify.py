"""``qwenvis verify``: compare the results of a number format with float32, or with transformers."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any

from qwenvis.cli import arguments, demo, files, items, steps, units
from qwenvis.cli.bar import Bar
from qwenvis.errors import counted

if TYPE_CHECKING:
    from PIL import Image

    from qwenvis.comparison import Comparison, Deviation
    from qwenvis.encoding.inputs import InputItem

SUMMARY = "compare a number format with float32, or with transformers, on your own images"
DESCRIPTION = """\
Encode images and videos twice, in the format of --dtype and with a reference, and print how far the results are apart:
after each layer, in the tokens, in deepstack, and for each image or video.

  relative RMS     the Euclidean length of the difference over that of the reference, of all entries together
  largest error    the largest absolute difference over the largest absolute value of the reference
  cosine           of each token with that of the reference (in layers, of each patch): the mean and the smallest

The reference is float32 or another dtype; or, with --against transformers, the code of transformers, which computes
tokens and deepstack in float32 from the same pixel values. Weights and images are read once for each of the two, and
only one set of weights is in memory. NaN or infinite results are an error.
"""
EXAMPLES = """\
  qwenvis verify Qwen/Qwen2-VL-2B-Instruct photo.jpg scan.png
  qwenvis verify Qwen/Qwen2-VL-2B-Instruct *.jpg --dtype int8 --bound 0.05 --plot worst.png
  qwenvis verify ./my-checkpoint clip.mp4 --num-frames 16 --json
  qwenvis verify ./my-checkpoint photo.jpg --against transformers --bound 1e-4
"""
MEASURES = ("relative RMS", "largest error", "mean cosine", "smallest cosine")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("source", metavar="SOURCE", help=f"the checkpoint: {arguments.SOURCE}")
    text = "an image or video file (default: an image from the package)"
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=text)
    arguments.add_dtype(parser, None, "bfloat16, and float32 against transformers")
    text = "the reference: float32, another dtype, or transformers (default: %(default)s)"
    parser.add_argument("--against", type=str.lower, default="float32", metavar="REFERENCE", help=text)
    text = "exit with 1 if the relative RMS of the tokens, or of a deepstack array, of any item is above X"
    parser.add_argument("--bound", type=_bound, metavar="X", help=text)
    arguments.add_json(parser)
    text = "draw the item with the largest relative RMS beside a map of the error of each token; an existing file is "
    parser.add_argument("--plot", metavar="FILE", help=f"{text}replaced")
    arguments.add_threads(parser)
    arguments.add_limits(parser)
    arguments.add_sampling(parser)
    arguments.add_hub(parser)


def _bound(text: str) -> float:
    """Parse a number from 0 on."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on, such as 0.01")
    return value


def run(args: argparse.Namespace) -> int:
    """Compare, and print and draw the result; return the exit code."""
    from importlib import resources

    from qwenvis.comparison import compare
    from qwenvis.comparison.comparison import TRANSFORMERS, reference, refuse_packed
    from qwenvis.concurrency.threads import resolve
    from qwenvis.spec import ModelSpec

    paths = args.images or [str(resources.files("qwenvis").joinpath(demo.PICTURE))]
    target = None if args.plot is None else files.picture(args.plot, paths)
    threads = resolve(args.threads)
    limits = {"min_pixels": args.min_pixels, "max_pixels": args.max_pixels}
    default = "float32" if args.against == TRANSFORMERS else "bfloat16"
    dtype = default if args.dtype is None else args.dtype
    spec = ModelSpec.open(args.source, dtype="auto", **arguments.hub(args), **limits)
    refuse_packed(spec)  # whatever the dtype, so that nobody is told to pass another
    spec = spec.with_dtype(dtype)
    reference(spec, args.against)
    sampling = arguments.sampling(args)
    planned = items.verify(paths, items.inputs(spec, sampling, threads), sampling)
    images, videos = ([item for item in planned if item.place.argument == kind] for kind in ("images", "videos"))

    steps.prepare(spec)
    sources = [[item.place.source for item in kind] or None for kind in (images, videos)]
    with Bar("comparing", lambda rate: f"{rate / (spec.config.depth + 1):,.0f} patches/s") as bar:
        found = compare(
            spec, sources[0], videos=sources[1], against=args.against, threads=threads, progress=bar, **sampling
        )
    if args.json:
        arguments.print_json(_facts(found))
    else:
        print(*_tables(args.source, found), sep="\n")
    if target is not None:
        item = [*images, *videos][found.items.index(found.worst)]
        files.save_picture(_page(item, found), target)
        print(f"wrote {units.name(str(target))}: {units.name(found.worst.source)}", file=sys.stderr)
    return _judge(found, args.bound)


def _judge(found: Comparison, bound: float | None) -> int:
    """Return the exit code; say on stderr why it is not 0."""
    above = [item for item in found.items if bound is not None and item.relative_rms > bound]
    if not above:
        return 0
    worst = found.worst
    name = "tokens" if worst.relative_rms == worst.tokens.relative_rms else "deepstack"
    where = f"{len(above)} of {counted(len(found.items), 'item')}; the largest is {worst.relative_rms:.2e}"
    print(f"qwenvis: relative RMS above {bound:g} in {where}, {name} of {units.name(worst.source)}", file=sys.stderr)
    return 1


def _facts(found: Comparison) -> dict[str, Any]:
    """Return the result without the errors of single tokens."""
    content = asdict(found)
    for item in content["items"]:
        del item["token_errors"]
    return {**content, "largest_relative_rms": found.worst.relative_rms}


def _tables(source: str, found: Comparison) -> list[str]:
    """Make the tables of the outputs of all items, and of the items."""
    from qwenvis.comparison.passes import Stage

    kinds = {"layers": found.layers, "tokens": (found.tokens,), "deepstack": found.deepstack}
    outputs = [
        (Stage(kind, number).name, *_cells(each))
        for kind, deviations in kinds.items()
        for number, each in enumerate(deviations)
    ]
    by_item = [(units.name(item.source), *_cells(item.tokens)) for item in found.items]
    head = f"{units.name(source)}: {found.dtype} against {found.against}, {counted(len(found.items), 'item')}"
    tables = [("output", "rows", *MEASURES), *outputs], [("item", "tokens", *MEASURES), *by_item]
    first, second = (units.columns(rows, "<>>>>>") for rows in tables)
    return [head, "", *first, "", *second]


def _cells(each: Deviation) -> tuple[str, ...]:
    """Format the number of rows and the measures."""
    errors = f"{each.relative_rms:.2e}", f"{each.largest_error:.2e}"
    return f"{each.rows:,}", *errors, f"{each.mean_cosine:.6f}", f"{each.smallest_cosine:.6f}"


def _page(item: InputItem, found: Comparison) -> Image.Image:
    """Draw the worst item, of a video the temporal step with the largest error, beside the errors of its tokens."""
    from PIL import Image

    from qwenvis.embeddings import page
    from qwenvis.embeddings import picture as drawing

    worst = found.worst
    step = int((worst.token_errors**2).mean(axis=(1, 2)).argmax())
    errors = worst.token_errors[step]
    (shown,) = islice(item.item.steps(0, step + 1), step, None)
    where = f", step {step} of {len(worst.token_errors)}" * (len(worst.token_errors) > 1)
    titles = (
        f"{units.name(worst.source)}{where}: {units.area(shown.content.shape[1:3])} pixels",
        f"{errors.size} tokens, errors from {errors.min():.2g} to {errors.max():.2g}",
    )
    notes = [
        "The brighter a token, the larger its error: its distance from the token of the reference, relative to the "
        "root mean square length of all tokens of the reference. Black is 0.",
        f"{found.dtype} against {found.against}: relative RMS {worst.tokens.relative_rms:.2e}, smallest cosine "
        f"{worst.tokens.smallest_cosine:.6f}.",
    ]
    return page.compose(Image.fromarray(shown.content[0]), drawing.heat(errors), titles, notes)
