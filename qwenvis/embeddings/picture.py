"""The colours of tokens: by similarity, or by a number for each token; tokens as a picture of squares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Ink = tuple[int, int, int]

DARK, BRIGHT = 26, 244  # the range of a channel: pure colours glare
HEAT: Sequence[Ink] = ((10, 8, 36), (130, 30, 110), (238, 104, 42), (252, 250, 170))  # the lightness rises evenly
TAIL = 1.0  # per cent of the tokens that saturate a channel, at each end
SAMPLE = 2048  # tokens in the SVD, whose time grows with their number


def colours(tokens: NDArray[Any]) -> tuple[NDArray[np.uint8], float]:
    """Return the colour of each token, (tokens, 3), and the share of the variance that the colours show.

    Red, green and blue are the first three principal components, each scaled to its whole range. The components are
    those of about `SAMPLE` tokens if there are more.
    """
    tokens = np.asarray(tokens, np.float32)
    sample = tokens[:: -(-len(tokens) // SAMPLE)]
    mean = sample.mean(axis=0)
    _, s, axes = np.linalg.svd(sample - mean, full_matrices=False)
    scores = np.zeros((len(tokens), 3))
    known = min(3, len(s))
    scores[:, :known] = tokens @ axes[:known].T - mean @ axes[:known].T
    # The sign of a component is arbitrary; choose it so that the token farthest from the mean is bright.
    scores *= np.where(scores[np.abs(scores).argmax(axis=0), range(3)] < 0, -1, 1)
    low, high = np.percentile(scores, [TAIL, 100 - TAIL], axis=0)
    spread = np.where(high > low, high - low, 1)
    levels = DARK + (BRIGHT - DARK) * ((scores - low) / spread).clip(0, 1)
    return levels.round().astype(np.uint8), float((s[:known] ** 2).sum() / max((s**2).sum(), 1e-30))


def heat(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the colours of numbers from 0, which is dark, to the largest, which is bright: (..., 3)."""
    share = values / (values.max() or 1)
    places = np.linspace(0, 1, len(HEAT))
    levels = [np.interp(share, places, channel) for channel in zip(*HEAT, strict=True)]
    return np.stack(levels, axis=-1).round().astype(np.uint8)


def squares(colour: NDArray[np.uint8], rows: int, side: int) -> Image.Image:
    """Draw the colours (tokens, 3) in ``rows`` rows, within ``side`` x ``side`` pixels; more tokens are thinned out."""
    grid = colour.reshape(rows, -1, 3)
    thinned = grid[:: -(-rows // side), :: -(-grid.shape[1] // side)]
    scale = max(1, side // max(thinned.shape[:2]))
    return Image.fromarray(np.repeat(np.repeat(thinned, scale, axis=0), scale, axis=1))
