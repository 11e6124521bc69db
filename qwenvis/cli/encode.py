"""``qwenvis encode``: write the visual tokens of images and videos to a file."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from typing import TYPE_CHECKING

from qwenvis.cli import arguments, files, items, job, steps, units
from qwenvis.errors import CacheWarning

if TYPE_CHECKING:
    from qwenvis.embeddings import Embeddings

SUMMARY = "write the visual tokens of images and videos to a file, or of very many to a directory"
DESCRIPTION = """\
Write the visual tokens of images and videos to one safetensors file:

  embeddings   (tokens, out_hidden_size) float32, item after item
  grid_thw     (items, 3) int64: temporal steps, rows and columns of patches of each item
  deepstack.N  same shape as embeddings, for towers with deepstack: for the first layers of the language model
  frame_indices, timestamps, second_per_grid_ts, frame_counts   if there are videos
  sizes        (items, 2) int64: height and width of each image or frame before resizing
  metadata     sources, a JSON list of the file names; and the provenance of the tokens: checkpoint,
               family, format of the weights (f32, bf16 or i8), instruction set, version, limits

Prints one line for each item: name, width x height, grid_thw, number of tokens. All files are opened before the first
file is encoded, and one message lists all unusable files. If anything fails, nothing is written.
With --cache, an image or video whose tokens are in the directory is not encoded again, whatever the name of its file.

With -o DIRECTORY/, a name that ends in a slash or is that of a directory, the command is a job: it writes shards and a
manifest, records items that cannot be used instead of failing, and the same command again continues a job that was
killed. An IMAGE may then be a directory, a pattern in quotes, @FILE with a name in each line, - for names on standard
input, or a .jsonl, .parquet or .tar file. The exit code is 3 if an item failed.
"""
EXAMPLES = """\
  qwenvis encode cat.jpg --model Qwen/Qwen2-VL-2B-Instruct
  qwenvis encode scans/*.png --model ./my-checkpoint -o scans.safetensors
  qwenvis encode photo.jpg --model ./my-checkpoint --max-pixels 1024x1024
  qwenvis encode clip.mp4 --model ./my-checkpoint --num-frames 64
  qwenvis encode *.jpg --model ./my-checkpoint --cache tokens
  qwenvis encode @names.txt --model ./my-checkpoint -o names.safetensors
  qwenvis encode photos/ --model ./my-checkpoint -o tokens/ --dtype-out bfloat16
  qwenvis encode train.jsonl --model ./my-checkpoint -o tokens/ --shard 1/4

  in Python: out = qwenvis.Embeddings.load("embeddings.safetensors"); out[0]
             results = qwenvis.jobs.open("tokens/"); results["photos/cat.jpg"]
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="an image file (JPEG, PNG, WebP ...), a video file (MP4, MKV, WebM ...), or @FILE with names in its lines",
    )
    parser.add_argument("--model", required=True, metavar="SOURCE", help=f"the checkpoint: {arguments.SOURCE}")
    text = "the file to write (default: %(default)s), which is replaced if it exists; or DIRECTORY/ for a job"
    parser.add_argument("-o", "--output", default="embeddings.safetensors", metavar="FILE", help=text)
    arguments.add_dtype(parser)
    arguments.add_threads(parser)
    arguments.add_limits(parser)
    arguments.add_sampling(parser)
    arguments.add_cache(parser)
    arguments.add_hub(parser)
    arguments.add_json(parser, "a line of JSON for each item")
    job.add(parser)


def run(args: argparse.Namespace) -> int:
    """Encode the files; return the exit code."""
    if args.cache_size is not None and args.cache is None:
        args.parser.error("--cache-size needs --cache DIR")
    if job.is_job(args.output):
        return job.run(args)
    job.refuse_options(args)
    job.refuse_inputs(args)
    from qwenvis.concurrency.threads import resolve
    from qwenvis.embeddings.file import checked_name
    from qwenvis.spec import ModelSpec

    paths = items.listed(args.images)
    target = checked_name(files.output(args.output, paths))
    threads = resolve(args.threads)
    limits = {"min_pixels": args.min_pixels, "max_pixels": args.max_pixels}
    spec = ModelSpec.open(args.model, dtype=args.dtype, **arguments.hub(args), **limits)
    sampling = arguments.sampling(args)
    inputs = items.inputs(spec, sampling, threads)
    planned = items.verify(paths, inputs, sampling)
    grid_thw = inputs.plan(planned).grid_thw
    arrays = 1 + len(spec.config.deepstack)
    files.refuse_a_full_disk(target, 4 * arrays * spec.config.out_hidden_size * spec.cost(grid_thw).tokens)

    encoder = steps.load(spec, threads, arguments.cache(args))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default", CacheWarning)
        out = steps.encode(encoder, inputs, planned)
    out.save(target)

    print(*(_records(out) if args.json else units.columns(_rows(out), "<>>>")), sep="\n")
    tokens, width = out.embeddings.shape
    size = units.nbytes(target.stat().st_size)
    print(f"wrote {units.name(str(target))}: {tokens} tokens of {width} float32, {size}", file=sys.stderr)
    if encoder.cache is not None:
        found = sum(each.hit for each in planned)
        print(f"{found} of {len(planned)} items from the cache {units.name(args.cache)}", file=sys.stderr)
    for each in told:
        print("qwenvis:", units.name(str(each.message)), file=sys.stderr)
    return 0


def _rows(out: Embeddings) -> list[tuple[str, ...]]:
    """Return a row of text for each item: name, size, grid, number of tokens."""
    items = zip(out.sources, out.sizes.tolist(), out.grid_thw.tolist(), out.counts, strict=True)
    return [
        (units.name(source), units.area(size), f"grid_thw {' '.join(map(str, grid))}", f"{tokens} tokens")
        for source, size, grid, tokens in items
    ]


def _records(out: Embeddings) -> list[str]:
    """Return a line of JSON for each item, with names that the manifest of a job has too."""
    columns = out.sources, out.sizes.tolist(), out.grid_thw.tolist(), out.counts.tolist(), out.keys
    names = ("source", "size", "grid", "tokens", "key")
    return [json.dumps(dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]
