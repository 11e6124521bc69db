#!/usr/bin/env bash
# safetensors: equal tensors and equal metadata give files of different bytes, from one process to the next.
#
# Guess: `save_file` writes a file that depends on its arguments alone: tensors are sorted, as the format asks, and
# metadata keeps the order of the dict, or is sorted too. A checksum, a content-addressed store, or a resumed job that
# compares its output with that of an earlier run can rely on it.
# Found: tensors are laid out in a fixed order, but the entries of `__metadata__` pass through a hash map that each
# process seeds anew: with six of them, a dozen processes write several different headers of one length, so the sizes
# agree and the checksums do not. With one entry, or none, the files are equal.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet safetensors==0.8.0 numpy==2.4.6
cd "$work"
cat > save.py <<'PYTHON'
import hashlib
import sys

import numpy as np
from safetensors.numpy import save

tensors = {name: np.arange(4, dtype=np.float32) for name in "zyx"}
metadata = {f"key {number}": str(number) for number in range(int(sys.argv[1]))}
file = save(tensors, metadata=metadata)
print(len(file), hashlib.sha256(file).hexdigest())
PYTHON
"$work/venv/bin/python" -c 'import safetensors; print("safetensors", safetensors.__version__)'
for entries in 0 1 6; do
    for _ in $(seq 12); do "$work/venv/bin/python" save.py "$entries"; done > "$entries.txt"
    sizes=$(cut -d' ' -f1 "$entries.txt" | sort -u | wc -l)
    files=$(sort -u "$entries.txt" | wc -l)
    echo "$entries entries, 12 processes: $sizes size, $([ "$files" = 1 ] && echo one file || echo several files)"
    [ "$sizes" = 1 ]
    if [ "$entries" = 6 ]; then [ "$files" -gt 1 ]; else [ "$files" = 1 ]; fi
done
# Seen:
# safetensors 0.8.0
# 0 entries, 12 processes: 1 size, one file
# 1 entries, 12 processes: 1 size, one file
# 6 entries, 12 processes: 1 size, several files
