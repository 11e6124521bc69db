"""The float value of each byte of each channel: rescaled, and normalised by mean and standard deviation.

A byte has 256 values, so the arithmetic of a checkpoint is a table, and the roundings of transformers happen once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qwenvis.concurrency.memo import cached_property
from qwenvis.errors import ConfigError
from qwenvis.io.fields import Section
from qwenvis.models.family import CLIP

ORDINARY = (-1e30, 1e30)  # the bounds of numbers in a config
CLIP_MEAN, CLIP_STD = (tuple(CLIP[name]) for name in ("image_mean", "image_std"))


@dataclass(frozen=True)
class Normalisation:
    """``mean`` and ``std`` per channel of RGB, after every byte has been multiplied by ``rescale_factor``.

    ``fused`` selects the order of transformers' roundings: the PIL classes rescale and then normalise, the torchvision
    classes do both in one step.
    """

    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    rescale_factor: float = 1 / 255
    fused: bool = False

    @classmethod
    def from_config(
        cls,
        config: Section,
        mean: tuple[float, ...] = CLIP_MEAN,
        std: tuple[float, ...] = CLIP_STD,
        *,
        fused: bool = False,
    ) -> Normalisation:
        """Read a preprocessor config; ``mean`` and ``std`` are the defaults of the class.

        Raises ConfigError for a mean or std that is not three numbers, and for numbers that give infinite values.
        """
        found = cls(
            mean=_channels(config, "image_mean", mean),
            std=_channels(config, "image_std", std),
            rescale_factor=config.number("rescale_factor", 1 / 255, *ORDINARY),
            fused=fused,
        )
        if not np.isfinite(found.lut).all():
            raise ConfigError(f"{config.place} says image_mean, image_std, rescale_factor that give infinite pixels")
        return found

    @cached_property
    def lut(self) -> NDArray[np.float32]:
        """The value of each byte, (3 channels, 256) float32, read-only."""
        return self._lut(np.arange(256, dtype=np.float32))

    @cached_property
    def unit_lut(self) -> NDArray[np.float32]:
        """The table for bytes that stand for 0..1, which transformers' PIL classes divide by 255 once more."""
        return self._lut((np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32))

    def _lut(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute (v · rescale_factor - mean) / std as ``rescale`` and ``normalize`` of transformers.image_transforms.

        The product is in float64, the rest in float32. Fused: (v - mean / rescale_factor) / (std / rescale_factor), all
        in float32, as ``rescale_and_normalize`` of TorchvisionBackend.
        """
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        with np.errstate(all="ignore"):
            if self.fused:
                scale = np.float32(1 / self.rescale_factor) if self.rescale_factor else np.float32(np.inf)
                lut = (values[:, None] - mean * scale) / (std * scale)
            else:
                rescaled = (values.astype(np.float64) * self.rescale_factor).astype(np.float32)
                lut = (rescaled[:, None] - mean) / std
        lut = np.ascontiguousarray(lut.T)
        lut.flags.writeable = False
        return lut


def _channels(config: Section, key: str, default: tuple[float, ...]) -> tuple[float, ...]:
    """Return three numbers, one per channel; as in transformers, a single number stands for all three."""
    value = config.get(key, default)
    values = value if isinstance(value, list | tuple) else [value] * 3
    if len(values) != 3:
        raise config.refused(key, "3 numbers, one per channel")
    return tuple(Section({key: entry}, config.place).number(key, math.nan, *ORDINARY) for entry in values)
