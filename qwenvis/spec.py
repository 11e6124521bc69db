"""A checkpoint as its headers describe it: the tower without its weights, and what an image will cost."""

from __future__ import annotations

import os
from typing import TypedDict, Unpack

import numpy as np

from qwenvis import models
from qwenvis.checkpoints.checkpoint import Checkpoint
from qwenvis.concurrency.memo import cached_property
from qwenvis.cost import Cost, cost, weight_nbytes
from qwenvis.errors import CheckpointError, ConfigError, InputError, QwenvisError, quoted
from qwenvis.models import Config
from qwenvis.nn.formats import AUTO, automatic, format_named
from qwenvis.processors.image import ImageProcessor, processor_class
from qwenvis.processors.video import VideoProcessor
from qwenvis.processors.video_families import video_processor_class
from qwenvis.sources.resolve import _open, _preset, resolve


class ImageOptions(TypedDict, total=False):
    """What a caller may say of the images; `Encoder.from_pretrained` explains."""

    min_pixels: int | None
    max_pixels: int | None
    pixels: str
    backend: str


class ModelSpec:
    """Everything about a checkpoint that is known before its weights are read."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        dtype: object = "float32",
        **images: Unpack[ImageOptions],
    ) -> None:
        """Detect the family and build its tower; limits replace those of the checkpoint's preprocessor config.

        Raises ConfigError or CheckpointError for a checkpoint that no family can use, InputError for the options.
        """
        self.checkpoint = checkpoint
        self.family = models.detect(checkpoint.model_type, checkpoint.vision_config, checkpoint.shapes)
        self.format = _format(dtype, checkpoint)
        try:
            found = models.build(self.family, checkpoint.vision_config, checkpoint.shapes, self.format)
        except QwenvisError:
            raise
        except (MemoryError, ValueError) as error:
            raise CheckpointError(f"{checkpoint.path}: a tower of these sizes cannot be held: {error}") from error
        self.tower, self.weights = found
        self._images = images
        limits = images.get("min_pixels"), images.get("max_pixels")
        if self.config.in_channels == 3 and (checkpoint.preprocessor or None not in limits):
            self.processor  # noqa: B018  a config that cannot be used is an error now, a missing one when it is needed

    @classmethod
    def open(
        cls,
        source: str | os.PathLike[str],
        *,
        dtype: object = "float32",
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        **images: Unpack[ImageOptions],
    ) -> ModelSpec:
        """Find ``source`` (`Encoder.from_pretrained` says what it may be) and read its headers.

        Raises as `Encoder.from_pretrained`; arguments that a preset cannot have are refused before it is written.
        """
        if _preset(source) is not None:
            cls.preview(source, dtype=dtype, revision=revision, cache_dir=cache_dir, **images)
        return cls(_open(resolve(source, cache_dir, revision)), dtype=dtype, **images)

    @classmethod
    def preview(
        cls,
        source: str | os.PathLike[str],
        *,
        dtype: object = "float32",
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        **images: Unpack[ImageOptions],
    ) -> ModelSpec:
        """As `open`, but writes nothing: a ``synthetic:PRESET`` is described whether its files are there or not."""
        preset = _preset(source)
        if preset is None:
            return cls.open(source, dtype=dtype, revision=revision, cache_dir=cache_dir, **images)
        from qwenvis.sources.synthetic import described

        return cls(described(preset, cache_dir), dtype=dtype, **images)

    @property
    def config(self) -> Config:
        """The tower's config."""
        return self.tower.config

    @property
    def parameters(self) -> int:
        """Parameters of the tower and its merger."""
        return sum(int(np.prod(request.shape)) for request in self.weights.requests)

    @property
    def nbytes(self) -> int:
        """Memory that the weights take once they are loaded, but for the rounding up of their panels."""
        return weight_nbytes(self.tower, self.weights)

    @cached_property
    def processor(self) -> ImageProcessor:
        """How this checkpoint wants its images. Raises ConfigError where it has no preprocessor config."""
        return self._read_processor(self._images)

    def processor_with(self, min_pixels: int | None = None, max_pixels: int | None = None) -> ImageProcessor:
        """The same with the limits of one call; with both given, a checkpoint may need no preprocessor config."""
        if not self.checkpoint.preprocessor and None not in (min_pixels, max_pixels):
            return self._read_processor({**self._images, "min_pixels": min_pixels, "max_pixels": max_pixels})
        return self.processor.with_limits(min_pixels, max_pixels)

    def _read_processor(self, images: ImageOptions) -> ImageProcessor:
        config, preprocessor = self.config, self.checkpoint.preprocessor
        if config.in_channels != 3:
            raise ConfigError(
                f"the tower wants {config.in_channels} channels; images have 3: pass pixel_values instead"
            )
        return processor_class(self.family, preprocessor).from_config(
            preprocessor,
            patch_size=config.patch_size,
            merge_size=config.spatial_merge_size,
            temporal_patch_size=config.temporal_patch_size,
            **images,
        )

    @property
    def upright(self) -> bool:
        """Whether videos are turned as their metadata says: with ``pixels="natural"``."""
        return self._images.get("pixels") != "transformers"

    @cached_property
    def video_processor(self) -> VideoProcessor:
        """How this checkpoint wants its videos, as transformers.

        Raises ConfigError where it has neither, or its family has no videos.
        """
        config, preprocessor = self.config, self.checkpoint.video_preprocessor
        kind = video_processor_class(self.family, preprocessor)
        if not preprocessor or config.in_channels != 3:
            raise ConfigError(
                "the checkpoint has no video_preprocessor_config.json (nor a processor_config.json with a "
                "video_processor, nor a preprocessor_config.json), so the sizes of videos are unknown; copy the file "
                "from the model it was made from"
            )
        processor = kind.from_config(
            preprocessor,
            patch_size=config.patch_size,
            merge_size=config.spatial_merge_size,
            temporal_patch_size=config.temporal_patch_size,
        )
        return processor.with_limits(**self.limits)

    @property
    def limits(self) -> dict[str, int | None]:
        """``min_pixels`` and ``max_pixels`` that take the place of the checkpoint's; None where it keeps its own."""
        return {"min_pixels": self._images.get("min_pixels"), "max_pixels": self._images.get("max_pixels")}

    def cost(self, grid_thw: np.ndarray, still: bool = True, threads: int = 1) -> Cost:
        """What one forward pass over ``grid_thw`` (items, 3) takes on as many threads."""
        return cost(self.tower, self.weights, grid_thw, still, threads)


def _format(dtype: object, checkpoint: Checkpoint) -> str:
    """Return the format that ``dtype`` names: for "auto", the one that the weights are packed in, else stored in."""
    format = format_named(dtype)
    if format == AUTO:
        return checkpoint.format or automatic({tensor.dtype for tensor in checkpoint.tensors.values()})
    if checkpoint.format not in ("", format):
        raise InputError(
            f'{checkpoint.path} is packed in {checkpoint.format}; dtype is {quoted(dtype)}: pass dtype="auto" '
            "(--dtype auto)"
        )
    return format
