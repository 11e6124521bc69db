"""The video processors of transformers: the choice of frames, their size, and the defaults of each class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar

from qwenvis.errors import ConfigError
from qwenvis.io.fields import Section
from qwenvis.models import FAMILIES, family_of_class
from qwenvis.processors import frame_sampling, smart_resize
from qwenvis.processors.frame_sampling import Length, Wanted
from qwenvis.processors.image import PLACE
from qwenvis.processors.normalize import CLIP_MEAN, CLIP_STD
from qwenvis.processors.pixel_limits import given_limits
from qwenvis.processors.smart_resize import FrameSize
from qwenvis.processors.video import MOST_EXPANSION, VideoProcessor


class Qwen2VLVideoProcessor(VideoProcessor):
    """Limits are areas of a frame; all frames are taken, unless a call or a config chooses."""

    keys: ClassVar[tuple[str, ...]] = ("min_pixels", "max_pixels")
    defaults: ClassVar[Mapping[str, Any]] = {"min_frames": 4, "max_frames": 768, "max_video_tokens": 128000}
    arguments: ClassVar[tuple[str, ...]] = ("fps", "num_frames", "min_frames", "max_frames")

    def indices(self, length: Length) -> list[int]:
        """Return the frames of `frame_sampling.even`."""
        return frame_sampling.even(length, self.wanted)

    def _size(self, frames: int, height: int, width: int) -> FrameSize:
        most = self.max_pixels
        if self.cap_pixels_per_frame:
            total = int(self.max_video_tokens * self.factor * self.factor * 0.9)
            most = max(min(most, total * self.temporal_patch_size // frames), int(self.min_pixels * 1.05))
        sides = smart_resize.area(height, width, self.factor, self.min_pixels, most)
        return FrameSize(sides, sides)


class Qwen3VLVideoProcessor(VideoProcessor):
    """Limits are volumes, frames x height x width; two frames per second."""

    limits = (128 * 32 * 32, 32 * 32 * 768)
    colours: ClassVar[tuple[tuple[float, ...], tuple[float, ...]]] = (0.5,) * 3, (0.5,) * 3
    defaults: ClassVar[Mapping[str, Any]] = {
        "min_frames": 4,
        "max_frames": 768,
        "max_video_tokens": 768,
        "fps": 2,
        "do_sample_frames": True,
    }
    arguments: ClassVar[tuple[str, ...]] = ("fps", "num_frames", "min_frames", "max_frames")

    def indices(self, length: Length) -> list[int]:
        """Return the frames of `frame_sampling.ends`."""
        return frame_sampling.ends(length, self.wanted)

    def _size(self, frames: int, height: int, width: int) -> FrameSize:
        most = self.max_pixels
        if self.cap_pixels_per_frame:
            frame = self.max_video_tokens * self.factor * self.factor
            most = max(min(frame, self.max_pixels // frames), int(self.min_pixels * 1.05)) * frames
        factors = self.temporal_patch_size, self.factor
        sides = smart_resize.volume(frames, height, width, factors, self.min_pixels, most)
        return FrameSize(sides, sides)


class Glm4vVideoProcessor(Qwen3VLVideoProcessor):
    """Frames by their second; the time of a temporal step is that of its first frame."""

    limits = (112 * 112, 28 * 28 * 2 * 30000)
    colours = CLIP_MEAN, CLIP_STD
    defaults: ClassVar[Mapping[str, Any]] = {"fps": 2, "max_duration": 300, "do_sample_frames": True}
    arguments: ClassVar[tuple[str, ...]] = ("fps",)

    def indices(self, length: Length) -> list[int]:
        """Return the frames of `frame_sampling.seconds`."""
        return frame_sampling.seconds(length, self.wanted)

    def stamps(self, seconds: list[float]) -> list[float]:
        """Return the time of each temporal step, that of every second frame, in seconds."""
        steps = -(-len(seconds) // self.temporal_patch_size)
        return (seconds[::2] + seconds[::2][-1:] * steps)[:steps]


class Glm46VVideoProcessor(Glm4vVideoProcessor):
    """The number of frames follows from a table of the class."""

    arguments: ClassVar[tuple[str, ...]] = ()

    def indices(self, length: Length) -> list[int]:
        """Return the frames of `frame_sampling.dynamic`."""
        return frame_sampling.dynamic(length, self.wanted)


class Glm5NextVideoProcessor(Glm4vVideoProcessor):
    """Limits are tokens; black is added to frames, which are not enlarged to whole units."""

    limits = (16, 240000)
    keys: ClassVar[tuple[str, ...]] = ("min_image_tokens", "max_image_tokens")
    defaults: ClassVar[Mapping[str, Any]] = {"fps": 2, "max_frames": 2048, "do_sample_frames": True}
    arguments: ClassVar[tuple[str, ...]] = ("fps", "max_frames")

    def indices(self, length: Length) -> list[int]:
        """Return the frames of `frame_sampling.clock`."""
        return frame_sampling.clock(length, self.wanted)

    @classmethod
    def from_config(
        cls, preprocessor: Mapping[str, Any], *, patch_size: int, merge_size: int, temporal_patch_size: int
    ) -> VideoProcessor:
        """Read a config as the base, and ``patch_expand_factor``; as in transformers, ``size`` is not read.

        Limits in tokens become pixels.
        """
        given = Section(preprocessor, PLACE)
        config = Section({key: value for key, value in given.written.items() if key != "size"}, given.place)
        found = super().from_config(
            config, patch_size=patch_size, merge_size=merge_size, temporal_patch_size=temporal_patch_size
        )
        found = replace(found, expand=config.whole("patch_expand_factor", 1, largest=MOST_EXPANSION))
        token = temporal_patch_size * found.factor**2
        return replace(found, min_pixels=found.min_pixels * token, max_pixels=found.max_pixels * token)

    def _size(self, frames: int, height: int, width: int) -> FrameSize:
        factors = self.temporal_patch_size, self.factor
        canvas = smart_resize.canvas(frames, height, width, factors, self.min_pixels, self.max_pixels)
        return FrameSize(canvas, smart_resize.content((height, width), canvas, frames, self.min_pixels))


class QwenVLUtilsVideoProcessor(Qwen2VLVideoProcessor):
    """qwen-vl-utils 0.0.14, which prepares the videos of Qwen's own examples, with limits of its own."""

    def indices(self, length: Length) -> list[int]:
        """Return the frames of `frame_sampling.reference`."""
        return frame_sampling.reference(length, self.wanted)

    @classmethod
    def of(cls, processor: VideoProcessor) -> QwenVLUtilsVideoProcessor:
        """Return the processor that qwen-vl-utils has for a model: 128 to 768 tokens per frame."""
        kept = {field.name: getattr(processor, field.name) for field in fields(processor)}
        unit = processor.factor**2
        wanted = Wanted(temporal_patch_size=processor.temporal_patch_size)
        return cls(**{**kept, "min_pixels": 128 * unit, "max_pixels": 768 * unit, "wanted": wanted, "samples": True})

    def with_limits(self, min_pixels: int | None = None, max_pixels: int | None = None) -> VideoProcessor:
        """Return a processor with other limits; a limit of its own yields to a given one that contradicts it."""
        smallest, largest = given_limits((1, 2**63 - 1), min_pixels, max_pixels)
        return replace(
            self,
            min_pixels=min(self.min_pixels, largest) if min_pixels is None else smallest,
            max_pixels=max(self.max_pixels, smallest) if max_pixels is None else largest,
        )

    def _size(self, frames: int, height: int, width: int) -> FrameSize:
        unit = self.factor**2
        share = 128000 * unit * 0.9 / frames * frame_sampling.REFERENCE_FACTOR  # of a context of 128,000 tokens
        most = max(min(768 * unit, share), int(self.min_pixels * 1.05))
        sides = smart_resize.area(height, width, self.factor, self.min_pixels, int(min(self.max_pixels, most)))
        return FrameSize(sides, sides)


