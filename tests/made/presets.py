"""Encoders of the tiny presets, and inputs for them."""

from __future__ import annotations

import atexit
import functools
import tempfile
from pathlib import Path

import numpy as np

from qwenvis import Encoder, models, sources
from qwenvis.models import FAMILIES

PRESETS = {name: next(each for each in f.published if each.startswith("tiny-")) for name, f in FAMILIES.items()}

# An option of encoders: PaddleOCR-VL would enlarge every picture to 768 patches or more, and none would be small.
SMALL = {"min_pixels": 56 * 56}


@functools.cache
def cache():
    """A cache of synthetic checkpoints that lives as long as this process."""
    directory = tempfile.TemporaryDirectory(prefix="qwenvis-tests-")
    atexit.register(directory.cleanup)
    return Path(directory.name)


def materialise(preset, cache_dir=None, progress=None):
    """The directory of a preset's checkpoint, whose files are written."""
    found = sources.open(f"synthetic:{preset}", cache_dir=cache_dir)
    found.prepare(progress)
    return found.path


def tower_shapes(preset):
    """Name and shape of every tensor that the tower of a preset requests."""
    _, weights = models.build(preset.family, preset.vision_config, {})
    return {request.name: request.shape for request in weights.requests}


def checkpoint(family="qwen2_vl"):
    """The directory of the family's tiny preset."""
    return materialise(PRESETS[family], cache())


def encoder(family="qwen2_vl", **options):
    """An encoder of the family's tiny preset, one thread unless asked otherwise."""
    return Encoder.from_pretrained(checkpoint(family), **{"threads": 1, **options})


def picture(height, width, seed=0):
    """Noise, (height, width, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def pixels(config, grids, seed=0):
    """Random pixel_values (n, columns) float32, as of videos, and grid_thw (items, 3) int64."""
    grid_thw = np.array(grids, np.int64).reshape(-1, 3)
    shape = grid_thw.prod(axis=1).sum(), np.prod(config.kernel)
    return np.random.default_rng(seed).standard_normal(shape, np.float32), grid_thw


def same_bits(got, want):
    """Whether two arrays are equal to the bit, in dtype and shape too."""
    return got.dtype == want.dtype and got.shape == want.shape and got.tobytes() == want.tobytes()


def forward_passes(monkeypatch, found):
    """The patches of each forward pass from here on."""
    passes, tower = [], found.spec.tower
    forward = tower.forward
    monkeypatch.setattr(tower, "forward", lambda patches, *args: passes.append(len(patches)) or forward(patches, *args))
    return passes


def patches_of(found, sizes):
    """How many patches images of these sizes have."""
    return [int(np.prod(found.spec.processor.grid(*size))) for size in sizes]


def grouped(patches, budget):
    """The patches of each forward pass over images of so many: as many as the budget holds, or one."""
    groups = []
    for count in patches:
        if groups and groups[-1] + count <= budget:
            groups[-1] += count
        else:
            groups.append(count)
    return groups
