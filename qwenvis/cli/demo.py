"""``qwenvis demo``: an image drawn beside its tokens, without a model or a network."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, NamedTuple

from qwenvis.cli import arguments, files, items, steps, units

if TYPE_CHECKING:
    from PIL import Image

    from qwenvis.embeddings import Embeddings
    from qwenvis.encoder import Encoder
    from qwenvis.encoding.inputs import InputItem, Inputs
    from qwenvis.spec import ModelSpec

SUMMARY = "encode an image and draw its tokens, without a model or a network"
DESCRIPTION = """\
Encode an image that ships with the package, report the speed, and draw the image beside its tokens. The model is a
tower in the shape of Qwen2-VL-2B with random weights. No network is needed; the first run writes a checkpoint of 1.3 GB
into the cache directory.
"""
EXAMPLES = """\
  qwenvis demo
  qwenvis demo cat.jpg --max-pixels 1008x784
  qwenvis demo cat.jpg --model Qwen/Qwen2-VL-2B-Instruct --output cat-tokens.png
"""
MODEL, PICTURE = "synthetic:qwen2-vl-2b", "demo.jpg"
MAX_PIXELS = 504 * 392  # 1008 patches: seconds on two cores


class Timed(NamedTuple):
    """Seconds and flops of one encode, and the peak in flops per second, measured before and after it."""

    seconds: float
    flops: float
    peaks: tuple[float, float]

    @property
    def rate(self) -> str:
        """Describe the speed and its share of the peak."""
        return units.speed(self.flops / self.seconds, sum(self.peaks) / 2)


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "image", nargs="?", metavar="IMAGE", help="the image to encode (default: an image from the package)"
    )
    parser.add_argument(
        "--model", default=MODEL, metavar="SOURCE", help=f"the checkpoint: {arguments.SOURCE} (default: %(default)s)"
    )
    text = "the image file to write (default: %(default)s); an existing file is replaced"
    parser.add_argument("-o", "--output", "--out", default="qwenvis-demo.png", metavar="FILE", help=text)
    arguments.add_dtype(parser)
    arguments.add_threads(parser)
    text = (
        f"shrink a larger image to about this area in pixels: N, or WxH (default: {MAX_PIXELS}, a few seconds of work)"
    )
    parser.add_argument("--max-pixels", type=arguments.pixels, default=MAX_PIXELS, metavar="N", help=text)


def run(args: argparse.Namespace) -> int:
    """Load, encode and draw; return the exit code."""
    from importlib import resources
    from pathlib import Path

    from qwenvis.concurrency.threads import resolve
    from qwenvis.images.decode import decode
    from qwenvis.spec import ModelSpec

    target = files.picture(args.output, [args.image] if args.image else [])
    source = args.image or resources.files("qwenvis").joinpath(PICTURE).read_bytes()
    name = units.name(Path(args.image or PICTURE).name)
    picture = decode(source, repr(name))
    threads = resolve(args.threads)
    spec = ModelSpec.open(args.model, dtype=args.dtype, max_pixels=args.max_pixels)
    inputs = items.inputs(spec, {}, threads)
    item = inputs.image(source, 0)
    random = args.model.startswith("synthetic:")
    weights = f"{units.count(spec.parameters)} parameters, {units.nbytes(spec.nbytes)} of memory"
    _say("model", f"{units.name(args.model)}, {weights}")
    if random:
        _say("", "Its weights are random, so the colours will show what the architecture sees,")
        _say("", "not what a trained model sees. The work is the same.")
    encoder = _loaded(spec, threads)
    out, timed = _encoded(encoder, inputs, item, name)
    page = _page(picture, name, item, out, f"{args.model}{', random weights' * random}. {_pace(encoder, timed)}.")
    files.save_picture(page, target)
    _say("wrote", f"{units.name(str(target))}: the image beside its tokens")
    return 0


def _loaded(spec: ModelSpec, threads: int) -> Encoder:
    """Load the encoder; a synthetic checkpoint that is not there yet is written first."""
    checkpoint = spec.checkpoint
    if not checkpoint.files[0].exists():
        _say("first use", f"writing {units.nbytes(checkpoint.nbytes)} into {units.name(str(checkpoint.path))}")
    start = time.perf_counter()
    steps.prepare(spec)
    written = time.perf_counter()
    if written - start > 1:
        _say("", f"written in {units.seconds(written - start)}; set QWENVIS_CACHE for another directory")
    encoder = steps.load(spec, threads)
    _say("loaded", f"in {units.seconds(time.perf_counter() - written)}")
    return encoder


def _encoded(encoder: Encoder, inputs: Inputs, item: InputItem, name: str) -> tuple[Embeddings, Timed]:
    """Encode and time one run, from the file to the array, without a warm-up."""
    import numpy as np

    from qwenvis.cost import peak_rate

    grid_thw = np.array([item.grid])
    cost, expected = encoder.spec.cost(grid_thw), steps.estimate(encoder.spec, grid_thw, encoder.threads)
    sizes = f"{units.area(item.item.size)} pixels, resized to {units.area(item.item.resized.canvas)}"
    _say("picture", f"{name}, {sizes}: {cost.patches} patches, {cost.tokens} tokens")
    _say("", f"{cost.flops / 1e9:,.0f} GFLOP, about {units.seconds(expected)} on this machine")
    before = peak_rate(encoder.threads, encoder.format)
    start = time.perf_counter()
    out = steps.encode(encoder, inputs, [item], expected)
    seconds = time.perf_counter() - start
    timed = Timed(seconds, cost.flops, (before, peak_rate(encoder.threads, encoder.format)))
    tokens, width = out.embeddings.shape
    _say("encoded", f"{tokens} tokens of {width} numbers in {_pace(encoder, timed)}")
    _say("", f"(the peak: {before / 1e9:.0f} GFLOP/s before, {timed.peaks[1] / 1e9:.0f} after)")
    return out, timed


def _pace(encoder: Encoder, timed: Timed) -> str:
    threads = f"{encoder.threads} thread{'s' * (encoder.threads > 1)}"
    return f"{units.seconds(timed.seconds)} on {threads}, {encoder.isa}, {encoder.format}: {timed.rate}"


def _page(picture: Image.Image, name: str, item: InputItem, out: Embeddings, note: str) -> Image.Image:
    """Draw the image beside its tokens."""
    from qwenvis.embeddings import page
    from qwenvis.embeddings import picture as drawing

    colours, share = drawing.colours(out.embeddings)
    _, rows, columns = (out.grid_thw[0] // out.merge_size).tolist()
    titles = (
        f"{name}: {units.area(item.item.resized.canvas)} pixels, {item.grid[1] * item.grid[2]} patches",
        f"{len(colours)} tokens of {out.embeddings.shape[1]} numbers",
    )
    legend = f"Red, green and blue are the tokens' first three principal components, {share:.0%} of their variance."
    return page.compose(picture, colours.reshape(rows, columns, 3), titles, [legend, note])


def _say(title: str, text: str) -> None:
    print(f"{title:<11}{text}", flush=True)
