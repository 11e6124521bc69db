#!/usr/bin/env bash
# Frame indices by torch.arange with a fractional step: some depend on where in the range they stand.
#
# Guess: entry i of `torch.arange(0, n, n / count)` is n / count * i, computed in float64 and rounded once to float32, as
# in NumPy; so `.int()` of it is the same whichever range it belongs to.
# Found: PyTorch computes the first entry of each group of registers, rounds that to float32, and adds multiples of the
# step to the rounded value. Past some 100,000 frames an index is then now and then one less or one more than the
# formula's, and the same formula for a range that begins elsewhere gives another index. A frame sampler that is to agree
# with one built on torch.arange has to copy the grouping.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5
cat > "$work/indices.py" <<'PYTHON'
import numpy as np
import torch


def differing(frames: int, count: int) -> np.ndarray:
    """Positions at which the two disagree; their lengths may differ by the last entry."""
    step = frames / count
    found = torch.arange(0, frames, step).int().numpy()[:count]
    formula = (step * np.arange(len(found))).astype(np.float32).astype(np.int64)
    return np.flatnonzero(found != formula)


short = sum(len(differing(frames, 768)) for frames in range(1001, 1401, 2))
long = [(frames, places) for frames in range(100003, 100403, 2) if len(places := differing(frames, 768))]
frames, places = long[0]
print(f"torch {torch.__version__.partition('+')[0]}: of 200 lengths near 1,200, {short} indices differ from the formula")
print(f"of 200 lengths near 100,200, {'some' if long else 'none'} do; {frames} frames first at entry {places[0]}")
raise SystemExit(short != 0 or not long or (frames, places[0]) != (100003, 490))
PYTHON
"$work/venv/bin/python" "$work/indices.py"
# Seen:
# torch 2.13.0: of 200 lengths near 1,200, 0 indices differ from the formula
# of 200 lengths near 100,200, some do; 100003 frames first at entry 490
