"""Encoders of the tiny presets, pictures for them, and Python in a process of its own."""

from __future__ import annotations

import atexit
import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from qwenvis import Encoder
from qwenvis.models import FAMILIES
from qwenvis.sources.synthetic import materialise

ROOT = Path(__file__).parents[2]
PRESETS = {name: next(each for each in f.published if each.startswith("tiny-")) for name, f in FAMILIES.items()}


@functools.cache
def cache():
    """A cache of synthetic checkpoints that lives as long as this process."""
    directory = tempfile.TemporaryDirectory(prefix="qwenvis-tests-")
    atexit.register(directory.cleanup)
    return Path(directory.name)


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


def program(code, *arguments, **environment):
    """A Python process that runs ``code`` in this checkout, its output piped."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "QWENVIS_CACHE": str(cache()), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output(code, *arguments, timeout=60, **environment):
    """What such a process prints; it must end well, and in time."""
    with program(code, *arguments, **environment) as process:
        try:
            out, error = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode == 0, error
    return out
