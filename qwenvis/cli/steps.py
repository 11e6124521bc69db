"""The steps that take a while, each under its bar: find, open, load, encode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qwenvis.cli import files, units
from qwenvis.cli.bar import Bar

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    import numpy as np

    from qwenvis.embeddings import Embeddings
    from qwenvis.encoder import Encoder
    from qwenvis.images.decode import ImageInput
    from qwenvis.processors.image import ImageProcessor
    from qwenvis.spec import ModelSpec
    from qwenvis.videos.video import VideoItem


def find(source: str) -> Path:
    """The directory of a source; a synthetic checkpoint is written first."""
    from qwenvis.sources.resolve import resolve

    with Bar("writing the checkpoint", _bytes) as bar:
        return resolve(source, progress=bar)


def watcher(spec: ModelSpec, args: argparse.Namespace) -> Callable[[str, int], VideoItem | None]:
    """What plans a video, none of its frames decoded but the first, for the arguments; None for a still."""
    from qwenvis.cli.arguments import sampling
    from qwenvis.videos.video import VideoItem, VideoOptions

    def watch(path: str, index: int) -> VideoItem | None:
        if not is_video(path, sampling(args)):
            return None
        options = VideoOptions.of(spec.video_processor, sampling(args))
        return VideoItem(path, options.with_limits(args.min_pixels, args.max_pixels), index)

    return watch


def look(
    paths: Sequence[str], processor: ImageProcessor, watch: Callable[[str, int], VideoItem | None] | None = None
) -> list[files.Seen]:
    """Decode every image, so that a damaged one is found before hours of work and not in the midst of it.

    Of a video the packets and the first frame are looked at.
    """
    from qwenvis.images.decode import decode

    done = 0
    with Bar("opening the images", lambda rate: f"{rate:.1f} images/s") as bar:

        def measure(source: ImageInput, where: str) -> tuple[int, int]:
            nonlocal done
            done += 1
            bar(done, len(paths))
            image = decode(source, where)
            return image.height, image.width

        return files.survey(paths, processor, measure, watch)


def load(spec: ModelSpec, threads: int) -> Encoder:
    """The encoder of a checkpoint whose files are there."""
    from qwenvis.encoder import Encoder

    with Bar("loading the weights", _bytes) as bar:
        return Encoder.from_spec(spec, threads=threads, progress=bar)


def encode(
    encoder: Encoder,
    images: Sequence[ImageInput],
    grid_thw: np.ndarray,
    expected: float | None = None,
    sampling: dict[str, Any] | None = None,
) -> Embeddings:
    """The tokens of the images and videos, whose grids are known; ``expected`` seconds, if they have been estimated."""
    layers = encoder.config.depth + 1
    bar = Bar("encoding", lambda rate: f"{rate / layers:,.0f} patches/s")
    if bar.shown:
        bar.expected = estimate(encoder.spec, grid_thw, encoder.threads) if expected is None else expected
    with bar:
        asked = sampling or {}
        moving = [isinstance(image, str) and is_video(image, asked) for image in images]
        if not any(moving):
            return encoder.encode(images, progress=bar)
        order = sorted(range(len(images)), key=moving.__getitem__)  # of what comes out: stills first
        stills, videos = ([images[i] for i in order if moving[i] is kind] for kind in (False, True))
        out = encoder.encode(stills or None, videos=videos, progress=bar, **asked)
        return out[sorted(range(len(images)), key=order.__getitem__)]


def is_video(path: str, sampling: Mapping[str, Any]) -> bool:
    """Whether a file is taken as a video: films always, and animated images where frames are asked for."""
    asked = any(sampling.get(name) is not None for name in ("sampling", "fps", "num_frames"))
    return files.is_film(path) or (asked and files.moves(path))


def estimate(spec: ModelSpec, grid_thw: np.ndarray, threads: int) -> float:
    """Seconds that the images will take here, from the speed of one product, measured now."""
    from qwenvis.cost import gemm_rate

    return spec.cost(grid_thw, threads=threads).flops / gemm_rate(threads, spec.format)


def _bytes(rate: float) -> str:
    return f"{units.nbytes(rate)}/s"
