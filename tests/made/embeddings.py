"""`Embeddings` of two images and a video, with all that a tower may return, their comparison, and numbered items."""

import hashlib
import os
from dataclasses import replace

import ml_dtypes
import numpy as np

from made.presets import same_bits
from qwenvis import Embeddings

GRID = np.array([[1, 2, 4], [3, 2, 2], [1, 4, 6]])
MADE = {"source": "somewhere", "family": "qwen2_vl", "format": "f32"}
SOURCES = ["a.jpg", "image 1", "b.jpg"]
HALVES = (np.float16, ml_dtypes.bfloat16)
DTYPES = (np.float32, *HALVES)
SIZES = np.array([[61, 97], [0, 0], [300, 2]])
BYTES = os.fsdecode(b"caf\xe9.jpg")  # no UTF-8


def made(**changes):
    """Return the results, with other values for some of their arguments."""
    rng = np.random.default_rng(0)
    values = {
        "embeddings": rng.standard_normal((11, 5), np.float32),
        "grid_thw": GRID,
        "merge_size": 2,
        "hidden_states": [rng.standard_normal((44, 3), np.float32) for _ in range(2)],
        "provenance": MADE,
        "deepstack": [rng.standard_normal((11, 5), np.float32) for _ in range(3)],
        "frame_indices": [np.zeros(0, np.int64), np.arange(6), np.zeros(0, np.int64)],
        "timestamps": [np.zeros(0), np.arange(3.0), np.zeros(0)],
        "second_per_grid_ts": np.array([0, 0.5, 0]),
        "sources": SOURCES,
        "sizes": SIZES,
    }
    return Embeddings(**{**values, **changes})


def in_dtype(dtype, **changes):
    """Return the results with tokens and deepstack in a dtype of `DTYPES`, rounded by NumPy."""
    out = made(**changes)
    return replace(out, embeddings=out.embeddings.astype(dtype), deepstack=[x.astype(dtype) for x in out.deepstack])


def equal(got, want):
    """Assert that two results are equal to the bit, in all but their errors."""
    for name in ("embeddings", "grid_thw", "sizes", "second_per_grid_ts"):
        assert same_bits(getattr(got, name), getattr(want, name)), name
    for name in ("hidden_states", "deepstack", "frame_indices", "timestamps"):
        assert len(getattr(got, name)) == len(getattr(want, name))
        assert all(map(same_bits, getattr(got, name), getattr(want, name))), name
    assert (got.merge_size, got.provenance, got.sources) == (want.merge_size, want.provenance, want.sources)


def key(number):
    """The key of a numbered item."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def item(number, width=64):
    """An item of 16 tokens, seeded by its number, so that any process can tell whether tokens are those of a key."""
    tokens = np.random.default_rng(number).standard_normal((16, width), np.float32)
    sizes = np.array([[112, 112]])
    made = {"family": "qwen2_vl", "format": "f32"}
    return Embeddings(tokens, np.array([[1, 8, 8]]), 2, sources=[f"{number}.jpg"], sizes=sizes, provenance=made)
