"""``qwenvis encode``: images and videos to a file of visual tokens."""

from __future__ import annotations

import argparse
import sys

from qwenvis.cli import arguments, files, steps, units

SUMMARY = "write the visual tokens of images to a file"
DESCRIPTION = """\
Write the visual tokens of images to one safetensors file:

  embeddings   (tokens, out_hidden_size) float32, the images one after the other
  grid_thw     (images, 3) int64: frames, rows and columns of patches of each image
  deepstack.N  like embeddings, of towers that have it: for the first layers of the language model
  frame_indices, timestamps, second_per_grid_ts, frame_counts   where there are videos
  sizes        (images, 2) int64: height and width of each image before it was resized
  metadata     sources, a JSON list of the names of the images; and what made the tokens: checkpoint,
               family, format of the weights (f32, bf16), ISA, version, limits

One line an image goes to stdout: name, width x height, grid_thw, tokens. All images are opened before the first is
encoded; if any cannot be used, all of those are listed and nothing is written. The file appears whole or not at all.
"""
EXAMPLES = """\
  qwenvis encode cat.jpg --model Qwen/Qwen2-VL-2B-Instruct
  qwenvis encode scans/*.png --model ./my-checkpoint -o scans.safetensors
  qwenvis encode photo.jpg --model ./my-checkpoint --max-pixels 1024x1024
  qwenvis encode clip.mp4 --model ./my-checkpoint --num-frames 64

  in Python: out = qwenvis.Embeddings.load("embeddings.safetensors"); out[0]
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="a JPEG, PNG, WebP ... file, or a video: MP4, MKV, WebM ..."
    )
    parser.add_argument("--model", required=True, metavar="SOURCE", help=arguments.SOURCE)
    text = "what to write (default: %(default)s); a file of that name is replaced"
    parser.add_argument("-o", "--output", default="embeddings.safetensors", metavar="FILE", help=text)
    arguments.add_dtype(parser)
    arguments.add_threads(parser)
    arguments.add_limits(parser)
    arguments.add_sampling(parser)


def run(args: argparse.Namespace) -> int:
    """Encode the images; returns the exit code."""
    import numpy as np

    from qwenvis.concurrency.threads import resolve
    from qwenvis.embeddings.file import checked_name
    from qwenvis.spec import ModelSpec

    target = checked_name(files.output(args.output, args.images))
    arguments.check_sampling(args)
    threads = resolve(args.threads)
    spec = ModelSpec.open(args.model, dtype=args.dtype, min_pixels=args.min_pixels, max_pixels=args.max_pixels)
    seen = steps.look(args.images, spec.processor, steps.watcher(spec, args))
    grid_thw = np.array([image.grid for image in seen])
    arrays = 1 + len(spec.config.deepstack)
    files.refuse_a_full_disk(target, 4 * arrays * spec.config.out_hidden_size * spec.cost(grid_thw).tokens)

    encoder = steps.load(spec, threads)
    asked = {**arguments.sampling(args), "min_pixels": args.min_pixels, "max_pixels": args.max_pixels}
    out = steps.encode(encoder, args.images, grid_thw, sampling=asked)
    out.save(target)

    rows = [
        (units.name(image.path), units.area(image.size), f"grid_thw {' '.join(map(str, grid))}", f"{tokens} tokens")
        for image, grid, tokens in zip(seen, out.grid_thw.tolist(), out.counts, strict=True)
    ]
    print(*units.columns(rows, "<>>>"), sep="\n")
    tokens, width = out.embeddings.shape
    size = units.nbytes(target.stat().st_size)
    print(f"wrote {units.name(str(target))}: {tokens} tokens of {width} float32, {size}", file=sys.stderr)
    return 0
