#!/usr/bin/env bash
# safetensors, numpy: files of float8 arrays are written, and cannot be read again; those of bfloat16 can.
#
# Guess: what `safetensors.numpy.save_file` accepts, `load_file` returns; bfloat16 of ml_dtypes makes the round trip, so
# its float8 types do too.
# Found: arrays of float8_e4m3fn and float8_e5m2 are written without a complaint, as F8_E4M3 and F8_E5M2. Reading looks
# for a type of that name in NumPy, which has none, and raises AttributeError. The file is sound: its bytes can be taken
# from the header's offsets and viewed as the type of ml_dtypes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet safetensors==0.8.0 numpy==2.4.6 ml_dtypes==0.6.0
cd "$work"
venv/bin/python - <<'PYTHON'
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

print(f"safetensors {safetensors.__version__}, NumPy {np.__version__}, ml_dtypes {ml_dtypes.__version__}")
found = {}
for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
    array = np.arange(4).astype(getattr(ml_dtypes, name))
    save_file({"a": array}, "a.safetensors")
    try:
        found[name] = load_file("a.safetensors")["a"].dtype.name
    except AttributeError as error:
        found[name] = type(error).__name__
    content = Path("a.safetensors").read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    stored = json.loads(content[8:start])["a"]["dtype"]
    assert np.array_equal(np.frombuffer(content, array.dtype, offset=start), array)
    print(f"{name}: stored as {stored}, read as {found[name]}")
assert found == {"bfloat16": "bfloat16", "float8_e4m3fn": "AttributeError", "float8_e5m2": "AttributeError"}
PYTHON
# Seen:
# safetensors 0.8.0, NumPy 2.4.6, ml_dtypes 0.6.0
# bfloat16: stored as BF16, read as bfloat16
# float8_e4m3fn: stored as F8_E4M3, read as AttributeError
# float8_e5m2: stored as F8_E5M2, read as AttributeError
