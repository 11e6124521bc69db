"""The time from a cold start to the first tokens, compared with a warm encode; memory, and page faults of each call.

python -m benchmarks.start --model synthetic:qwen2-vl-2b --side 448

Every line is a separate process, with the files in the page cache: a first process, which is not counted, reads them.
In seconds, ``python`` is the start of the interpreter, ``import`` the import of the package and NumPy, ``open`` the
reading of configs and headers, ``load`` the reading and packing of the weights, ``first`` the first encode, and
``warm`` the median of later encodes; ``cold - warm`` is the time from the start to the first tokens, minus a warm
encode. ``RSS`` is the peak of the process, workspace included, from /proc (getrusage would return the peak of the
parent, if that is larger). ``faults`` are the minor page faults of the first encode, of the second, and of all later
encodes together; tokens are freed before the next call.

With ``--packed`` a process maps the file of `Encoder.save_packed`, and ``RSS`` counts the pages of that file.

The cost of a fresh page depends on earlier programs on the machine and its host, so the smallest load of several rounds
is the most reliable.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.timing import header, write
from qwenvis import Encoder
from qwenvis.concurrency import threads

PROGRAM = """
import time
times = [time.monotonic()]
import json, resource, sys
import numpy as np
from qwenvis import Encoder
from qwenvis.spec import ModelSpec
model, dtype, side, threads, calls = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
times.append(time.monotonic())
spec = ModelSpec.open(model, dtype=dtype)
times.append(time.monotonic())
encoder = Encoder.from_spec(spec, threads=threads)
picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
faults = [resource.getrusage(resource.RUSAGE_SELF).ru_minflt]
times.append(time.monotonic())
for _ in range(calls):
    encoder.encode(picture)
    times.append(time.monotonic())
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
rss = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"times": times, "faults": np.diff(faults).tolist(), "rss": rss, "isa": encoder.isa}))
"""
STEPS = ("python", "import", "open", "load", "first")


def measure(model: str, dtype: str, side: int, count: int, calls: int) -> dict[str, object]:
    """Measure one process: the seconds of its steps, and its memory."""
    start = time.monotonic()  # one clock for all processes
    command = [sys.executable, "-c", PROGRAM, model, dtype, *map(str, (side, count, calls))]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    times = [start, *found.pop("times")]
    seconds = [after - before for before, after in pairwise(times)]
    warm = median(seconds[len(STEPS) :])
    steps = dict(zip(STEPS, seconds, strict=False))
    return {"dtype": dtype, **steps, "warm": warm, "cold - warm": sum(steps.values()) - warm, **found}


def sources(model: str, dtypes: list[str], packed: Path | None) -> dict[str, str]:
    """Return the source for each dtype: the model, or a directory with its packed weights."""
    if packed is None:
        return dict.fromkeys(dtypes, model)
    for dtype in dtypes:
        Encoder.from_pretrained(model, dtype=dtype).save_packed(packed / dtype)
    return {dtype: str(packed / dtype) for dtype in dtypes}


def line(row: dict[str, object]) -> str:
    """Format a row for the terminal."""
    seconds = "".join(f"{row[name]:8.2f}" for name in STEPS)
    first, second, *later = row["faults"]
    return (
        f"{row['dtype']:10s}{seconds}{row['warm']:8.2f}{row['cold - warm']:13.2f}{row['rss'] / 1e9:8.2f}"
        f"{first:9d}{second:9d}{sum(later):9d}"
    )


def main() -> None:
    """Print one line per process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="synthetic:qwen2-vl-2b")
    parser.add_argument("--side", type=int, default=448, help="side of the square image, in pixels")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=threads.resolve())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=4, help="number of encodes in each process; at least 3")
    parser.add_argument("--packed", action="store_true", help="load packed weights, which are written first")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    arguments.calls = max(3, arguments.calls)
    print(header(arguments.threads))
    steps = "".join(f"{name:>8s}" for name in (*STEPS, "warm"))
    print(f"{'format':10s}{steps}{'cold - warm':>13s}{'RSS GB':>8s}{'faults':>9s}{'second':>9s}{'later':>9s}")
    given = arguments.side, arguments.threads, arguments.calls
    rows = []
    with TemporaryDirectory() as directory:
        found = sources(arguments.model, arguments.dtype, Path(directory) if arguments.packed else None)
        measure(found[arguments.dtype[0]], arguments.dtype[0], *given)
        for _ in range(arguments.rounds):
            for dtype in arguments.dtype:
                rows.append(measure(found[dtype], dtype, *given))
                print(line(rows[-1]), flush=True)
    about = {"model": arguments.model, "side": arguments.side, "packed": arguments.packed}
    write(arguments.json, [{**about, **row} for row in rows])


if __name__ == "__main__":
    main()