# Name of transformers' class -> class.
TYPES: dict[str, type[VideoProcessor]] = {
    "Qwen2VLVideoProcessor": Qwen2VLVideoProcessor,
    "Qwen3VLVideoProcessor": Qwen3VLVideoProcessor,
    "CohereCompassVideoProcessor": Qwen3VLVideoProcessor,
    "Glm4vVideoProcessor": Glm4vVideoProcessor,
    "Glm46VVideoProcessor": Glm46VVideoProcessor,
    "Glm5NextVideoProcessor": Glm5NextVideoProcessor,
}


def video_processor_class(family: str, preprocessor: Mapping[str, Any]) -> type[VideoProcessor]:
    """Return the class that a config names, else that of the image processor that it names, else the family's own.

    As transformers' AutoVideoProcessor. Raises ConfigError where there is no class, or one that is not known.
    """
    config = Section(preprocessor, PLACE)
    name, images = config.word("video_processor_type"), config.word("image_processor_type")
    if "video_processor_type" not in config:
        own = FAMILIES[family].processors.video
        found = TYPES.get(images.replace("ImageProcessor", "VideoProcessor")) or TYPES.get(own)
        if found is None:
            raise ConfigError(
                f"{family} has no videos: transformers has no video processor for it; pass still images as images"
            )
        return found
    kind = name.removesuffix("Fast")
    kin = family_of_class(kind, "VideoProcessor")
    named = TYPES.get(kind) or (kin and TYPES.get(kin.processors.video))
    if not named:
        raise config.refused("video_processor_type", " or ".join(TYPES))
    return named
