"""The cost of a forward pass: its work, its memory, and the speed of this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qwenvis import ops
from qwenvis.geometry import PATCH_BUDGET, patch_count, span_grid, split_steps
from qwenvis.models import Tower
from qwenvis.nn import workspace
from qwenvis.nn.workspace import Workspace
from qwenvis.weights import Weights

# A product of the shape that fills the towers: rows, columns and sum of a width of 1280.
PROBE = (512, 1280, 1280)
PROBE_ROUNDS = 5
PEAK_ROUNDS, PEAK_FLOPS = 5, 1e9  # flops of each thread in a round, which takes 4 to 20 ms
BEST_SECONDS, LEAST_ROUNDS = 0.4, 3  # many times the time slices of a system

EMBEDDING = "patch_embed."  # names of the patch embedding


@dataclass(frozen=True)
class Cost:
    """The cost of a call over a ``grid_thw``; ``nbytes`` counts its input, workspace and output."""

    patches: int
    tokens: int
    flops: float
    nbytes: int


def cost(tower: Tower, weights: Weights, grid_thw: np.ndarray, still: bool = True, threads: int = 1) -> Cost:
    """Estimate the work and memory of one forward pass with ``threads`` threads over ``grid_thw`` (items, 3).

    Each multiply-add of linear layers, Q Kᵀ and P V counts as two flops; ``still`` halves the patch embedding. Each
    thread has scratch memory of its own.
    """
    config = tower.config
    patches = patch_count(grid_thw)
    tokens = patches // config.merge_unit
    flops = 0.0
    for request in weights.requests:
        if len(request.shape) > 1 and request.patches:
            folded = config.temporal_patch_size if still and request.name.startswith(EMBEDDING) else 1
            flops += 2.0 * (patches // request.patches) * math.prod(request.shape) / folded
    for cu_seqlens in tower.segments(grid_thw):
        flops += 4.0 * config.hidden_size * float((np.diff(cu_seqlens).astype(np.float64) ** 2).sum())
    arrays = patches * math.prod(config.kernel) + (1 + len(config.deepstack)) * tokens * config.out_hidden_size
    with ops.use_threads(threads):
        passes = [tower.sizes(span_grid(grid_thw, spans)) for spans in split_steps(grid_thw, PATCH_BUDGET)]
    rounded = _quantized_nbytes(weights, patches)
    return Cost(patches, tokens, flops, 4 * arrays + workspace.nbytes(*passes) + rounded)


def _quantized_nbytes(weights: Weights, patches: int) -> int:
    """Bound the bytes of the rows that a product quantises at a time."""
    if not ops.formats()[weights.format].quantized:
        return 0
    products = [request for request in weights.requests if len(request.shape) > 1 and request.patches]
    rows = [min(patches // request.patches, ops.quantized_rows) for request in products]
    return max(count * math.prod(request.shape[1:]) for count, request in zip(rows, products, strict=True))


def weight_nbytes(tower: Tower, weights: Weights) -> int:
    """Return the bytes of the packed weights, without the padding of their panels to whole tiles and cache lines.

    Matrices are in the format of ``weights``; biases, norms and tables are float32. A patch embedding of several frames
    is packed a second time for stills, with its temporal slices summed.
    """
    size, total = ops.formats()[weights.format].itemsize, 0
    for request in weights.requests:
        count = math.prod(request.shape)
        total += (size if len(request.shape) > 1 and request.patches else 4) * count
        if request.name.startswith(EMBEDDING) and tower.config.temporal_patch_size > 1:
            total += size * count // tower.config.temporal_patch_size
    return total


def gemm_rate(threads: int, format: str = "f32") -> float:
    """Measure the flops per second of `ops.linear` on a shape of the towers: the median of a few runs, about 50 ms."""
    with ops.use_threads(threads):
        run = _product(format)
        return float(np.median([run() for _ in range(PROBE_ROUNDS)]))


def peak_rate(threads: int, format: str = "f32") -> float:
    """Measure the flops per second of multiply-adds in registers: the median of a few runs, 20 to 100 ms."""
    with ops.use_threads(threads):
        run = _registers(threads, format)
        return float(np.median([run() for _ in range(PEAK_ROUNDS)]))


def best_rates(threads: int, format: str = "f32") -> tuple[float, float]:
    """Measure both rates, each as the best of many alternating runs: the speed of the machine without other programs.

    Medians that are measured one after the other belong to different moments: beside a busy program, a product would
    seem to exceed the peak.
    """
    rates: list[tuple[float, float]] = []
    end = time.monotonic() + BEST_SECONDS
    with ops.use_threads(threads):
        product, registers = _product(format), _registers(threads, format)
        while len(rates) < LEAST_ROUNDS or time.monotonic() < end:
            rates.append((product(), registers()))
    best = np.max(rates, axis=0)
    return float(best[0]), float(best[1])


def cpu_share(threads: int) -> float:
    """Measure the part of ``threads`` CPUs that products on as many threads get: less than 1 beside other programs."""
    with ops.use_threads(threads):
        run = _product("f32")
        run()
        start, cpu = time.monotonic(), time.process_time()
        for _ in range(LEAST_ROUNDS):
            run()
        while time.monotonic() < start + BEST_SECONDS:
            run()
        return min(1.0, (time.process_time() - cpu) / (time.monotonic() - start) / threads)


def _product(format: str) -> Callable[[], float]:
    """Return a function that runs a product once and returns its flops per second."""
    m, n, k = PROBE
    weight = ops.PackedWeight(n, k, format)
    ws = Workspace().fit({"x": (m, k, weight.rows_dtype), "out": (m, n, "float32")})
    ws.x[:] = 0
    weight.pack(np.ones((n, k), np.float32))

    def run() -> float:
        start = time.perf_counter()
        ops.linear(ws.x, weight, ws.out)
        return 2.0 * m * n * k / (time.perf_counter() - start)

    return run


def _registers(threads: int, format: str) -> Callable[[], float]:
    """Return a function that runs multiply-adds in registers once and returns their flops per second."""
    steps = int(PEAK_FLOPS * threads / ops.peak(1, format))

    def run() -> float:
        start = time.perf_counter()
        flops = ops.peak(steps, format)
        return flops / (time.perf_counter() - start)

    return run
