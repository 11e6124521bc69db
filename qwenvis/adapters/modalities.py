"""The items of a result by modality: language models take the tokens of images and those of videos apart."""

from __future__ import annotations

import numpy as np

from qwenvis.embeddings import Embeddings
from qwenvis.errors import InputError, quoted


def items_of(out: Embeddings) -> dict[str, list[int]]:
    """Return the positions of the images and of the videos, under "image" and "video", as far as there are any.

    Videos are the items with frames, and those of several temporal steps; a still among the videos is an image.
    """
    frames = [len(indices) for indices in out.frame_indices] or [0] * len(out)
    moving = (np.array(frames, int) > 0) | (out.grid_thw[:, 0] > 1)
    chosen = {"image": np.flatnonzero(~moving).tolist(), "video": np.flatnonzero(moving).tolist()}
    return {name: numbers for name, numbers in chosen.items() if numbers}


def check_times(videos: Embeddings) -> None:
    """Raise InputError unless each video has the time of each of its temporal steps."""
    for index, (source, steps) in enumerate(zip(videos.sources, videos.grid_thw[:, 0], strict=True)):
        if not videos.timestamps or len(videos.timestamps[index]) != steps:
            raise InputError(f"{quoted(source)} has {steps} temporal steps and no times; encode videos with videos=")
