"""The common part of transformers' video processors: frames, limits and normalisation of a video preprocessor config.

The rules of each processor are in `processors.video_families`. All resize as torchvision (`images.torch_resize`), with
the fused normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from qwenvis.errors import InputError, VideoLimitError
from qwenvis.io.fields import Section
from qwenvis.processors.frame_sampling import Length, SamplingArguments, Wanted, checked
from qwenvis.processors.image import PLACE, refuse_other_steps
from qwenvis.processors.normalize import CLIP_MEAN, CLIP_STD, Normalisation
from qwenvis.processors.pixel_limits import given_limits, read_limits
from qwenvis.processors.smart_resize import FrameSize

# Frames x height x width after resizing. Published limits end at 376 million (GLM-5), which are 240,000 tokens.
MAX_VIDEO_PIXELS = 2**29

MOST_TOKENS = 2**31  # of a video, as a config may cap them
MOST_FRAMES = 2**31 - 1  # of a video, and seconds
MOST_EXPANSION = 16  # merge units along one side of the unit that frames are resized to

# The ways to choose frames; the first is the default.
SAMPLINGS = ("natural", "transformers", "qwen-vl-utils", "all")


@dataclass(frozen=True)
class VideoProcessor:
    """The numbers that turn a video into patches. Limits are in pixels, of a frame or of all frames of a video."""

    patch_size: int
    merge_size: int
    temporal_patch_size: int
    min_pixels: int
    max_pixels: int
    normalisation: Normalisation
    wanted: Wanted
    samples: bool  # do_sample_frames: whether transformers chooses frames unless told otherwise
    cap_pixels_per_frame: bool = False
    max_video_tokens: int = 0
    expand: int = 1  # patch_expand_factor of GLM-5: merge units along a side of the unit that a frame is resized to

    # The defaults of transformers' class, and the fields that it reads.
    limits: ClassVar[tuple[int, int]] = (128 * 28 * 28, 28 * 28 * 768)
    keys: ClassVar[tuple[str, ...]] = ()  # of the limits, beside the edges of ``size``
    colours: ClassVar[tuple[tuple[float, ...], tuple[float, ...]]] = CLIP_MEAN, CLIP_STD
    defaults: ClassVar[Mapping[str, Any]] = {}
    arguments: ClassVar[tuple[str, ...]] = ()  # of a call, those that the class reads

    @classmethod
    def from_config(
        cls, preprocessor: Mapping[str, Any], *, patch_size: int, merge_size: int, temporal_patch_size: int
    ) -> VideoProcessor:
        """Read a video preprocessor config; the sizes are the tower's.

        Raises ConfigError for a config that cannot be used.
        """
        given = Section(preprocessor, PLACE)
        config = Section({**cls.defaults, **given.written}, given.place)
        tower = {"patch_size": patch_size, "merge_size": merge_size, "temporal_patch_size": temporal_patch_size}
        refuse_other_steps(config, tower, "videos")
        if config.get("input_data_format") not in (None, "channels_last"):
            raise config.refused("input_data_format", "channels_last, or no such field: frames are (height, width, 3)")
        smallest, largest = read_limits(config, cls.limits, cls.keys)
        return cls(
            **tower,
            min_pixels=smallest,
            max_pixels=largest,
            normalisation=Normalisation.from_config(config, *cls.colours, fused=True),
            wanted=_wanted(config, temporal_patch_size),
            samples=config.flag("do_sample_frames", False),
            cap_pixels_per_frame=config.flag("cap_pixels_per_frame", False),
            max_video_tokens=config.whole("max_video_tokens", 1, largest=MOST_TOKENS),
        )

    def with_limits(self, min_pixels: int | None = None, max_pixels: int | None = None) -> VideoProcessor:
        """Return a processor with other limits; None keeps a limit. Raises InputError for invalid limits."""
        smallest, largest = given_limits((self.min_pixels, self.max_pixels), min_pixels, max_pixels)
        return replace(self, min_pixels=smallest, max_pixels=largest)

    def with_sampling(self, given: SamplingArguments) -> VideoProcessor:
        """Return a processor with other numbers for the choice of frames; num_frames and fps replace each other.

        Raises InputError for numbers out of range, and for numbers that transformers' class does not read.
        """
        numbers = checked(given)
        if unread := [name for name in numbers if name not in self.arguments]:
            known = " or ".join(self.arguments) or "nothing"
            raise InputError(f"{unread[0]} has no effect on the frames of this model, which reads {known}")
        if "fps" in numbers and "num_frames" in numbers:
            raise InputError("num_frames and fps are mutually exclusive; pass one of them")
        if "fps" in numbers or "num_frames" in numbers:
            numbers = {"fps": None, "num_frames": None, **numbers}
        return replace(self, wanted=replace(self.wanted, **numbers), samples=self.samples or bool(numbers))

    @property
    def takes_all(self) -> bool:
        """Whether the rule reads a rate and neither a rate nor a number of frames is given."""
        return "fps" in self.arguments and self.wanted.fps is None and self.wanted.num_frames is None

    @property
    def factor(self) -> int:
        """The unit of the sides of resized frames, in pixels."""
        return self.patch_size * self.merge_size * self.expand

    @property
    def columns(self) -> int:
        """The number of entries of a patch, a row of ``pixel_values``: 3 x temporal_patch_size x patch_size²."""
        return 3 * self.temporal_patch_size * self.patch_size**2

    def indices(self, length: Length) -> list[int]:
        """Return the indices of the frames that the model chooses. Raises VideoError for a length that it refuses."""
        raise NotImplementedError

    def resized(self, frames: int, height: int, width: int) -> FrameSize:
        """Return the size after resizing of ``frames`` frames of this height and width.

        Raises ImageError for sizes that `processors.smart_resize` refuses, VideoLimitError beyond ``MAX_VIDEO_PIXELS``.
        """
        size = self._size(frames, height, width)
        if (volume := frames * math.prod(size.canvas)) > MAX_VIDEO_PIXELS:
            raise VideoLimitError(
                f"{frames} frames of {height} x {width} would be resized to {size.canvas[0]} x {size.canvas[1]}, "
                f"{volume:,} pixels; at most {MAX_VIDEO_PIXELS:,} are allowed: lower num_frames, fps or max_pixels"
            )
        return size

    def _size(self, frames: int, height: int, width: int) -> FrameSize:
        raise NotImplementedError

    def stamps(self, seconds: list[float]) -> list[float]:
        """Return the time of each temporal step: the middle between its first and its last frame, in seconds."""
        step = self.temporal_patch_size
        padded = seconds + seconds[-1:] * (-len(seconds) % step)
        return [(padded[i] + padded[i + step - 1]) / 2 for i in range(0, len(padded), step)]


def _wanted(config: Section, temporal_patch_size: int) -> Wanted:
    """Return the numbers for the choice of frames that a config states."""
    names = [name for name in ("num_frames", "min_frames", "max_frames", "max_duration") if name in config]
    counts = {name: config.whole(name, 0, int(name != "max_duration"), MOST_FRAMES) for name in names}
    fps = config.number("fps", math.nan, 0, MOST_FRAMES) if "fps" in config else None
    return Wanted(fps, **counts, temporal_patch_size=temporal_patch_size)
