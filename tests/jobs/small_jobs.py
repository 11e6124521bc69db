"""Folders of small pictures, jobs over them, and all bytes that a job leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from qwenvis import jobs

COUNT = 36
BLOCK = 16  # items to a block, instead of 256
SMALL_SHARD = 12_000  # bytes: a few pictures
BROKEN = 7  # the number of the picture that is no picture


def pictures(folder, count, broken=(BROKEN,)):
    """Write noise of 28 to 112 pixels a side, half of it in a folder of its own; those numbered ``broken`` are text."""
    (folder / "inner").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        path = folder / ("inner" if number % 2 else "") / f"{number:05d}.{'png' if number % 3 else 'jpg'}"
        if number in broken:
            path.write_text("no picture")
        else:
            Image.fromarray(rng.integers(0, 256, (*rng.integers(28, 112, 2), 3), np.uint8)).save(path)


def run(encoder, inputs="photos", directory="tokens", **options):
    """Run a job with small shards."""
    return jobs.run(encoder, inputs, directory, **{"shard_size": SMALL_SHARD, **options})


def tree(directory):
    """All files of a directory, hidden ones included, and their bytes."""
    root = Path(directory)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
