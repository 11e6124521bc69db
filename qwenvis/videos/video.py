"""Videos to patches: choose frames, resize them, normalise, cut. Frames come and go; patches of some steps remain.

For the same decoded frames, ``pixel_values``, grid, indices and times equal those of transformers' video processors: to
the bit, where its torchvision resizes bytes as bytes (CPUs with AVX2).
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from qwenvis import ops
from qwenvis.errors import LimitError, QwenvisError, VideoError, VideoLimitError, VideoWarning, check_choice
from qwenvis.images.torch_resize import resize
from qwenvis.processors import frame_sampling
from qwenvis.processors.frame_sampling import ASSUMED_FPS, REFERENCE_FPS, Rate, SamplingArguments
from qwenvis.processors.video import SAMPLINGS, VideoProcessor
from qwenvis.processors.video_families import QwenVLUtilsVideoProcessor
from qwenvis.videos.source import Video, VideoSource, label, video_source


class Sampling(TypedDict, total=False):
    """Which frames of a video to look at; `Encoder.encode` explains."""

    sampling: str
    fps: Rate | None
    num_frames: int | None
    min_frames: int | None
    max_frames: int | None
    video_fps: Rate | None


@dataclass(frozen=True)
class VideoOptions:
    """How the videos of one call are looked at."""

    processor: VideoProcessor
    sampling: str = SAMPLINGS[0]
    asked: bool = False  # whether the caller says which frames
    video_fps: Rate | None = None
    upright: bool = True
    threads: int = 1

    @classmethod
    def of(cls, processor: VideoProcessor, given: Sampling, *, upright: bool = True, threads: int = 1) -> VideoOptions:
        """Apply the arguments of a call. Raises InputError for values that cannot be used."""
        asked: SamplingArguments = {
            "fps": given.get("fps"),
            "num_frames": given.get("num_frames"),
            "min_frames": given.get("min_frames"),
            "max_frames": given.get("max_frames"),
        }
        sampling, told = given.get("sampling", SAMPLINGS[0]), given.get("video_fps")
        check_choice(sampling, "sampling", SAMPLINGS)
        rate = None if told is None else frame_sampling.checked_rate(told, "video_fps")
        if sampling == "qwen-vl-utils":
            processor = QwenVLUtilsVideoProcessor.of(processor)
        wants = any(value is not None for value in asked.values())
        return cls(processor.asked(asked), sampling, wants, rate, upright, threads)

    @property
    def by_header(self) -> bool:
        """Whether films are read by their headers, as the rule's own library does; else as a player shows them."""
        return self.sampling in ("transformers", "qwen-vl-utils")

    def with_limits(self, min_pixels: int | None, max_pixels: int | None) -> VideoOptions:
        """With other limits of pixels; None keeps one. Raises InputError."""
        return replace(self, processor=self.processor.with_limits(min_pixels, max_pixels))

    def indices(self, video: VideoSource) -> list[int]:
        """The frames to look at, by the words of ``sampling`` (docs/video.md)."""
        length, processor = video.length, self.processor
        chosen = video.chosen and not self.asked
        if self.sampling == "all" or (chosen and self.sampling != "transformers"):
            indices = frame_sampling.every(length, processor.wanted)
        elif self.sampling == "natural":
            return self._natural(video)
        elif processor.samples:
            return processor.indices(length)
        else:
            return frame_sampling.every(length, processor.wanted)
        return self._lasting(indices)

    def _natural(self, video: VideoSource) -> list[int]:
        """Choose by the rule of the model, at 2 frames a second if the rule takes all; all frames of a short film."""
        length, processor = video.length, self.processor
        if processor.takes_all:
            processor = processor.asked({"fps": REFERENCE_FPS})
        short = length.frames < processor.temporal_patch_size
        return self._lasting(
            ([] if short else processor.indices(length)) or frame_sampling.every(length, processor.wanted)
        )

    def _lasting(self, indices: list[int]) -> list[int]:
        """Fill up a temporal step by repeating the last frame: one frame is a still that lasts. Not for references."""
        missing = self.processor.temporal_patch_size - len(indices)
        return indices + indices[-1:] * (0 if self.by_header else missing)


