"""Fail if the installed package does not compute the golden tokens on every instruction set of this CPU.

Needs only the package and tests/golden.safetensors: tokens of two tiny synthetic towers in float64, which
tests/models/test_golden.py computes from the formulas. Each instruction set runs in its own process, on one thread and
on two threads, whose bits must be equal. Also fails if only the generic set is compiled: such a build works but is
slow, so no test would notice.

    python tools/golden.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

TOKENS = Path(__file__).parent.parent / "tests" / "golden.safetensors"
TOWERS = ("tiny-qwen2-vl", "tiny-qwen2.5-vl")
SIZES = ((61, 97), (140, 84))  # of the pictures
TOLERANCE = {"float32": 1e-5, "bfloat16": 4e-2}  # relative to the largest token; as in tests/oracle/tolerance.py


def pictures() -> list[np.ndarray]:
    """Return pictures (height, width, 3) uint8, computed without files and random numbers."""
    made = []
    for height, width in SIZES:
        row, column, channel = np.ogrid[:height, :width, :3]
        made.append(((7 * row + 13 * column + 29 * channel + row * column // 8) % 256).astype(np.uint8))
    return made


def tokens(name: str, dtype: str, threads: int) -> np.ndarray:
    """Return the tokens of the pictures, (m, out_hidden_size)."""
    from qwenvis import Encoder

    return Encoder.from_pretrained(f"synthetic:{name}", dtype=dtype, threads=threads).encode(pictures()).embeddings


def check(name: str, dtype: str) -> float:
    """Return the error of a tower relative to its largest token; NaN if the number of threads changes a bit."""
    want = load_file(TOKENS)[name]
    got, shared = (tokens(name, dtype, threads) for threads in (1, 2))
    if got.shape != want.shape or got.tobytes() != shared.tobytes():
        return float("nan")
    return float(np.abs(got - want).max() / np.abs(want).max())


def check_all() -> int:
    """Check every tower with the selected instruction set; return 1 if a tower is wrong."""
    from qwenvis import ops

    sound = True
    for dtype, tolerance in TOLERANCE.items():
        errors = {name: check(name, dtype) for name in TOWERS}
        sound &= all(error <= tolerance for error in errors.values())  # false for NaN
        told = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
        print(f"{ops.isa():<12} {dtype:<8} within {tolerance:.0e}: {told}", flush=True)
    return int(not sound)


def main(arguments: list[str]) -> int:
    """Check all instruction sets, or with ``--selected`` the instruction set of this process."""
    from qwenvis import ops

    if arguments == ["--selected"]:
        return check_all()
    if set(ops.isas()) == {"generic"}:
        print("Nothing was compiled but the generic instruction set.", file=sys.stderr)
        return 1
    failed = 0
    for isa, present in ops.isas().items():
        if not present:
            print(f"{isa:<12} not on this CPU, and so not tested")
            continue
        command = [sys.executable, __file__, "--selected"]
        failed |= subprocess.run(command, env=os.environ | {"QWENVIS_ISA": isa}, check=False).returncode
    return int(failed != 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
