"""How the tower scales: with threads on one image, and with the number of patches of one image.

python -m benchmarks.scaling --model synthetic:qwen2-vl-2b --dtype bfloat16 --most-patches 16384
"""

from __future__ import annotations

import argparse

from benchmarks.encoder import inputs
from benchmarks.timing import alternate, header, write
from qwenvis import Encoder
from qwenvis.concurrency import threads

# (rows, columns) of the single image of each case: 4 to 65,536 patches
GRIDS = [(2, 2), (4, 4), (8, 8), (16, 16), (32, 32), (64, 64), (128, 128), (256, 256)]
THREADS_GRID = (32, 32)


def line(encoder: Encoder, grid: tuple[int, int], rounds: int) -> dict[str, object]:
    """Measure one image and print it."""
    pixel_values, grid_thw = inputs(encoder, [(1, *grid)])
    work = encoder.spec.cost(grid_thw, threads=encoder.threads)
    contender = {"run": lambda: encoder(pixel_values, grid_thw)}
    run = alternate(contender, range(rounds), encoder.threads, encoder.format)["run"]
    print(
        f"{encoder.threads:7d} {work.patches:8d} {run.median:9.4f} {work.patches / run.median:9.0f} "
        f"{run.rate(work.flops) / 1e9:8.1f} {run.fraction(work.flops):8.3f} {work.nbytes / 1e6:9.0f}",
        flush=True,
    )
    return {"threads": encoder.threads, "patches": work.patches, "seconds": run.seconds, "flops": work.flops}


def main() -> None:
    """Print one line per thread count, then one per image size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="synthetic:qwen2-vl-2b")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=threads.resolve())
    parser.add_argument("--most-patches", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    encoder = Encoder.from_pretrained(arguments.model, dtype=arguments.dtype, threads=arguments.threads)
    print(header(encoder.threads))
    columns = {"threads": 7, "patches": 8, "seconds": 9, "patches/s": 9, "GFLOP/s": 8, "fraction": 8, "est. MB": 9}
    print(*(f"{name:>{width}s}" for name, width in columns.items()))
    rows = []
    for count in range(1, arguments.threads):
        encoder.threads = count
        rows.append(line(encoder, THREADS_GRID, arguments.rounds))
    encoder.threads = arguments.threads
    for grid in GRIDS:
        if grid[0] * grid[1] <= arguments.most_patches:
            rows.append(line(encoder, grid, arguments.rounds))
    write(arguments.json, rows)


if __name__ == "__main__":
    main()
