"""Arguments that several commands have."""

from __future__ import annotations

import argparse

SOURCE = "directory, .gguf file, Hub id in the local cache, or synthetic:PRESET"


def positive(text: str) -> int:
    """A whole number above 0."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return value


def pixels(text: str) -> int:
    """A number of pixels: 200000 or 504x392."""
    width, cross, height = text.partition("x")
    return positive(width) * positive(height) if cross else positive(text)


def add_threads(parser: argparse.ArgumentParser) -> None:
    """``--threads``."""
    parser.add_argument("--threads", type=positive, metavar="N", help="default: the CPUs that may be used")


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """``--dtype``."""
    formats = "float32 (called f32 as a format), bfloat16 (bf16), or auto"
    text = f"{formats}: bfloat16 where checkpoint and CPU have it (default: %(default)s)"
    parser.add_argument("--dtype", default="float32", help=text)


def add_limits(parser: argparse.ArgumentParser) -> None:
    """``--min-pixels`` and ``--max-pixels``."""
    for side, verb in (("min", "enlarge smaller"), ("max", "shrink larger")):
        text = f"{verb} images to about this area: N, or WxH (default: as the checkpoint says)"
        parser.add_argument(f"--{side}-pixels", type=pixels, metavar="N", help=text)
