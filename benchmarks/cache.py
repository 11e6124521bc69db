"""What an item costs whose tokens are in a cache, beside its preprocessing and one read of its file; ms per image.

    python -m benchmarks.cache --models synthetic:qwen2-vl-2b synthetic:qwen3-vl-4b --side 448

Contenders alternate, each on one image: ``preprocess`` makes ``pixel_values`` of a JPEG file, ``read`` reads the bytes
of the item's file, which is in the page cache, ``load`` makes an `Embeddings` of it, ``hit`` encodes the JPEG file with
the cache, and ``put`` stores the item, which waits for the disk. ``bar`` is 1.2 x ``preprocess`` + ``read``: the most
that a hit may cost. ``encode`` is the tower, once.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.pixels import photograph
from benchmarks.timing import alternate, header, write
from qwenvis import Cache, Embeddings, Encoder
from qwenvis.concurrency import threads

COLUMNS = ("preprocess", "read", "load", "hit", "put")


def measure(model: str, side: int, count: int, rounds: int) -> dict[str, float]:
    """Measure one image of a model; return milliseconds."""
    with TemporaryDirectory(dir=Path.cwd()) as directory:  # a temporary directory may lie in memory
        picture, cache = str(Path(directory) / "photo.jpg"), Cache(Path(directory) / "tokens")
        photograph(Path(picture), side, side)
        encoder = Encoder.from_pretrained(model, threads=count, cache=cache)
        start = time.perf_counter()
        item = encoder.encode(picture)
        seconds = time.perf_counter() - start
        ((key, file),) = ((path.stem, path) for path in cache.directory.iterdir())
        contenders = {
            "preprocess": lambda: encoder.preprocess(picture),
            "read": file.read_bytes,
            "load": lambda: Embeddings.load(file),
            "hit": lambda: encoder.encode(picture),
            "put": lambda: cache.put(key, item),
        }
        measured = alternate(contenders, range(rounds), count, dict.fromkeys(contenders))
        row = {name: 1000 * runs.median for name, runs in measured.items()}
        return {**row, "bar": 1.2 * row["preprocess"] + row["read"], "encode": 1000 * seconds}


def main() -> None:
    """Print one line per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["synthetic:qwen2-vl-2b"])
    parser.add_argument("--side", type=int, nargs="+", default=[448], help="sides of the square images, in pixels")
    parser.add_argument("--threads", type=int, default=threads.resolve())
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    print(header(arguments.threads))
    print(f"{'model':32s}{'side':>6s}" + "".join(f"{name:>12s}" for name in (*COLUMNS, "bar", "encode")))
    rows = []
    for model in arguments.models:
        for side in arguments.side:
            row = measure(model, side, arguments.threads, arguments.rounds)
            print(f"{model:32s}{side:6d}" + "".join(f"{row[name]:12.2f}" for name in (*COLUMNS, "bar", "encode")))
            rows.append({"model": model, "side": side, **row})
    write(arguments.json, rows)


if __name__ == "__main__":
    main()
