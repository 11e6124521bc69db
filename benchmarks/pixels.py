"""Preprocessing of photographs, from JPEG to ``pixel_values``, beside transformers' PIL class; ms per image.

    python -m benchmarks.pixels --size 4000 3000 --images 16
    python -m benchmarks.pixels --sharing --size 1600 1200 --rounds 9

Contenders alternate. transformers uses one thread on every machine. With ``--sharing``, the benchmark measures the cost
of passing one image, file object or video many times (`benchmarks.sharing`).
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import sharing
from benchmarks.timing import alternate, cpu
from qwenvis.concurrency.threads import resolve
from qwenvis.encoding.batching import Plan
from qwenvis.images.image import ImageItem
from qwenvis.processors.image import ImageProcessor

TOWER = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
LIMITS = {"published": 12_845_056, "class": 1_003_520}  # max_pixels of Qwen2-VL's checkpoints, and of the class


def photograph(path: Path, width: int, height: int) -> None:
    """A JPEG file of the demo's picture with the noise of a camera."""
    with Image.open(Path(__file__).parents[1] / "qwenvis" / "demo.jpg") as demo:
        pixels = np.asarray(demo.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))
    noise = np.random.default_rng(0).integers(-6, 7, pixels.shape)
    Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(path, "JPEG", quality=90)


def transformers_class(max_pixels: int) -> Callable[[list[str]], object]:
    """Return the function of transformers that turns paths into ``pixel_values``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    processor = Qwen2VLImageProcessorPil(min_pixels=3136, max_pixels=max_pixels)
    return lambda paths: processor(images=processor.fetch_images(paths))


def ours(max_pixels: int, threads: int, backend: str = "pil") -> Callable[[list[str]], object]:
    """Return the function of qwenvis that turns paths into ``pixel_values``."""
    config = {"min_pixels": 3136, "max_pixels": max_pixels}
    processor = ImageProcessor.from_config(config, **TOWER, backend=backend)

    def prepare(paths: list[str]) -> object:
        items = [ImageItem(path, processor, index) for index, path in enumerate(paths)]
        return Plan(items, processor.columns).prepare(threads)

    return prepare


def compare(path: Path, images: int, threads: int, rounds: int) -> None:
    """Print a line for each contender, under each limit."""
    one, batch = [str(path)], [str(path)] * images
    for name, limit in LIMITS.items():
        theirs, single = transformers_class(limit), ours(limit, 1)
        many, torchvision = ours(limit, threads), ours(limit, 1, "torchvision")
        contenders: dict[str, Callable[[], object]] = {
            "transformers": lambda theirs=theirs: theirs(one),
            "qwenvis, 1 thread": lambda single=single: single(one),
            "qwenvis, 1 thread, as torchvision": lambda torchvision=torchvision: torchvision(one),
            "qwenvis, 1 thread, batch": lambda single=single: single(batch),
            f"qwenvis, {threads} threads, batch": lambda many=many: many(batch),
        }
        measured = alternate(contenders, range(rounds), threads, dict.fromkeys(contenders))
        for contender, runs in measured.items():
            each = runs.median / (images if contender.endswith("batch") else 1)
            print(f"{name:9}  max_pixels {limit:>10,}  {contender:34} {1000 * each:8.1f} ms")


def main() -> None:
    """Measure on a photograph, or on copies of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(4000, 3000), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--images", type=int, default=16, help="number of images in a batch")
    parser.add_argument("--threads", type=int, help="number of threads (default: as the encoder's)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--sharing", action="store_true", help="pass one object many times, compared with inputs that need no lock"
    )
    args = parser.parse_args()
    threads = resolve(args.threads)
    print(f"{cpu()}; JPEG of {args.size[0]} x {args.size[1]}")
    with tempfile.TemporaryDirectory() as directory:
        paths = [Path(directory) / f"{index}.jpg" for index in range(args.images if args.sharing else 1)]
        for path in paths:
            photograph(path, *args.size)
        if args.sharing:
            sharing.measure(paths, Path(directory), threads, args.rounds)
        else:
            compare(paths[0], args.images, threads, args.rounds)


if __name__ == "__main__":
    main()
