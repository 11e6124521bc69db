#!/usr/bin/env bash
# NumPy with ml_dtypes: the overflow warning of a cast depends on the type that is cast.
#
# Guess: narrowing 100,000 to float16 warns, or raises under `np.errstate(over="raise")`, whatever type holds it.
# Found: from float32 it does. From the bfloat16 of ml_dtypes the same value becomes infinity in silence, also under
# `errstate`; and `np.isfinite` of a bfloat16 array, which never warns for NumPy's own types, warns of an invalid value
# where the array holds a signalling NaN. A check that relies on the warnings of a cast has to go through float32, or
# look at the values.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 ml_dtypes==0.6.0
"$work/venv/bin/python" - <<'PYTHON'
import warnings

import ml_dtypes
import numpy as np


def warned(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(each.message) for each in caught]


large = np.array([1e5], np.float32)
brain = large.astype(ml_dtypes.bfloat16)
patterns = np.arange(1 << 16, dtype=np.uint16)
print(f"NumPy {np.__version__}, ml_dtypes {ml_dtypes.__version__}")
found = {
    "float32 to float16": warned(lambda: large.astype(np.float16)),
    "bfloat16 to float16": warned(lambda: brain.astype(np.float16)),
    "isfinite of all float16": warned(lambda: np.isfinite(patterns.view(np.float16))),
    "isfinite of all bfloat16": warned(lambda: np.isfinite(patterns.view(ml_dtypes.bfloat16))),
}
for what, messages in found.items():
    print(f"{what}: {messages}")
with np.errstate(over="raise"):
    print(f"bfloat16 to float16 with over='raise': {brain.astype(np.float16)}")
assert [len(messages) for messages in found.values()] == [1, 0, 0, 1]
PYTHON
# Seen:
# NumPy 2.4.6, ml_dtypes 0.6.0
# float32 to float16: ['overflow encountered in cast']
# bfloat16 to float16: []
# isfinite of all float16: []
# isfinite of all bfloat16: ['invalid value encountered in isfinite']
# bfloat16 to float16 with over='raise': [inf]
