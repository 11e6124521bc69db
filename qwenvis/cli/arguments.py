"""Arguments that several commands have."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qwenvis.videos.video import Sampling

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
    formats = "float32 (or f32), bfloat16 (or bf16), or auto"
    text = f"{formats}: bfloat16 where checkpoint and CPU have it (default: %(default)s)"
    parser.add_argument("--dtype", default="float32", help=text)


def rate(text: str) -> float:
    """Frames a second: a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def rule(text: str) -> str:
    """A rule by which the frames of a video are chosen."""
    from qwenvis.processors.video import SAMPLINGS

    if text not in SAMPLINGS:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(SAMPLINGS)}")
    return text


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """``--fps``, ``--num-frames`` and ``--sampling``."""
    parser.add_argument("--fps", type=rate, metavar="N", help="frames a second of a video (default: as the model does)")
    parser.add_argument("--num-frames", type=positive, metavar="N", help="frames of a video, instead of --fps")
    text = "natural, transformers, qwen-vl-utils or all: how frames of a video are chosen (default: natural)"
    parser.add_argument("--sampling", type=rule, metavar="RULE", help=text)


def sampling(args: argparse.Namespace) -> Sampling:
    """What these say, as the encoder takes it."""
    asked: Sampling = {"fps": args.fps, "num_frames": args.num_frames}
    return asked if args.sampling is None else {**asked, "sampling": args.sampling}


def add_limits(parser: argparse.ArgumentParser) -> None:
    """``--min-pixels`` and ``--max-pixels``."""
    for side, verb in (("min", "enlarge smaller"), ("max", "shrink larger")):
        text = f"{verb} images to about this area: N, or WxH (default: as the checkpoint says)"
        parser.add_argument(f"--{side}-pixels", type=pixels, metavar="N", help=text)
