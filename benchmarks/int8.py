"""The error of int8 and of its candidates: the tokens against float32, with and without outliers in the weights.

    python -m benchmarks.int8 --case 448 --contenders bfloat16 int8 int8+merger
    python -m benchmarks.int8 --blocks 4 --outliers none gains hidden --contenders rounding h128 balance-h128

docs/int8.md explains the candidates. ``int8+merger`` is int8 with the merger in bfloat16.
"""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.encoder import CASES, inputs
from benchmarks.outliers import OUTLIERS, inject
from benchmarks.simulation import SCHEMES, simulated
from benchmarks.timing import header, write
from qwenvis import Encoder
from qwenvis.comparison.deviation import Deviation, Tally, row_errors
from qwenvis.concurrency import threads
from qwenvis.nn.formats import DTYPES
from qwenvis.spec import ModelSpec

# Parts of a tower that a contender may keep in bfloat16: both linears of the mergers, their last one, which makes the
# tokens, the patch embedding, and blocks.
PARTS = ("merger", "tokens", "patch_embed", "first", "last", "blocks")


class Study:
    """One tower with outliers, and one batch of patches."""

    def __init__(self, arguments: argparse.Namespace, outliers: str) -> None:
        self.model, self.outliers, self.blocks = arguments.model, outliers, arguments.blocks
        self.case, self.threads = CASES[arguments.case], arguments.threads
        self.reference = self.tokens("float32")

    def tokens(self, contender: str) -> np.ndarray:
        """Encode the batch; a candidate is simulated, with its attention in bfloat16."""
        dtype, _, part = contender.partition("+")
        context: AbstractContextManager[None] = nullcontext()
        if dtype in SCHEMES:
            context, dtype = simulated(SCHEMES[dtype]), "bfloat16"
        with context:
            encoder = self._encoder(dtype)
            if part:
                _take(part, encoder.spec.tower, self._encoder("bfloat16").spec.tower)
            return encoder(*inputs(encoder, self.case)).embeddings

    def deviation(self, contender: str) -> Deviation:
        """Measure the tokens of a contender against float32."""
        tally = Tally()
        tally.add(row_errors(self.tokens(contender), self.reference))
        return tally.deviation(contender)

    def _encoder(self, dtype: str) -> Encoder:
        spec = inject(ModelSpec.open(self.model, dtype=dtype), self.outliers, self.blocks)
        return Encoder.from_spec(spec, threads=self.threads)


def _take(part: str, tower: Any, other: Any) -> None:
    """Replace a part of `PARTS` with that of another tower, whose rows have the same dtype."""
    if part in ("merger", "tokens"):
        for mine, theirs in zip(_mergers(tower), _mergers(other), strict=True):
            mine.fc1 = theirs.fc1 if part == "merger" else mine.fc1
            mine.fc2 = theirs.fc2
    elif part == "patch_embed":
        tower.patch_embed = other.patch_embed
    else:
        chosen = {"first": slice(0, 1), "last": slice(-1, None), "blocks": slice(None)}[part]
        tower.blocks[chosen] = other.blocks[chosen]


def _mergers(tower: Any) -> list[Any]:
    return getattr(tower, "mergers", None) or [tower.merger]


def contender(name: str) -> str:
    """Check the name of a contender."""
    dtype, _, part = name.partition("+")
    if name in SCHEMES or (dtype in DTYPES and part in ("", *PARTS)):
        return name
    raise argparse.ArgumentTypeError(f"{name} is neither one of {', '.join([*DTYPES, *SCHEMES])} nor a dtype + a part")


def main() -> None:
    """Print one line per tower and contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="synthetic:qwen2-vl-2b")
    parser.add_argument("--case", choices=CASES, default="224")
    parser.add_argument("--blocks", type=int, help="of the tower; default all")
    parser.add_argument("--outliers", nargs="+", choices=OUTLIERS, default=["none"], help="for Qwen2-VL")
    parser.add_argument("--contenders", nargs="+", type=contender, default=["bfloat16", *SCHEMES])
    parser.add_argument("--threads", type=int, default=threads.resolve())
    parser.add_argument("--json")
    arguments = parser.parse_args()
    print(header(arguments.threads))
    print(f"{'outliers':14s} {'contender':18s} {'RMS':>8s} {'largest':>8s} {'least cos':>10s} {'mean cos':>10s}")
    rows: list[dict[str, object]] = []
    for outliers in arguments.outliers:
        study = Study(arguments, outliers)
        for name in arguments.contenders:
            found = study.deviation(name)
            print(
                f"{outliers:14s} {name:18s} {found.relative_rms:8.4f} {found.largest_error:8.4f} "
                f"{found.smallest_cosine:10.6f} {found.mean_cosine:10.6f}",
                flush=True,
            )
            rows.append({"outliers": outliers, "contender": name, "case": arguments.case, **asdict(found)})
    write(arguments.json, rows)


if __name__ == "__main__":
    main()
