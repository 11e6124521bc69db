"""The steps that take a while, each under its progress bar: write or download, load, extract, encode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenvis.cli import units
from qwenvis.cli.bar import Bar

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from qwenvis.cache import Cache
    from qwenvis.embeddings import Embeddings
    from qwenvis.encoder import Encoder
    from qwenvis.encoding.inputs import InputItem, Inputs
    from qwenvis.spec import ModelSpec


def prepare(spec: ModelSpec, *, quiet: bool = False) -> None:
    """Write the files of a synthetic checkpoint, or download those of a Hub id, if they are not there yet."""
    verb = "downloading" if spec.checkpoint.pending.startswith("downloads") else "writing"
    with Bar(f"{verb} the checkpoint", _bytes, quiet=quiet) as bar:
        spec.checkpoint.prepare(bar)


def load(spec: ModelSpec, threads: int, cache: Cache | None = None, *, quiet: bool = False) -> Encoder:
    """Load the encoder of a checkpoint; files that are not there yet are written or downloaded first."""
    from qwenvis.encoder import Encoder

    prepare(spec, quiet=quiet)
    with Bar("loading the weights", _bytes, quiet=quiet) as bar:
        return Encoder.from_spec(spec, threads=threads, cache=cache, progress=bar)


def extract(spec: ModelSpec, directory: Path) -> None:
    """Write the tower of a checkpoint into a directory."""
    with Bar("extracting the tower", _bytes) as bar:
        spec.extract(directory, bar)


def encode(encoder: Encoder, inputs: Inputs, items: list[InputItem], expected: float | None = None) -> Embeddings:
    """Encode planned items, in their order; ``expected`` is the estimate in seconds, if there is one."""
    from qwenvis.encoding.runner import Runner

    plan, layers = inputs.plan(items), encoder.config.depth + 1
    bar = Bar("encoding", lambda rate: f"{rate / layers:,.0f} patches/s")
    if bar.shown:
        bar.expected = estimate(encoder.spec, plan.grid_thw, encoder.threads) if expected is None else expected
    with bar:
        runner = Runner(encoder.spec, encoder.threads, encoder.cache)
        inputs.keying = runner.keying()
        return runner.begin(inputs, plan, progress=bar, strict=True).encode_all()


def estimate(spec: ModelSpec, grid_thw: np.ndarray, threads: int) -> float:
    """Estimate the seconds that the images will take here, from the speed of one matrix product, measured now."""
    from qwenvis.cost import gemm_rate

    return spec.cost(grid_thw, threads=threads).flops / gemm_rate(threads, spec.format)


def _bytes(rate: float) -> str:
    return f"{units.nbytes(rate)}/s"
