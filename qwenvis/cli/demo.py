"""``qwenvis demo``: a picture beside its tokens, with nothing but this package."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, NamedTuple

from qwenvis.cli import arguments, files, steps, units
from qwenvis.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from qwenvis.embeddings import Embeddings
    from qwenvis.encoder import Encoder
    from qwenvis.spec import ModelSpec

SUMMARY = "encode a picture and paint its tokens: no model, no network"
DESCRIPTION = """\
Encode a picture that ships with the package through a tower of Qwen2-VL-2B's shape with random weights, say how fast
that was, and paint the picture beside its tokens. No network is needed; the first run writes a checkpoint of 1.3 GB
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
    """One encode: its seconds and flops, and the flops a second that the machine could do before and after it."""

    seconds: float
    flops: float
    peaks: tuple[float, float]

    @property
    def rate(self) -> str:
        """Speed, and its share of the peak."""
        return units.speed(self.flops / self.seconds, sum(self.peaks) / 2)


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="default: a scene that ships with the package")
    parser.add_argument("--model", default=MODEL, metavar="SOURCE", help=f"{arguments.SOURCE} (default: %(default)s)")
    text = "the picture to write (default: %(default)s); a file of that name is replaced"
    parser.add_argument("-o", "--output", "--out", default="qwenvis-demo.png", metavar="FILE", help=text)
    arguments.add_dtype(parser)
    arguments.add_threads(parser)
    text = f"shrink a larger image to about this area: N, or WxH (default: {MAX_PIXELS}, seconds of work)"
    parser.add_argument("--max-pixels", type=arguments.pixels, default=MAX_PIXELS, metavar="N", help=text)


def run(args: argparse.Namespace) -> int:
    """Load, encode, paint; returns the exit code."""
    from importlib import resources
    from pathlib import Path

    from qwenvis.concurrency.threads import resolve
    from qwenvis.images.decode import decode
    from qwenvis.spec import ModelSpec

    target = _target(args.output, args.image)
    source = args.image or resources.files("qwenvis").joinpath(PICTURE).read_bytes()
    name = units.name(Path(args.image or PICTURE).name)
    picture = decode(source, repr(name))
    threads = resolve(args.threads)
    spec = ModelSpec.open(args.model, dtype=args.dtype, max_pixels=args.max_pixels)
    (seen,) = files.survey([name], spec.processor, lambda *_: (picture.height, picture.width))
    random = args.model.startswith("synthetic:")
    weights = f"{units.count(spec.parameters)} parameters, {units.nbytes(spec.nbytes)} of memory"
    _say("model", f"{units.name(args.model)}, {weights}")
    if random:
        _say("", "Its weights are random numbers, so the colours will show what the architecture sees,")
        _say("", "not what a trained model sees. The work is the same.")
    encoder = _loaded(spec, threads)
    out, timed = _encoded(encoder, source, seen)
    page = _page(picture, seen, out, f"{args.model}{', random weights' * random}. {_pace(encoder, timed)}.")
    _save(page, target)
    _say("wrote", f"{units.name(str(target))}: the picture beside its tokens")
    return 0


def _target(out: str, image: str | None) -> Path:
    """The file to write, of a kind that Pillow writes."""
    from PIL import Image

    target = files.output(out, [image] if image else [])
    kinds = [suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.SAVE]
    if target.suffix.lower() not in kinds:
        raise InputError(f"{target}: Pillow writes no {target.suffix or 'file without a suffix'}; name a .png file")
    return target


def _loaded(spec: ModelSpec, threads: int) -> Encoder:
    """The encoder; its checkpoint is written before, where that is still to be done."""
    checkpoint = spec.checkpoint
    if not checkpoint.files[0].exists():
        _say("first use", f"writing {units.nbytes(checkpoint.nbytes)} into {units.name(str(checkpoint.path))}")
    start = time.perf_counter()
    steps.prepare(spec)
    written = time.perf_counter()
    if written - start > 1:
        _say("", f"written in {units.seconds(written - start)}; QWENVIS_CACHE names another place")
    encoder = steps.load(spec, threads)
    _say("loaded", f"in {units.seconds(time.perf_counter() - written)}")
    return encoder


def _encoded(encoder: Encoder, source: str | bytes, seen: files.Seen) -> tuple[Embeddings, Timed]:
    """The tokens, from the file to the array, in one run without a warm-up."""
    import numpy as np

    from qwenvis.cost import peak_rate

    grid_thw = np.array([seen.grid])
    cost, expected = encoder.spec.cost(grid_thw), steps.estimate(encoder.spec, grid_thw, encoder.threads)
    sizes = f"{units.area(seen.size)} pixels, resized to {units.area(seen.resized)}"
    _say("picture", f"{seen.path}, {sizes}: {cost.patches} patches, {cost.tokens} tokens")
    _say("", f"{cost.flops / 1e9:,.0f} GFLOP, about {units.seconds(expected)} on this machine")
    before = peak_rate(encoder.threads, encoder.format)
    start = time.perf_counter()
    out = steps.encode(encoder, [source], grid_thw, expected)
    seconds = time.perf_counter() - start
    timed = Timed(seconds, cost.flops, (before, peak_rate(encoder.threads, encoder.format)))
    tokens, width = out.embeddings.shape
    _say("encoded", f"{tokens} tokens of {width} numbers in {_pace(encoder, timed)}")
    _say("", f"(the peak: {before / 1e9:.0f} GFLOP/s before, {timed.peaks[1] / 1e9:.0f} after)")
    return out, timed


def _pace(encoder: Encoder, timed: Timed) -> str:
    threads = f"{encoder.threads} thread{'s' * (encoder.threads > 1)}"
    return f"{units.seconds(timed.seconds)} on {threads}, {encoder.isa}, {encoder.format}: {timed.rate}"


def _page(picture: Image.Image, seen: files.Seen, out: Embeddings, note: str) -> Image.Image:
    """The picture beside its tokens."""
    from qwenvis.embeddings import picture as drawing

    colours, share = drawing.colours(out.embeddings)
    _, rows, columns = (out.grid_thw[0] // out.merge_size).tolist()
    titles = (
        f"{seen.path}: {units.area(seen.resized)} pixels, {seen.grid[1] * seen.grid[2]} patches",
        f"{len(colours)} tokens of {out.embeddings.shape[1]} numbers",
    )
    legend = f"Red, green and blue are the tokens' first three principal components, {share:.0%} of their variance."
    return drawing.compose(picture, colours.reshape(rows, columns, 3), titles, [legend, note])


def _save(page: Image.Image, target: Path) -> None:
    """Write the page; the file appears whole or not at all."""
    from PIL import Image

    from qwenvis.embeddings.file import whole_file

    with whole_file(target) as draft:
        page.save(draft, Image.registered_extensions()[target.suffix.lower()])


def _say(title: str, text: str) -> None:
    print(f"{title:<11}{text}", flush=True)
