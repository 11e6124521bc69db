#!/usr/bin/env bash
# datasets, numpy format: large numbers of a uint64 column come out negative, unless their row is read alone.
#
# Guess: `with_format("numpy")` gives arrays of the type that the features declare, here uint64, as `to_pandas` and
# pyarrow do. Who remembers that it gives float32 for floats expects at worst an error for what does not fit int64.
# Found: every array of integers is cast to int64, and numbers from 2**63 wrap around: half of all 64-bit hashes become
# negative and equal none of those that were stored. A row that is read alone gives a scalar, which no cast touches, so
# `rows[0]["hash"]` is right and `rows[:1]["hash"][0]` is not. `with_format("numpy", dtype=None)` gives the stored type.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet datasets==5.2.0 pyarrow==26.0.1 numpy==2.4.6
HF_HUB_OFFLINE=1 "$work/venv/bin/python" -W error - <<'PYTHON'
import datasets
import pyarrow as pa

HASH = 2**63 + 5
table = datasets.Dataset(pa.table({"hash": pa.array([HASH, HASH], pa.uint64())}))
rows = table.with_format("numpy")
stored = table.with_format("numpy", dtype=None)
print(f"datasets {datasets.__version__}, a column of {table.features['hash'].dtype}")
found = {
    "with pandas": table.to_pandas()["hash"][0],
    "one row": rows[0]["hash"],
    "a batch": rows[:1]["hash"][0],
    "a batch, dtype=None": stored[:1]["hash"][0],
}
for name, value in found.items():
    print(f"{name}: {value} as {value.dtype}")
assert {name: int(value) for name, value in found.items()} == {
    "with pandas": HASH,
    "one row": HASH,
    "a batch": HASH - 2**64,
    "a batch, dtype=None": HASH,
}
PYTHON
# Seen:
# datasets 5.2.0, a column of uint64
# with pandas: 9223372036854775813 as uint64
# one row: 9223372036854775813 as uint64
# a batch: -9223372036854775803 as int64
# a batch, dtype=None: 9223372036854775813 as uint64
