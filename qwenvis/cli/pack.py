"""``qwenvis pack``: write the weights of a checkpoint as the kernels read them, in a directory that loads at once."""

from __future__ import annotations

import argparse

from qwenvis.cli import arguments, files, steps, units

SUMMARY = "write the weights as they are used, for processes that start at once"
DESCRIPTION = """\
Write the vision tower of a checkpoint in the layout that it has in memory: packed for this CPU's instruction set and
for one format. As the SOURCE of info or the --model of encode, with --dtype auto, the directory is mapped instead of
being read and packed, and processes share its memory. It is a cache, not a format for exchange: another CPU or version
may need another one. The directory must not exist yet; it appears whole or not at all.
"""
EXAMPLES = """\
  qwenvis pack Qwen/Qwen2-VL-2B-Instruct qwen2-vl.packed --dtype auto
  qwenvis encode cat.jpg --model qwen2-vl.packed --dtype auto
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("source", metavar="SOURCE", help=arguments.SOURCE)
    parser.add_argument("directory", metavar="DIRECTORY", help="what to write")
    arguments.add_dtype(parser)
    arguments.add_threads(parser)


def run(args: argparse.Namespace) -> int:
    """Pack the weights; return the exit code."""
    from qwenvis import sources
    from qwenvis.concurrency.threads import resolve
    from qwenvis.spec import ModelSpec

    target = files.new_directory(args.directory)
    threads = resolve(args.threads)
    spec = ModelSpec.open(args.source, dtype=args.dtype)
    files.refuse_a_full_disk(target, spec.nbytes)

    steps.load(spec, threads).save_packed(target)
    written = sources.open(target)
    print(
        f"wrote {units.name(str(target))}: {units.nbytes(written.nbytes)} of {written.format}, packed for {written.isa}"
    )
    return 0
