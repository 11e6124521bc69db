"""The whole tower: seconds, patches per second, GFLOP/s and the fraction of the peak of the same window.

python -m benchmarks.encoder --model synthetic:qwen2-vl-2b --case 448
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.timing import alternate, header, write
from qwenvis import Encoder

# (frames / 2, rows, columns) of the items of each case, for a patch of 14
CASES = {
    "224": [(1, 16, 16)],
    "448": [(1, 32, 32)],
    "1344x896": [(1, 64, 96)],
    "8x224": [(1, 16, 16)] * 8,
    "video8x224": [(4, 16, 16)],
}
TITLES = {
    "224": "224 x 224",
    "448": "448 x 448",
    "1344x896": "1344 x 896",
    "8x224": "8 images of 224 x 224",
    "video8x224": "8 frames of 224 x 224",
}


def inputs(encoder: Encoder, grid_thw: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return random ``pixel_values`` for a grid; still images repeat their frame, as real images do."""
    grid = np.array(grid_thw, np.int64)
    channels, frames, height, width = encoder.config.kernel
    n = int(grid.prod(axis=1).sum())
    still = bool((grid[:, 0] == 1).all())
    shape = (n, channels, 1 if still else frames, height * width)
    values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return np.broadcast_to(values, (n, channels, frames, height * width)).reshape(n, -1), grid


def main() -> None:
    """Print one line per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="synthetic:qwen2-vl-2b")
    parser.add_argument("--case", nargs="+", choices=CASES, default=["224", "448"])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    encoder = Encoder.from_pretrained(arguments.model, dtype=arguments.dtype, threads=arguments.threads)
    print(header(encoder.threads))
    print(
        f"{'case':12s} {'patches':>8s} {'seconds':>8s} {'patches/s':>9s} {'GFLOP/s':>8s} {'peak':>6s} {'fraction':>8s}"
    )
    rows: list[dict[str, object]] = []
    for case in arguments.case:
        pixel_values, grid = inputs(encoder, CASES[case])
        work = encoder.spec.cost(grid, still=bool((grid[:, 0] == 1).all()))
        contender = {case: lambda px=pixel_values, g=grid: encoder(px, g)}
        run = alternate(contender, range(arguments.rounds), encoder.threads, encoder.format)[case]
        peak = np.median(run.peaks) / 1e9
        print(
            f"{case:12s} {work.patches:8d} {run.median:8.3f} {work.patches / run.median:9.0f} "
            f"{run.rate(work.flops) / 1e9:8.1f} {peak:6.0f} {run.fraction(work.flops):8.3f}",
            flush=True,
        )
        row = {"case": case, "model": arguments.model, "seconds": run.seconds, "peaks": run.peaks}
        rows.append({**row, "flops": work.flops})
    write(arguments.json, rows)


if __name__ == "__main__":
    main()
