"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, TypedDict

from qwenvis.cli import units

if TYPE_CHECKING:
    from qwenvis.cache import Cache
    from qwenvis.videos.video import Sampling

SOURCE = "a directory, a .gguf file, a Hub id, or synthetic:PRESET"


class HubArguments(TypedDict):
    """The arguments of `ModelSpec.open` about a Hub id. A token comes from the environment only."""

    revision: str | None
    local_files_only: bool
    tower_only: bool


def positive(text: str) -> int:
    """Parse a whole number above 0."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return value


def pixels(text: str) -> int:
    """Parse a number of pixels: 200000 or 504x392."""
    width, cross, height = text.partition("x")
    return positive(width) * positive(height) if cross else positive(text)


def nbytes(text: str) -> int:
    """Parse a size in bytes: 5000000, 500MB, 2GiB."""
    try:
        return units.parsed_nbytes(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 500MB or 2GiB") from None


def bound(text: str) -> int:
    """Parse a size above 0."""
    value = nbytes(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size above 0")
    return value


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads``."""
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="number of threads (default: the CPUs that this process may use)"
    )


def add_json(parser: argparse.ArgumentParser, what: str = "a JSON object") -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help=f"print {what} instead of text (docs/command_line.md)")


def print_json(facts: object) -> None:
    """Print facts as JSON. Its keys stay the same in later versions; there may be more."""
    print(json.dumps(facts, indent=2))


def add_dtype(parser: argparse.ArgumentParser, default: str | None = "float32", described: str = "%(default)s") -> None:
    """Add ``--dtype``; ``described`` is the default in the help text of a command that chooses the dtype itself."""
    formats = "float32 (or f32), bfloat16 (or bf16), int8 (or i8), or auto"
    text = f"{formats}, which selects bfloat16 if checkpoint and CPU support it (default: {described})"
    parser.add_argument("--dtype", default=default, help=text)


def add_hub(parser: argparse.ArgumentParser, tower_only: bool = True) -> None:
    """Add ``--revision`` and ``--local-files-only``, and ``--tower-only`` for commands that download a checkpoint."""
    parser.add_argument("--revision", metavar="REF", help="branch, tag or commit of a Hub id (default: main)")
    text = "send no request: use what the caches hold of a Hub id, as with HF_HUB_OFFLINE=1"
    parser.add_argument("--local-files-only", action="store_true", help=text)
    if tower_only:
        text = "of a Hub id that no cache holds, download only the tower's bytes, not the whole shards that hold it"
        parser.add_argument("--tower-only", action="store_true", help=text)


def hub(args: argparse.Namespace) -> HubArguments:
    """Return the options of `add_hub` as arguments of `ModelSpec.open`."""
    tower_only = getattr(args, "tower_only", False)
    return {"revision": args.revision, "local_files_only": args.local_files_only, "tower_only": tower_only}


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Add ``--cache`` and ``--cache-size``."""
    text = "look up tokens in this directory, and store new ones there (see `qwenvis cache --help`)"
    parser.add_argument("--cache", metavar="DIR", help=text)
    text = "the size that the cache may reach, such as 500MB or 20GiB (default: 10GB)"
    parser.add_argument("--cache-size", type=bound, metavar="SIZE", help=text)


def cache(args: argparse.Namespace) -> Cache | None:
    """Return the cache that the options of `add_cache` name. Raises InputError if it cannot be used."""
    from qwenvis.cache import Cache

    if args.cache is None:
        return None
    return Cache(args.cache) if args.cache_size is None else Cache(args.cache, args.cache_size)


def rate(text: str) -> float:
    """Parse frames per second: a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def rule(text: str) -> str:
    """Parse the name of a rule that chooses the frames of a video."""
    from qwenvis.processors.video import SAMPLINGS

    if text not in SAMPLINGS:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(SAMPLINGS)}")
    return text


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Add ``--fps``, ``--num-frames`` and ``--sampling``."""
    parser.add_argument(
        "--fps", type=rate, metavar="N", help="frames to encode per second of a video (default: the rule of the model)"
    )
    parser.add_argument(
        "--num-frames", type=positive, metavar="N", help="number of frames to encode of a video, instead of --fps"
    )
    text = "the rule that chooses the frames of a video: natural, transformers, qwen-vl-utils or all (default: natural)"
    parser.add_argument("--sampling", type=rule, metavar="RULE", help=text)


def sampling(args: argparse.Namespace) -> Sampling:
    """Return the options of `add_sampling` as arguments of the encoder."""
    options: Sampling = {"fps": args.fps, "num_frames": args.num_frames}
    return options if args.sampling is None else {**options, "sampling": args.sampling}


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add ``--min-pixels`` and ``--max-pixels``."""
    for side, verb in (("min", "enlarge smaller"), ("max", "shrink larger")):
        text = f"{verb} images to about this area in pixels: N, or WxH (default: the limit of the checkpoint)"
        parser.add_argument(f"--{side}-pixels", type=pixels, metavar="N", help=text)
