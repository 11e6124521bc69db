"""Products and attention of the towers, as fractions of the peak of the same window.

python -m benchmarks.ops --format f32 --isa avx512
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median

import numpy as np

from benchmarks.timing import alternate, header, write
from qwenvis import ops
from qwenvis.concurrency import threads
from qwenvis.nn.workspace import Workspace

# (rows, K, N) of Qwen2-VL's linears at 256, 1024 and 6144 patches, and of its merger
SHAPES = [
    *[(256, 1280, n) for n in (3840, 1280, 5120)],
    (256, 5120, 1280),
    *[(1024, k, n) for k, n in ((1176, 1280), (1280, 3840), (1280, 1280), (1280, 5120), (5120, 1280))],
    *[(256, 5120, n) for n in (5120, 1536)],
    *[(6144, k, n) for k, n in ((1280, 3840), (1280, 5120), (5120, 1280))],
]
# sizes of Qwen2.5-VL and Qwen3-VL that are not a multiple of a panel
ODD_SHAPES = [(1024, 1280, 3420), (1024, 3420, 1280), (1024, 1152, 4304), (1024, 4304, 1152)]
# (longest segment, segments) of 16 heads of 80: one image, or windows of 8 x 8 patches
SEGMENTS = [(256, 1), (1024, 1), (6144, 1), (64, 96)]

HEADS, HEAD_DIM = 16, 80


def product(m: int, k: int, n: int, format: str) -> tuple[Callable[[], object], float]:
    """Return a call of `ops.linear`, and its flops."""
    rng = np.random.default_rng(0)
    weight = ops.PackedWeight(n, k, format)
    weight.pack(rng.standard_normal((n, k), dtype=np.float32) / np.float32(k) ** 0.5)
    ws = Workspace().fit({"x": (m, k, weight.rows_dtype), "out": (m, n, "float32")})
    x = ops.gather(rng.standard_normal((m, k), dtype=np.float32), np.arange(m), ws.x)
    if ops.formats()[format].quantized:  # beforehand: the product alone is measured
        x = ops.quantize(x, weight, padded(m, weight.quantized_nbytes))
    return lambda: ops.linear(x, weight, ws.out), 2.0 * m * k * n


def padded(m: int, nbytes: int) -> np.ndarray:
    """Return an array of bytes whose rows begin with a cache line, as `ops.linear` allocates it."""
    pitch = -(-nbytes // ops.cache_line) * ops.cache_line
    return np.empty((m, pitch), np.uint8)[:, :nbytes]


def attention(longest: int, segments: int, format: str) -> tuple[Callable[[], object], float]:
    """Return a call of `ops.attention` with q, k and v side by side, and its flops."""
    n, d = longest * segments, HEADS * HEAD_DIM
    rng = np.random.default_rng(0)
    scratch = ops.attention_scratch(longest, segments * HEADS, HEAD_DIM, format)
    rows = ops.formats()[format].rows_dtype
    ws = Workspace().fit({"qkv": (n, 3 * d, "float32"), "out": (n, d, rows), "scratch": (1, scratch, "float32")})
    ws.qkv[:] = rng.standard_normal((n, 3 * d), dtype=np.float32)
    qkv = np.moveaxis(ws.qkv.reshape(n, 3, HEADS, HEAD_DIM, copy=False), 1, 0)
    angles = rng.standard_normal((n, HEAD_DIM // 2))
    rope = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    cu_seqlens = np.arange(0, n + 1, longest, dtype=np.int32)
    flops = 4.0 * d * longest**2 * segments
    return lambda: ops.attention(qkv, rope, cu_seqlens, ws.out, ws.scratch[0], format=format), flops


def main() -> None:
    """Print one line per shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--format", default="f32", choices=ops.formats())
    parser.add_argument("--isa", choices=[isa for isa, present in ops.isas().items() if present])
    parser.add_argument("--threads", type=int, default=threads.resolve())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["linear", "attention"])
    parser.add_argument("--json")
    arguments = parser.parse_args()
    ops.use_isa(arguments.isa)
    print(header(arguments.threads))
    cases = [("linear", product, shape) for shape in [*SHAPES, *ODD_SHAPES]]
    cases += [("attention", attention, segment) for segment in SEGMENTS]
    rows: list[dict[str, object]] = []
    with ops.use_threads(arguments.threads):
        for name, make, shape in cases:
            if arguments.only in (None, name):
                run, flops = make(*shape, arguments.format)
                measured = alternate({name: run}, range(arguments.rounds), arguments.threads, arguments.format)[name]
                row = {"op": name, "shape": shape, "seconds": measured.median, "fraction": measured.fraction(flops)}
                rows.append(row)
                label = f"{name} {' x '.join(map(str, shape))}"
                print(
                    f"{label:32s} {arguments.format:5s} {measured.median * 1e3:9.2f} ms "
                    f"{measured.rate(flops) / 1e9:7.1f} GFLOP/s  {row['fraction']:.3f} of the peak",
                    flush=True,
                )
    for name in ("linear", "attention"):
        fractions = [row["fraction"] for row in rows if row["op"] == name]
        if fractions:
            print(f"{name}: median {median(fractions):.3f}, worst {min(fractions):.3f}")
    write(arguments.json, rows)


if __name__ == "__main__":
    main()
