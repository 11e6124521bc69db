"""``qwenvis extract``: write the tower of a checkpoint alone, in a directory in the Hub's layout."""

from __future__ import annotations

import argparse

from qwenvis.cli import arguments, files, steps, units

SUMMARY = "write the vision tower alone: one safetensors file and its configs"
DESCRIPTION = """\
Write the vision tower of a checkpoint into a new directory: one safetensors file, with the tensors as they are stored,
and the configs of the tower and its processors. The directory is a SOURCE that gives the same tokens, to the bit. Of a
Hub id that is not in the cache, only the tower's byte ranges are downloaded, and nothing else is kept. Nothing is left
of the directory if writing fails.
"""
EXAMPLES = """\
  qwenvis extract Qwen/Qwen2-VL-2B-Instruct -o qwen2-vl-tower
  qwenvis extract mmproj-f16.gguf -o tower
  qwenvis encode cat.jpg --model qwen2-vl-tower
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("source", metavar="SOURCE", help=f"the checkpoint: {arguments.SOURCE}")
    parser.add_argument("-o", "--output", required=True, metavar="DIRECTORY", help="the directory to write")
    arguments.add_hub(parser, tower_only=False)
    arguments.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Extract the tower; return the exit code."""
    from qwenvis import sources
    from qwenvis.spec import ModelSpec

    target = files.new_directory(args.output)
    spec = ModelSpec.open(args.source, dtype="auto", **arguments.hub(args))
    files.refuse_a_full_disk(target, spec.checkpoint.nbytes)

    steps.extract(spec, target)
    written = sources.open(target)
    dtypes = sorted(written.dtypes)
    if args.json:
        arguments.print_json({"path": str(target), "nbytes": written.nbytes, "dtypes": dtypes})
    else:
        print(f"wrote {units.name(str(target))}: {units.nbytes(written.nbytes)} of {' and '.join(dtypes)}")
    return 0
