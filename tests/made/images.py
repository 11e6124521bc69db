"""Images for the tests of preprocessing, and the comparison of two answers."""

import io
import struct
import zlib
from functools import partial

import numpy as np
from PIL import Image

from qwenvis.encoding.batching import Plan
from qwenvis.errors import call_all
from qwenvis.images.image import ImageItem

# An image of neither equal nor even sides.
HEIGHT, WIDTH = 21, 34


def noise(height, width, seed=0):
    """An image of random bytes (height, width, 3), the same for the same arguments."""
    return np.random.default_rng([seed, height, width]).integers(0, 256, (height, width, 3), np.uint8)


def encoded(image, format="PNG", **options):
    """The bytes of a file that Pillow writes of an image."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png(array):
    """The bytes of a PNG file."""
    return encoded(Image.fromarray(array))


def chunk(name, data):
    """A chunk of a PNG file, as bytes."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def stills(sources, processor):
    """Images as the encoder plans them; one error lists those that cannot be used."""
    return call_all((partial(ImageItem, source, processor, index) for index, source in enumerate(sources)), "images")


def preprocess(sources, processor):
    """Their ``pixel_values`` and ``grid_thw``."""
    return Plan(stills(sources, processor), processor.columns).prepare()


def assert_same_answer(ours, theirs):
    """Our ``pixel_values`` and ``grid_thw`` are transformers', to the bit."""
    pixel_values, grid_thw = ours
    assert pixel_values.dtype == np.float32
    assert pixel_values.flags.c_contiguous
    assert grid_thw.dtype == np.int64
    assert np.array_equal(grid_thw, theirs["image_grid_thw"])
    want = np.ascontiguousarray(theirs["pixel_values"]).reshape(pixel_values.shape)  # PaddleOCR's are (n, 3, p, p)
    assert want.dtype == np.float32
    assert pixel_values.tobytes() == want.tobytes()
