#!/usr/bin/env bash
# A library that brings OpenMP, and OMP_PROC_BIND: after the import the process seems to have one CPU.
#
# Guess: `OMP_PROC_BIND=true` pins the threads of OpenMP regions; `os.sched_getaffinity(0)`, the usual way to count the
# CPUs that a process may use, goes on telling what the administrator allowed.
# Found: libgomp binds the main thread as soon as it is loaded, long before any region. The affinity that Python reads
# is that of the main thread, so whoever sizes a pool by it after the import gets one worker. Threads that OpenMP starts
# still use every CPU, and a thread that Python starts inherits the single one.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet scikit-learn==1.7.2 numpy==2.3.5 scipy==1.16.3 joblib==1.5.2 threadpoolctl==3.6.0
cat > "$work/count.py" <<'PYTHON'
import os

before = len(os.sched_getaffinity(0))
import sklearn
from sklearn.utils._openmp_helpers import _openmp_effective_n_threads

after = len(os.sched_getaffinity(0))
bind = os.environ.get("OMP_PROC_BIND", "unset")
print(f"scikit-learn {sklearn.__version__}, OMP_PROC_BIND {bind}: more than one CPU before {before > 1}, after {after > 1}")
raise SystemExit(after != (1 if bind == "true" else before))
PYTHON
[ "$(nproc)" -gt 1 ] || { echo "This needs two CPUs." >&2; exit 1; }
"$work/venv/bin/python" "$work/count.py"
OMP_PROC_BIND=true "$work/venv/bin/python" "$work/count.py"
# Seen:
# scikit-learn 1.7.2, OMP_PROC_BIND unset: more than one CPU before True, after True
# scikit-learn 1.7.2, OMP_PROC_BIND true: more than one CPU before True, after False
