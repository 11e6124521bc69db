"""Videos to patches: choose frames, resize, normalise, cut. Memory holds the frames of a few temporal steps.

For the same decoded frames, ``pixel_values``, grid, indices and times equal those of transformers' video processors, to
the bit on CPUs with AVX2 (where torchvision resizes uint8 in integers).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from qwenvis.errors import LimitError, QwenvisError, VideoError, VideoLimitError, VideoWarning, check_choice
from qwenvis.images.step import PixelStep, StepItem
from qwenvis.images.torch_resize import resize
from qwenvis.processors import frame_sampling
from qwenvis.processors.frame_sampling import ASSUMED_FPS, REFERENCE_FPS, Rate, SamplingArguments
from qwenvis.processors.video import SAMPLINGS, VideoProcessor
from qwenvis.processors.video_families import QwenVLUtilsVideoProcessor
from qwenvis.videos.source import VideoInput, VideoSource, label, open_video


class Sampling(TypedDict, total=False):
    """Arguments that choose the frames of a video; `Encoder.encode` documents them."""

    sampling: str
    fps: Rate | None
    num_frames: int | None
    min_frames: int | None
    max_frames: int | None
    video_fps: Rate | None


@dataclass(frozen=True)
class VideoOptions:
    """Options of one call for all its videos."""

    processor: VideoProcessor
    sampling: str = SAMPLINGS[0]
    explicit: bool = False  # whether the caller passed an argument that chooses frames
    video_fps: Rate | None = None
    upright: bool = True
    threads: int = 1

    @classmethod
    def of(cls, processor: VideoProcessor, given: Sampling, *, upright: bool = True, threads: int = 1) -> VideoOptions:
        """Apply the arguments of a call. Raises InputError for invalid values."""
        arguments: SamplingArguments = {
            "fps": given.get("fps"),
            "num_frames": given.get("num_frames"),
            "min_frames": given.get("min_frames"),
            "max_frames": given.get("max_frames"),
        }
        sampling, video_fps = given.get("sampling", SAMPLINGS[0]), given.get("video_fps")
        check_choice(sampling, "sampling", SAMPLINGS)
        rate = None if video_fps is None else frame_sampling.checked_rate(video_fps, "video_fps")
        if sampling == "qwen-vl-utils":
            processor = QwenVLUtilsVideoProcessor.of(processor)
        explicit = any(value is not None for value in arguments.values())
        return cls(processor.with_sampling(arguments), sampling, explicit, rate, upright, threads)

    @property
    def by_header(self) -> bool:
        """Whether video files are read by their headers, as the reference library does, or as a player shows them."""
        return self.sampling in ("transformers", "qwen-vl-utils")

    def with_limits(self, min_pixels: int | None, max_pixels: int | None) -> VideoOptions:
        """Return a copy with other pixel limits; None keeps a limit. Raises InputError."""
        return replace(self, processor=self.processor.with_limits(min_pixels, max_pixels))

    def indices(self, video: VideoSource) -> list[int]:
        """Return the indices of the frames to encode, by ``sampling`` (docs/video.md)."""
        length, processor = video.length, self.processor
        chosen = video.chosen and not self.explicit
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
        """Choose by the rule of the model, or 2 frames per second if that takes all; a short video keeps all."""
        length, processor = video.length, self.processor
        if processor.takes_all:
            processor = processor.with_sampling({"fps": REFERENCE_FPS})
        short = length.frames < processor.temporal_patch_size
        return self._lasting(
            ([] if short else processor.indices(length)) or frame_sampling.every(length, processor.wanted)
        )

    def _lasting(self, indices: list[int]) -> list[int]:
        """Repeat the last frame to fill the first temporal step, unless the mode follows a reference library."""
        missing = self.processor.temporal_patch_size - len(indices)
        return indices + indices[-1:] * (0 if self.by_header else missing)


class VideoItem(StepItem):
    """A video planned from its packets or header, with at most one frame decoded: an item of a `Plan`.

    ``grid`` is (temporal steps, rows, columns) of patches. ``frame_indices`` (frames,) are the frames to encode;
    ``timestamps`` (steps,) are the times of the steps in seconds, and ``second_per_grid`` the average interval between
    steps. ``size`` is the (height, width) of an upright frame before resizing.
    """

    def __init__(self, source: VideoInput, options: VideoOptions, index: int) -> None:
        """Open the video and choose frames; errors name it by its index. Raises VideoError or VideoLimitError."""
        self.where, self.processor = label(source, index), options.processor
        with _named(self.where):
            self.video = open_video(
                source,
                self.where,
                fps=options.video_fps,
                upright=options.upright,
                by_header=options.by_header,
                threads=options.threads,
            )
            indices = options.indices(self.video)
            if not indices:
                raise VideoError("no frame would be encoded: raise fps or num_frames")
            self.size, self.resized = self.video.size, self.processor.resized(len(indices), *self.video.size)
        self.by_header, self.frame_indices = options.by_header, np.array(indices, np.int64)
        step, side = self.processor.temporal_patch_size, self.processor.patch_size
        height, width = self.resized.canvas
        self.grid = -(-len(indices) // step), height // side, width // side
        self._coming: Iterator[NDArray[np.uint8]] = iter(())
        self._settled: list[NDArray[np.uint8]] | None = None
        self._process, self._warned = os.getpid(), False

    @property
    def timestamps(self) -> NDArray[np.float64]:
        """Return the time of each temporal step in seconds, by the model's processor; an unknown rate counts as 24."""
        return np.array(self.processor.stamps(self.video.length.seconds(self.frame_indices.tolist())), np.float64)

    @property
    def second_per_grid(self) -> float:
        """Return temporal_patch_size over the rate of the chosen frames, as Qwen2_5_VLProcessor does."""
        length = self.video.length
        if not length.fps and self.by_header:
            return float(self.processor.temporal_patch_size / ASSUMED_FPS)  # the rate of all frames
        sampled = len(self.frame_indices) / length.frames * (length.fps or ASSUMED_FPS)
        return float(self.processor.temporal_patch_size / sampled)

    @property
    def damaged(self) -> int:
        """The number of undecodable frames met so far."""
        return self.video.damaged

    def settle(self) -> None:
        """Decode and resize the frames now, because the source may change. Raises VideoError for a damaged video."""
        with _named(self.where):
            self._settled = list(self._fitting())

    def steps(self, first: int, stop: int) -> Iterator[PixelStep]:
        """Yield the temporal steps from ``first`` to ``stop``, decoded and resized.

        Calls proceed through the video; ``first`` = 0 restarts. The child of a fork reopens the file at any step,
        because the decoder's threads stay in the parent. Raises VideoError for a damaged video, and warns with
        VideoWarning, once, about a few damaged frames.
        """
        if first == 0 or self._process != os.getpid():
            self._process = os.getpid()
            self._coming = self._fitting(first) if self._settled is None else iter(self._settled[self._frame(first) :])
        processor = self.processor
        sizes = processor.patch_size, processor.temporal_patch_size, processor.merge_size
        for number in range(first, stop):
            with _named(self.where):
                frames = np.stack(list(self._next(number)))
            yield PixelStep(frames, processor.normalisation.lut, sizes)
        if stop == self.grid[0]:
            self._warn()
            self._coming = iter(())  # closes the file: a call may have more videos than open files are allowed

    def _warn(self) -> None:
        """Warn about damaged frames, at the first time that all frames have been decoded."""
        if self.damaged and not self._warned:
            self._warned = True
            share = f"{self.damaged} of {self.video.length.frames} frames"
            text = f"{self.where}: {share} cannot be decoded; their neighbours replace them"
            warnings.warn(text, VideoWarning, stacklevel=3)

    def _next(self, step: int) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames of a temporal step; `ops.vol2col` repeats the last frame to fill the last step."""
        for _ in self.frame_indices[self._frame(step) : self._frame(step + 1)]:
            yield next(self._coming)

    def _frame(self, step: int) -> int:
        """Return the position of a step's first frame in ``frame_indices``."""
        return step * self.processor.temporal_patch_size

    def _fitting(self, first: int = 0) -> Iterator[NDArray[np.uint8]]:
        """Yield the chosen frames from a temporal step on, resized."""
        return map(self._fitted, self.video.frames(self.frame_indices[self._frame(first) :].tolist()))

    def _fitted(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize a frame, and pad it with black to the canvas."""
        (height, width), content = self.resized.canvas, resize(frame, *self.resized.content)
        if content.shape[:2] == (height, width):
            return content
        canvas = np.zeros((height, width, 3), np.uint8)
        canvas[: content.shape[0], : content.shape[1]] = content
        return canvas


class _named:
    """Make errors inside name the video, and turn errors about its images into errors about the video."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        named = str(error).startswith(self.where)
        if isinstance(error, QwenvisError) and not (named and isinstance(error, VideoError)):
            kind = VideoLimitError if isinstance(error, LimitError) else VideoError
            raise kind(str(error) if named else f"{self.where}: {error}") from None
