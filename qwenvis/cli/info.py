"""``qwenvis info``: describe a checkpoint, and estimate the cost of images on this machine."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from qwenvis.cli import arguments, items, units

if TYPE_CHECKING:
    from qwenvis.encoding.inputs import InputItem
    from qwenvis.spec import ModelSpec

SUMMARY = "describe a checkpoint, and estimate the cost of images on this machine"
DESCRIPTION = """\
Describe the vision tower of a checkpoint, and for each image or video its number of tokens and the memory and time
that encoding will take on this machine. Only headers are read, of a Hub id that no cache holds by byte ranges; no
weight is loaded or downloaded, and nothing is encoded.
Without a SOURCE, list the families of this version and their presets.
"""
EXAMPLES = """\
  qwenvis info
  qwenvis info Qwen/Qwen2-VL-2B-Instruct
  qwenvis info synthetic:qwen2.5-vl-7b photo.jpg scan.png
  qwenvis info ./my-checkpoint photo.jpg --max-pixels 1024x1024
  qwenvis info ./my-checkpoint clip.mp4 --fps 2
"""
LONG = 60  # seconds of work above which a smaller area is suggested


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("source", nargs="?", metavar="SOURCE", help=f"the checkpoint: {arguments.SOURCE}")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="an image or video file; only its header is read")
    arguments.add_dtype(parser)
    arguments.add_threads(parser)
    arguments.add_limits(parser)
    arguments.add_sampling(parser)
    arguments.add_hub(parser)


def run(args: argparse.Namespace) -> int:
    """Describe the checkpoint and the images, or the families where no checkpoint is given; return the exit code."""
    sampling = arguments.sampling(args)
    if not args.images:
        items.check_sampling([], sampling)
    if args.source is None:
        print(*_families(), sep="\n")
        return 0
    from qwenvis.concurrency.threads import resolve
    from qwenvis.spec import ModelSpec

    threads = resolve(args.threads)
    limits = {"min_pixels": args.min_pixels, "max_pixels": args.max_pixels}
    spec = ModelSpec.open(args.source, dtype=args.dtype, **arguments.hub(args), **limits)
    planned = items.plan(args.images, items.inputs(spec, sampling, threads), sampling) if args.images else []
    print(units.name(args.source))
    print(*units.columns([("", *row) for row in _tower(spec)], "<<<"), sep="\n")
    if planned:
        print()
        print(*_images(spec, planned, threads), sep="\n")
    return 0


def _families() -> list[str]:
    """List the families by their model_type, with the presets of each."""
    from qwenvis.sources.presets import PRESETS

    families = dict.fromkeys(preset.family for preset in PRESETS.values())
    rows = [("model_type", "presets, as synthetic:PRESET")]
    for family in families:
        names = [name for name, preset in PRESETS.items() if preset.family == family]
        rows.append((family, ", ".join(names)))
    return units.columns(rows, "<<")


def _tower(spec: ModelSpec) -> list[tuple[str, str]]:
    """Describe the checkpoint in rows of (property, value)."""
    config, side = spec.config, spec.config.patch_size
    merge = config.spatial_merge_size
    window = f", in windows of {config.window_size} x {config.window_size} pixels" if config.window_size else ""
    full, deepstack = (", ".join(map(str, blocks)) for blocks in (config.fullatt_block_indexes, config.deepstack))
    shared = f", {config.key_value_heads} of keys and values" if config.key_value_heads < config.num_heads else ""
    return [
        ("family", spec.family),
        ("depth", f"{config.depth} blocks"),
        ("hidden_size", f"{config.hidden_size}: {config.num_heads} heads of {config.head_dim}{shared}{window}"),
        *([("full attention", f"blocks {full}")] if full else []),
        *([("deepstack", f"after blocks {deepstack}")] if deepstack else []),
        ("intermediate_size", f"{config.intermediate_size}, {config.hidden_act}"),
        ("out_hidden_size", f"{config.out_hidden_size}, the width of a token"),
        ("patch", f"{side} x {side} pixels; {merge} x {merge} patches make a token"),
        ("parameters", units.count(spec.parameters)),
        ("on disk", _disk(spec)),
        ("in memory", f"{units.nbytes(spec.nbytes)} in {spec.format}"),
        ("images", _limits(spec)),
    ]


def _disk(spec: ModelSpec) -> str:
    """Say how many bytes the tower has on disk, in which types, and in which files."""
    shards, size = spec.checkpoint.files, units.nbytes(spec.checkpoint.nbytes)
    dtypes = " and ".join(sorted(spec.checkpoint.dtypes))
    if spec.checkpoint.format:
        dtypes = f"{spec.checkpoint.format}, packed for {spec.checkpoint.isa} from {dtypes},"
    place = units.name(str(spec.checkpoint.path))
    if spec.checkpoint.path not in shards:
        place = f"{len(shards)} file{'s' * (len(shards) > 1)} of {place}"
    if pending := spec.checkpoint.pending:
        return f"{size} of {dtypes}, not there yet: first use {units.name(pending)}"
    return f"{size} of {dtypes} in {place}"


def _limits(spec: ModelSpec) -> str:
    """Say the smallest and the largest area that images are resized to."""
    from qwenvis.errors import ConfigError

    try:
        processor = spec.processor
    except ConfigError as error:
        if spec.checkpoint.preprocessor:
            return str(error)
        return "there is no preprocessor config: pass --min-pixels and --max-pixels"
    area = (spec.config.patch_size * spec.config.spatial_merge_size) ** 2
    smallest, largest = processor.min_pixels, processor.max_pixels
    return f"{smallest:,} to {largest:,} pixels: {-(-smallest // area):,} to {largest // area:,} tokens"


def _images(spec: ModelSpec, planned: list[InputItem], threads: int) -> list[str]:
    """Make the table of the images, with a note on its numbers."""
    import numpy as np

    from qwenvis import ops
    from qwenvis.cost import gemm_rate

    rate, weights = gemm_rate(threads, spec.format), spec.nbytes
    rows = [("image", "width x height", "resized to", "grid_thw", "tokens", "GFLOP", "memory", "time")]
    slowest = 0.0
    for each in planned:
        cost = spec.cost(np.array([each.grid]), threads=threads)
        grid, memory = " ".join(map(str, each.grid)), units.nbytes(weights + cost.nbytes)
        time = f"about {units.seconds(cost.flops / rate)}"
        sizes = units.area(each.item.size), units.area(each.item.resized.canvas)
        rows.append(
            (units.name(each.place.source), *sizes, grid, f"{cost.tokens:,}", f"{cost.flops / 1e9:,.0f}", memory, time)
        )
        slowest = max(slowest, cost.flops / rate)
    here = f"{threads} thread{'s' * (threads > 1)}, {ops.isa()}, {rate / 1e9:.0f} GFLOP/s in {spec.format} products now"
    hint = ["A smaller --max-pixels gives fewer tokens in less time."] if slowest > LONG else []
    note = [f"Time is for {here}; memory is weights and workspace.", *hint]
    return [*units.columns(rows, "<>>>>>>>"), "", *note]
