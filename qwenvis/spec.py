"""A checkpoint as its headers describe it: the tower without its weights, and the cost of an image."""

from __future__ import annotations

import os
from typing import TypedDict, Unpack

import numpy as np

from qwenvis import models, sources
from qwenvis.checkpoints.checkpoint import Checkpoint, Progress
from qwenvis.checkpoints.extract import extract
from qwenvis.concurrency.memo import cached_property
from qwenvis.cost import Cost, cost, weight_nbytes
from qwenvis.errors import CheckpointError, ConfigError, InputError, QwenvisError, quoted
from qwenvis.models import Config, Tower
from qwenvis.nn.formats import AUTO, automatic, dtype_of, format_named
from qwenvis.processors.image import ImageProcessor, processor_class
from qwenvis.processors.video import VideoProcessor
from qwenvis.processors.video_families import video_processor_class
from qwenvis.weights import Weights


class ImageOptions(TypedDict, total=False):
    """The options of images, which `Encoder.from_pretrained` explains."""

    min_pixels: int | None
    max_pixels: int | None
    pixels: str
    backend: str


class ModelSpec:
    """Everything about a checkpoint that is known before its weights are read.

    - ``checkpoint``: the `Checkpoint`, with its configs and the places of its tensors.
    - ``family``: the name of the family, transformers' ``model_type``, such as "qwen2_vl".
    - ``format``: what the weights of matrix products are packed in, "f32", "bf16" or "i8".
    - ``tower``, ``weights``: the `Tower`, whose weights have no values yet, and the `Weights` that it requests.

    An example:

        >>> spec = ModelSpec.open("synthetic:tiny-qwen2-vl")
        >>> spec.family, spec.config.depth, spec.config.out_hidden_size
        ('qwen2_vl', 4, 96)
    """

    checkpoint: Checkpoint
    family: str
    format: str
    tower: Tower
    weights: Weights

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        dtype: object = "float32",
        **images: Unpack[ImageOptions],
    ) -> None:
        """Detect the family of a checkpoint and build its tower; `Encoder.from_pretrained` explains the options.

        Raises ConfigError for a config that no family has or can use, CheckpointError where the tensors are another
        family's or the tower is too large for memory, and InputError for the options.
        """
        self.family = models.detect(checkpoint.model_type, checkpoint.vision_config, checkpoint.evidence)
        self.format = _format(dtype, checkpoint)
        try:
            found = models.build(self.family, checkpoint.vision_config, checkpoint.evidence, self.format)
        except QwenvisError:
            raise
        except (MemoryError, ValueError) as error:
            raise CheckpointError(f"{checkpoint.path}: a tower of these sizes cannot be allocated: {error}") from error
        self.tower, self.weights = found
        self.checkpoint = checkpoint.holding(self.weights.requests)
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
        token: str | bool | None = None,
        local_files_only: bool = False,
        tower_only: bool = False,
        **images: Unpack[ImageOptions],
    ) -> ModelSpec:
        """Open ``source`` and read its headers: no weight is read or downloaded, and no file of a preset is written.

        `Encoder.from_pretrained` explains the arguments. Raises SourceError, CheckpointError, ConfigError or
        InputError.
        """
        checkpoint = sources.open(
            source,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            tower_only=tower_only,
        )
        return cls(checkpoint, dtype=dtype, **images)

    def with_dtype(self, dtype: object) -> ModelSpec:
        """Return a spec of the same checkpoint and options in the format that ``dtype`` names, without weights.

        Raises the errors of the constructor.
        """
        return ModelSpec(self.checkpoint, dtype=dtype, **self._images)

    @property
    def dtype(self) -> str:
        """The name of `format` as a ``dtype``, such as "bfloat16"."""
        return dtype_of(self.format)

    def extract(self, directory: str | os.PathLike[str], progress: Progress | None = None) -> None:
        """Write the tower alone into a new directory: one safetensors file and its configs, or nothing.

        The directory has the Hub's layout and loads to the same bits. Of a Hub id that is not in the cache, only the
        tower's byte ranges are fetched, and nothing else is kept. ``progress(bytes_done, bytes_total)`` is called after
        each tensor. Raises InputError where the directory exists or cannot be written and where the checkpoint is
        packed, SourceError or CheckpointError where a tensor cannot be read.
        """
        extract(directory, self.checkpoint, self.weights.requests, progress)

    @property
    def config(self) -> Config:
        """Sizes and options of the tower, completed as transformers completes a ``vision_config``."""
        return self.tower.config

    @property
    def parameters(self) -> int:
        """Number of parameters of the tower and its merger."""
        return sum(int(np.prod(request.shape)) for request in self.weights.requests)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the weights take once they are loaded, without the padding of their panels."""
        return weight_nbytes(self.tower, self.weights)

    @cached_property
    def processor(self) -> ImageProcessor:
        """The image processor of the checkpoint, as the class of transformers that its config names.

        Raises ConfigError where the checkpoint has no preprocessor config, or one that cannot be used, and where the
        tower has other than 3 channels; InputError where ``min_pixels`` and ``max_pixels`` do not fit together.
        """
        return self._read_processor(self._images)

    def processor_with(self, min_pixels: int | None = None, max_pixels: int | None = None) -> ImageProcessor:
        """Return `processor` with the limits of one call, in pixels; None keeps a limit.

        With both given, the checkpoint needs no preprocessor config. Raises the errors of `processor`.
        """
        if not self.checkpoint.preprocessor and None not in (min_pixels, max_pixels):
            return self._read_processor({**self._images, "min_pixels": min_pixels, "max_pixels": max_pixels})
        return self.processor.with_limits(min_pixels, max_pixels)

    def _read_processor(self, images: ImageOptions) -> ImageProcessor:
        config, preprocessor = self.config, self.checkpoint.preprocessor
        if config.in_channels != 3:
            raise ConfigError(
                f"the tower expects {config.in_channels} channels; images have 3: pass pixel_values instead"
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
        """Whether frames of videos are rotated as the metadata of their file says: with ``pixels="natural"``."""
        return self._images.get("pixels") != "transformers"

    @cached_property
    def video_processor(self) -> VideoProcessor:
        """The video processor of the checkpoint, as the class of transformers that its config or its family names.

        Raises ConfigError where the checkpoint has no config for it, or one that cannot be used, where the tower has
        other than 3 channels, and where the family has no videos; InputError for pixel limits that do not fit together.
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
        """``min_pixels`` and ``max_pixels`` that replace those of the checkpoint, in pixels; None keeps a limit."""
        return {"min_pixels": self._images.get("min_pixels"), "max_pixels": self._images.get("max_pixels")}

    def cost(self, grid_thw: np.ndarray, still: bool = True, threads: int = 1) -> Cost:
        """Estimate the work and memory of one forward pass with ``threads`` threads.

        ``grid_thw`` (items, 3) int64 holds the frames, rows and columns of patches of each item. With ``still``, the
        items are images, whose two frames are equal, which halves the patch embedding. The formula is that of
        `qwenvis.cost`: two flops for each multiply-add of a linear and of attention's two products.
        """
        return cost(self.tower, self.weights, grid_thw, still, threads)


def _format(dtype: object, checkpoint: Checkpoint) -> str:
    """Return the format that ``dtype`` names; "auto" is the format of packed weights, else that of the stored types."""
    format = format_named(dtype)
    if format == AUTO:
        return checkpoint.format or automatic(checkpoint.dtypes)
    if checkpoint.format not in ("", format):
        raise InputError(
            f'{checkpoint.path} is packed in {checkpoint.format}; dtype is {quoted(dtype)}: pass dtype="auto" '
            "(--dtype auto)"
        )
    return format
