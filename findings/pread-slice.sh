#!/usr/bin/env bash
# safetensors, `backend="pread"`: a slice of a tensor costs a read of the whole tensor.
#
# Guess: with `pread`, which reads at any offset, `get_slice(name)[a:b]` reads the bytes of those rows, and one after
# another the slices of a tensor read it once. The memory map, the other backend, may read ahead, but no more than that.
# Found: each slice reads all bytes of its tensor into memory and cuts the rows out of them: one row of 16 KiB costs
# 64 MiB of `read`, and a loop over blocks of rows, written to hold little of a large tensor at a time, holds all of it
# and reads it once a block. The rows come out right, so only the time and the memory show it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet safetensors==0.8.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import re
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import save_file

ROWS, WIDTH, BLOCKS = 4096, 4096, 4
tensor = np.arange(ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH)
save_file({"weight": tensor}, "file.safetensors")


def bytes_read():
    return int(re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())[1])


print(f"safetensors {safetensors.__version__}, a tensor of {tensor.nbytes >> 10} KiB")
found = {}
for backend in ("mmap", "pread"):
    with safetensors.safe_open("file.safetensors", "numpy", backend=backend) as file:
        part = file.get_slice("weight")
        start = bytes_read()
        row = part[7:8]
        one = bytes_read() - start
        blocks = [part[i : i + ROWS // BLOCKS] for i in range(0, ROWS, ROWS // BLOCKS)]
        found[backend] = (one >> 10, (bytes_read() - start - one) >> 10)
    assert np.array_equal(row, tensor[7:8])
    assert np.array_equal(np.concatenate(blocks), tensor)
    print(f"{backend}: KiB read for one row of {row.nbytes >> 10} KiB: {found[backend][0]}; for {BLOCKS} blocks: {found[backend][1]}")
assert max(found["mmap"]) < 16  # pages of a map do not count as reads
assert tensor.nbytes >> 10 <= found["pread"][0] < (tensor.nbytes >> 10) + 16
assert BLOCKS * tensor.nbytes >> 10 <= found["pread"][1] < (BLOCKS * tensor.nbytes >> 10) + 16
PYTHON
# Seen:
# safetensors 0.8.0, a tensor of 65536 KiB
# mmap: KiB read for one row of 16 KiB: 0; for 4 blocks: 0
# pread: KiB read for one row of 16 KiB: 65536; for 4 blocks: 262144
