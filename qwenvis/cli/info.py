"""``qwenvis info``: describe a checkpoint, and estimate the cost of images on this machine."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

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
    arguments.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Describe the checkpoint and the images, or the families where no checkpoint is given; return the exit code."""
    sampling = arguments.sampling(args)
    if not args.images:
        items.check_sampling([], sampling)
    if args.source is None:
        if args.json:
            arguments.print_json({"families": _families()})
        else:
            rows = [(family, ", ".join(presets)) for family, presets in _families().items()]
            print(*units.columns([("model_type", "presets, as synthetic:PRESET"), *rows], "<<"), sep="\n")
        return 0
    from qwenvis.concurrency.threads import resolve
    from qwenvis.spec import ModelSpec

    threads = resolve(args.threads)
    limits = {"min_pixels": args.min_pixels, "max_pixels": args.max_pixels}
    spec = ModelSpec.open(args.source, dtype=args.dtype, **arguments.hub(args), **limits)
    planned = items.plan(args.images, items.inputs(spec, sampling, threads), sampling) if args.images else []
    costs = _costs(spec, planned, threads) if planned else {}
    if args.json:
        arguments.print_json({"source": args.source, **_facts(spec), **costs})
        return 0
    print(units.name(args.source))
    print(*units.columns([("", *row) for row in _tower(spec)], "<<<"), sep="\n")
    if planned:
        print()
        print(*_images(spec, costs), sep="\n")
    return 0


def _families() -> dict[str, list[str]]:
    """Return the presets of each family."""
    from qwenvis.sources.presets import PRESETS

    families: dict[str, list[str]] = {}
    for name, preset in PRESETS.items():
        families.setdefault(preset.family, []).append(name)
    return families


def _facts(spec: ModelSpec) -> dict[str, Any]:
    """Return what `_tower` describes. A number of the config without a limit is None."""
    from qwenvis.errors import ConfigError

    checkpoint, config = spec.checkpoint, asdict(spec.config)
    try:
        limits: dict[str, int | None] = {"min": spec.processor.min_pixels, "max": spec.processor.max_pixels}
    except ConfigError:
        limits = {"min": None, "max": None}
    return {
        "family": spec.family,
        "config": {name: None if value == math.inf else value for name, value in config.items()},
        "parameters": spec.parameters,
        "format": spec.format,
        "nbytes": spec.nbytes,
        "pixels": limits,
        "checkpoint": {
            "path": str(checkpoint.path),
            "files": list(map(str, checkpoint.files)),
            "nbytes": checkpoint.nbytes,
            "dtypes": sorted(checkpoint.dtypes),
            "packed_format": checkpoint.format or None,
            "packed_isa": checkpoint.isa or None,
            "pending": checkpoint.pending or None,
        },
    }


def _costs(spec: ModelSpec, planned: list[InputItem], threads: int) -> dict[str, Any]:
    """Return the cost of each item, and the speed of products now, from which the times follow."""
    import numpy as np

    from qwenvis import ops
    from qwenvis.cost import gemm_rate

    rate = gemm_rate(threads, spec.format)
    images = []
    for each in planned:
        cost = spec.cost(np.array([each.grid]), threads=threads)
        sizes = {"size": list(each.item.size), "resized": list(each.item.resized.canvas), "grid": list(each.grid)}
        memory = {"nbytes": spec.nbytes + cost.nbytes, "seconds": cost.flops / rate}
        images.append({"source": each.place.source, **sizes, "tokens": cost.tokens, "flops": cost.flops, **memory})
    return {"threads": threads, "isa": ops.isa(), "rate": rate, "images": images}


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


def _images(spec: ModelSpec, costs: dict[str, Any]) -> list[str]:
    """Make the table of the images, with a note on its numbers."""
    rows = [("image", "width x height", "resized to", "grid_thw", "tokens", "GFLOP", "memory", "time")]
    for each in costs["images"]:
        sizes = units.area(each["size"]), units.area(each["resized"]), " ".join(map(str, each["grid"]))
        work = f"{each['tokens']:,}", f"{each['flops'] / 1e9:,.0f}", units.nbytes(each["nbytes"])
        rows.append((units.name(each["source"]), *sizes, *work, f"about {units.seconds(each['seconds'])}"))
    slowest, threads = max(each["seconds"] for each in costs["images"]), costs["threads"]
    speed = f"{costs['rate'] / 1e9:.0f} GFLOP/s in {spec.format} products now"
    here = f"{threads} thread{'s' * (threads > 1)}, {costs['isa']}, {speed}"
    hint = ["A smaller --max-pixels gives fewer tokens in less time."] if slowest > LONG else []
    return [*units.columns(rows, "<>>>>>>>"), "", f"Time is for {here}; memory is weights and workspace.", *hint]
