"""``qwenvis pack``: write the weights of a checkpoint as the kernels read them, in a directory that loads at once."""

from __future__ import annotations

import argparse

from qwenvis.cli import arguments, files, steps, units

SUMMARY = "write the weights in the layout of the kernels, so that processes start at once"
DESCRIPTION = """\
Write the vision tower of a checkpoint in the layout of the kernels, packed for the instruction set of this CPU and one
number format. Pass the directory as a SOURCE with --dtype auto: it is mapped into memory instead of being read and
packed, and processes share that memory. The directory is a cache, not a format to distribute: another CPU or version
may need a new directory. It must not exist yet, and is removed if writing fails.
"""
EXAMPLES = """\
  qwenvis pack Qwen/Qwen2-VL-2B-Instruct qwen2-vl.packed --dtype auto
  qwenvis encode cat.jpg --model qwen2-vl.packed --dtype auto
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("source", metavar="SOURCE", help=f"the checkpoint: {arguments.SOURCE}")
    parser.add_argument("directory", metavar="DIRECTORY", help="the directory to write")
    arguments.add_dtype(parser)
    arguments.add_threads(parser)
    arguments.add_hub(parser)
    arguments.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Pack the weights; return the exit code."""
    from qwenvis import sources
    from qwenvis.concurrency.threads import resolve
    from qwenvis.spec import ModelSpec

    target = files.new_directory(args.directory)
    threads = resolve(args.threads)
    spec = ModelSpec.open(args.source, dtype=args.dtype, **arguments.hub(args))
    files.refuse_a_full_disk(target, spec.nbytes)

    steps.load(spec, threads).save_packed(target)
    written = sources.open(target)
    if args.json:
        facts = {"path": str(target), "nbytes": written.nbytes, "format": written.format, "isa": written.isa}
        arguments.print_json(facts)
    else:
        size = f"{units.nbytes(written.nbytes)} of {written.format}"
        print(f"wrote {units.name(str(target))}: {size}, packed for {written.isa}")
    return 0
