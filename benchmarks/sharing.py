"""The cost of shared inputs: preprocessing with the protection of objects that are passed twice, and without it.

    python -m benchmarks.pixels --sharing --size 1600 1200

The unprotected calls read PIL images without locks, which is safe if no other thread loads them, and bytes instead of
file objects. Both kinds of call alternate; the table shows medians over the rounds.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import IO
from unittest import mock

import numpy as np
from PIL import Image

from benchmarks.timing import alternate
from qwenvis import Encoder
from qwenvis.io import sharing

FRAMES = 24
Work = Callable[[], object]


def write_video(path: Path, width: int, height: int) -> None:
    """Write a video file of moving frames."""
    import av

    noise = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    still = noise.repeat(16, axis=0).repeat(16, axis=1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12)
        stream.height, stream.width, stream.pix_fmt = *still.shape[:2], "yuv420p"
        for index in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(np.roll(still, 8 * index, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def unlocked(work: Work) -> Work:
    """Return the call without the locks of images."""

    def without() -> object:
        with mock.patch.object(sharing, "locked", nullcontext):
            return work()

    return without


def images(prepare: Callable[..., object], paths: list[Path], file: IO[bytes]) -> dict[str, tuple[Work, Work]]:
    """Return calls on images, with and without sharing, by name; ``file`` is an open file of the first path."""
    data = [path.read_bytes() for path in paths]
    files = [io.BytesIO(each) for each in data]
    with Image.open(paths[0]) as image:
        loaded = image.copy()

    def distinct() -> object:
        return prepare([Image.open(io.BytesIO(each)) for each in data])

    def repeated() -> object:
        return prepare([loaded] * len(paths))

    return {
        "distinct PIL images, not loaded": (distinct, unlocked(distinct)),
        "one PIL image, repeated": (repeated, unlocked(repeated)),
        "distinct file objects": (lambda: prepare(files), lambda: prepare(data)),
        "one file object, repeated": (lambda: prepare([file] * len(paths)), lambda: prepare([data[0]] * len(paths))),
    }


def videos(prepare: Callable[..., object], file: IO[bytes]) -> dict[str, tuple[Work, Work]]:
    """Return calls on videos, with and without sharing, by name."""
    data = file.read()
    frame = Image.new("RGB", (640, 480))

    def frames() -> object:
        return prepare(videos=[[frame] * FRAMES])

    return {
        "one video, repeated": (lambda: prepare(videos=[file] * 3), lambda: prepare(videos=[data] * 3)),
        "one PIL image as all frames": (frames, unlocked(frames)),
    }


def measure(paths: list[Path], directory: Path, threads: int, rounds: int) -> None:
    """Print a line for each kind of call, on the photographs and on a video."""
    encoder = Encoder.from_pretrained("synthetic:tiny-qwen2-vl", threads=threads, max_pixels=1_003_520)
    write_video(directory / "video.mp4", 640, 480)
    with ExitStack() as stack:
        file, played = (stack.enter_context(path.open("rb")) for path in (paths[0], directory / "video.mp4"))
        work = images(encoder.preprocess, paths, file) | videos(encoder.preprocess, played)
        for name, (safe, plain) in work.items():
            contenders = {"safe": safe, "plain": plain}
            measured = alternate(contenders, range(rounds), threads, dict.fromkeys(contenders))
            cost = measured["safe"].median / measured["plain"].median - 1
            print(f"{name:34} {1000 * measured['safe'].median:8.1f} ms  {100 * cost:+6.1f} %")
