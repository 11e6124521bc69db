"""The towers of the tiny presets, to be saved again in other layouts, and what they compute."""

from __future__ import annotations

import functools

import numpy as np
from safetensors.numpy import save_file

from made.checkpoints import open_directory, write_json
from made.presets import checkpoint as preset_of
from made.presets import encoder, pixels
from qwenvis import Encoder
from qwenvis.weights import Request

GRIDS = [[1, 10, 14], [3, 4, 6]]  # more than a window, and a video: the two temporal slices differ


@functools.cache
def tensors_of(family):
    """The tower of the family's tiny preset in float32, by name."""
    found = open_directory(preset_of(family))
    loaded = {}
    found.load([Request(name, shape, functools.partial(_keep, loaded, name)) for name, shape in found.shapes.items()])
    return loaded


def _keep(loaded, name, array):
    loaded[name] = array.astype(np.float32)


def tokens_of(source):
    """What the tower of a source makes of the same pixels."""
    found = Encoder.from_pretrained(source, threads=1)
    return found(*pixels(found.config, GRIDS)).embeddings


@functools.cache
def expected(family):
    """What the tower of the preset makes of them."""
    found = encoder(family)
    return found(*pixels(found.config, GRIDS)).embeddings


def save(directory, tensors, config):
    """A checkpoint in the Hub's layout, of tensors under their full names."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, directory / "model.safetensors")
    write_json(directory, "config.json", config)
    return directory


def config_of(family):
    """The config.json of the preset."""
    return open_directory(preset_of(family)).config


def vision_config_of(family):
    """The tower's part of that config."""
    return open_directory(preset_of(family)).vision_config