class VideoItem:
    """A video that is planned from its packets or header, only its first frame decoded: an item of a `Plan`.

    ``grid`` is (temporal steps, rows, columns) of patches. ``frame_indices`` (frames,) are the frames to look at;
    ``timestamps`` (steps,) the seconds of each step; ``second_per_grid`` the average seconds from one step to the next.
    ``size`` is the (height, width) of a frame, upright, before it is resized.
    """

    def __init__(self, source: Video, options: VideoOptions, index: int) -> None:
        """Errors call the video by its index. Raises VideoError, or LimitError."""
        self.where, self.processor = label(source, index), options.processor
        with _named(self.where):
            self.clip = video_source(
                source,
                self.where,
                fps=options.video_fps,
                upright=options.upright,
                by_header=options.by_header,
                threads=options.threads,
            )
            indices = options.indices(self.clip)
            if not indices:
                raise VideoError("no frame would be looked at: raise fps or num_frames")
            self.size, self.resized = self.clip.size, self.processor.resized(len(indices), *self.clip.size)
        self.by_header, self.frame_indices = options.by_header, np.array(indices, np.int64)
        step, side = self.processor.temporal_patch_size, self.processor.patch_size
        height, width = self.resized.canvas
        self.grid = -(-len(indices) // step), height // side, width // side
        self._coming: Iterator[NDArray[np.uint8]] = iter(())
        self._settled: list[NDArray[np.uint8]] | None = None
        self._process = os.getpid()

    @property
    def timestamps(self) -> NDArray[np.float64]:
        """The time of each temporal step, as the model's processor counts it; an unknown rate is 24 a second."""
        return np.array(self.processor.stamps(self.clip.length.seconds(self.frame_indices.tolist())), np.float64)

    @property
    def second_per_grid(self) -> float:
        """As Qwen2_5_VLProcessor: temporal_patch_size over the rate of the frames that are looked at."""
        length = self.clip.length
        if not length.fps and self.by_header:
            return float(self.processor.temporal_patch_size / ASSUMED_FPS)  # of all frames, whichever were chosen
        sampled = len(self.frame_indices) / length.frames * (length.fps or ASSUMED_FPS)
        return float(self.processor.temporal_patch_size / sampled)

    @property
    def damaged(self) -> int:
        """The number of frames that could not be decoded, among all frames read so far."""
        return self.clip.damaged

    def settle(self) -> None:
        """Decode and resize the frames now, before their source can change. Raises VideoError for a damaged video."""
        with _named(self.where):
            self._settled = list(self._fitting())

    def fill(self, first: int, stop: int, out: NDArray[np.float32]) -> tuple[int, int, int]:
        """Decode, resize and cut the frames of some steps. Calls follow one another; a first of 0 starts again.

        The child of a fork opens the film again at any step, because the decoder's threads stay in the parent. Raises
        VideoError for a video that turns out to be damaged, and warns of a few damaged frames.
        """
        if first == 0 or self._process != os.getpid():
            self._process = os.getpid()
            self._coming = self._fitting(first) if self._settled is None else iter(self._settled[self._frame(first) :])
        processor, rows = self.processor, math.prod(self.grid[1:])
        sizes = processor.patch_size, processor.temporal_patch_size, processor.merge_size
        with _named(self.where):
            for step in range(stop - first):
                frames = np.stack(list(self._next(first + step)))
                ops.vol2col(frames, processor.normalisation.lut, *sizes, out[step * rows : (step + 1) * rows])
        if stop == self.grid[0]:
            if self.damaged:
                share = f"{self.damaged} of {self.clip.length.frames} frames"
                text = f"{self.where}: {share} cannot be decoded, and are replaced by their neighbours"
                warnings.warn(text, VideoWarning, stacklevel=2)
            self._coming = iter(())  # closes the file: a call may have more videos than a process may have files
        return stop - first, *self.grid[1:]

    def _next(self, step: int) -> Iterator[NDArray[np.uint8]]:
        """The frames of a temporal step; the last step may have fewer, and its last is repeated (`ops.vol2col`)."""
        for _ in self.frame_indices[self._frame(step) : self._frame(step + 1)]:
            yield next(self._coming)

    def _frame(self, step: int) -> int:
        """The first frame of a temporal step, among those that are looked at."""
        return step * self.processor.temporal_patch_size

    def _fitting(self, first: int = 0) -> Iterator[NDArray[np.uint8]]:
        """The frames that are looked at from a temporal step on, resized."""
        return map(self._fitted, self.clip.frames(self.frame_indices[self._frame(first) :].tolist()))

    def _fitted(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A frame resized; beside what is smaller than the canvas, black."""
        (height, width), content = self.resized.canvas, resize(frame, *self.resized.content)
        if content.shape[:2] == (height, width):
            return content
        canvas = np.zeros((height, width, 3), np.uint8)
        canvas[: content.shape[0], : content.shape[1]] = content
        return canvas


class _named:
    """Make errors inside name the video, and errors of its pictures errors about a video."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        named = str(error).startswith(self.where)
        if isinstance(error, QwenvisError) and not (named and isinstance(error, VideoError)):
            kind = VideoLimitError if isinstance(error, LimitError) else VideoError
            raise kind(str(error) if named else f"{self.where}: {error}") from None
