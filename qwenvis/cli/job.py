"""``qwenvis encode INPUT... -o DIRECTORY/``: a job, which the same command continues."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

from qwenvis.cli import arguments, steps, units
from qwenvis.cli.bar import Bar
from qwenvis.errors import MAX_LISTED, CacheWarning, InputError, counted, shown

if TYPE_CHECKING:
    from qwenvis.encoder import Encoder
    from qwenvis.jobs import Summary

ITEMS_FAILED = 3  # the exit code
OPTIONS = ("include", "column", "to", "dtype_out", "shard_size", "shard", "retry_failed", "quiet")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options that only jobs have."""
    group = parser.add_argument_group("options of jobs: with -o DIRECTORY/")
    text = "choose files of directories and tars by a pattern such as '*.png', not by suffix; may be repeated"
    group.add_argument("--include", action="append", metavar="GLOB", help=text)
    group.add_argument("--column", metavar="NAME", help="the column of Parquet files (default: image, else video)")
    group.add_argument("--to", choices=("safetensors", "parquet"), help="format of the shards (default: safetensors)")
    text = "store tokens as float32, float16 or bfloat16 (default: float32)"
    group.add_argument("--dtype-out", choices=("float32", "float16", "bfloat16"), metavar="DTYPE", help=text)
    text = "the most bytes of tokens in a shard, such as 256MB (default: 64MB)"
    group.add_argument("--shard-size", type=arguments.bound, metavar="SIZE", help=text)
    text = "encode the I-th of N shares, from 1/N to N/N: one for each process or machine (docs/jobs.md)"
    group.add_argument("--shard", type=_share, metavar="I/N", help=text)
    group.add_argument("--retry-failed", action="store_true", help="try all failed items again")
    group.add_argument("--quiet", action="store_true", help="print errors only")


def is_job(output: str) -> bool:
    """Return whether the output of ``encode`` is a directory: by its name, or because there is one."""
    from qwenvis.io.files import expanded

    return output.endswith("/") or expanded(output).is_dir()


def refuse_options(args: argparse.Namespace) -> None:
    """End with a usage error if an option of jobs is given without a directory."""
    given = [name for name in OPTIONS if getattr(args, name)]
    if given:
        args.parser.error(f"--{given[0].replace('_', '-')} needs -o DIRECTORY/: a name that ends in a slash")


def refuse_inputs(args: argparse.Namespace) -> None:
    """Raise InputError if no input is one image or video."""
    from qwenvis.jobs.inputs.listing import holds_many

    if all(map(holds_many, args.images)):
        text = "is for jobs, which write into a directory: -o DIRECTORY/, a name that ends in a slash"
        raise InputError(f"{shown(args.images[0])} {text}")


def run(args: argparse.Namespace) -> int:
    """Run or continue a job; return the exit code."""
    from qwenvis import jobs

    given = {"include": args.include, "column": args.column, "to": args.to, "dtype": args.dtype_out}
    given |= {"shard_size": args.shard_size, "share": args.shard, "retry_failed": args.retry_failed}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    report = _Report(args)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default", CacheWarning)
        with report.verifying, report.encoding:
            options |= {**arguments.sampling(args), "verified": report.verified, "told": report.told}
            summary = jobs.run(partial(_encoder, args), args.images, args.output, **options)
    for each in warned:
        print("qwenvis:", units.name(str(each.message)), file=sys.stderr)
    report.failures()
    if not args.quiet:
        report.close(summary)
    return ITEMS_FAILED if summary.failures else 0


def _encoder(args: argparse.Namespace) -> Encoder:
    """Load the encoder."""
    from qwenvis.concurrency.threads import resolve
    from qwenvis.spec import ModelSpec

    limits = {"min_pixels": args.min_pixels, "max_pixels": args.max_pixels}
    spec = ModelSpec.open(args.model, dtype=args.dtype, **arguments.hub(args), **limits)
    return steps.load(spec, resolve(args.threads), arguments.cache(args), quiet=args.quiet)


class _Report:
    """What a job shows: the bars, a line of JSON for each item, and at the end what was done."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._json, self._output = args.json, args.output
        self._tokens = self._failed = self._done = 0
        self._reasons: list[str] = []
        self.verifying = Bar("verifying", lambda rate: f"{rate:,.0f} items/s", quiet=args.quiet)
        self.encoding = Bar("encoding", self._rate, quiet=args.quiet)

    def verified(self, done: int, total: int) -> None:
        """Count the items whose shards were verified, a time that is none of encoding."""
        self.verifying(done, total)
        self.encoding.start()

    def told(self, record: dict[str, Any], done: int, total: int) -> None:
        """Count an item that was tried."""
        self.verifying.erase()
        self._done = done
        self._tokens += record["tokens"] or 0
        if record["error"]:
            self._failed += 1
            if len(self._reasons) < MAX_LISTED:
                self._reasons.append(record["error"])
        if self._json:
            print(json.dumps(record), flush=True)
        self.encoding(done, total)

    def failures(self) -> None:
        """Print why items failed."""
        for reason in self._reasons:
            print("qwenvis:", units.name(reason), file=sys.stderr)
        if self._failed > len(self._reasons):
            print(f"and {self._failed - len(self._reasons):,} more failed items", file=sys.stderr)

    def close(self, summary: Summary) -> None:
        """Print what was done."""
        found = f", {summary.cached:,} of them from the cache" if summary.cached else ""
        words = [
            f"{units.name(self._output)}: {summary.encoded:,} of {summary.items:,} items encoded now{found}",
            f"{summary.tokens:,} tokens",
            f"{summary.failures:,} failed",
        ]
        if summary.repeated:
            words.append(f"{counted(summary.repeated, 'name')} listed again and left out")
        state = "complete" if summary.complete else "not complete: other shares are missing"
        print(f"{', '.join(words)}; {state}", file=sys.stderr)

    def _rate(self, rate: float) -> str:
        tokens = rate * self._tokens / self._done
        return f"{rate:,.1f} images/s, {tokens:,.0f} tokens/s, {self._failed:,} failed"


def _share(text: str) -> tuple[int, int]:
    """Parse 1/4 to 4/4: the number of a share, and how many there are."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a share such as 1/4, from 1/N to N/N")
    return int(index) - 1, int(count)
